"""What `ExternalBackend` and its worker say to each other: JSON lines.

One message per line, the worker's first. The whole protocol is in
docs/synthesis_protocol.md. This file needs the standard library alone, so
that a worker can use `serve` in a Python environment of its own.
"""

import json
import os
import sys

from speechbrain_mser.errors import InputError

VERSION = 1
# A line that is longer is no answer, but something that never ends.
MAX_LINE = 2**26


class CannotStart(Exception):
    """What `serve` tells the other side instead of being ready."""


class WorkerFault(Exception):
    """A worker that cannot be used any more: it died, hung or said nonsense."""


def encode(message):
    r"""A message as a line.

    Arguments
    ---------
    message : dict
        JSON-like.

    Returns
    -------
    bytes
        In ASCII: no encoding of either side can break it.

    Example
    -------
    >>> encode({"id": 1, "text": "Grüße"}).decode().strip()
    '{"id": 1, "text": "Gr\\u00fc\\u00dfe"}'
    """
    return json.dumps(message).encode("ascii") + b"\n"


def decode(line):
    """A line as a message.

    Arguments
    ---------
    line : bytes
        What came, without its end.

    Returns
    -------
    dict
        The message.

    Raises
    ------
    WorkerFault
        The line is not a JSON object.

    Example
    -------
    >>> decode(b'{"id": 1}')
    {'id': 1}
    >>> decode(b"Loading weights...")
    Traceback (most recent call last):
    ...
    WorkerFault: wrote to stdout what is no message: 'Loading weights...' ...
    """
    try:
        # A worker may escape halves of characters, which no file can hold.
        message = json.loads(line, object_hook=_writable)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        text = line[:80].decode("utf-8", "replace")
        raise WorkerFault(
            f"wrote to stdout what is no message: {text!r} (whatever it prints "
            "belongs on stderr)"
        )
    return message


def check_ready(message):
    """Read a worker's first message.

    Arguments
    ---------
    message : dict
        The handshake.

    Returns
    -------
    languages : tuple of str
        That it can translate into.
    max_seconds : float or None
        The longest utterance that it takes.
    versions : dict
        Of what it has loaded.

    Raises
    ------
    InputError
        It cannot start, or speaks another version of the protocol.
    WorkerFault
        It is no handshake.

    Example
    -------
    >>> check_ready({"ready": True, "protocol": 1, "languages": ["fra"]})
    (('fra',), None, {})
    """
    if isinstance(message.get("error"), str):
        raise InputError(message["error"])
    if message.get("ready") is not True:
        raise WorkerFault(f"did not say that it is ready but {_short(message)}")
    if message.get("protocol") != VERSION:
        raise InputError(
            f"the worker speaks version {message.get('protocol')} of the "
            f"protocol, version {VERSION} is expected "
            "(docs/synthesis_protocol.md)"
        )
    languages = message.get("languages")
    if not (languages and _is_list_of_str(languages)):
        raise WorkerFault(f"names no languages: {_short(message)}")
    longest = message.get("max_seconds")
    if longest is not None and not (
        isinstance(longest, (int, float)) and longest > 0
    ):
        raise WorkerFault(f"max_seconds is {longest!r}")
    versions = message.get("versions", {})
    if not isinstance(versions, dict):
        raise WorkerFault(f"versions are {versions!r}, no object")
    return tuple(languages), longest, versions


def check_answer(message, number, names):
    """Read the answer to a request.

    Arguments
    ---------
    message : dict
        The answer.
    number : int
        The request's.
    names : list of str
        The IDs of its utterances.

    Returns
    -------
    dict
        Result by ID; those that the worker left out are not in it.

    Raises
    ------
    WorkerFault
        It is the answer to another request or none at all.

    Example
    -------
    >>> answer = {"id": 7, "results": [{"id": "a", "error": "no speech"}]}
    >>> check_answer(answer, 7, ["a", "b"])
    {'a': {'id': 'a', 'error': 'no speech'}}
    >>> check_answer(answer, 8, ["a", "b"])
    Traceback (most recent call last):
    ...
    WorkerFault: answered request 7 when asked 8
    """
    if message.get("id") != number:
        raise WorkerFault(
            f"answered request {message.get('id')!r} when asked {number}"
        )
    results = message.get("results")
    if not isinstance(results, list):
        raise WorkerFault(f"gave no results but {_short(message)}")
    by_id = {}
    for result in results:
        name = result.get("id") if isinstance(result, dict) else None
        if not isinstance(name, str) or name not in names:
            raise WorkerFault(f"gave a result for {_short(result)}, not asked")
        if name in by_id:
            raise WorkerFault(f"gave two results for {name}")
        wanted = "error" if "error" in result else "audio"
        if not isinstance(result.get(wanted), str) or not isinstance(
            result.get("text", ""), str
        ):
            raise WorkerFault(f"gave neither audio nor error: {_short(result)}")
        by_id[name] = result
    return by_id


def serve(load):
    """Be a worker: answer requests on stdin until it ends.

    From the first line on whatever is printed goes to stderr, by libraries in
    C too; stdout is the protocol's alone. An exception in ``translate`` ends
    the worker, which is right: the other side starts it anew, in a clean
    state, and finds out which utterance was to blame.

    Arguments
    ---------
    load : callable
        Without arguments; gives ``(about, translate)``: what to say about
        itself (``languages``, and perhaps ``max_seconds`` and ``versions``),
        and a function of a request that gives its results. Raises
        `CannotStart` with a message to the user.

    Example
    -------
    >>> def load():
    ...     return {"languages": ["fra"]}, lambda request: []
    >>> serve(load)  # doctest: +SKIP
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr

    def say(message):
        answers.write(encode(message))
        answers.flush()

    try:
        about, translate = load()
    except CannotStart as reason:
        say({"error": str(reason)})
        sys.exit(2)
    say({"ready": True, "protocol": VERSION, **about})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        say({"id": request["id"], "results": list(translate(request))})


def _writable(message):
    return {
        name: value.encode("utf-8", "replace").decode()
        if isinstance(value, str)
        else value
        for name, value in message.items()
    }


def _is_list_of_str(value):
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def _short(value):
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
