"""What decides a manifest besides the corpus: the code that made it.

A manifest is written anew when that code is another one. Not its text: comments
and docstrings decide nothing, nor does a module that the script does not use.
"""

import ast
import hashlib
import sys
from functools import lru_cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
# They say what is wrong and read options, which are recorded by themselves.
_WITHOUT_EFFECT = ("errors.py", "command_line.py", "code_digest.py")


def code_digest(script, package=PACKAGE):
    """A digest of a script and of all of this package that it uses.

    Arguments
    ---------
    script : str or path-like
        A Python file.
    package : str or path-like
        The folder of this package.

    Returns
    -------
    str
        Of what is executed: the same after an edit of comments, docstrings or
        layout.

    Example
    -------
    >>> script = getfixture("tmp_path") / "a.py"
    >>> _ = script.write_text("LABELS = {'W': 'angry'}")
    >>> before = code_digest(script)
    >>> _ = script.write_text("# Wut\\nLABELS = {'W': 'angry'}")
    >>> code_digest(script) == before
    True
    >>> _ = script.write_text("LABELS = {'W': 'happy'}")
    >>> code_digest(script) == before
    False
    """
    script, package = Path(script), Path(package)
    code, left = {}, [script]
    while left:
        path = left.pop()
        if path in code or path.name in _WITHOUT_EFFECT:
            continue
        code[path], names = _read(path, path.read_bytes())
        left += _files(names, path.parent, package)
    digest = hashlib.sha256()
    # By name, not by place: the project may have moved.
    for path in sorted(code, key=lambda path: (path.name, code[path])):
        digest.update(f"{path.name}\n{code[path]}\n".encode())
    return digest.hexdigest()


class _Bare(ast.NodeTransformer):
    """Takes the docstrings out."""

    def visit(self, node):
        self.generic_visit(node)
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return node


@lru_cache(maxsize=128)
def _read(path, text):
    """A file's code without what decides nothing, and the names it imports.

    Kept: the corpora have most of their code in common.
    """
    tree = ast.parse(text, str(path))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return ast.unparse(_Bare().visit(tree)), sorted(names)


def _files(names, folder, package):
    """Those that are of this package, or beside a script."""
    for name in names:
        first, *parts = name.split(".")
        if first == package.name:
            path = package.joinpath(*parts)
        elif first in sys.stdlib_module_names or parts:
            continue
        else:
            path = folder / first
        if path.with_suffix(".py").is_file():
            yield path.with_suffix(".py")
