"""Which utterance becomes which language, and in which shard.

The plan is computed anew from the manifests whenever it is needed, and is the
same on every machine: neither the order of manifests and rows nor the place
of the corpora matters. Each language's shards are independent of which other
languages are made, so that one can be added later.
"""

import hashlib
import re

import numpy as np
import pandas

from speechbrain_mser.dataio.manifest import read_manifest, read_manifests
from speechbrain_mser.errors import InputError
from speechbrain_mser.synthesis.shard import Shard, Task

# To be raised when packing or the description change.
VERSION = 1
# What decides how a translation sounds, or what a translator may go by.
_DIGESTED = (
    "ID",
    "place",
    "start",
    "stop",
    "duration",
    "language",
    "speaker",
    "emotion",
    "text",
)
# A part of a path that is empty, hidden or ".."; what no file's name has
_UNSAFE = re.compile(r"(^|/)(\.|/|$)|[\\\x00-\x1f\x7f]")
# File systems end a name at 255 bytes; the extension and a bit of reserve
_LONGEST = 240
_SHOWN = 3


class Plan:
    """Utterances times languages, in shards of one language each.

    Arguments
    ---------
    table : pandas.DataFrame
        As `read_sources` returns.
    languages : str or list of str
        Targets, ISO 639-3. An utterance in a language that is among them is
        not translated into that one.
    shard_minutes : float
        Source speech in a shard, at least; it ends with the utterance that
        reaches it.

    Attributes
    ----------
    description : dict
        What the plan is made of, for `SynthesisFolder`.
    shards : pandas.DataFrame
        name, language, utterances, seconds (of the sources); language by
        language.

    Raises
    ------
    InputError
        An ID or a corpus that is no safe file name, a language that is none,
        or nothing to translate.
    """

    def __init__(self, table, languages, shard_minutes=15.0):
        if not 0 < shard_minutes < float("inf"):
            raise InputError(
                f"shard_minutes is {shard_minutes}; it must be above 0"
            )
        languages = target_languages(languages)
        _check_names("corpus", table.corpus.unique(), r"/")
        _check_names("ID", table.ID)
        table = table.sort_values(["corpus", "ID"], ignore_index=True)
        self.description = {
            "version": VERSION,
            "shard_minutes": float(shard_minutes),
            "corpora": {
                corpus: _describe(rows)
                for corpus, rows in table.groupby("corpus", sort=True)
            },
        }
        self._columns = [table[name].to_numpy(object) for name in Task._fields]
        self._rows, shards = {}, []
        for language in languages:
            kept = np.flatnonzero((table.language != language).to_numpy())
            if not len(kept):
                raise InputError(
                    f"all utterances are in {language} already: nothing to "
                    "translate into it"
                )
            seconds = table.duration.to_numpy()[kept]
            edges = _pack(seconds, 60.0 * shard_minutes)
            names = [f"{language}-{k:05d}" for k in range(len(edges))]
            self._rows.update(
                zip(names, np.split(kept, edges[1:]), strict=True)
            )
            shards.append(
                pandas.DataFrame(
                    {
                        "name": names,
                        "language": language,
                        "utterances": np.diff(edges, append=len(kept)),
                        "seconds": np.add.reduceat(seconds, edges),
                    }
                )
            )
        self.shards = pandas.concat(shards, ignore_index=True)

    def shard(self, name):
        """A shard with its tasks.

        Arguments
        ---------
        name : str
            One of `shards`.

        Returns
        -------
        Shard
        """
        rows = self._rows[name]
        columns = [column[rows].tolist() for column in self._columns]
        tasks = list(map(Task._make, zip(*columns, strict=True)))
        return Shard(name, name.rpartition("-")[0], tasks)


def read_sources(manifests):
    """Read what may be translated.

    Arguments
    ---------
    manifests : dict
        Manifest path to its data root.

    Returns
    -------
    pandas.DataFrame
        As `read_manifests` returns, and in ``place`` the path as the
        manifest has it, the same wherever the corpora lie.

    Raises
    ------
    InputError
        As `read_manifests`.
    """
    table = read_manifests(manifests)
    places = [read_manifest(path).wav for path in manifests]
    table["place"] = pandas.concat(places, ignore_index=True)
    return table


def target_languages(languages):
    """The languages that are asked for, sorted.

    Arguments
    ---------
    languages : str or list of str
        Codes of ISO 639-3.

    Returns
    -------
    list of str

    Raises
    ------
    InputError
        None, one twice, or what is no such code.

    Example
    -------
    >>> target_languages(["fra", "deu"])
    ['deu', 'fra']
    """
    languages = [languages] if isinstance(languages, str) else languages or []
    codes = [str(code) for code in languages]
    if (
        not codes
        or len(set(codes)) < len(codes)
        or not all(re.fullmatch("[a-z]{3}", code) for code in codes)
    ):
        raise InputError(
            f"languages are {', '.join(codes) or 'none'}; expected different "
            "codes of three letters (ISO 639-3), such as [fra, deu]"
        )
    return sorted(codes)


def _check_names(column, names, forbidden=None):
    """Refuse what would lead out of the output folder, or is no file name."""
    wrong = [
        name
        for name in names
        if _UNSAFE.search(name)
        or (len(name) > _LONGEST // 4 and _too_long(name))
        or (forbidden and re.search(forbidden, name))
    ]
    if wrong:
        shown = ", ".join(f"{name[:_LONGEST]!r}" for name in wrong[:_SHOWN])
        raise InputError(
            f"{len(wrong)} times, {column} cannot be the name of a file in "
            f"the output folder: {shown}; it must not be empty, hidden, "
            "absolute, too long, or lead elsewhere"
        )


def _too_long(name):
    return any(len(part.encode()) > _LONGEST for part in name.split("/"))


def _describe(rows):
    """What a corpus brings to the plan."""
    hashed = hashlib.sha256()
    for name in _DIGESTED:
        column = rows[name]
        if pandas.api.types.is_float_dtype(column):
            # All NaN are one, whatever their bits
            numbers = column.fillna(-1.0).to_numpy("<f8")
            hashed.update(numbers.tobytes())
        else:
            texts = column.tolist()
            # Where one ends cannot be seen from the joined texts
            hashed.update(np.fromiter(map(len, texts), "<u4").tobytes())
            hashed.update("".join(texts).encode(errors="surrogatepass"))
    return {
        "utterances": len(rows),
        "hours": round(float(rows.duration.sum()) / 3600, 4),
        "sha256": hashed.hexdigest(),
    }


def _pack(seconds, target):
    """Where each shard begins."""
    begins = np.cumsum(seconds) - seconds
    # An utterance belongs where it begins; a cell may hold no beginning
    return np.flatnonzero(np.diff(begins // target, prepend=-1.0))
