"""How candidate words are laid out to be scored in one pass of an LLM."""

from functools import lru_cache

import torch

# Words of the vocabulary at a time when logits are normalised.
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
        self.asked_by = tensor(asked_by)
        self.mask = _mask(tensor(seen, torch.bool), prefix, dtype)

    def scores(self, logits):
        """Log-probability of every candidate.

        Arguments
        ---------
        logits : torch.Tensor
            ``[batch, 1 + inputs, vocabulary]``, at the prefix's end and at
            the inputs.

        Returns
        -------
        torch.Tensor
            ``[batch, candidates]``, float32.

        Example
        -------
        >>> tree = CandidateTree([[2, 0], [1, 0]], 1, "cpu", torch.float32)
        >>> tree.scores(torch.zeros(5, 3, 4)).shape
        torch.Size([5, 2])
        """
        said = logits[:, self.asked_at, self.asked_for].float()
        steps = said - log_normalizer(logits)[:, self.asked_at]
        scores = steps.new_zeros(len(logits), self.size)
        return scores.index_add(1, self.asked_by, steps)


# Training and recognition ask the same words again and again.
candidate_tree = lru_cache(maxsize=16)(CandidateTree)


def log_normalizer(logits):
    """``log sum exp`` of the logits over the vocabulary, in float32.

    A block of the vocabulary at a time: in half precision, all logits in
    float32 besides would be twice as much again.

    Arguments
    ---------
    logits : torch.Tensor
        ``[..., vocabulary]``.

    Returns
    -------
    torch.Tensor
        ``[...]``, float32.

    Example
    -------
    >>> log_normalizer(torch.zeros(2, 8)).exp().round()  # 8 words, all e^0
    tensor([8., 8.])
    """
    parts = [
        part.float().logsumexp(-1)
        for part in logits.split(VOCABULARY_BLOCK, dim=-1)
    ]
    return torch.stack(parts).logsumexp(0)


def _mask(seen, prefix, dtype):
    """``[1, 1, length, length]``: 0 where seen, the minimum elsewhere.

    The prefix is causal, the tree sees all of it, and itself as ``seen`` says.
    """
    length = prefix + len(seen)
    allowed = seen.new_ones(length, length).tril()
    allowed[prefix:, prefix:] = seen
    mask = torch.zeros(length, length, dtype=dtype, device=seen.device)
    return mask.masked_fill(~allowed, torch.finfo(dtype).min)[None, None]
