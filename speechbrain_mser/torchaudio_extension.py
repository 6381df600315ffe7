"""torchaudio beside a torch without CUDA: its extension must not be there.

On Linux x86-64 the package index's torchaudio is linked against CUDA. Beside a
CPU build of torch its compiled extension cannot be loaded, ``import
torchaudio`` fails, and with it SpeechBrain. torchaudio works without the
extension where it is absent.
"""

import importlib
from importlib.util import find_spec
from pathlib import Path

COMMAND = "python -m speechbrain_mser mend-torchaudio"


def cuda_extension():
    """The files of an extension that needs CUDA, where torch has none.

    Looks at files alone: torch takes seconds to import.

    Returns
    -------
    list of pathlib.Path
        torchaudio's compiled files; empty where they may stay.

    Example
    -------
    >>> cuda_extension()
    []
    """
    torch, torchaudio = find_spec("torch"), find_spec("torchaudio")
    if torch is None or torchaudio is None:
        return []
    if any(Path(torch.origin).parent.glob("lib/*torch_cuda*")):
        return []
    compiled = sorted(Path(torchaudio.origin).parent.glob("lib/*.so"))
    if any(b"libcudart" in path.read_bytes() for path in compiled):
        return compiled
    return []


def check_torchaudio():
    """Refuse to go on where torchaudio can't be imported for want of CUDA.

    Raises
    ------
    ImportError
        Says in one line what to do.
    """
    if not cuda_extension():
        return
    try:
        importlib.import_module("torchaudio")
    except (ImportError, OSError):
        raise ImportError(
            "torchaudio needs CUDA, and this torch is a build without it: "
            f"run {COMMAND}, once in this environment"
        ) from None


def mend_torchaudio():
    """Remove the extension from this environment, if it can't be loaded.

    Returns
    -------
    str
        What was done.
    """
    try:
        check_torchaudio()
    except ImportError:
        compiled = cuda_extension()
        for path in compiled:
            path.unlink()
        names = ", ".join(path.name for path in compiled)
        return (
            "torchaudio: its compiled extension needs CUDA and this torch has "
            f"none; removed {names} from {compiled[0].parent}"
        )
    return "torchaudio: nothing to mend"
