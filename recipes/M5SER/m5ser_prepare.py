"""M5SER: the training corpora translated into five languages, one manifest.

French, German, Italian, Mandarin and Spanish speech, made by an expressive
speech-to-speech translator out of English corpora; an utterance has the label
of its source. Over 1,009 hours in the paper (arXiv 2503.21806), which has not
released it: this reads what you made yourself, laid out so:

    fra/iemocap/iemocap_Ses01F_impro01_F000.wav
    |   |       the source's ID in the manifest iemocap.csv (with or without
    |   |       the leading corpus)
    |   the source's corpus
    language: fra deu ita cmn spa

Label, emotion, speaker, gender and split are the source's, by its manifest,
which must be prepared before (``--source_folder``, by default the save
folder). So an utterance whose source is held out for validation or testing is
held out in all languages, and what a source's manifest does not have is not
here either. The text is the translation's and not known.

Where the folder is one that `synthesize.py` made, the text is the
translation's, and only what a finished shard lists is taken: a file that no
receipt vouches for is reported and not used, and so is one that is listed and
not there. Elsewhere the text is not known.

What the paper's two rules drop (`speechbrain_mser/synthesis/filters.py`), each
alone and both together, for every corpus and language, is printed and written
to ``m5ser_filters.json``.

Usage: python m5ser_prepare.py --data_folder M5SER --save_folder manifests
"""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path, PurePosixPath

from speechbrain_mser.dataio.manifest import DATA_ROOT, read_manifest
from speechbrain_mser.dataio.own_emotions import carry_own
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import write_text
from speechbrain_mser.files.fingerprints import sha256
from speechbrain_mser.files.tables import read_table
from speechbrain_mser.preparation.command_line import entry_point
from speechbrain_mser.preparation.corpus import Corpus, prepare_corpus
from speechbrain_mser.spelling import compose, find_spelling
from speechbrain_mser.synthesis.filters import (
    SCORE,
    SHORT,
    SMALL,
    PaperFilters,
    ScoreFilter,
    filters_toll,
    toll_table,
)
from speechbrain_mser.synthesis.folder import (
    FOLDER_FILE,
    SynthesisFolder,
    was_synthesized,
)

LANGUAGES = ("fra", "deu", "ita", "cmn", "spa")

M5SER = Corpus(
    name="m5ser",
    # Every row has its own
    language="mul",
    script=__file__,
    # One that synthesize.py made may have others
    layout="|".join([*(f"{name}/*/*" for name in LANGUAGES), FOLDER_FILE]),
    companions=("*.csv", "*.json", "*.jsonl", "*.txt", "*.md", "*.png"),
    official_splits=True,
)

# The paper's, where they differ from the others'
MIN_KILOBYTES_OF = ("iemocap=20", "meld=20")

# What m5ser_scores.py writes into the folder of translations
SCORES = "scores.csv"
# Taken over from the source
FROM_SOURCE = ("label", "emotion", "gender", "split")


