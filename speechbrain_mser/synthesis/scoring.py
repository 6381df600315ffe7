"""Scores of a folder of translations, shard by shard.

    scores/fra-00012.csv    the scores of a shard's translations
    scores/fra-00012.json   of which rows, by which scorers; written last
    scores.csv              all of them

What was scored before with the same scorers is not scored again, and a shard
that was made anew is. A killed run loses a shard at most.
"""

import json

from tqdm import tqdm

from speechbrain_mser.dataio.audio import AudioError
from speechbrain_mser.errors import InputError
from speechbrain_mser.files.atomic import atomic_path, write_text
from speechbrain_mser.files.csv_files import write_csv
from speechbrain_mser.files.tables import read_table
from speechbrain_mser.synthesis.folder import SynthesisFolder
from speechbrain_mser.synthesis.scorers import Pair

FOLDER = "scores"
TABLE = "scores.csv"
# Beside the scorers' own; `problem`: why there are none.
COLUMNS = ("ID", "language", "corpus", "audio", "problem")


def score_folder(folder, sources, scorers, batch_size=16):
    """Score all translations of finished shards.

    Arguments
    ---------
    folder : str or path-like
        What a synthesis wrote.
    sources : pandas.DataFrame
        The sources, as `read_manifests` returns, paths resolved.
    scorers : list of Scorer
        What to measure.
    batch_size : int
        Pairs that are measured together.

    Returns
    -------
    pathlib.Path
        The table.

    Raises
    ------
    InputError
        There is no finished shard, a source is in no manifest, or two
        scorers have a column in common.
    """
    translations = SynthesisFolder.of(folder)
    folder, receipts = translations.path, translations.receipts()
    if not receipts:
        raise InputError(f"{folder}: no shard is finished; nothing to score")
    columns = [name for scorer in scorers for name in scorer.columns]
    if len(set(columns)) < len(columns):
        raise InputError(f"scorers have columns in common: {columns}")
    by_id = sources.set_index("ID", drop=False).to_dict("index")
    settings = {type(scorer).__name__: scorer.settings() for scorer in scorers}
    header = [*COLUMNS, *columns]
    total = sum(receipt["made"] for receipt in receipts.values())
    with tqdm(total=total, unit="utt", desc="scores", disable=None) as bar:
        for name, receipt in receipts.items():
            record = {"rows": receipt["rows_sha256"], "scorers": settings}
            if not _is_scored(folder, name, record):
                rows = [r for r in translations.rows(name) if r["audio"]]
                scores = _score(folder, rows, by_id, scorers, batch_size)
                _write(folder / FOLDER / f"{name}.csv", header, scores)
                record_path = folder / FOLDER / f"{name}.json"
                write_text(record_path, json.dumps(record) + "\n")
            bar.update(receipt["made"])
    scored = (
        row
        for name in receipts
        for row in read_table(folder / FOLDER / f"{name}.csv", header)
    )
    _write(folder / TABLE, header, scored)
    return folder / TABLE


def _is_scored(folder, name, record):
    path = folder / FOLDER / f"{name}.json"
    try:
        recorded = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return recorded == record and path.with_suffix(".csv").is_file()


def _score(folder, rows, sources, scorers, batch_size):
    """Rows of the table."""
    lacking = [row["ID"] for row in rows if row["ID"] not in sources]
    if lacking:
        raise InputError(
            f"{lacking[0]} is in none of the sources' manifests given, nor "
            f"are {len(lacking) - 1} more of its shard; give those that "
            f"{folder} was made of"
        )
    # Of like length in a batch; the table keeps the rows' order
    order = sorted(range(len(rows)), key=lambda k: float(rows[k]["seconds"]))
    measured = {}
    for first in range(0, len(order), batch_size):
        numbers = order[first : first + batch_size]
        pairs = {
            k: Pair(
                folder / rows[k]["audio"],
                rows[k]["language"],
                rows[k]["text"],
                sources[rows[k]["ID"]],
            )
            for k in numbers
        }
        problems = {k: _problem(pair) for k, pair in pairs.items()}
        measured |= {k: {"problem": text} for k, text in problems.items()}
        readable = [k for k, problem in problems.items() if not problem]
        for scorer in scorers if readable else ():
            scores = scorer.score([pairs[k] for k in readable])
            for k, values in zip(readable, scores, strict=True):
                measured[k] |= values
    return [
        {name: rows[k][name] for name in COLUMNS[:-1]} | measured[k]
        for k in range(len(rows))
    ]


def _problem(pair):
    """Why a pair's audio cannot be read, if it cannot."""
    try:
        _ = pair.made, pair.spoken
    except AudioError as error:
        return str(error)
    return ""


def _write(path, header, rows):
    with (
        atomic_path(path) as partial,
        open(partial, "w", newline="", encoding="utf-8") as file,
    ):
        cells = ([row.get(name, "") for name in header] for row in rows)
        write_csv(file, header, (map(_rounded, row) for row in cells), "\n")


def _rounded(value):
    return round(value, 6) if isinstance(value, float) else value
