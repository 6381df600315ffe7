"""How far a synthesis is, and how long the rest will take."""

from collections import Counter

from speechbrain_mser.errors import InputError

# Seconds of work, up to the shard that was finished last, by which the rate
# is measured: what ran before may have been another machine.
RATE_WINDOW = 3600.0
# Of FLAC with 16 bits at 24 kHz, for one second of speech: the most of four
# corpora of real speech, which took 11 to 25 thousand.
BYTES_PER_SECOND = 25_000
_KINDS = ("planned", "made", "failed", "too_long")


def measure(shards, receipts):
    """What is done and what is left.

    Arguments
    ---------
    shards : pandas.DataFrame
        As `Plan.shards`.
    receipts : dict
        Of those that are finished, as `receipts.read_receipts` returns.

    Returns
    -------
    dict
        ``shards`` and ``shards_finished``; ``utterances`` and of them what
        `sum_receipts` returns; ``source_seconds`` and of them
        ``source_seconds_finished``; ``rate`` in seconds of source per second over all workers and
        ``seconds_left``, both None before the first shard.
    """
    total = float(shards.seconds.sum())
    done = sum(r["source_seconds"] for r in receipts.values())
    rate = _rate(receipts.values())
    return {
        "shards": len(shards),
        "shards_finished": len(receipts),
        "utterances": int(shards.utterances.sum()),
        **sum_receipts(receipts.values()),
        "source_seconds": total,
        "source_seconds_finished": done,
        "rate": rate,
        "seconds_left": max(0.0, total - done) / rate if rate else None,
    }


def sum_receipts(receipts):
    """What became of the utterances of some shards.

    Arguments
    ---------
    receipts : iterable of dict
        Of finished shards.

    Returns
    -------
    dict
        ``planned``, ``made``, ``failed``, ``too_long``, ``seconds`` and
        ``bytes``; and ``errors``, kind to how many, the most frequent first.
    """
    receipts = list(receipts)
    errors = sum((Counter(r["errors"]) for r in receipts), Counter())
    summed = (*_KINDS, "seconds", "bytes")
    return {
        **{name: sum(r[name] for r in receipts) for name in summed},
        "errors": dict(errors.most_common()),
    }


def _rate(receipts):
    """Seconds of source per second, in the last hour of work."""
    if not receipts:
        return None
    newest = max(r["finished_at"] for r in receipts)
    last = [r for r in receipts if r["finished_at"] > newest - RATE_WINDOW]
    oldest = min(r["finished_at"] - r["wall_seconds"] for r in last)
    if newest <= oldest:
        return None
    return sum(r["source_seconds"] for r in last) / (newest - oldest)


def status_report(shards, receipts):
    """Progress by language, rate, time left and failures, as text.

    Arguments
    ---------
    shards, receipts
        As for `measure`.

    Returns
    -------
    str
    """
    lines = [("", "shards", "utterances", "made", "failed", "too long")]
    for name, part in _by_language(shards):
        own = {n: receipts[n] for n in part.name if n in receipts}
        numbers = measure(part, own)
        lines.append(
            (
                name,
                f"{numbers['shards_finished']}/{numbers['shards']}",
                f"{numbers['planned']}/{numbers['utterances']}",
                *(numbers[kind] for kind in _KINDS[1:]),
            )
        )
    # The last was the total
    total, done = numbers["source_seconds"], numbers["source_seconds_finished"]
    share = done / total if total else 1.0
    text = [
        _columns(lines),
        "",
        f"source speech: {done / 3600:.2f} of "
        f"{total / 3600:.2f} h ({share:.1%}), made: "
        f"{numbers['seconds'] / 3600:.2f} h, "
        f"{size_in_words(numbers['bytes'])}",
    ]
    if numbers["rate"]:
        left = duration_in_words(numbers["seconds_left"])
        if numbers["shards_finished"] == numbers["shards"]:
            left = "nothing"
        text.append(
            f"rate: {numbers['rate']:.3g} times real time; left: {left}"
        )
    errors = [f"{kind} {n}" for kind, n in numbers["errors"].items()]
    text.append(f"failures: {', '.join(errors) or 'none'}")
    return "\n".join(text)


def _by_language(shards):
    """Every language's shards, and all; for a table's lines."""
    return [*shards.groupby("language", sort=True), ("total", shards)]


def plan_report(shards, receipts, n_workers, speed=None):
    """Hours, shards, bytes and time that are to be expected, as text.

    Arguments
    ---------
    shards, receipts
        As for `measure`.
    n_workers : int
        How many will work, on all machines together.
    speed : float, optional
        Seconds of source speech that one of them translates in a second; by
        default what finished shards tell, else the time is not known.

    Returns
    -------
    str

    Raises
    ------
    InputError
        The speed is none.
    """
    if speed is not None and not 0 < speed < float("inf"):
        raise InputError(f"speed is {speed}; it must be above 0, or null")
    lines = [("", "utterances", "hours", "shards")]
    for name, part in _by_language(shards):
        hours = f"{part.seconds.sum() / 3600:.2f}"
        lines.append((name, int(part.utterances.sum()), hours, len(part)))
    numbers = measure(shards, receipts)
    bytes_each, why = BYTES_PER_SECOND, "FLAC, 24 kHz; translations as long"
    if numbers["made"]:
        bytes_each = numbers["bytes"] / numbers["source_seconds_finished"]
        why = "as the shards that are finished"
    text = [
        _columns(lines),
        "",
        f"disk: {size_in_words(numbers['source_seconds'] * bytes_each)} ({why})",
    ]
    left = numbers["source_seconds"] - numbers["source_seconds_finished"]
    seconds, why = numbers["seconds_left"], "at the rate measured so far"
    if speed is not None:
        seconds = left / speed / n_workers
        why = f"{n_workers} workers at {speed:g} times real time each"
    text.append(
        "time: not known before a shard is finished, or speed is given"
        if seconds is None
        else f"time: {duration_in_words(seconds)} ({why})"
    )
    if receipts:
        text.append(f"finished: {len(receipts)} of {len(shards)} shards")
    return "\n".join(text)


def size_in_words(size):
    """Bytes, readable.

    Example
    -------
    >>> size_in_words(1234567), size_in_words(9.3e10)
    ('1.2 MB', '93.0 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def duration_in_words(seconds):
    """Seconds, readable.

    Example
    -------
    >>> [duration_in_words(s) for s in (59, 3599, 90000)]
    ['59 s', '60 min', '1 d 1 h']
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h" if hours >= 24 else f"{hours} h"


def _columns(lines):
    """Lines of cells, the first one left and the others right."""
    widths = [
        max(len(str(cell)) for cell in cells)
        for cells in zip(*lines, strict=True)
    ]
    return "\n".join(
        "  ".join(
            f"{cell!s:{'<' if k == 0 else '>'}{widths[k]}}"
            for k, cell in enumerate(line)
        ).rstrip()
        for line in lines
    )