def prepare_m5ser(
    data_folder,
    save_folder,
    source_folder=None,
    min_seconds=PaperFilters.min_seconds,
    min_kilobytes=PaperFilters.min_kilobytes,
    min_kilobytes_of=MIN_KILOBYTES_OF,
    reference_rate=PaperFilters.reference_rate,
    reference_bytes=PaperFilters.reference_bytes,
    kilobyte=PaperFilters.kilobyte,
    scores=None,
    keep_if=(),
    decode=False,
):
    """Write ``m5ser.csv`` and ``m5ser_dropped.csv``.

    Arguments
    ---------
    data_folder : str or path-like
        The folder that holds ``fra``, ``deu``, ``ita``, ``cmn``, ``spa``.
    save_folder : str or path-like
        Where the manifest goes.
    source_folder : str or path-like, optional
        Where the sources' manifests are; default: the save folder.
    min_seconds, min_kilobytes, reference_rate, reference_bytes, kilobyte
        The paper's filters; see `PaperFilters`.
    min_kilobytes_of : list of str
        Another `min_kilobytes` for single corpora: ``meld=20``.
    scores : str or path-like, optional
        A table that scorers wrote; see `ScoreFilter`.
    keep_if : list of str
        What must hold in it: ``cer<=0.5``.
    decode : bool
        Decode every file, to find silent and broken-off ones too.

    Returns
    -------
    pathlib.Path
        The manifest.

    Raises
    ------
    InputError
        A source's manifest is missing, a setting cannot be used, or see
        `prepare_corpus`.
    """
    folder = Path(data_folder).expanduser()
    rules = PaperFilters(
        min_seconds,
        min_kilobytes,
        dict(map(_size, min_kilobytes_of)),
        reference_rate,
        reference_bytes,
        kilobyte,
    )
    limits = _score_filter(scores, keep_if)
    languages, texts = _read_finished(folder)
    source_folder = Path(source_folder or save_folder).expanduser()
    sources = _find_sources(folder, languages, source_folder)
    carry_own(source_folder, find_spelling(Path(save_folder).expanduser()))

    def refuse(row, seconds):
        """Why a filter drops it, if one does."""
        reason = rules.refuse(row["wav"].split("/")[1], seconds)
        if not reason and limits:
            reason = limits.refuse(row["wav"])
        return reason

    manifest = prepare_corpus(
        M5SER,
        partial(_collect, sources=sources, languages=languages, texts=texts),
        folder,
        save_folder,
        decode=decode,
        refuse=refuse,
        filters=asdict(rules),
        keep_if=list(keep_if),
        # Of all that decides what is in the manifest
        read={
            name: sha256(Path(path).read_bytes())
            for name, path in {
                **sources,
                **({"scores": scores} if scores else {}),
            }.items()
        },
    )
    toll = read_toll(manifest)
    facts = {**asdict(rules), "keep_if": list(keep_if), "toll": toll}
    text = json.dumps(facts, indent=1)
    write_text(manifest.with_name("m5ser_filters.json"), text + "\n")
    print(f"\nthe paper's filters, each alone and both:\n{toll_table(toll)}")
    return manifest


def read_toll(manifest):
    """What the filters dropped, from what a preparation left.

    Arguments
    ---------
    manifest : pathlib.Path
        ``m5ser.csv``; ``m5ser_dropped.csv`` lies beside it.

    Returns
    -------
    list of dict
        As `filters_toll` returns.
    """
    kept, refused = [], []
    for row in read_table(manifest, ["wav"]):
        language, corpus, _ = row["wav"].removeprefix(DATA_ROOT).split("/", 2)
        kept.append((corpus, language))
    dropped = manifest.with_name("m5ser_dropped.csv")
    for row in read_table(dropped, ["item", "reason"]):
        if row["reason"].startswith((SHORT, SMALL)):
            language, corpus, _ = row["item"].split("/", 2)
            refused.append((corpus, language, row["reason"]))
        elif row["reason"].startswith(SCORE):
            language, corpus, _ = row["item"].split("/", 2)
            # The paper's rules have let it pass.
            kept.append((corpus, language))
    return filters_toll(kept, refused)


def _size(pair):
    """``meld=20`` to ``("meld", 20.0)``."""
    corpus, sign, kilobytes = pair.partition("=")
    try:
        value = float(kilobytes)
    except ValueError:
        sign = ""
    if not sign:
        raise InputError(
            f"min_kilobytes_of: {pair!r} is not of the form meld=20"
        )
    return corpus, value


def _score_filter(scores, keep_if):
    if bool(scores) != bool(keep_if):
        raise InputError(
            "scores and keep_if belong together: a table that scorers wrote, "
            "and what must hold in it, such as --scores M5SER/scores.csv "
            "--keep_if 'cer<=0.5'"
        )
    return ScoreFilter(scores, keep_if) if scores else None


