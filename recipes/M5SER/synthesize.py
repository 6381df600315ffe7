#!/usr/bin/env python3
"""Make M5SER: translate corpora, keep the emotion.

    python synthesize.py hparams/synthesize.yaml --data_root /corpora \
        --output_folder /big/m5ser --dry_run True
    python synthesize.py hparams/synthesize.yaml --data_root /corpora \
        --output_folder /big/m5ser
    python synthesize.py hparams/synthesize.yaml --data_root /corpora \
        --output_folder /big/m5ser --status True

Interrupted or killed, it goes on where it was. One of a job array's:
--shard_index 3/16; the others may run at the same time, on any machine. When
nothing is left to make, the manifest of the translations and their card are
written (m5ser_card.py).
"""

import sys
from contextlib import closing
from functools import partial
from pathlib import Path

from corpora import prepare_manifests
from m5ser_prepare import prepare_m5ser
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from speechbrain_mser.dataio.utterances import select_utterances
from speechbrain_mser.emotions import candidate_labels
from speechbrain_mser.errors import InputError, exits_on_input_error
from speechbrain_mser.job_array import take_part
from speechbrain_mser.settings.flags import read_command_line
from speechbrain_mser.settings.hparams import (
    load_hparams,
    read_settings,
)
from speechbrain_mser.synthesis.executors.local import run_local
from speechbrain_mser.synthesis.folder import SynthesisFolder
from speechbrain_mser.synthesis.plan import (
    Plan,
    read_sources,
    target_languages,
)
from speechbrain_mser.synthesis.progress import plan_report, status_report
from speechbrain_mser.synthesis.shard import ShardWork, check_languages
from speechbrain_mser.synthesis.shard_check import damaged_shards

logger = get_logger(__name__)

HERE = Path(__file__).resolve().parent
# Shards that fail one after the other: the rest would as well.
IN_A_ROW = 5
NUMBERS = {
    "shard_minutes": (int, float),
    "batch_size": int,
    "batch_seconds": (int, float),
    "n_workers": int,
    "max_attempts": int,
    "ray_patience": (int, float),
    "request_timeout": (int, float),
}
# An answer in other words, such as no, would pass for a yes.
SWITCHES = ("skip_prep", "retry_failed", "check_audio", "dry_run", "status")


def make_plan(manifests, settings):
    """Plan what the settings ask for."""
    labels = settings["labels"]
    table = select_utterances(
        read_sources(manifests),
        languages=settings["source_languages"],
        labels=None if labels is None else candidate_labels(labels),
    )
    return Plan(table, settings["languages"], settings["shard_minutes"])


def part_of(shards, settings):
    """Those that this run makes; refuses what is no part."""
    return take_part(shards, settings["shard_index"], "shard_index")


def find_backend(hparams_file, overrides, settings):
    """What makes the translator that is asked for."""
    name = settings["backend"]
    if name not in settings["backends"]:
        raise InputError(
            f"backend is {name!r}, expected one of "
            f"{', '.join(settings['backends'])}"
        )
    if settings["worker_folder"] is None:
        overrides = {**overrides, "worker_folder": str(HERE)}
    return load_hparams(hparams_file, overrides)["backends"][name]


def find_executor(settings):
    """What runs the shards, wherever."""
    options = {
        "n_workers": settings["n_workers"],
        "max_attempts": settings["max_attempts"],
    }
    if settings["executor"] == "local":
        gpus = settings["gpus"]
        gpus = gpus if isinstance(gpus, list) else [gpus]
        return partial(run_local, **options, gpus=gpus)
    if settings["executor"] == "ray":
        # An extra: not everybody has it
        from speechbrain_mser.synthesis.executors.ray_executor import (
            import_ray,
            run_ray,
        )

        import_ray()
        return partial(
            run_ray,
            **options,
            address=settings["ray_address"],
            num_cpus=settings["ray_cpus"],
            num_gpus=settings["ray_gpus"],
            patience=settings["ray_patience"],
        )
    raise InputError(
        f"executor is {settings['executor']!r}, expected local or ray"
    )


def check_kinds(settings):
    """Refuse words where numbers, or True and False, are meant."""
    for name in SWITCHES:
        if not isinstance(settings[name], bool):
            raise InputError(
                f"{name} is {settings[name]!r}, expected True or False"
            )
    # Without a speed, finished shards tell
    optional = {"speed": (int, float)} if settings["speed"] is not None else {}
    for name, kind in {**NUMBERS, **optional}.items():
        value = settings[name]
        if isinstance(value, bool) or not isinstance(value, kind) or value <= 0:
            raise InputError(
                f"{name} is {value!r}, expected a "
                f"{'whole ' * (kind is int)}number above 0"
            )


