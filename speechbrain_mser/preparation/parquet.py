"""Corpora that come as parquet files with the audio inside.

The hub's `datasets` library writes an audio column as a struct of the file's
bytes and its name. That is read here with pyarrow alone, a few rows at a
time: a shard holds hundreds of megabytes.
"""

from speechbrain_mser.errors import InputError

_ROWS = 16


def check_parquet(path, columns, audio):
    """Refuse a file that `read_parquet` could not read, from its schema.

    Arguments
    ---------
    path : str or path-like
        The file.
    columns : iterable of str
        Those that must be there and hold text.
    audio : str
        The column of audio, a struct with ``bytes``.

    Raises
    ------
    InputError
        pyarrow is missing, it is no parquet file, a column is missing or of
        another type.
    """
    pyarrow, file, names = _open(path)
    with file:
        schema = file.schema_arrow
    missing = [name for name in (*columns, audio) if name not in names]
    if missing:
        raise InputError(
            f"{path}: column {', '.join(missing)} is missing; found "
            f"{', '.join(names) or 'none'}; is this the current "
            "revision of the data set?"
        )
    for name in columns:
        kind = schema.field(name).type
        if kind not in (pyarrow.string(), pyarrow.large_string()):
            raise InputError(
                f"{path}: the column {name} holds {kind}, not text"
            )
    kind = schema.field(audio).type
    if not (
        pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    ):
        raise InputError(
            f"{path}: the column {audio} holds {str(kind)[:80]}, not files "
            "(a struct of bytes and path): an early revision of the data set; "
            "download the current one"
        )


def read_parquet(path, columns, audio):
    """Read the rows of a parquet file one by one.

    Arguments
    ---------
    path : str or path-like
        The file.
    columns : iterable of str
        What to read beside the audio; those that are not there are left out.
    audio : str
        The column of audio.

    Yields
    ------
    dict
        Column to value; ``bytes`` holds the audio file, empty when there is
        none.

    Raises
    ------
    InputError
        As for `check_parquet`, or the file breaks off.

    Example
    -------
    >>> for row in read_parquet(  # doctest: +SKIP
    ...     "data/train-00000-of-00001.parquet", ["name", "emotion"], "speech"
    ... ):
    ...     print(row["name"], row["emotion"], len(row["bytes"]))
    32_happiness_enthusiasm_h_120 happiness 158764
    """
    pyarrow, file, names = _open(path)
    with file:
        present = [name for name in columns if name in names]
        batches = file.iter_batches(_ROWS, columns=[*present, f"{audio}.bytes"])
        try:
            for batch in batches:
                for row in batch.to_pylist():
                    held = (row.pop(audio) or {}).get("bytes")
                    yield {**row, "bytes": held or b""}
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise InputError(_unreadable(path, error)) from None


def _open(path):
    """pyarrow, the file, the names of its columns."""
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise InputError(
            "reading parquet files needs pyarrow: pip install pyarrow"
        ) from None
    try:
        file = ParquetFile(path)
        return pyarrow, file, file.schema_arrow.names
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(_unreadable(path, error)) from None


def _unreadable(path, error):
    # One line: Arrow explains at length
    reason = str(error).strip().partition("\n")[0][:200]
    return (
        f"{path}: cannot be read as parquet ({reason}); is it a whole "
        "download, and no pointer of git LFS?"
    )