def _read_finished(folder):
    """Languages, and path to text of what finished shards list.

    The paper's languages and None for a folder without shards.
    """
    if not was_synthesized(folder):
        return LANGUAGES, None
    translations = SynthesisFolder.of(folder)
    receipts = translations.receipts()
    texts = {
        row["audio"]: row["text"]
        for name in receipts
        for row in translations.rows(name)
        if row["audio"]
    }
    return sorted({r["language"] for r in receipts.values()}), texts


def _find_sources(folder, languages, source_folder):
    """Corpus to its manifest, for every corpus that has a folder here."""
    corpora = {
        path.name
        for language in languages
        for path in folder.glob(f"{language}/[!.]*")
        if path.is_dir()
    }
    sources = {}
    for corpus in sorted(corpora):
        path = source_folder / f"{corpus}.csv"
        if not path.is_file():
            raise InputError(
                f"{path}: the manifest of {corpus}, by which its translations "
                f"get their labels and splits, is not there; prepare {corpus} "
                "first, or say where its manifest is (--source_folder)"
            )
        sources[corpus] = path
    return sources


def _collect(folder, paths, sources, languages, texts):
    """Rows joined to their sources."""
    tables = {
        corpus: read_manifest(path).set_index("ID").to_dict("index")
        for corpus, path in sources.items()
    }
    rows = []
    # An empty one is dropped before, with a reason of its own
    dropped = [
        (path, "lost: a finished shard has it; synthesize.py makes it again")
        for path in sorted(set(texts or ()) - {*map(compose, paths)})
        if not (folder / path).is_file()
    ]
    for path in paths:
        # Example: fra/meld/meld_train_dia0_utt0.wav
        spelled = compose(path)
        parts = PurePosixPath(spelled).with_suffix("").parts
        language, corpus, item = parts[0], parts[1:2], "/".join(parts[2:])
        if not item:
            dropped.append((path, "misplaced: not like fra/iemocap/ID.wav"))
            continue
        if language not in languages:
            dropped.append((path, f"language: {language} is none of M5SER's"))
            continue
        (corpus,) = corpus
        table = tables[corpus]
        item = item if item in table else f"{corpus}_{item}"
        if item not in table:
            dropped.append((path, f"no source: not in {corpus}.csv"))
            continue
        if texts is not None and spelled not in texts:
            dropped.append((path, "no receipt: in no finished shard"))
            continue
        source = table[item]
        rows.append(
            {
                "ID": f"{language}_{item}",
                "wav": path,
                "language": language,
                # Another corpus may have a speaker of this name
                "speaker": source["speaker"]
                and f"{corpus}_{source['speaker']}",
                **{name: source[name] for name in FROM_SOURCE},
                "text": texts[spelled] if texts else "",
            }
        )
    return rows, dropped


# What no other corpus has; `entry_point` takes their defaults from the function
FLAGS = {
    "source_folder": {
        "metavar": "FOLDER",
        "help": "where the sources' manifests are; default: the save folder",
    },
    **{
        name: {"help": f"{what}; default: {getattr(PaperFilters, name):g}"}
        for name, what in (
            ("min_seconds", "shorter ones are dropped; 0: none"),
            ("min_kilobytes", "smaller ones are dropped; 0: none"),
            (
                "reference_rate",
                "samples per second of the encoding that sizes are meant in",
            ),
            ("reference_bytes", "bytes per sample; 4: float32"),
            ("kilobyte", "bytes"),
        )
    },
    "min_kilobytes_of": {
        "nargs": "*",
        "metavar": "CORPUS=KB",
        "help": f"default: {' '.join(MIN_KILOBYTES_OF)}",
    },
    "scores": {
        "metavar": "FILE",
        "help": "a table that m5ser_scores.py wrote",
    },
    "keep_if": {
        "nargs": "*",
        "metavar": "CONDITION",
        "help": "what must hold in it, e.g. 'cer<=0.5'; default: nothing",
    },
}

main = entry_point(M5SER, prepare_m5ser, __doc__, **FLAGS)

if __name__ == "__main__":
    main()
