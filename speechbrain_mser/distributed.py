"""A training's other processes: joined, left, and asked for their part.

A loss over the batch of all processes is the one that a single process would
see. DDP averages gradients over the processes, so what is a sum over them
brings their number along in its backward pass.
"""

import atexit
import functools
import os
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import torch
from speechbrain.utils.distributed import ddp_init_group, get_rank

# Whether this process has been in a group, which may have been left since.
_joined = threading.Event()


@contextmanager
def process_group(run_opts):
    """SpeechBrain's process group, left on every way out.

    Whoever joins one here decorates the script's ``main`` with
    `ends_with_its_group`.

    Arguments
    ---------
    run_opts : dict
        As `speechbrain.parse_arguments` returns them. Without torchrun's
        variables in the environment there is no group; one that is there
        already is taken.

    Example
    -------
    >>> with process_group({"distributed_backend": "gloo"}):
    ...     torch.distributed.is_initialized()
    False
    """
    if not torch.distributed.is_initialized():
        ddp_init_group(run_opts)
    try:
        if torch.distributed.is_initialized():
            _joined.set()
        yield
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def ends_with_its_group(main):
    """Decorate a script's ``main``: its process ends when that does.

    A thread of gloo's drops the tensors of the last collective a moment after
    everybody has them, and needs the interpreter for that; one that is being
    taken apart ends the thread instead, and with it the process ("terminate
    called without an active exception", SIGABRT). Leaving the group stops the
    threads only where nothing else holds it, and DDP does. So the process
    ends here, like one of `multiprocessing`: what was registered for the exit
    is done, and the interpreter is not taken apart. Without a group nothing
    is changed.

    Arguments
    ---------
    main : callable
        The script's entry point.

    Returns
    -------
    callable
        The same function.

    Example
    -------
    >>> ends_with_its_group(lambda: "no group")()
    'no group'
    """

    @functools.wraps(main)
    def wrapper(*args, **kwargs):
        try:
            result, code = main(*args, **kwargs), 0
        except SystemExit as ended:
            if not _joined.is_set():
                raise
            code = ended.code or 0
            if not isinstance(code, int):
                print(code, file=sys.stderr)
                code = 1
        except BaseException:
            if not _joined.is_set():
                raise
            sys.excepthook(*sys.exc_info())
            code = 1
        if _joined.is_set():
            _end_process(code)
        return result

    return wrapper


def _end_process(code):
    """End as the interpreter does, up to where it is taken apart."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def world_size():
    """How many processes train together; 1 without a group."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


def rank_file(path):
    """A file of each process's own; the first one's has the plain name.

    Arguments
    ---------
    path : str or path-like
        The plain name.

    Returns
    -------
    pathlib.Path
        This process's.

    Example
    -------
    >>> rank_file("state.ckpt").name
    'state.ckpt'
    """
    rank = get_rank() or 0
    return Path(f"{path}.rank{rank}" if rank else path)


def sum_over_ranks(values):
    """Add up what the processes have, with the gradient that DDP needs.

    Arguments
    ---------
    values : torch.Tensor
        Of the same shape and dtype in every process.

    Returns
    -------
    torch.Tensor
        The sum, the same in every process. Its gradient is the number of
        processes times that of the own part, as DDP will divide by it.

    Example
    -------
    >>> sum_over_ranks(torch.tensor([1.0, 2.0]))
    tensor([1., 2.])
    """
    return values if world_size() == 1 else _Sum.apply(values)


def gather_ranks(rows, labels):
    """The batch of all processes, which may differ in size.

    Arguments
    ---------
    rows : torch.Tensor
        ``[own batch, dim]``.
    labels : torch.Tensor
        ``[own batch]``, integers.

    Returns
    -------
    rows : torch.Tensor
        ``[batch, dim]``, with the gradient that DDP needs.
    labels : torch.Tensor
        ``[batch]``.
    """
    world = world_size()
    if world == 1:
        return rows, labels
    size = torch.tensor(len(labels), device=labels.device)
    sizes = [torch.zeros_like(size) for _ in range(world)]
    torch.distributed.all_gather(sizes, size)
    sizes = [int(size) for size in sizes]
    return _Gather.apply(rows, sizes), _gather(labels, sizes)


def union_over_ranks(names):
    """What any of the processes has.

    Arguments
    ---------
    names : iterable of str
        This process's own.

    Returns
    -------
    set of str
        The same in every process.

    Example
    -------
    >>> union_over_ranks(["a"])
    {'a'}
    """
    every = [None] * world_size()
    if len(every) == 1:
        return set(names)
    torch.distributed.all_gather_object(every, list(names))
    return set().union(*every)


class _Sum(torch.autograd.Function):
    """A sum over processes of which each has the same use."""

    @staticmethod
    def forward(ctx, values):
        """Add up."""
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):
        """The own part's, as often as DDP will divide it."""
        return world_size() * gradient


def _gather(rows, sizes):
    """Rows of all ranks; all_gather needs equal shapes, so pad and cut."""
    padding = rows.new_zeros(max(sizes) - len(rows), *rows.shape[1:])
    padded = torch.cat([rows, padding])
    parts = [torch.empty_like(padded) for _ in sizes]
    torch.distributed.all_gather(parts, padded)
    return torch.cat([x[:n] for x, n in zip(parts, sizes, strict=True)])


class _Gather(torch.autograd.Function):
    """`_gather` with a gradient.

    All processes compute the same loss, so the gradient of a process's own
    rows is there without communication.
    """

    @staticmethod
    def forward(ctx, rows, sizes):
        """Gather."""
        rank = torch.distributed.get_rank()
        ctx.own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        ctx.world = len(sizes)
        return _gather(rows, sizes)

    @staticmethod
    def backward(ctx, gradient):
        """Take the own rows' part, as often as DDP will divide it."""
        return ctx.world * gradient[ctx.own], None
