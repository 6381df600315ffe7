"""Checkpoints that survive a kill."""

import functools
import shutil
import time

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model
from speechbrain.utils.checkpoints import (
    CKPT_PREFIX,
    DEFAULT_SAVE_HOOKS,
    METAFNAME,
    PARAMFILE_EXT,
    Checkpoint,
    Checkpointer,
    ckpt_recency,
    get_default_hook,
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import (
    ddp_barrier,
    ddp_broadcast,
    if_main_process,
)
from speechbrain.utils.logger import get_logger

from speechbrain_mser.distributed import rank_file
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import atomic_path
from speechbrain_mser.training.checkpoint_seal import (
    DamagedError,
    check_files,
    read_seal,
    seal,
)

logger = get_logger(__name__)


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's checkpointer, safe against kills, damage and full disks.

    The parent writes a checkpoint's meta file first, and a folder counts as a
    checkpoint as soon as that is there; a job killed a moment later cannot be
    resumed. Here it is written last, with checksums, when all else is on the
    disk: what is half written is no checkpoint, and of what was damaged later
    the checkpoint before serves. The newest is the one that was saved last,
    whatever the clock said then.

    Takes the parent's arguments.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._named = set()

    def add_module(self, name, module):
        """Save a module in checkpoints: by its own hooks, or as safetensors.

        Arguments
        ---------
        name : str
            Its name in the checkpoint.
        module : torch.nn.Module
            What is trained.
        """
        default = DEFAULT_SAVE_HOOKS[torch.nn.Module]  # a pickle
        hooks = {}
        if get_default_hook(module, DEFAULT_SAVE_HOOKS) is default:
            hooks["custom_save_hook"] = save_model
            hooks["custom_load_hook"] = _load_module
        self.add_recoverable(name, module, **hooks)

    def list_checkpoints(self):
        """All that can be read; of others a warning, once.

        Returns
        -------
        list of speechbrain.utils.checkpoints.Checkpoint
            In no order.
        """
        found = []
        for folder in self._list_checkpoint_dirs():
            try:
                meta = read_seal(folder)
            except DamagedError as error:
                self._warn(folder, f"{error}: it is no checkpoint")
                continue
            files = {
                path.stem: path
                for path in folder.iterdir()
                if path.suffix == PARAMFILE_EXT
            }
            found.append(Checkpoint(folder, meta, files))
        return found

    def find_checkpoints(
        self,
        importance_key=None,
        max_key=None,
        min_key=None,
        ckpt_predicate=None,
        max_num_checkpoints=None,
    ):
        """Find as the parent does, but for what is new.

        Arguments
        ---------
        importance_key, max_key, min_key, ckpt_predicate, max_num_checkpoints
            The parent's. Of equals the one that was saved last comes first.

        Returns
        -------
        list of speechbrain.utils.checkpoints.Checkpoint
            The most important first.
        """
        key, sign = max_key or min_key, 1 if max_key else -1

        def importance(checkpoint):
            if importance_key not in (None, ckpt_recency):
                value = importance_key(checkpoint)
            else:
                value = sign * checkpoint.meta[key] if key else 0
            return value, _age(checkpoint)

        found = [
            checkpoint
            for checkpoint in self.list_checkpoints()
            if (key is None or key in checkpoint.meta)
            and (ckpt_predicate is None or ckpt_predicate(checkpoint))
        ]
        found.sort(key=importance, reverse=True)
        return found[:max_num_checkpoints]

    def recover_if_possible(self, *args, **kwargs):
        """Load the most important checkpoint that is as it was written.

        Arguments
        ---------
        *args, **kwargs
            As for `find_checkpoints`.

        Returns
        -------
        speechbrain.utils.checkpoints.Checkpoint or None
            None if there is none.

        Raises
        ------
        InputError
            Every one is damaged, or one belongs to other settings.
        """
        # Read once, and by all processes alike.
        chosen, damaged = None, []
        if if_main_process():
            chosen, damaged = self._find_whole(*args, **kwargs)
        chosen, damaged = ddp_broadcast((chosen, damaged))
        if chosen is not None:
            self.load_checkpoint(chosen)
        elif damaged:
            raise InputError(
                f"no checkpoint in {self.checkpoints_dir} is as it was "
                f"written ({'; '.join(damaged)}): bring them back from a "
                "copy, or delete them to begin anew"
            )
        return chosen

    def _find_whole(self, *args, **kwargs):
        damaged = []
        for checkpoint in self.find_checkpoints(*args, **kwargs):
            try:
                check_files(checkpoint.path, checkpoint.meta)
            except DamagedError as error:
                damaged.append(f"{checkpoint.path}: {error}")
                self._warn(checkpoint.path, f"{error}: one before it serves")
            else:
                return checkpoint, damaged
        return None, damaged

    def _warn(self, folder, said):
        if folder not in self._named:
            self._named.add(folder)
            logger.warning("%s: %s", folder, said)

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

    def save_checkpoint(self, *args, **kwargs):
        """Save as the parent does, then make the checkpoint count.

        Raises
        ------
        InputError
            There is no room, or no permission.
        """
        if if_main_process():
            self._remove_unfinished()
        try:
            checkpoint = super().save_checkpoint(*args, **kwargs)
            ddp_barrier()  # every process has written its part
            if checkpoint is not None:
                meta = seal(checkpoint.path, checkpoint.meta)
                checkpoint = checkpoint._replace(meta=meta)
        except (OSError, RuntimeError, SafetensorError) as error:
            reason = _unwritten(error)
            if reason is None:
                raise
            if if_main_process():
                self._remove_unfinished()
            raise InputError(
                f"cannot save a checkpoint in {self.checkpoints_dir}: "
                f"{reason}; what was saved before is kept: run it again when "
                "that is mended"
            ) from None
        # All processes list the checkpoints next, and must see the same ones:
        # deleting takes all of them, and would wait forever otherwise.
        ddp_barrier()
        return checkpoint

    def _remove_unfinished(self):
        """Make room: half a checkpoint, of a kill, is of no use."""
        for folder in self.checkpoints_dir.glob(f"{CKPT_PREFIX}*"):
            if folder.is_dir() and not (folder / METAFNAME).exists():
                shutil.rmtree(folder, ignore_errors=True)

    def _save_checkpoint_metafile(
        self, fpath, meta_to_include=None, end_of_epoch=True
    ):
        """What `seal` will write; nothing yet."""
        del fpath
        there = [_age(checkpoint)[0] for checkpoint in self.list_checkpoints()]
        return {
            "unixtime": time.time(),
            "end-of-epoch": end_of_epoch,
            "number": 1 + max(there, default=0),
            **(meta_to_include or {}),
        }


def _load_module(module, path, end_of_epoch):
    """Into the device where the module is."""
    del end_of_epoch
    load_model(module, path)


def _age(checkpoint):
    """What orders checkpoints; those of earlier versions have no number."""
    return checkpoint.meta.get("number", 0), checkpoint.meta["unixtime"]


_TORCH_WRITERS = ("inline_container", "PytorchStreamWriter")


def _unwritten(error):
    """Why a file could not be written; None if that is not it."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # Safetensors and torch have no errors of their own for this.
    text = str(error)
    if "I/O error: " in text:
        return text.partition("I/O error: ")[2]
    # "IoError" is what older releases of safetensors say
    if any(name in text for name in ("IoError", *_TORCH_WRITERS)):
        return "a file could not be written whole, the disk is full"
    return None


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
        with atomic_path(rank_file(path)) as partial:
            save_file(states, partial)

    @mark_as_loader
    def load(self, path, end_of_epoch):
        """Restore what `save` wrote, for the devices that are here."""
        del end_of_epoch
        # With another number of processes than before, the first one's.
        own = rank_file(path)
        for device, state in load_file(own if own.exists() else path).items():
            if device == "cpu":
                torch.set_rng_state(state)
            elif int(device[5:]) < torch.cuda.device_count():
                torch.cuda.set_rng_state(state, device)
