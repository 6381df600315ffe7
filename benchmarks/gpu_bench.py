"""Where the GPU benchmark keeps its models, its clock and its findings."""

import gc
import json
import statistics
import subprocess
import time
from dataclasses import asdict
from datetime import datetime, timezone
from functools import cached_property, partial

import torch
import torch.nn.functional as F
from random_models import SHAPES, random_llama, random_whisper
from report import Row, environment, in_turns, median_ratio, table

from speechbrain_mser.files.atomic import write_text
from speechbrain_mser.lobes import build_connector

WARM_UP = 3
# In a row, so that waiting for the device is a small part of the time.
PRODUCTS = 10


class Bench:
    """The models, made when they are first needed, and what was found.

    Arguments
    ---------
    settings : argparse.Namespace
        The script's arguments.
    scratch : pathlib.Path
        For small files.
    """

    def __init__(self, settings, scratch):
        self.settings = settings
        self.device = settings.device
        self.shape = SHAPES[settings.shapes]
        self.scratch = scratch
        self.began = time.monotonic()
        self.rows, self.tables, self.failed, self.left_out = [], {}, {}, []
        self.environment = {**environment(), **gpu_environment(self.device)}

    # Models

    @cached_property
    def whisper(self):
        """Our encoder."""
        return random_whisper(self.shape, self.device, self.scratch)

    @cached_property
    def llama(self):
        """Our LLM."""
        return random_llama(self.shape, self.device, self.scratch)

    def connector(self):
        """A new Q-Former, as model.yaml builds it."""
        with torch.device(self.device):
            return build_connector(
                "qformer",
                input_dim=self.whisper.hidden_size,
                output_dim=self.llama.hidden_size,
                output_rms=self.llama.embedding_rms,
                **self.shape.connector,
            )

    def audio_tokens(self, batch):
        """What a connector might give to the LLM."""
        return torch.randn(
            batch,
            self.shape.connector["n_queries"],
            self.llama.hidden_size,
            device=self.device,
        )

    # Time and memory

    @property
    def left(self):
        """Seconds of the time that there is."""
        return 60 * self.settings.minutes - (time.monotonic() - self.began)

    @property
    def on_gpu(self):
        """Whether the device is a GPU: the CPU is for trying the script."""
        return self.device != "cpu"

    def finish(self):
        """Wait for the device."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def times(self, ways):
        """Seconds of each round, ways taking turns and waited for.

        Arguments
        ---------
        ways : dict
            Name to a function without arguments.

        Returns
        -------
        dict
            Name to a list of float.
        """

        def waited_for(way):
            way()
            self.finish()

        return in_turns(
            {name: partial(waited_for, way) for name, way in ways.items()},
            self.settings.repeats,
            WARM_UP,
        )

    def seconds(self, way):
        """Median seconds of one way."""
        return statistics.median(self.times({"way": way})["way"])

    def collect(self):
        """Free what nobody holds, and begin to note the peak anew."""
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak(self):
        """Bytes that were allocated at most; None where nobody counts."""
        return torch.cuda.max_memory_allocated() if self.on_gpu else None

    # The machine's own rate

    @cached_property
    def rate(self):
        """FLOP/s of a large bfloat16 product, what utilisation is against."""
        side = self.shape.matrix
        return self.product_rate(side, [(side, side)])

    @torch.no_grad()
    def product_rate(self, rows, shapes):
        """FLOP/s of linear layers of these shapes, one after the other.

        Of random numbers: a GPU needs less power for zeros, and clocks higher.
        """

        def matrix(*size):
            return torch.randn(size, device=self.device, dtype=torch.bfloat16)

        pairs = [(matrix(rows, n), matrix(m, n)) for n, m in shapes]

        def multiply():
            for _ in range(PRODUCTS):
                for x, weight in pairs:
                    F.linear(x, weight)

        flops = PRODUCTS * 2 * rows * sum(n * m for n, m in shapes)
        return flops / self.seconds(multiply)

    def utilisation(self, flops, seconds):
        """Part of the machine's rate."""
        return flops / seconds / self.rate

    # What was found

    def say(self, text):
        """Print at once, with the time."""
        elapsed = time.monotonic() - self.began
        print(f"[{elapsed:5.0f} s] {text}", flush=True)

    def add(self, name, **cells):
        """A row of a plain table."""
        cells = {k: _rounded(v) for k, v in cells.items()}
        self.tables.setdefault(name, []).append(cells)
        self.say(f"{name}: {', '.join(f'{k} {v}' for k, v in cells.items())}")

    def answer(self, *args):
        """A row with a target; as for `report.Row`."""
        self.rows.append(Row(*args))
        self.say(self.rows[-1].question + ": " + self.rows[-1].detail)

    def compare(self, question, against, times, order, target, at_least):
        """A row of two ways' times, the first by the second.

        Arguments
        ---------
        question, against, target, at_least
            As for `report.Row`.
        times : dict
            As `times` returns.
        order : tuple of str
            The two ways' names.
        """
        self.answer(
            question,
            against,
            median_ratio(*(times[name] for name in order)),
            target,
            at_least,
            ", ".join(
                f"{name} {1e3 * statistics.median(times[name]):.3g} ms"
                for name in order
            ),
        )

    def attempt(self, name, work, seconds=0):
        """Do a part of the work, or note why it could not be done.

        Arguments
        ---------
        name : str
            What it is.
        work : callable
            Without arguments.
        seconds : float
            About what it takes; where less is left, it is left out.
        """
        if self.left <= seconds:
            self.left_out.append(name)
            self.say(f"{name}: left out, {max(self.left, 0):.0f} s are left")
            return
        self.say(name)
        try:
            work()
            self.finish()
        # Whatever it is: the machine may be lent for this one run.
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            self.failed[name] = f"{type(error).__name__}: {lines[0]}"
            self.say(f"{name}: failed, {self.failed[name]}")
        self.collect()
        self.write()

    def write(self):
        """The JSON, of all that is known by now."""
        found = {
            "benchmark": "gpu",
            "settings": {
                **vars(self.settings),
                "output": str(self.settings.output),
            },
            "environment": self.environment,
            "rows": [{**asdict(row), "met": row.met} for row in self.rows],
            "tables": self.tables,
            "failed": self.failed,
            "left_out": self.left_out,
        }
        self.settings.output.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.settings.output, json.dumps(found, indent=2) + "\n")

    def print(self):
        """All tables, for a reader."""
        print()
        if self.rows:
            print(table(self.rows))
        for name, cells in self.tables.items():
            print(f"\n{name}\n\n{plain_table(cells)}")
        for name, reason in self.failed.items():
            print(f"\nfailed: {name} ({reason})")
        if self.left_out:
            print(f"\nleft out for want of time: {', '.join(self.left_out)}")


def gpu_environment(device):
    """What GPU it was, and when."""
    found = {"date": datetime.now(timezone.utc).date().isoformat()}
    if device == "cpu":
        return found
    properties = torch.cuda.get_device_properties(0)
    return {
        **found,
        "gpu": properties.name,
        "gpu_memory": properties.total_memory,
        "driver": _driver(),
        "cuda": torch.version.cuda,
    }


def _driver():
    asked = [
        "nvidia-smi",
        "--query-gpu=driver_version",
        "--format=csv,noheader",
    ]
    try:
        found = subprocess.run(
            asked, capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.strip().partition("\n")[0] or "unknown"


def plain_table(rows):
    """Dicts as a Markdown table."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names)]
    lines += [[str(row.get(name, "")) for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rounded(value):
    return float(f"{value:.4g}") if isinstance(value, float) else value
