"""What a training has counted so far, as part of a checkpoint."""

import functools
import json

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)

from speechbrain_mser.distributed import rank_file
from speechbrain_mser.files.atomic import atomic_path


@functools.partial(register_checkpoint_hooks, save_on_main_only=False)
class TrainingSums:
    """The sums of an epoch's terms, and the utterances that were bad.

    Without them the row of an epoch that was interrupted would be about its
    second part only. Each process has its own.

    Attributes
    ----------
    terms : dict
        Of the epoch's training: name to sum, count and weight (`add_terms`).
    bad : dict
        Of the whole training: utterance to reason.

    Example
    -------
    >>> sums, path = TrainingSums(), getfixture("tmp_path") / "sums.ckpt"
    >>> terms = sums.begin_epoch("cpu")
    >>> terms["ce"] = (torch.tensor(0.5), 2, 1.0)
    >>> sums.save(path)
    >>> resumed = TrainingSums()
    >>> resumed.load(path, end_of_epoch=False)
    >>> resumed.begin_epoch("cpu")
    {'ce': (tensor(0.5000), 2, 1.0)}
    """

    def __init__(self):
        self.terms, self.bad = {}, {}
        self._resumed = False

    def begin_epoch(self, device):
        """The sums to go on with: none, or those of a checkpoint within it.

        Arguments
        ---------
        device : str or torch.device
            Where sums are.

        Returns
        -------
        dict
            To be changed in place.
        """
        if not self._resumed:
            self.terms = {}
        self._resumed = False
        for name, (total, *rest) in self.terms.items():
            self.terms[name] = (total.to(device), *rest)
        return self.terms

    @mark_as_saver
    def save(self, path):
        """Write a safetensors file."""
        said = {
            # Each term's count was called its weight before it had one.
            "weights": {
                name: count for name, (_, count, _) in self.terms.items()
            },
            "term_weights": {
                name: weight for name, (*_, weight) in self.terms.items()
            },
            "bad": self.bad,
        }
        totals = {
            name: torch.as_tensor(total).detach().cpu()
            for name, (total, *_) in self.terms.items()
        }
        described = {"sums": json.dumps(said)}
        with atomic_path(rank_file(path)) as partial:
            save_file(totals, partial, described)

    @mark_as_loader
    def load(self, path, end_of_epoch):
        """Read what `save` wrote; sums are an epoch's, and end with it."""
        own = rank_file(path)
        if not own.exists():
            return
        with safe_open(own, framework="pt") as file:
            said = json.loads(file.metadata()["sums"])
            weights = said.get("term_weights", {})
            self.terms = {
                name: (file.get_tensor(name), count, weights.get(name, 1.0))
                for name, count in said["weights"].items()
            }
        self.bad.update(said["bad"])
        self._resumed = not end_of_epoch
