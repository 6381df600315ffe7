"""What the preparation scripts share: from a folder of audio to a manifest.

A script says what is true of its corpus (a `Corpus` and a way to read rows
off names or label files) and `prepare_corpus` does the rest: it looks for
the files, reads their durations, drops what cannot be used with a reason,
splits by speaker, writes, and reports.
"""

import inspect
import os
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from speechbrain_mser.dataio.audio_limits import MAX_SECONDS, MIN_SECONDS
from speechbrain_mser.dataio.manifest import DATA_ROOT, MANIFEST_FOLDER
from speechbrain_mser.dataio.own_emotions import OWN_FILE, read_own
from speechbrain_mser.emotions import canonical
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.tables import read_table
from speechbrain_mser.preparation.audio_listing import (
    find_data_folder,
    list_files,
    probe_all,
)
from speechbrain_mser.preparation.code_digest import code_digest
from speechbrain_mser.preparation.prepared_files import (
    audio_is_there,
    check_writable,
    is_done,
    report,
    write_outcome,
)
from speechbrain_mser.preparation.splits import (
    assign_splits,
    check_speakers_disjoint,
    warn_of_shared_speakers,
)
from speechbrain_mser.spelling import compose, find_spelling

# Columns of a list of known-bad items
_LISTED = ("item", "reason", "source")


@dataclass(frozen=True)
class Corpus:
    """What is true of a corpus as it is distributed.

    Arguments
    ---------
    name : str
        In lower case; the prefix of its IDs and the name of its manifest.
    language : str
        ISO 639-3; a row may say otherwise.
    script : str or path-like
        The script's own ``__file__``: when what it executes is edited, the
        manifest is written anew, see `code_digest`.
    layout : str
        A pattern that its folder matches, e.g. ``Actor_[0-9][0-9]``, or
        several with ``|`` between them.
    counts : dict
        Label to number of utterances in the release.
    speakers : tuple of str
        All of the release's, or empty when they are not known beforehand.
    companions : tuple of str
        Patterns of files in the release that are not read as audio.
    exclusions : str or path-like, optional
        A list of known-bad items: CSV with item (an ID without prefix),
        reason and source (who found it, and how). Those that cannot be read
        are dropped with that reason; the others only when asked for.
    without_emotion : tuple of str
        Labels for which the vocabulary has no word; any other unknown label
        is an error.
    official_splits : bool
        The rows bring their splits, which may share speakers.
    extracts_audio : bool
        Collecting it makes audio, under ``<save_folder>/<corpus>_audio``;
        `collect` takes that folder as ``audio_folder``.
    valid_speakers, test_speakers : tuple of str
        Where the user does not say otherwise; see `prepare_corpus`.
    """

    name: str
    language: str
    script: str | os.PathLike
    layout: str
    counts: dict = field(default_factory=dict)
    speakers: tuple = ()
    companions: tuple = ()
    exclusions: str | os.PathLike | None = None
    without_emotion: tuple = ()
    official_splits: bool = False
    extracts_audio: bool = False
    valid_speakers: tuple = ()
    test_speakers: tuple = ()


