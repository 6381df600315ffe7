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

The paper drops what is under 0.5 s, and files under 20 KB (of IEMOCAP and
MELD) or 50 KB (of the others), without saying of which encoding. The
translator's own is WAV 24 kHz float32, in which they are 0.21 and 0.52 s; in
16 kHz 16 bit they would be 0.62 and 1.56 s. Sizes are computed from the
duration in one encoding, a setting, whatever the files have.

Usage: python m5ser_prepare.py --data_folder M5SER --save_folder manifests
"""

import hashlib
from functools import partial
from pathlib import Path, PurePosixPath

from speechbrain_mser.dataio.command_line import argument_parser
from speechbrain_mser.dataio.manifest import read_manifest
from speechbrain_mser.dataio.preparation import Corpus, prepare_corpus
from speechbrain_mser.errors import InputError, exits_on_input_error

LANGUAGES = ("fra", "deu", "ita", "cmn", "spa")

M5SER = Corpus(
    name="m5ser",
    # Every row has its own
    language="mul",
    script=__file__,
    layout="|".join(f"{language}/*/*" for language in LANGUAGES),
    companions=("*.csv", "*.json", "*.jsonl", "*.txt", "*.md"),
    official_splits=True,
)

MIN_SECONDS = 0.5
MIN_KILOBYTES = 50.0
MIN_KILOBYTES_OF = ("iemocap=20", "meld=20")
# The translator's command line writes float32
REFERENCE_RATE = 24000
REFERENCE_BYTES = 4
KILOBYTE = 1000

# Taken over from the source
FROM_SOURCE = ("label", "emotion", "gender", "split")


def prepare_m5ser(
    data_folder,
    save_folder,
    source_folder=None,
    min_seconds=MIN_SECONDS,
    min_kilobytes=MIN_KILOBYTES,
    min_kilobytes_of=MIN_KILOBYTES_OF,
    reference_rate=REFERENCE_RATE,
    reference_bytes=REFERENCE_BYTES,
    kilobyte=KILOBYTE,
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
    min_seconds : float
        Shorter ones are dropped.
    min_kilobytes : float
        Smaller ones are dropped; 0: none for its size.
    min_kilobytes_of : list of str
        The same for single corpora: ``meld=20``.
    reference_rate, reference_bytes : int
        The encoding in which sizes are meant: samples per second and bytes
        per sample (4: float32, 2: 16 bit), mono, without the header.
    kilobyte : int
        1000 or 1024 bytes.
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

    Example
    -------
    >>> prepare_m5ser("M5SER", "manifests")  # doctest: +SKIP
    PosixPath('manifests/m5ser.csv')
    """
    folder = Path(data_folder).expanduser()
    sizes = dict(map(_size, min_kilobytes_of))
    settings = {
        "min_seconds": min_seconds,
        "min_kilobytes": min_kilobytes,
        "reference_rate": reference_rate,
        "reference_bytes": reference_bytes,
        "kilobyte": kilobyte,
    }
    for name, value in settings.items():
        _check_number(name, value, zero=name.startswith("min_"))
    sources = _find_sources(folder, Path(source_folder or save_folder))

    def refuse(row, seconds):
        """Why the paper's filters drop it, if they do."""
        size = seconds * reference_rate * reference_bytes / kilobyte
        least = sizes.get(row["wav"].split("/")[1], min_kilobytes)
        reasons = {}
        if seconds < min_seconds:
            reasons["too short"] = f"{seconds:.3f} s of {min_seconds:g} s"
        if size < least:
            reasons["too small"] = f"{size:.1f} KB of {least:g} KB"
        if not reasons:
            return ""
        return f"{' and '.join(reasons)}: {', '.join(reasons.values())}"

    return prepare_corpus(
        M5SER,
        partial(_collect, sources=sources),
        folder,
        save_folder,
        decode=decode,
        refuse=refuse,
        min_kilobytes_of=sizes,
        sources={
            corpus: hashlib.sha256(path.read_bytes()).hexdigest()
            for corpus, path in sources.items()
        },
        **settings,
    )


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
    _check_number(f"min_kilobytes_of {corpus}", value, zero=True)
    return corpus, value


def _check_number(name, value, zero):
    # Written so that NaN fails too
    if not (value > 0 or (zero and value == 0)) or value == float("inf"):
        raise InputError(
            f"{name} is {value:g}; it must be {'0 or ' * zero}above 0"
        )


def _find_sources(folder, source_folder):
    """Corpus to its manifest, for every corpus that has a folder here."""
    corpora = {
        path.name
        for language in LANGUAGES
        for path in folder.glob(f"{language}/[!.]*")
        if path.is_dir()
    }
    sources = {}
    for corpus in sorted(corpora):
        path = source_folder.expanduser() / f"{corpus}.csv"
        if not path.is_file():
            raise InputError(
                f"{path}: the manifest of {corpus}, by which its translations "
                f"get their labels and splits, is not there; prepare {corpus} "
                "first, or say where its manifest is (--source_folder)"
            )
        sources[corpus] = path
    return sources


def _collect(_, paths, sources):
    """Rows joined to their sources."""
    tables = {
        corpus: read_manifest(path).set_index("ID").to_dict("index")
        for corpus, path in sources.items()
    }
    rows, dropped = [], []
    for path in paths:
        # Example: fra/meld/meld_train_dia0_utt0.wav
        parts = PurePosixPath(path).with_suffix("").parts
        language, corpus, item = parts[0], parts[1:2], "/".join(parts[2:])
        if not item:
            dropped.append((path, "misplaced: not like fra/iemocap/ID.wav"))
            continue
        if language not in LANGUAGES:
            dropped.append((path, f"language: {language} is none of M5SER's"))
            continue
        (corpus,) = corpus
        table = tables[corpus]
        item = item if item in table else f"{corpus}_{item}"
        if item not in table:
            dropped.append((path, f"no source: not in {corpus}.csv"))
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
            }
        )
    return rows, dropped


@exits_on_input_error
def main():
    """Read the command line and prepare."""
    parser = argument_parser(M5SER, __doc__)
    add = parser.add_argument
    add(
        "--source_folder",
        metavar="FOLDER",
        help="where the sources' manifests are; default: the save folder",
    )
    add(
        "--min_seconds",
        type=float,
        default=MIN_SECONDS,
        help=f"default: {MIN_SECONDS:g}",
    )
    add(
        "--min_kilobytes",
        type=float,
        default=MIN_KILOBYTES,
        help=f"default: {MIN_KILOBYTES:g}; 0: none",
    )
    add(
        "--min_kilobytes_of",
        nargs="*",
        metavar="CORPUS=KB",
        default=MIN_KILOBYTES_OF,
        help=f"default: {' '.join(MIN_KILOBYTES_OF)}",
    )
    add(
        "--reference_rate",
        type=int,
        default=REFERENCE_RATE,
        help="samples per second of the encoding that sizes are meant in; "
        f"default: {REFERENCE_RATE}",
    )
    add(
        "--reference_bytes",
        type=int,
        default=REFERENCE_BYTES,
        help=f"bytes per sample; default: {REFERENCE_BYTES} (float32)",
    )
    add(
        "--kilobyte",
        type=int,
        default=KILOBYTE,
        help=f"bytes; default: {KILOBYTE}",
    )
    prepare_m5ser(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
