"""On what to compute: what the user says, and what this machine has."""

from dataclasses import replace

import torch
from speechbrain.utils.distributed import infer_device

from speechbrain_mser.errors import InputError

AUTO = "auto"


def find_device(asked=AUTO):
    """The device that is asked for, if it is there.

    Arguments
    ---------
    asked : str or torch.device or None
        ``cpu``, ``cuda``, ``cuda:1``, ``mps``; ``auto`` or None takes a GPU
        where there is one, in each of several processes its own.

    Returns
    -------
    str
        As PyTorch and SpeechBrain write it.

    Raises
    ------
    InputError
        It is no device, or not one of this machine's.

    Example
    -------
    >>> find_device(torch.device("cpu"))
    'cpu'
    >>> find_device("gpu")
    Traceback (most recent call last):
    ...
    speechbrain_mser.errors.InputError: device is 'gpu', which is none; ...
    """
    name = AUTO if asked is None else str(asked).strip().lower()
    if name == AUTO:
        return infer_device()
    here = available_devices()
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(
            f"device is {asked!r}, which is none; here there is "
            f"{', '.join(here)}; auto takes the first"
        ) from None
    if device.type == "cpu":
        return "cpu"
    # "cuda" is whichever of them SpeechBrain takes, the first.
    known = {*here, *(place.partition(":")[0] for place in here)}
    if str(device) not in known:
        lacks = device.type == "cuda" and torch.version.cuda is None
        raise InputError(
            f"device is {str(asked)!r}, which is not to be had"
            f"{' (this PyTorch is built without CUDA)' * lacks}; here there "
            f"is {', '.join(here)}"
        )
    return str(device)


def available_devices():
    """What this machine can compute on, the best first.

    Returns
    -------
    list of str
        ``cpu`` is always the last.

    Example
    -------
    >>> available_devices()[-1]
    'cpu'
    """
    if not torch.accelerator.is_available():
        return ["cpu"]
    kind = torch.accelerator.current_accelerator().type
    count = torch.accelerator.device_count()
    return [*(f"{kind}:{number}" for number in range(count)), "cpu"]


def with_device(run_opts):
    """Run options with their device checked.

    Arguments
    ---------
    run_opts : dict or speechbrain.utils.run_opts.RunOptions or None
        SpeechBrain's.

    Returns
    -------
    dict or speechbrain.utils.run_opts.RunOptions or None
        The same; where no device is asked for, SpeechBrain finds one.

    Example
    -------
    >>> with_device({"device": torch.device("cpu"), "precision": "bf16"})
    {'device': 'cpu', 'precision': 'bf16'}
    """
    if run_opts is None or run_opts.get("device") is None:
        return run_opts
    found = find_device(run_opts["device"])
    if isinstance(run_opts, dict):
        return {**run_opts, "device": found}
    return replace(run_opts, device=found)