def prepare_corpus(
    corpus,
    collect,
    data_folder,
    save_folder,
    valid_speakers=(),
    test_speakers=(),
    drop_known_bad=False,
    decode=False,
    refuse=None,
    **options,
):
    """Write a corpus's manifest, and beside it what was dropped and why.

    Does nothing when its own complete output is there and neither the
    options nor the files nor the code have changed.

    Arguments
    ---------
    corpus : Corpus
        What is true of the corpus.
    collect : callable
        From the folder and the relative paths of its audio files to a list
        of rows and a list of (item, reason). A row is a dict of the
        manifest's columns, its ``ID`` without prefix, ``wav`` relative to
        the data folder, or under ``$manifest_folder/<corpus>_audio/`` where
        audio was made from it (see `extract_audio`). A row may bring its
        ``problem`` (``kind: detail``) when the script knows already that it
        cannot be used.
    data_folder : str or path-like
        The corpus as distributed; what ``$data_root`` will stand for.
    save_folder : str or path-like
        Where ``<corpus>.csv``, ``<corpus>_dropped.csv`` and
        ``<corpus>.json`` (options and fingerprint) go.
    valid_speakers, test_speakers : list of str
        Who is not in the training split; ``all`` for test_speakers means
        all that are not in the validation split.
    drop_known_bad : bool
        Drop also those items of the exclusion list that can be read. Results
        of others are over all that can.
    decode : bool
        Decode every file, see `audio_listing.probe`.
    refuse : callable, optional
        From a row and the seconds of its file to a reason (``kind: detail``)
        to drop it, or an empty one.
    **options
        The script's own options, to be recorded.

    Returns
    -------
    pathlib.Path
        The manifest.

    Raises
    ------
    InputError
        The wrong folder, no utterance in it, an unknown speaker, or a place
        that cannot be written to.
    """
    data_folder = find_data_folder(data_folder, corpus.layout)
    save_folder = find_spelling(Path(save_folder).expanduser())
    outputs = [
        save_folder / f"{corpus.name}{ending}"
        for ending in (".csv", "_dropped.csv", ".json")
    ]
    audio_folder = save_folder / f"{corpus.name}_audio"
    if corpus.extracts_audio:
        collect = partial(collect, audio_folder=audio_folder)
    # The save folder may lie in the data folder
    made = [*outputs, audio_folder]
    listing = list_files(data_folder, corpus.companions, skip=made)
    record = {
        "code": code_digest(corpus.script),
        "fingerprint": listing.fingerprint,
        "exclusions": _exclusions(corpus.exclusions),
        "options": {
            "valid_speakers": _names(valid_speakers),
            "test_speakers": _names(test_speakers),
            "drop_known_bad": drop_known_bad,
            "decode": decode,
            **options,
        },
    }
    if is_done(outputs, record) and audio_is_there(outputs[0]):
        print(
            f"{outputs[0]} is complete and the corpus has not changed: nothing "
            f"to do (to prepare it again, delete {outputs[-1].name})"
        )
    else:
        check_writable(save_folder)
        _prepare(corpus, collect, refuse, data_folder, listing, outputs, record)
    return outputs[0]


def preparation(corpus, collect):
    """The function that prepares a corpus without options of its own.

    Arguments
    ---------
    corpus : Corpus
        What is true of the corpus.
    collect : callable
        As for `prepare_corpus`.

    Returns
    -------
    callable
        ``prepare_<corpus>(data_folder, save_folder, ...)``, with those options
        of `prepare_corpus` that the corpus has: speakers to hold out where it
        brings no splits, ``drop_known_bad`` where there is a list of them.

    Example
    -------
    >>> toy = Corpus("toy", "eng", __file__, "wav", valid_speakers=("anna",))
    >>> inspect.signature(preparation(toy, None))
    <Signature (data_folder, save_folder, valid_speakers=('anna',),
                test_speakers=(), decode=False)>
    """
    without = {"corpus", "collect", "refuse", "options"}
    if corpus.official_splits:
        without |= {"valid_speakers", "test_speakers"}
    if corpus.exclusions is None:
        without.add("drop_known_bad")
    signature = inspect.Signature(
        [
            # The corpus's own speakers, and all else as it is
            option.replace(default=getattr(corpus, option.name, option.default))
            for option in inspect.signature(prepare_corpus).parameters.values()
            if option.name not in without
        ]
    )

    def prepare(*args, **options):
        given = signature.bind(*args, **options)
        given.apply_defaults()
        return prepare_corpus(corpus, collect, **given.arguments)

    prepare.__name__ = f"prepare_{corpus.name}"
    prepare.__doc__ = prepare_corpus.__doc__
    prepare.__signature__ = signature
    return prepare


def _prepare(corpus, collect, refuse, data_folder, listing, outputs, record):
    """Collect, probe, split, write and report."""
    options = record["options"]
    rows, dropped = collect(data_folder, listing.audio)
    rows = [
        {
            key: compose(value)
            if isinstance(value, str) and key != "wav"
            else value
            for key, value in row.items()
        }
        for row in rows
    ]
    dropped = [*listing.dropped, *dropped]
    probed = _probe(rows, data_folder, outputs[0].parent, options["decode"])
    _find_problems(rows, probed, refuse)
    known_bad = _find_known_bad(
        rows, record["exclusions"], options["drop_known_bad"]
    )
    rows = _usable(rows, dropped)
    # A second copy may be good
    excluded = known_bad.keys() - {row["ID"] for row in rows}
    own = read_own(outputs[0].parent)
    rows = [_complete(corpus, row, own) for row in rows]
    if not rows:
        raise InputError(_nothing(corpus, data_folder, listing, dropped))
    if corpus.official_splits:
        warn_of_shared_speakers(rows)
    else:
        assign_splits(
            rows,
            options["valid_speakers"],
            options["test_speakers"],
            corpus.speakers,
        )
        check_speakers_disjoint(rows)
    write_outcome(outputs, rows, dropped, record)
    excluded = [known_bad[item] for item in excluded]
    report(outputs[0], rows, dropped, listing.ignored, corpus.counts, excluded)


