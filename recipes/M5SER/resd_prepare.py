"""RESD, Russian emotional speech dialogues: acted Russian, one manifest.

Fifty played dialogues, each of two people with an emotion of their own, in
seven emotions: 1,396 utterances, 2.3 hours, half 16 kHz, half 44.1 kHz.

Where: https://huggingface.co/datasets/Aniemore/resd, or resd_annotated beside
it, which has transcripts too (hf download --repo-type dataset --local-dir RESD
Aniemore/resd)
Licence: MIT

    data/train-00000-of-00001-....parquet    name, path, emotion, speech (text)

    32_happiness_enthusiasm_h_120    (some: 03_disgust_neutral n_050)
    |  |                    | number
    |  |                    who of the two: the emotion's initial
    |  the emotions of the two
    dialogue

The audio is in the parquet files; it is written once, as FLAC 16 kHz mono, to
``resd_audio`` beside the manifest. Needs pyarrow and PyAV.

The release's splits, train and test, share all dialogues and nearly all
voices: a model trained on the one knows the voices of the other. Who speaks is
not published; the column speaker says dialogue and letter (32h). For results
over everything, ``--all_test``.

Enthusiasm (198) is none of the paper's seven emotions, and RESD has no
surprise. The paper's figures cannot come from enthusiasm as a class of its
own; they can from leaving it out or from counting it as happy.

    --enthusiasm keep     its own word in the manifest; the label set `resd7`
                          leaves it out when evaluating (default: nothing is
                          lost, and every reading but one is still open)
    --enthusiasm drop     not in the manifest
    --enthusiasm happy    as happy

Usage: python resd_prepare.py --data_folder RESD --save_folder manifests
"""

import re
from dataclasses import replace

from speechbrain_mser.dataio.manifest import MANIFEST_FOLDER
from speechbrain_mser.errors import InputError
from speechbrain_mser.preparation.audio_extraction import Packed, extract_audio
from speechbrain_mser.preparation.audio_listing import find_files
from speechbrain_mser.preparation.command_line import entry_point
from speechbrain_mser.preparation.corpus import Corpus, prepare_corpus
from speechbrain_mser.preparation.parquet import check_parquet, read_parquet

RESD = Corpus(
    name="resd",
    language="rus",
    script=__file__,
    layout="data/*.parquet|*.parquet|train/*.parquet|default/train/*.parquet",
    counts={
        "neutral": 191,
        "happiness": 218,
        "sadness": 162,
        "anger": 219,
        "disgust": 185,
        "fear": 223,
        "enthusiasm": 198,
    },
    companions=("*.parquet", "*.md", "*.json"),
    official_splits=True,
    extracts_audio=True,
)

ENTHUSIASM = ("keep", "drop", "happy")

AUDIO = f"{RESD.name}_audio"
# In a shard's path: data/train-00000-of-00001.parquet, default/test/0000...
SPLIT = re.compile(r"(?<![a-z])(train|test)(?![a-z])")
# ASCII: \d takes the digits of all scripts
NAME = re.compile(r"(\d\d)_([a-z]+)_([a-z]+)[ _]([a-z])_(\d{3})", re.ASCII)


def prepare_resd(
    data_folder,
    save_folder,
    enthusiasm="keep",
    all_test=False,
    decode=False,
):
    """Write ``resd.csv``, ``resd_dropped.csv`` and ``resd_audio``.

    Arguments
    ---------
    data_folder : str or path-like
        The folder that holds ``data``.
    save_folder : str or path-like
        Where the manifest and the audio (270 MB) go.
    enthusiasm : str
        ``keep``, ``drop`` or ``happy``.
    all_test : bool
        Everything is in the test split.
    decode : bool
        Decode every file once more, to find broken-off ones too.

    Returns
    -------
    pathlib.Path
        The manifest.

    Raises
    ------
    InputError
        An unknown choice, pyarrow or PyAV is missing, a parquet file is
        broken or of an early revision, or see `prepare_corpus`.
    """
    if enthusiasm not in ENTHUSIASM:
        raise InputError(
            f"enthusiasm is {enthusiasm!r}, not {' or '.join(ENTHUSIASM)}"
        )
    counts = dict(RESD.counts)
    if enthusiasm == "drop":
        del counts["enthusiasm"]

    def collect(folder, paths, audio_folder):
        rows, dropped = _collect(folder, audio_folder, enthusiasm)
        if all_test:
            rows = [{**row, "split": "test"} for row in rows]
        beside = "unlisted: the release has its audio in parquet files"
        return rows, [*dropped, *((path, beside) for path in paths)]

    return prepare_corpus(
        replace(RESD, counts=counts),
        collect,
        data_folder,
        save_folder,
        decode=decode,
        enthusiasm=enthusiasm,
        all_test=all_test,
    )


def _collect(folder, audio_folder, enthusiasm):
    """Write the audio; the rows of what could be written."""
    shards = []
    for path in find_files(folder, "*.parquet"):
        splits = SPLIT.findall(path.relative_to(folder).as_posix())
        if not splits:
            raise InputError(
                f"{path}: neither train nor test in its name; RESD's files "
                "are data/train-... and data/test-..."
            )
        shards.append((path, splits[-1]))
    # All before the first: extracting takes a while
    for path, _ in shards:
        check_parquet(path, ["name", "emotion"], "speech")
    rows, dropped = {}, []

    def items():
        for path, split in shards:
            mtime = path.stat().st_mtime
            for entry in read_parquet(
                path, ["name", "emotion", "text"], "speech"
            ):
                row, problem = _row(entry, split, enthusiasm)
                wav = row.get("wav", "")
                if wav in rows:
                    problem = "duplicate: a row before it has the name"
                if problem:
                    dropped.append((f"{path.name}: {entry['name']}", problem))
                    continue
                rows[wav] = row
                target = wav.removeprefix(f"{MANIFEST_FOLDER}{AUDIO}/")
                yield Packed(wav, entry["bytes"], mtime), target

    _, problems = extract_audio(folder, items(), audio_folder)
    return [
        {**row, "problem": problems.get(wav, "")} for wav, row in rows.items()
    ], dropped


def _row(entry, split, enthusiasm):
    """A row and why it cannot be used."""
    # Example: 32_happiness_enthusiasm_h_120 -> dialogue 32, speaker h
    name = NAME.fullmatch(entry["name"] or "")
    label = entry["emotion"] or ""
    if name is None:
        return {}, "misnamed: not like 32_happiness_enthusiasm_h_120"
    dialogue, _, _, letter, _ = name.groups()
    # No label at all begins with no letter, and is refused too
    if not label.startswith(letter):
        # One of the two is wrong, and nothing says which
        found = label or "none"
        return {}, f"misnamed: {found} in the table, {letter} by its name"
    if label == "enthusiasm" and enthusiasm == "drop":
        return {}, "enthusiasm: left out by choice"
    item = entry["name"].replace(" ", "_")
    row = {
        "ID": item,
        "wav": f"{MANIFEST_FOLDER}{AUDIO}/{split}/{item}.flac",
        "label": label,
        "speaker": dialogue + letter,
        "split": split,
        "text": entry.get("text") or "",
    }
    if label == "enthusiasm" and enthusiasm == "happy":
        row["emotion"] = "happy"
    return row, ""


main = entry_point(
    RESD,
    prepare_resd,
    __doc__,
    enthusiasm={"choices": ENTHUSIASM, "help": "default: keep"},
    all_test={
        "action": "store_true",
        "help": "everything is the test split",
    },
)

if __name__ == "__main__":
    main()
