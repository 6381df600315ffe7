"""Joining a training's other processes, and leaving them."""

from contextlib import contextmanager

import torch
from speechbrain.utils.distributed import ddp_init_group


@contextmanager
def process_group(run_opts):
    """SpeechBrain's process group, left on every way out.

    A process that ends with its group alive aborts now and then: threads of
    gloo's are still running when the interpreter takes their memory away
    ("terminate called without an active exception", SIGABRT).

    Arguments
    ---------
    run_opts : dict
        As `speechbrain.parse_arguments` returns them. Without torchrun's
        variables in the environment there is no group.

    Example
    -------
    >>> with process_group({"distributed_backend": "gloo"}):
    ...     torch.distributed.is_initialized()
    False
    """
    ddp_init_group(run_opts)
    try:
        yield
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
