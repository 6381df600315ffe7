"""How candidate words are laid out to be scored in one pass of an LLM."""

import torch


class CandidateTree:
    """Candidates side by side after one prefix: inputs, mask, positions.

    Arguments
    ---------
    candidates : list of list of int
        Token ids of each, its end token last.
    prefix : int
        Length of the shared prefix.
    device : torch.device
        Where the tensors go.

    Example
    -------
    >>> tree = CandidateTree([[7, 1], [8, 9, 1]], prefix=2, device="cpu")
    >>> tree.inputs.tolist(), tree.positions.tolist()
    ([7, 8, 9], [[0, 1, 2, 2, 3]])
    >>> (tree.mask(torch.float32)[0, 0] == 0).int()[2:]  # who sees whom
    tensor([[1, 1, 1, 0, 0],
            [1, 1, 0, 1, 0],
            [1, 1, 0, 1, 1]], dtype=torch.int32)
    """

    def __init__(self, candidates, prefix, device):
        inputs, positions, owners = [], list(range(prefix)), []
        asked_at, asked_for, asked_by = [], [], []
        for number, tokens in enumerate(candidates):
            # The first token is asked of the prefix's end (row 0), the
            # others of the token before them.
            rows = [0, *range(len(inputs) + 1, len(inputs) + len(tokens))]
            asked_at += rows
            asked_for += tokens
            asked_by += [number] * len(tokens)
            inputs += tokens[:-1]
            positions += range(prefix, prefix + len(tokens) - 1)
            owners += [number] * (len(tokens) - 1)
        as_tensor = torch.tensor
        self.prefix = prefix
        self.inputs = as_tensor(inputs, device=device)
        self.positions = as_tensor(positions, device=device)[None]
        self.asked_at = as_tensor(asked_at, device=device)
        self.asked_for = as_tensor(asked_for, device=device)
        self.asked_by = as_tensor(asked_by, device=device)
        self.owners = as_tensor(owners, device=device)

    def mask(self, dtype):
        """``[1, 1, length, length]``: 0 where seen, the minimum elsewhere."""
        length = self.prefix + len(self.owners)
        device = self.owners.device
        seen = torch.ones(
            length, length, dtype=torch.bool, device=device
        ).tril()
        seen[self.prefix :, self.prefix :] &= (
            self.owners[:, None] == self.owners[None, :]
        )
        mask = torch.zeros(length, length, dtype=dtype, device=device)
        return mask.masked_fill(~seen, torch.finfo(dtype).min)[None, None]
