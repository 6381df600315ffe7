"""A recogniser up to the LLM as two graphs of fixed form, for exporters."""

from torch import nn
from torch.func import functional_call

from speechbrain_mser.lobes.nearest_words import mix_words, word_odds


class ConnectorGraph(nn.Module):
    """From the encoder's features to what the LLM reads.

    What a recogniser has listened to, and which words it may say, are inputs:
    features are standardised with the mean and deviation that are given, and
    mixtures are of the words whose embeddings are.

    Arguments
    ---------
    connector : Connector
        On the CPU.
    embedding_rms : float, optional
        The LLM's; given where it reads mixtures of words.

    Example
    -------
    >>> import torch
    >>> from speechbrain_mser.lobes.linear import LinearConnector
    >>> connector = LinearConnector(16, 24, n_queries=4)
    >>> graph = ConnectorGraph(connector)
    >>> tokens, embedding = graph(
    ...     torch.randn(2, 1, 50, 16), torch.tensor([50, 20]),
    ...     torch.zeros(1, 16), torch.ones(1, 16),
    ... )
    >>> tokens.shape, embedding.shape
    (torch.Size([2, 4, 24]), torch.Size([2, 24]))
    """

    def __init__(self, connector, embedding_rms=None):
        super().__init__()
        self.connector, self.embedding_rms = connector, embedding_rms

    def forward(self, features, frames, mean=None, std=None, words=None):
        """Connect a batch.

        Arguments
        ---------
        features : torch.Tensor
            ``[batch, layers, frames, dim]``.
        frames : torch.Tensor
            ``[batch]``, int64: how many each utterance has.
        mean, std : torch.Tensor, optional
            ``[layers, dim]``, of what was heard; where the connector
            standardises.
        words : torch.Tensor, optional
            ``[words, width]``, their embeddings; where the LLM reads mixtures.

        Returns
        -------
        tuple of torch.Tensor
            The tokens ``[batch, tokens, width]`` and the embedding ``[batch,
            hidden]``; the meaning ``[batch, 3]``, where the connector hears
            it; where the LLM reads mixtures, those, as the tokens, and how
            near each word is, ``[batch, words]``, log-probabilities.
        """
        heard = {}
        if mean is not None:
            heard = {"standardizer.mean": mean, "standardizer.std": std}
        lens = frames / features.shape[2]
        connected = functional_call(self.connector, heard, (features, lens))
        found = [value for value in connected if value is not None]
        if self.embedding_rms is not None:
            odds = word_odds(connected.tokens, words, self.embedding_rms)
            found += [mix_words(odds, words), odds.mean(1).log_softmax(-1)]
        return tuple(found)
