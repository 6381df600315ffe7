"""What the tests of this folder share: `miniature`, and steps without Python."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def in_this_process(monkeypatch):
    """Steps run their scripts here, without starting Python anew.

    Gives the list of what has been run; a script named in ``fail`` ends with
    exit code 3 instead.
    """
    import steps

    ran, fail = [], []

    def call(command):
        script, *arguments = map(str, command[1:])
        name = Path(script).stem
        ran.append((name, arguments))
        if name in fail:
            return 3
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [script, *arguments])
            try:
                importlib.import_module(name).main()
            except SystemExit as ended:
                return ended.code
        return 0

    monkeypatch.setattr(steps, "subprocess", SimpleNamespace(call=call))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return SimpleNamespace(ran=ran, fail=fail)