def run(execute, work, plan, shards, receipts):
    """Make shards, and collect their receipts.

    Arguments
    ---------
    execute : callable
        From the work and shards to their outcomes.
    work : ShardWork
        Makes one.
    plan : Plan
        Knows their tasks.
    shards : pandas.DataFrame
        The rows of ``plan.shards`` that are to be finished.
    receipts : dict
        Of those that are; gets the others'.

    Raises
    ------
    InputError
        Some could not be made.
    """
    left = shards[~shards.name.isin(list(receipts))]
    failed, in_a_row, utterances_failed = {}, 0, 0
    total, remaining = shards.utterances.sum(), left.utterances.sum()
    with (
        tqdm(
            total=total,
            initial=total - remaining,
            unit=" utterances",
            smoothing=0.1,
            disable=None,
        ) as bar,
        closing(execute(work, map(plan.shard, left.name))) as outcomes,
    ):
        for outcome in outcomes:
            if outcome.receipt:
                receipts[outcome.shard] = outcome.receipt
                bar.update(outcome.receipt["planned"])
                utterances_failed += outcome.receipt["failed"]
                bar.set_postfix(failed=utterances_failed, refresh=False)
                in_a_row = 0
                continue
            logger.warning("%s: %s", outcome.shard, outcome.error)
            failed[outcome.shard] = outcome.error
            in_a_row += 1
            if in_a_row == IN_A_ROW:
                break
    if failed:
        name, error = list(failed.items())[-1]
        raise InputError(
            f"{len(failed)} shards could not be made, the last was {name}: "
            f"{error.strip()}\nwhat is finished is kept; run this again when "
            "that is mended"
        )


def tell(plan, folder, settings):
    """Print what there is to do, or how far it is; write nothing."""
    shards = part_of(plan.shards, settings)
    receipts = folder.receipts(shards.name)
    if settings["dry_run"]:
        print(
            plan_report(
                shards, receipts, settings["n_workers"], settings["speed"]
            )
        )
    else:
        print(status_report(shards, receipts))


def make(plan, folder, settings, make_backend, execute):
    """Make the shards of this part.

    Returns
    -------
    bool
        Whether all parts are finished.
    """
    shards = part_of(plan.shards, settings)
    work = ShardWork(
        make_backend, folder, settings["batch_size"], settings["batch_seconds"]
    )
    with folder.hold_part(settings["shard_index"]):
        receipts = folder.receipts(shards.name)
        again = damaged_shards(folder, receipts, settings["check_audio"])
        for name, lost in again.items():
            logger.warning("%s is made again: %s", name, lost)
        if settings["retry_failed"]:
            again |= {name: "" for name, r in receipts.items() if r["failed"]}
        for name in again:
            folder.forget(name)
            del receipts[name]
        run(execute, work, plan, shards, receipts)
        print(status_report(shards, receipts))
        if receipts and not any(r["made"] for r in receipts.values()):
            raise InputError(
                f"none of the utterances could be translated; {folder.path}/shards "
                "says why, in the column error"
            )
        if len(folder.receipts(plan.shards.name)) < len(plan.shards):
            return False
        folder.clear_partial()
        return True


@exits_on_input_error(resumes=True)
def main():
    """Plan, and make what is not there."""
    hparams_file, _, overrides = read_command_line(sys.argv[1:])
    settings = read_settings(hparams_file, overrides)
    check_kinds(settings)
    only_tell = settings["dry_run"] or settings["status"]
    execute = find_executor(settings)
    # What can be wrong is known before an hour is spent on preparing.
    part_of([], settings)
    make_backend = find_backend(hparams_file, overrides, settings)
    backend = make_backend()
    check_languages(
        settings["backend"], backend, target_languages(settings["languages"])
    )
    manifests = prepare_manifests(
        settings["corpora"],
        settings["data_root"],
        settings["corpus_folders"],
        settings["manifest_folder"],
        # Preparing writes manifests
        settings["skip_prep"] or only_tell,
        settings["corpus_options"],
    )
    plan = make_plan(manifests, settings)
    folder = SynthesisFolder(
        settings["output_folder"],
        plan.description,
        {"backend": settings["backend"], **backend.settings()},
    )
    if only_tell:
        tell(plan, folder, settings)
    elif make(plan, folder, settings, make_backend, execute):
        # It draws: --status need not wait for what that imports
        from m5ser_card import write_card

        prepare_m5ser(folder.path, settings["manifest_folder"])
        write_card(folder.path, settings["manifest_folder"], manifests)
    else:
        print("other parts are not finished: no manifest, no card yet")


if __name__ == "__main__":
    main()