def _exclusions(path):
    """Item to reason, from a CSV file with item, reason and source."""
    if path is None:
        return {}
    if not Path(path).is_file():
        raise InputError(
            f"{path}: the list of known-bad items is missing; it belongs to "
            "this project, beside the recipes"
        )
    return {row["item"]: row["reason"] for row in read_table(path, _LISTED)}


def _names(speakers):
    speakers = [speakers] if isinstance(speakers, str) else speakers
    return [compose(str(speaker)) for speaker in speakers]


def _probe(rows, data_folder, manifest_folder, decode):
    """Path to (seconds, problem), for the audio of both roots."""
    paths = sorted({row["wav"] for row in rows if not row.get("problem")})
    made = [path for path in paths if path.startswith(MANIFEST_FOLDER)]
    given = [path for path in paths if not path.startswith(MANIFEST_FOLDER)]
    inside = [path.removeprefix(MANIFEST_FOLDER) for path in made]
    probed = probe_all(manifest_folder, inside, decode) if made else {}
    return {
        **{path: probed[name] for path, name in zip(made, inside, strict=True)},
        **probe_all(data_folder, given, decode),
    }


def _find_problems(rows, probed, refuse):
    """Give every row its duration, or say why it cannot be used."""
    for row in rows:
        if row.get("problem"):
            continue
        seconds, row["problem"] = probed[row["wav"]]
        if refuse and not row["problem"]:
            row["problem"] = refuse(row, seconds)
        if not row["problem"]:
            row["duration"], row["problem"] = _length(row, seconds)


def _find_known_bad(rows, exclusions, drop_all):
    """Mark the rows on the exclusion list; item to label of those marked."""
    known = [
        row
        for row in rows
        if row["ID"] in exclusions and (row["problem"] or drop_all)
    ]
    for row in known:
        row["problem"] = f"known bad: {exclusions[row['ID']]}"
    return {row["ID"]: row["label"] for row in known}


def _usable(rows, dropped):
    """The rows to write, each ID once; the others go to what is dropped."""
    usable = {}
    for row in rows:
        item, path, problem = row["ID"], row["wav"], row.pop("problem")
        if not problem and item in usable:
            problem = f"duplicate: has the name of {usable[item]['wav']}"
        if problem:
            is_part = "start" in row or "stop" in row
            dropped.append((item if is_part else path, problem))
        else:
            usable[item] = row
    return sorted(usable.values(), key=lambda row: (row["wav"], row["ID"]))


def _length(row, seconds):
    """The duration of a row, which may be a part of its file."""
    start, stop = row.get("start") or 0.0, row.get("stop") or seconds
    inside = round(min(stop, seconds) - start, 6)
    where = f" from {start:g} s to {stop:g} s of a file of {seconds:g} s"
    if (start, stop) == (0.0, seconds):
        where = ""
    if inside < MIN_SECONDS:
        return 0.0, f"too short: {max(inside, 0.0):.3f} s{where}"
    if inside > MAX_SECONDS:
        return 0.0, f"too long: {inside:.0f} s{where}"
    return inside, ""


def _complete(corpus, row, own):
    """A row of the manifest."""
    if "emotion" in row:
        emotion = row["emotion"]
    elif row["label"] in corpus.without_emotion:
        emotion = ""
    else:
        emotion = _known_emotion(corpus, row, own)
    # SpeechBrain replaces $name in every field, and a transcript may hold $5
    text = " ".join(row.get("text", "").replace("$", "").split())
    return {
        "language": corpus.language,
        **row,
        "emotion": emotion,
        "ID": f"{corpus.name}_{row['ID']}",
        "wav": row["wav"]
        if row["wav"].startswith(MANIFEST_FOLDER)
        else DATA_ROOT + row["wav"],
        "corpus": corpus.name,
        "text": text,
    }


def _known_emotion(corpus, row, own):
    try:
        return canonical(row["label"], own)
    except InputError as error:
        raise InputError(
            f"{corpus.name}, {row['wav']}: {error}; a further emotion is a "
            f"line of {OWN_FILE} in the save folder"
        ) from None


def _nothing(corpus, data_folder, listing, dropped):
    message = (
        f"{data_folder}: none of {len(listing.audio)} audio files can be used "
        f"as an utterance of {corpus.name}"
    )
    kinds = Counter(reason.split(":")[0] for _, reason in dropped)
    if kinds:
        item, reason = dropped[0]
        kinds = ", ".join(f"{kind} {n}" for kind, n in kinds.most_common())
        message += f" ({kinds}); for example {item}: {reason}"
    return message
