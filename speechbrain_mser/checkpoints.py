"""Checkpoints that survive a kill."""

import functools
import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from speechbrain.utils.checkpoints import (
    METAFNAME,
    Checkpointer,
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import ddp_barrier, get_rank
from speechbrain.utils.parameter_transfer import Pretrainer

from speechbrain_mser.atomic import atomic_path
from speechbrain_mser.errors import InputError


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's checkpointer, safe against a kill while it writes.

    The parent writes a checkpoint's meta file first, and a folder counts as a
    checkpoint as soon as that is there; a job killed a moment later cannot be
    resumed. Here it is written last: what is half written is no checkpoint.
    One that cannot be loaded is refused with what to do about it.

    Takes the parent's arguments.
    """

    def load_checkpoint(self, checkpoint):
        """Load as the parent does.

        Arguments
        ---------
        checkpoint : speechbrain.utils.checkpoints.Checkpoint
            One of `list_checkpoints`.

        Raises
        ------
        InputError
            A file is broken, or of a training with other settings.
        """
        try:
            super().load_checkpoint(checkpoint)
        # Every recoverable has its own loader with errors of its own.
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(
                f"cannot go on from {checkpoint.path}: {reason}; if it is of "
                "a training with other settings, give another output_folder; "
                "if it is broken, delete it"
            ) from error

    def _save_checkpoint_metafile(self, fpath, meta_to_include=None, *args):
        partial = Path(f"{fpath}.partial")
        return super()._save_checkpoint_metafile(
            partial, meta_to_include or {}, *args
        )

    def save_checkpoint(self, *args, **kwargs):
        """Save as the parent does, then make the checkpoint count."""
        checkpoint = super().save_checkpoint(*args, **kwargs)
        ddp_barrier()  # every process has written its part
        if checkpoint is not None:
            meta = checkpoint.path / METAFNAME
            os.replace(f"{meta}.partial", meta)
        # All processes list the checkpoints next, and must see the same ones:
        # deleting takes all of them, and would wait forever otherwise.
        ddp_barrier()
        return checkpoint


@functools.partial(register_checkpoint_hooks, save_on_main_only=False)
class RandomState:
    """Torch's random state as part of a checkpoint, each process its own.

    Dropout after a resume then draws what it would have drawn without the
    interruption.

    Example
    -------
    >>> import tempfile
    >>> state, path = RandomState(), f"{tempfile.mkdtemp()}/state"
    >>> state.save(path)
    >>> first = torch.rand(3)
    >>> state.load(path, end_of_epoch=True)
    >>> torch.equal(torch.rand(3), first)
    True
    """

    @mark_as_saver
    def save(self, path):
        """Write the state of the CPU's and every GPU's generator."""
        states = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            for number, state in enumerate(torch.cuda.get_rng_state_all()):
                states[f"cuda:{number}"] = state
        with atomic_path(self._own(path)) as partial:
            save_file(states, partial)

    @mark_as_loader
    def load(self, path, end_of_epoch):
        """Restore what `save` wrote, for the devices that are here."""
        del end_of_epoch
        # With another number of processes than before, the first one's.
        own = self._own(path)
        for device, state in load_file(own if own.exists() else path).items():
            if device == "cpu":
                torch.set_rng_state(state)
            elif int(device[5:]) < torch.cuda.device_count():
                torch.cuda.set_rng_state(state, device)

    @staticmethod
    def _own(path):
        """One file per process; the first one's has the plain name."""
        rank = get_rank() or 0
        return Path(f"{path}.rank{rank}" if rank else path)


class SafetensorsPretrainer(Pretrainer):
    """SpeechBrain's pretrainer, for ``<name>.safetensors`` files.

    Takes the parent's arguments. The parent looks for ``<name>.ckpt``, which
    elsewhere is a pickle.
    """

    def collect_files(self, default_source=None, **kwargs):
        """Find the files as the parent does, under their own names."""
        for name in self.loadables:
            if name not in self.paths and default_source is not None:
                self.paths[name] = f"{default_source}/{name}.safetensors"
        try:
            return super().collect_files(default_source, **kwargs)
        except (OSError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(
                f"{default_source} is neither a folder that training left nor "
                f"to be had from the hub; give the folder 'recognizer' in a "
                f"training's output folder ({reason})"
            ) from None
