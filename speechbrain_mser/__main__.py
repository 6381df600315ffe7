"""The recipe's scripts by name, from a checkout or from what pip installed.

    python -m speechbrain_mser train hparams/stage1.yaml --data_root /corpora

is ``python recipes/M5SER/train.py hparams/stage1.yaml ...``, wherever that
lies; without a name, all scripts are listed. The subcommands of ``mser`` are
names too.
"""

import ast
import runpy
import sys
from difflib import get_close_matches

from speechbrain_mser.command.main import COMMANDS, summary
from speechbrain_mser.command.main import main as run_command
from speechbrain_mser.settings.project_files import RECIPE
from speechbrain_mser.torchaudio_extension import (
    check_torchaudio,
    mend_torchaudio,
)

MEND = "mend-torchaudio"


def find_scripts():
    """What can be run.

    Returns
    -------
    dict
        Name to path: the recipe's own scripts, then its experiments'.

    Example
    -------
    >>> find_scripts()["train"].name
    'train.py'
    """
    return {
        path.stem: path
        for folder in (RECIPE, RECIPE / "experiments")
        for path in sorted(folder.glob("*.py"))
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    }


def overview():
    """Every script and what it does, without importing any.

    Returns
    -------
    str
        A line for each.
    """
    lines = [
        "usage: python -m speechbrain_mser NAME ...",
        "",
        "NAME is a script; its options: python -m speechbrain_mser NAME --help",
        "",
        "mser (the same, also as a command of its own):",
        *(f"  {name:<20} {summary(COMMANDS[name])}" for name in COMMANDS),
    ]
    folder = None
    for name, path in find_scripts().items():
        if path.parent != folder:
            folder = path.parent
            lines += ["", f"{folder.name}:"]
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        lines.append(f"  {name:<20} {text.splitlines()[0]}")
    lines += [
        "",
        "installation:",
        f"  {MEND:<20} Make torchaudio importable beside a torch without CUDA.",
    ]
    return "\n".join(lines)


def main(arguments):
    """Run a script as if it had been called by its path.

    Arguments
    ---------
    arguments : list of str
        Its name and its command line.

    Returns
    -------
    int
        The exit code, unless the script ends with its own.
    """
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(overview())
        return 0
    if name == MEND:
        print(mend_torchaudio())
        return 0
    if name in COMMANDS:
        return run_command([name, *rest])
    scripts = find_scripts()
    if name not in scripts:
        near = get_close_matches(name, [*scripts, *COMMANDS, MEND])
        hint = f"did you mean {' or '.join(near)}?" if near else "see --help"
        return _refuse(f"no script is called {name!r}; {hint}")
    try:
        check_torchaudio()
    except ImportError as error:
        return _refuse(error)
    path = scripts[name]
    sys.argv = [str(path), *rest]
    # As Python does for a script: what lies beside it can be imported.
    sys.path.insert(0, str(path.parent))
    runpy.run_path(str(path), run_name="__main__")
    return 0


def _refuse(reason):
    print(f"error: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
