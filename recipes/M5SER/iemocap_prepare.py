"""IEMOCAP: acted and improvised English dialogues, one manifest.

Five sessions of a man and a woman each, scripted and improvised: 10,039
utterances, 12.4 hours, WAV 16 kHz 16 bit mono, eleven labels.

Where: https://sail.usc.edu/iemocap (on request), IEMOCAP_full_release
Licence: academic research only; cite Busso et al., LREC 2008

    Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M003.wav
                              | |   |                    | turn of that speaker
                              | |   |                    who speaks: F or M
                              | |   dialogue: impro or script
                              | who wears the markers, NOT who speaks
                              session
    Session1/dialog/EmoEvaluation/Ses01F_impro01.txt
        [6.2901 - 8.2357]<tab>Ses01F_impro01_F000<tab>neu<tab>[2.5, 2.5, 2.5]
    Session1/dialog/transcriptions/Ses01F_impro01.txt
        Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.

A speaker is the session and the turn's letter: 1F, 1M ... 5M. Splits are
sessions, since the two speakers of one are heard in each other's recordings.
All labels are kept; `xxx` (no agreement) and `oth` have no emotion. The emotion
of `exc` is happy, as in the usual four classes (5,531 utterances) and in the
paper's seven (5,680); `--excited keep` gives it a word of its own.

Usage: python iemocap_prepare.py --data_folder IEMOCAP_full_release \\
           --save_folder manifests
"""

import re
from functools import partial
from pathlib import PurePosixPath

from speechbrain_mser.errors import InputError
from speechbrain_mser.preparation.command_line import entry_point
from speechbrain_mser.preparation.corpus import Corpus, prepare_corpus

COUNTS = {
    "neu": 1708,
    "hap": 595,
    "exc": 1041,
    "sad": 1084,
    "ang": 1103,
    "sur": 107,
    "fea": 40,
    "dis": 2,
    "fru": 1849,
    "xxx": 2507,
    "oth": 3,
}
SESSIONS = (1, 2, 3, 4, 5)
# For valid_session and test_session: no session is held out.
NONE = 0

IEMOCAP = Corpus(
    name="iemocap",
    language="eng",
    script=__file__,
    layout="Session[1-5]",
    counts=COUNTS,
    speakers=tuple(f"{session}{sex}" for session in SESSIONS for sex in "FM"),
    companions=(
        "README*",
        "Documentation/*",
        "Session[1-5]/dialog/*",
        "Session[1-5]/sentences/ForcedAlignment/*",
        "Session[1-5]/sentences/MOCAP_*",
    ),
    without_emotion=("xxx", "oth"),
)

TEST_SESSION = 5
MERGE = "happy"
EXCITED = (MERGE, "keep")

# Example: Ses03M_script01_1b_F011 -> session 3, a woman
# ASCII: \d takes the digits of all scripts
NAME = re.compile(
    r"Ses0([1-5])[FM]_(?:impro\d\d[ab]?|script\d\d_\db?)_([FM])\d{3}",
    re.ASCII,
)
# Example: [6.2901 - 8.2357]<tab>Ses01F_impro01_F000<tab>neu<tab>[2.5, ...]
TURN = re.compile(r"\[[\d.]+ - [\d.]+\]\s+(\w+)\s+(\w+)\s+\[.*\]")
# Example: Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.
SAID = re.compile(r"(\w+) \[[\d.]+-[\d.]+\]:(.*)")


