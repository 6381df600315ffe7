"""How benchmarks time and what they write: one face for all of them."""

import json
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers

from speechbrain_mser.files.atomic import write_text

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "benchmarks"


@dataclass(frozen=True)
class Row:
    """One question's answer.

    Arguments
    ---------
    question : str
        What was done.
    against : str
        The peer's way, which did the same work in the same run.
    ratio : float
        The measured ratio.
    target : float
        What it should be.
    at_least : bool
        Whether the ratio should reach the target (a speed-up) or stay below
        it (a cost).
    detail : str
        Both sides in absolute terms.
    unit : str
        Of ratio and target, where a limit stands in place of a peer.

    Example
    -------
    >>> Row("sum", "loop", 3.0, 2.0, True, "1 ms, 3 ms").met
    True
    """

    question: str
    against: str
    ratio: float
    target: float
    at_least: bool
    detail: str
    unit: str = "×"

    @property
    def met(self):
        """Whether the target is reached."""
        if self.at_least:
            return self.ratio >= self.target
        return self.ratio <= self.target


def in_turns(ways, repeats, warm_up=1):
    """Time ways of doing the same work, one after the other, again and again.

    Taking turns spreads what the machine does besides over all of them.

    Arguments
    ---------
    ways : dict
        Name to a function without arguments.
    repeats : int
        Timed rounds.
    warm_up : int
        Rounds before them.

    Returns
    -------
    dict
        Name to the seconds of each round.
    """
    times = {name: [] for name in ways}
    for number in range(warm_up + repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if number >= warm_up:
                times[name].append(time.perf_counter() - start)
    return times


def median_ratio(theirs, ours):
    """Median over rounds of one way's time over another's."""
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def report(name, rows, settings):
    """Print a benchmark's table and write its JSON.

    Arguments
    ---------
    name : str
        The script's.
    rows : list of Row
        The answers.
    settings : dict
        What it was run with.
    """
    print(table(rows))
    results = {
        "benchmark": name,
        "settings": settings,
        "environment": environment(),
        "rows": [{**asdict(row), "met": row.met} for row in rows],
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_text(RESULTS / f"{name}.json", json.dumps(results, indent=2) + "\n")


def table(rows):
    """Rows as a Markdown table."""
    lines = [
        "| question | against | target | measured | | detail |",
        "|---|---|---:|---:|---|---|",
    ]
    for row in rows:
        sign = "≥" if row.at_least else "≤"
        lines.append(
            f"| {row.question} | {row.against} | {sign} {row.target:g}{row.unit} | "
            f"{row.ratio:.3g}{row.unit} | {'met' if row.met else '**not met**'} | "
            f"{row.detail} |"
        )
    return "\n".join(lines)


def environment():
    """Versions and machine, for whoever reads the numbers later."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "processor": _processor(),
    }


def _processor():
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        return platform.processor()
    for line in cpuinfo.read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
