"""Emotions beyond the vocabulary, declared beside the manifests that have them."""

from pathlib import Path

from speechbrain_mser.emotions import ALIASES, check_word
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import write_text
from speechbrain_mser.spelling import find_spelling

OWN_FILE = "emotions.txt"


def read_own(folder):
    """The emotions beyond the vocabulary that manifests in a folder may have.

    They stand in its `OWN_FILE`, one a line; after ``#`` comes a comment.

    Arguments
    ---------
    folder : str or path-like
        Where manifests are, or will be.

    Returns
    -------
    tuple of str
        In lower case; none where there is no such file.

    Raises
    ------
    InputError
        It is no text, or a line is no new word.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> read_own(folder)
    ()
    >>> _ = (folder / OWN_FILE).write_text("stressed  # by others\\nrelaxed\\n")
    >>> read_own(folder)
    ('stressed', 'relaxed')
    """
    path = find_spelling(Path(folder).expanduser()) / OWN_FILE
    if not path.is_file():
        return ()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path}: no text in UTF-8") from None
    own = {}
    for number, line in enumerate(lines, start=1):
        word = line.partition("#")[0].strip().lower()
        if not word:
            continue
        word = check_word(word, f"{path}, line {number}: the emotion")
        if word in ALIASES:
            raise InputError(
                f"{path}, line {number}: {word!r} is {ALIASES[word]!r} already"
            )
        own[word] = True
    return tuple(own)


def carry_own(source, target):
    """Let manifests of a folder have the emotions that another's may have.

    Arguments
    ---------
    source, target : str or path-like
        The folders; the target's file gets what it lacks.

    Returns
    -------
    tuple of str
        As `read_own` returns of the target.
    """
    there, path = read_own(target), Path(target) / OWN_FILE
    lacking = [word for word in read_own(source) if word not in there]
    if lacking:
        before = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
        lines = [*before.splitlines(), *lacking]
        write_text(path, "".join(f"{line}\n" for line in lines))
    return (*there, *lacking)
