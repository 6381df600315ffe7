"""Any program as a translator: it speaks the protocol, we look after it."""

import io
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import soundfile

from speechbrain_mser import SAMPLE_RATE
from speechbrain_mser.errors import InputError
from speechbrain_mser.synthesis.backend import Backend, Translation
from speechbrain_mser.synthesis.backends.protocol import (
    WorkerFault,
    check_answer,
    check_ready,
)
from speechbrain_mser.synthesis.backends.worker import WorkerProcess

# An answer that is larger, on the disk or decoded, is no utterance.
MAX_BYTES = 2**30
# Nor is a longer text one's transcript.
MAX_CHARACTERS = 10_000
SHOWN_CHARACTERS = 200
# A worker that does not come up is started again (another program's memory
# may be free by then), but not for ever.
STARTS = 3


class ExternalBackend(Backend):
    """A worker program in an environment of its own, asked over pipes.

    It loads its models once and answers batch after batch; its protocol is in
    docs/synthesis_protocol.md. When it dies, hangs or talks nonsense over a
    batch it is killed and started anew, the batch's utterances are asked one
    by one, and the one that costs the worker its life a second time is given
    up. It never outlives this process.

    Arguments
    ---------
    command : list of str
        The program and its arguments; there is no shell. ``python`` in the
        first place is the interpreter that this runs in.
    languages : list of str
        Those that may be asked of it; by default what it says it can, which
        is known only when it runs.
    max_seconds : float, optional
        Longest utterance that is sent to it; it may itself take less.
    audio_settings : dict, optional
        What decides how its audio sounds, for the record; by default the
        command's words. To be given where the words say too much (a path that
        differs between machines) or too little (a configuration file).
    environment : dict, optional
        Variables to set, beside those of this process; None removes one.
    working_folder : str, optional
        Where it runs; by default where this runs.
    log_folder : str, optional
        A folder for its stderr, one file per process of ours; by default only
        the end of it is kept, for error messages.
    start_timeout : float
        Seconds until it must be ready.
    request_timeout : float
        Seconds for a batch.
    max_restarts : int
        How many times in a row it may be lost over requests, none answered
        between; then the run stops.
    fresh_process_per_shard : bool
        Start it anew for each shard: for a program whose audio depends on
        what it did before.

    Example
    -------
    >>> backend = ExternalBackend(["python", "espeak_worker.py"], ["fra"])
    >>> backend.settings()["command"]
    ['python', 'espeak_worker.py']
    """

    def __init__(
        self,
        command,
        languages=(),
        max_seconds=None,
        audio_settings=None,
        environment=None,
        working_folder=None,
        log_folder=None,
        start_timeout=600.0,
        request_timeout=600.0,
        max_restarts=8,
        fresh_process_per_shard=False,
    ):
        if isinstance(command, str) or not command:
            raise InputError(
                f"command is {command!r}; expected a list: the program and its "
                "arguments, such as [python, worker.py]"
            )
        self.command = [str(word) for word in command]
        self.languages = tuple(languages)
        self.max_seconds = max_seconds
        self.audio_settings = audio_settings
        self.environment = dict(environment or {})
        self.working_folder = os.path.abspath(working_folder or ".")
        self.log_folder = log_folder
        self.start_timeout = start_timeout
        self.request_timeout = request_timeout
        self.max_restarts = max_restarts
        self.fresh_process_per_shard = fresh_process_per_shard
        self._worker = None
        self._versions = {}
        self._request = 0
        self._used = False
        self._lost = 0

    def settings(self):
        """What decides how its audio sounds.

        Returns
        -------
        dict
            ``audio_settings``, or the command.
        """
        audio = self.audio_settings or {"command": self.command}
        return {
            **audio,
            "fresh_process_per_shard": self.fresh_process_per_shard,
        }

    def open(self):
        """Start the worker.

        Returns
        -------
        dict
            The versions that it names.

        Raises
        ------
        InputError
            It cannot be started; with the end of what it wrote to stderr.
        """
        self._running()
        return dict(self._versions)

    def begin_shard(self, name):
        """Start the worker anew where it has been used and that is wanted."""
        if self.fresh_process_per_shard and self._used:
            self.close()

    def translate(self, utterances, language):
        """Have a batch translated; see `Backend.translate`."""
        self._check_language(language)
        by_place, reason = self._ask(utterances, language)
        translations = []
        for number, utterance in enumerate(utterances):
            if number not in by_place:
                alone, reason = self._ask([utterance], language)
                by_place[number] = alone.get(0, Translation(error=reason))
            translations.append(by_place[number])
        return translations

    def close(self):
        """Let the worker end."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _check_language(self, language):
        if self.languages and language not in self.languages:
            raise InputError(
                f"{language!r} is none of the languages that {self.command[0]} "
                f"translates into: {', '.join(self.languages)}"
            )

    def _running(self):
        """The worker, started if it is not there."""
        if self._worker is not None:
            return self._worker
        if not os.path.isdir(self.working_folder):
            raise InputError(
                f"working_folder: there is no folder {self.working_folder}"
            )
        command = self._command()
        for attempt in range(1, STARTS + 1):
            worker = WorkerProcess(
                command,
                self.working_folder,
                self._whole_environment(),
                self._log(),
            )
            try:
                message = worker.receive(self.start_timeout)
                self._agree(*check_ready(message))
            except WorkerFault as fault:
                tail = worker.tail()
                worker.kill()
                if attempt == STARTS:
                    raise InputError(
                        f"the worker {command[0]} did not start, {STARTS} "
                        f"times: it {fault}{_quoted(tail)}"
                    ) from None
            except BaseException:
                worker.kill()
                raise
            else:
                self._worker, self._used = worker, False
                return worker

    def _command(self):
        """The command with a program that is there."""
        program, *arguments = self.command
        if program == "python":
            return [sys.executable, *arguments]
        # Relative to where it will run, not to where we are.
        path = os.path.join(self.working_folder, program)
        if shutil.which(path if os.sep in program else program) is None:
            raise InputError(
                f"the worker's program {program} is not there or cannot be "
                f"run (from {self.working_folder})"
            )
        return [path if os.sep in program else program, *arguments]

    def _whole_environment(self):
        merged = {**os.environ, **self.environment}
        return {k: str(v) for k, v in merged.items() if v is not None}

    def _log(self):
        if self.log_folder is None:
            return None
        folder = Path(self.log_folder)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"worker-{os.uname().nodename}-{os.getpid()}.log"

    def _agree(self, languages, max_seconds, versions):
        """Take over what the worker says about itself."""
        lacking = sorted(set(self.languages) - set(languages))
        if lacking:
            raise InputError(
                f"the worker {self.command[0]} does not translate into "
                f"{', '.join(lacking)} (languages); it knows "
                f"{', '.join(languages)}"
            )
        self.languages = self.languages or languages
        limits = {self.max_seconds, max_seconds} - {None}
        self.max_seconds = min(limits, default=None)
        self._versions = versions

    def _ask(self, utterances, language):
        """What came back, by place in the batch, and why the rest did not."""
        worker = self._running()
        self._used = True
        self._request += 1
        folder = worker.folder / str(self._request)
        names = [utterance.id for utterance in utterances]
        try:
            request = self._write_request(folder, utterances, language)
            message = worker.ask(request, self.request_timeout)
            results = check_answer(message, self._request, names)
        except WorkerFault as fault:
            return {}, self._give_up(fault)
        except BaseException:
            # An answer may still be under way, to nobody.
            worker.kill()
            self._worker = None
            raise
        self._lost = 0
        by_place = {
            number: read_result(results[name], folder / "out")
            for number, name in enumerate(names)
            if name in results
        }
        shutil.rmtree(folder, ignore_errors=True)
        return by_place, "the worker gave no result for it"

    def _write_request(self, folder, utterances, language):
        """Write the sources; the request that names them."""
        try:
            if folder.parent.is_symlink():
                raise FileExistsError
            # What a worker has put there before is none of ours.
            folder.mkdir(parents=True)
            (folder / "out").mkdir()
        except FileExistsError:
            raise WorkerFault("put something in our folder's place") from None
        except OSError as error:
            raise _no_place(folder, error) from None
        asked = []
        for number, utterance in enumerate(utterances):
            # The ID is the corpus's, and no name for a file of ours.
            path = folder / f"{number}.wav"
            _write(path, utterance.samples)
            asked.append(
                {
                    "id": utterance.id,
                    "audio": str(path),
                    "text": utterance.text,
                    "emotion": utterance.emotion,
                    "speaker": utterance.speaker,
                }
            )
        return {
            "id": self._request,
            "language": language,
            "utterances": asked,
            "folder": str(folder / "out"),
        }

    def _give_up(self, fault):
        """Kill the worker; say why, in a line for the rows."""
        tail = self._worker.tail()
        self._worker.kill()
        self._worker = None
        self._lost += 1
        if self._lost > self.max_restarts:
            raise InputError(
                f"the worker {self.command[0]} was lost {self._lost} times in "
                "a row and answered nothing between (max_restarts is "
                f"{self.max_restarts}): it {fault}{_quoted(tail)}"
            ) from None
        last = tail.rpartition("\n")[2]
        return f"the worker {fault}" + (f": {last[:200]}" if last else "")


def read_result(result, folder):
    """Read what a worker made of an utterance.

    Arguments
    ---------
    result : dict
        Its result, with ``audio`` or ``error``.
    folder : pathlib.Path
        Where it was told to write; audio elsewhere is not touched.

    Returns
    -------
    Translation
        The audio, or why it cannot be used.

    Example
    -------
    >>> read_result({"id": "a", "audio": "/etc/passwd"}, Path("/tmp/7")).error
    'the worker gave a file outside its folder: /etc/passwd'
    """
    if "error" in result:
        reason = _shown(_in_a_line(result["error"]))
        return Translation(error=reason or "no reason given")
    text = result.get("text", "")
    try:
        if len(text) > MAX_CHARACTERS:
            raise _Unusable(
                f"gave a text of {len(text)} characters, at most "
                f"{MAX_CHARACTERS} are taken"
            )
        samples, rate = _read(_file_in(folder, result["audio"]))
    except _Unusable as reason:
        return Translation(error=f"the worker {reason}")
    except (soundfile.LibsndfileError, OSError) as error:
        return Translation(
            error=f"the worker's audio cannot be read: {_shown(error)}"
        )
    return Translation(samples, rate, _in_a_line(text))


class _Unusable(Exception):
    """What is wrong with a result."""


def _file_in(folder, name):
    """The path of a file that is in the folder."""
    # Links are followed first: a link in the folder may lead out of it, and so
    # may one in the place of the folder itself, or of one that holds it.
    if any(map(os.path.islink, (folder, *list(folder.parents)[:2]))):
        raise _Unusable(f"put a link in the place of its folder: {folder}")
    name = name.replace("\0", "")
    path = Path(os.path.realpath(os.path.join(folder, name)))
    if not path.is_relative_to(os.path.realpath(folder)):
        raise _Unusable(f"gave a file outside its folder: {_shown(path)}")
    # Reading a pipe would never end.
    if not os.path.isfile(path):
        raise _Unusable(f"wrote no file {_shown(path.name)}")
    return path


def _read(path):
    """Samples and rate; whether the samples are any is seen to later."""
    # Nor would what is only said to be large.
    size = os.path.getsize(path)
    if size > MAX_BYTES:
        raise _Unusable(f"gave audio of {size} bytes")
    with soundfile.SoundFile(path) as file:
        if file.channels != 1:
            raise _Unusable(
                f"gave audio of {file.channels} channels, mono is expected"
            )
        if file.frames * np.float32().nbytes > MAX_BYTES:
            raise _Unusable(f"gave audio that promises {file.frames} samples")
        return file.read(dtype="float32"), file.samplerate


def _shown(text):
    """The beginning of what a worker may have made long."""
    text = str(text)
    if len(text) <= SHOWN_CHARACTERS:
        return text
    return f"{text[:SHOWN_CHARACTERS]}... ({len(text)} characters)"


def _in_a_line(text):
    return " ".join(text.split())


def _write(path, samples):
    """Write a source; a full disk stops the run, all else would fail too."""
    wav = io.BytesIO()
    soundfile.write(wav, samples, SAMPLE_RATE, format="WAV", subtype="FLOAT")
    try:
        path.write_bytes(wav.getvalue())
    except OSError as error:
        raise _no_place(path, error) from None


def _no_place(path, error):
    return InputError(
        f"{path}: {error.strerror}; temporary files go where TMPDIR says"
    )


def _quoted(tail):
    return f"; its last words on stderr:\n{tail}" if tail else ""
