"""How candidate words are laid out to be scored in one pass of an LLM."""

from functools import lru_cache

import torch
import torch.nn.functional as F

# Words of the vocabulary at a time when logits are normalised. Their logits
# stay in a processor's cache, and each of the head's weights is read once.
VOCABULARY_BLOCK = 8192


class CandidateTree:
    """Candidates side by side after one prefix: inputs, mask, positions.

    Candidates that begin with the same tokens share them, so that a token is
    read once for all words that go on from it. The end of a word is asked
    for, never read.

    Arguments
    ---------
    candidates : sequence of sequence of int
        Token ids of each, its end token last.
    prefix : int
        Length of the shared prefix.
    device : torch.device
        Where the tensors go.
    dtype : torch.dtype
        That of the mask.

    Example
    -------
    >>> tree = CandidateTree([[7, 1], [7, 9, 1], [8, 1]], 2, "cpu", torch.float)
    >>> tree.inputs.tolist(), tree.positions.tolist()
    ([7, 9, 8], [[0, 1, 2, 3, 2]])
    >>> (tree.mask[0, 0] == 0).int()[2:]  # who sees whom
    tensor([[1, 1, 1, 0, 0],
            [1, 1, 1, 1, 0],
            [1, 1, 0, 0, 1]], dtype=torch.int32)
    """

    def __init__(self, candidates, prefix, device, dtype):
        # A path of tokens is a row of the tree; the empty one is row 0, the
        # prefix's end.
        rows = {(): 0}
        asked_at, asked_for, asked_by = [], [], []
        for number, tokens in enumerate(candidates):
            for depth, token in enumerate(tokens):
                path = tuple(tokens[:depth])
                asked_at.append(rows.setdefault(path, len(rows)))
                asked_for.append(token)
                asked_by.append(number)
        paths = list(rows)[1:]
        positions = [prefix + len(path) - 1 for path in paths]
        seen = [[a == b[: len(a)] for a in paths] for b in paths]

        def tensor(values, dtype=torch.long):
            return torch.tensor(values, dtype=dtype, device=device)

        self.size = len(candidates)
        self.inputs = tensor([path[-1] for path in paths])
        self.positions = tensor([*range(prefix), *positions])[None]
        self.asked_at = tensor(asked_at)
        self.asked_for = tensor(asked_for)
        self.asked_as = tensor(range(len(asked_for)))
        self.asked_by = tensor(asked_by)
        self.mask = _mask(tensor(seen, torch.bool), prefix, dtype)

    def scores(self, hidden, head):
        """Log-probability of every candidate.

        Arguments
        ---------
        hidden : torch.Tensor
            ``[batch, 1 + inputs, hidden_size]``, the last hidden states at
            the prefix's end and at the inputs.
        head : torch.nn.Linear
            From hidden states to the logits of the vocabulary.

        Returns
        -------
        torch.Tensor
            ``[batch, candidates]``, float32.

        Example
        -------
        >>> tree = CandidateTree([[2, 0], [1, 0]], 1, "cpu", torch.float32)
        >>> head = torch.nn.Linear(4, 3)
        >>> tree.scores(torch.zeros(5, 3, 4), head).shape
        torch.Size([5, 2])
        """
        # The few logits that are asked for, rounded as those of the
        # normaliser are: in half precision a word that is all but certain
        # would else be more than certain.
        bias = None if head.bias is None else head.bias[self.asked_for]
        logits = F.linear(hidden, head.weight[self.asked_for], bias)
        logits = logits[:, self.asked_at, self.asked_as].float()
        steps = logits - log_normalizer(hidden, head)[:, self.asked_at]
        scores = steps.new_zeros(len(hidden), self.size)
        return scores.index_add(1, self.asked_by, steps)


# Training and recognition ask the same words again and again.
candidate_tree = lru_cache(maxsize=16)(CandidateTree)


def log_normalizer(hidden, head):
    """``log sum exp`` of the logits over the vocabulary, in float32.

    The logits of all positions never exist at once: at 160 positions and
    128,256 words they would be 82 MB in float32.

    Arguments
    ---------
    hidden : torch.Tensor
        ``[..., hidden_size]``.
    head : torch.nn.Linear
        From hidden states to logits.

    Returns
    -------
    torch.Tensor
        ``[...]``, float32.

    Example
    -------
    >>> head = torch.nn.Linear(4, 8, bias=False)
    >>> with torch.no_grad():  # 8 words, all e^0
    ...     log_normalizer(torch.zeros(2, 4), head).exp().round(decimals=4)
    tensor([8., 8.])
    """
    # Contiguous rows: a product with a strided batch takes a slower path.
    rows = hidden.reshape(-1, hidden.shape[-1])
    weights = head.weight.split(VOCABULARY_BLOCK)
    biases = [None] * len(weights)
    if head.bias is not None:
        biases = head.bias.split(VOCABULARY_BLOCK)
    parts = [
        F.linear(rows, weight, bias).float().logsumexp(-1)
        for weight, bias in zip(weights, biases, strict=True)
    ]
    return torch.stack(parts).logsumexp(0).view(hidden.shape[:-1])


def _mask(seen, prefix, dtype):
    """``[1, 1, length, length]``: 0 where seen, the minimum elsewhere.

    The prefix is causal, the tree sees all of it, and itself as ``seen`` says.
    """
    length = prefix + len(seen)
    allowed = seen.new_ones(length, length).tril()
    allowed[prefix:, prefix:] = seen
    mask = torch.zeros(length, length, dtype=dtype, device=seen.device)
    return mask.masked_fill(~allowed, torch.finfo(dtype).min)[None, None]
