"""Functions run in forked processes, as another user if need be."""

import multiprocessing
import os

FORK = multiprocessing.get_context("fork")
NOBODY = 65534


def start(function):
    """Run a function in a forked process; give it and what it answers with."""
    receive, send = FORK.Pipe(duplex=False)
    process = FORK.Process(target=lambda: send.send(function()))
    process.start()
    send.close()
    return process, receive


def in_processes(*functions):
    """What functions return that run at once, each in its own process."""
    started = [start(function) for function in functions]
    try:
        found = [answer.recv() for _, answer in started]
    finally:
        for process, _ in started:
            process.join(60)
    assert [process.exitcode for process, _ in started] == [0] * len(started)
    return found


def as_nobody():
    """Root may write anywhere: be somebody else, in a forked process."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