def prepare_iemocap(
    data_folder,
    save_folder,
    test_session=TEST_SESSION,
    valid_session=None,
    excited=MERGE,
    decode=False,
):
    """Write ``iemocap.csv`` and ``iemocap_dropped.csv``.

    Arguments
    ---------
    data_folder : str or path-like
        The folder that holds ``Session1`` to ``Session5``.
    save_folder : str or path-like
        Where the manifest goes.
    test_session : int
        The session left out, 1 to 5; 0 for none.
    valid_session : int, optional
        Another session, or 0 for none. By default the one before the test
        session (for 1: 5), and 5 when there is no test session.
    excited : str
        What the emotion of ``exc`` is: ``happy``, as in the four-class
        protocol, or ``keep`` for excited. The label stays.
    decode : bool
        Decode every file, to find silent and broken-off ones too.

    Returns
    -------
    pathlib.Path
        The manifest.

    Raises
    ------
    InputError
        A session that does not exist, an unknown choice, or as
        `prepare_corpus`.
    """
    if valid_session is None:
        valid_session = (test_session - 1) or 5 if test_session else 5
    for session in (test_session, valid_session):
        if session not in (NONE, *SESSIONS):
            raise InputError(
                f"no session {session}; there are 1 to 5, and 0 for none"
            )
    if test_session == valid_session != NONE:
        raise InputError(
            f"session {test_session} is both test_session and valid_session"
        )

    if excited not in EXCITED:
        raise InputError(f"excited is {excited!r}, not {' or '.join(EXCITED)}")
    return prepare_corpus(
        IEMOCAP,
        partial(_collect, excited=excited),
        data_folder,
        save_folder,
        _speakers(valid_session),
        _speakers(test_session),
        decode=decode,
        excited=excited,
    )


def _speakers(session):
    return () if session == NONE else (f"{session}F", f"{session}M")


def _collect(folder, paths, excited):
    """A row per labelled turn that has a recording."""
    labels, dropped = _read_labels(folder)
    texts = _read_texts(folder)
    rows, seen = [], set()
    for path in paths:
        turn = PurePosixPath(path).stem
        name = NAME.fullmatch(turn)
        seen.add(turn)
        if name is None:
            dropped.append((path, "misnamed: not like Ses01F_impro01_M003"))
        elif turn not in labels:
            dropped.append((path, "unlabelled: no line in EmoEvaluation"))
        else:
            session, sex = name.groups()
            rows.append(
                {
                    "ID": turn,
                    "wav": path,
                    "label": labels[turn],
                    "speaker": session + sex,
                    "gender": {"F": "female", "M": "male"}[sex],
                    "text": texts.get(turn, ""),
                }
            )
            if excited == MERGE and labels[turn] == "exc":
                rows[-1]["emotion"] = "happy"
    dropped += [
        (turn, "missing: a label without a recording")
        for turn in labels
        if turn not in seen
    ]
    return rows, dropped


def _read_labels(folder):
    """Turn to label, and what could not be read as one."""
    labels, dropped = {}, []
    for path, lines in _text_files(folder, "EmoEvaluation"):
        for number, line in enumerate(lines, 1):
            # The judges' own lines (C-E1, A-F2 ...) lie between
            if not line.startswith("["):
                continue
            turn = TURN.fullmatch(line.strip())
            if turn is None:
                problem = "unreadable: not like [start - end] turn label [...]"
                dropped.append((f"{path}, line {number}", problem))
            elif labels.setdefault(*turn.groups()) != turn[2]:
                problem = f"duplicate: {turn[1]} is {labels[turn[1]]} before"
                dropped.append((f"{path}, line {number}", problem))
    if not labels:
        raise InputError(
            f"{folder}: no labels in Session*/dialog/EmoEvaluation/*.txt; "
            "unpack the whole IEMOCAP_full_release"
        )
    return labels, dropped


def _read_texts(folder):
    """Turn to what is said; turns with an XX number belong to nobody."""
    texts = {}
    for _, lines in _text_files(folder, "transcriptions"):
        for line in lines:
            said = SAID.fullmatch(line.strip())
            if said and NAME.fullmatch(said[1]):
                texts[said[1]] = said[2].strip()
    return texts


def _text_files(folder, kind):
    """(path, lines) of ``Session*/dialog/<kind>/*.txt``, not of subfolders."""
    for path in sorted(folder.glob(f"Session[1-5]/dialog/{kind}/*.txt")):
        # ._Ses01F_impro01.txt is macOS's shadow of a file
        if path.name.startswith("."):
            continue
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from None
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("cp1252", "replace")
        # Not splitlines, which breaks lines at U+0085 too
        yield path.relative_to(folder).as_posix(), text.split("\n")


main = entry_point(
    IEMOCAP,
    prepare_iemocap,
    __doc__,
    test_session={
        "help": f"the session left out, 0 for none; default: {TEST_SESSION}",
    },
    valid_session={
        "type": int,
        "help": "0 for none; default: the one before the test session",
    },
    excited={
        "choices": EXCITED,
        "help": f"what excited is; default: {MERGE}, as in the usual four classes",
    },
)

if __name__ == "__main__":
    main()
