"""How near the audio's tokens are to words, as the LLM embeds them."""

import torch

# The squared distance that divides a word's odds by e, in squared norms of the
# LLM's mean embedding: label words lie half of one from each other, so a token
# on one of them is sure of it, and one between two is not.
TEMPERATURE = 0.25


def word_odds(tokens, words, embedding_rms):
    """Unnormalised log-odds of every word for every token.

    Minus the squared distance between token and word, over a temperature that
    the LLM's own embeddings set; what all words share is left out.

    Arguments
    ---------
    tokens : torch.Tensor
        ``[batch, tokens, dim]``.
    words : torch.Tensor
        ``[words, dim]``, the words' embeddings.
    embedding_rms : float
        Root mean square of the LLM's embeddings.

    Returns
    -------
    torch.Tensor
        ``[batch, tokens, words]``, float32.

    Example
    -------
    >>> words = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> odds = word_odds(torch.tensor([[[1.0, 0.0]]]), words, 0.5**0.5)
    >>> odds.diff()  # distance² 0 and 2, over a quarter of norm² 1
    tensor([[[-8.]]])
    """
    scale = TEMPERATURE * words.shape[-1] * embedding_rms**2
    # In float32: half precision cannot tell apart what is nearly alike.
    with torch.autocast(tokens.device.type, enabled=False):
        tokens, words = tokens.float(), words.float()
        return (2 * tokens @ words.T - words.square().sum(-1)) / scale


def mix_words(odds, words):
    """Each token as a mixture of words, weighed by how near they are.

    As in AlignVLM (arXiv 2502.01341), but of the words that may be said.

    Arguments
    ---------
    odds : torch.Tensor
        ``[batch, tokens, words]``, log-odds of `word_odds`.
    words : torch.Tensor
        ``[words, dim]``, the words' embeddings.

    Returns
    -------
    torch.Tensor
        ``[batch, tokens, dim]``, float32: inside what the words span, where
        the LLM knows what it reads.

    Example
    -------
    >>> words = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> odds = word_odds(torch.tensor([[[0.3, 0.3]]]), words, 0.5**0.5)
    >>> mix_words(odds, words)
    tensor([[[0.5000, 0.5000]]])
    """
    with torch.autocast(odds.device.type, enabled=False):
        return odds.softmax(-1) @ words.float()
