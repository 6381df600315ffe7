"""Recordings recognised one by one, here or by several processes.

Answers come in the recordings' order, each as soon as it and those before it
are there; no more wait than a few for each process.
"""

import os
import signal
import threading
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.command.loading import load_recognizer
from speechbrain_mser.command.results import why
from speechbrain_mser.errors import InputError

# Recordings that are given to a process before its first is answered.
AHEAD = 4
# Digits of probabilities and of seconds: beyond them is rounding.
_DIGITS, _MILLI = 6, 3


def recognize_one(recognizer, path, problem, labels, calibration):
    """A recording's answer, or why there is none.

    Arguments
    ---------
    recognizer : EmotionRecognizer
        Ready.
    path : str
        The recording.
    problem : str
        Why it cannot be read, where that is known already.
    labels : list of str
        The candidates.
    calibration : str
        As for `EmotionRecognizer.recognize_batch`.

    Returns
    -------
    dict
        "path", and "duration" (seconds), "emotion" and "probabilities", or
        "error".
    """
    if problem:
        return {"path": path, "error": problem}
    try:
        wav = recognizer.load_audio(path)
        (word,), log_probs = recognizer.recognize_batch(
            wav[None], labels=labels, calibration=calibration
        )
    # A file may lie where nobody may look
    except (InputError, OSError) as error:
        return {"path": path, "error": why(error, path)}
    probabilities = log_probs[0].double().exp().tolist()
    return {
        "path": path,
        "duration": round(len(wav) / SAMPLE_RATE, _MILLI),
        "emotion": word,
        "probabilities": {
            label: round(probability, _DIGITS)
            for label, probability in zip(labels, probabilities, strict=True)
        },
    }


def recognize_by(jobs, named, devices, recordings, labels, calibration):
    """The same by several processes, each with the recogniser.

    Arguments
    ---------
    jobs : int
        How many.
    named : dict
        As for `loading.load_recognizer`, without the device.
    devices : list
        One for each process, and again from the first; None is the best.
    recordings : iterable of (str, str)
        Path and problem.
    labels, calibration
        As for `recognize_one`.

    Yields
    ------
    dict
        As from `recognize_one`, in order.

    Raises
    ------
    InputError
        A process was killed.
    """
    context = get_context("spawn")
    begun = context.Value("i", 0)
    with ProcessPoolExecutor(
        jobs, context, _begin, (begun, jobs, named, devices)
    ) as pool:
        waiting = deque()
        try:
            for path, problem in recordings:
                asked = (path, problem, labels, calibration)
                waiting.append(pool.submit(_answer, *asked))
                while waiting and (
                    waiting[0].done() or len(waiting) >= AHEAD * jobs
                ):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise InputError(
                "a process has ended that recognised: killed, as a rule for "
                "want of memory. Give fewer --jobs; with --output, --resume "
                "goes on"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


# In a process of its own: its recogniser.
_own = []


def _begin(begun, jobs, named, devices):
    """Load the recogniser, on the device whose turn it is."""
    # From the terminal it comes to all; the parent ends them
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
    with begun.get_lock():
        number = begun.value
        begun.value += 1
    _own.append(load_recognizer(**named, device=devices[number % len(devices)]))


def _end_with_the_parent():
    parent_process().join()
    os._exit(1)


def _answer(*asked):
    return recognize_one(_own[0], *asked)
