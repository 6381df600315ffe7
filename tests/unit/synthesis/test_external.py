"""External workers: whatever they do, the good utterances are translated."""

import json
import os
import pickle
import resource
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechbrain_mser.errors import InputError
from speechbrain_mser.synthesis.backend import SourceUtterance
from speechbrain_mser.synthesis.backends import external, worker
from speechbrain_mser.synthesis.backends.external import ExternalBackend

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
FAKE = HERE / "fake_worker.py"
EXAMPLE = ROOT / "recipes" / "M5SER" / "external_example.py"


def utterance(name, text="hello", samples=800):
    """Noise of its own, and a text that tells the worker what to do."""
    rng = np.random.default_rng(sum(name.encode()))
    noise = rng.normal(0, 0.1, samples).astype(np.float32)
    return SourceUtterance(name, noise, text, "happy", "someone")


class Fake(ExternalBackend):
    """The fake worker, with a count of its starts."""

    def __init__(self, folder, *how, **settings):
        self.record = folder / "starts.txt"
        super().__init__(
            ["python", FAKE, self.record, *how],
            **{"request_timeout": 300, "start_timeout": 300, **settings},
        )

    @property
    def starts(self):
        """The IDs of the processes that were started, and could note it."""
        if not self.record.exists():
            return []
        return [int(line) for line in self.record.read_text().split()]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Makes backends, and ends them; a secret lies outside their folders."""
    secret = tmp_path / "secret.wav"
    soundfile.write(secret, np.full(800, 0.5), 16000)
    monkeypatch.setenv("OUTSIDE", str(secret))
    made = []

    def make(*how, **settings):
        made.append(Fake(tmp_path, *how, **settings))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


def exists(process):
    """Whether there is such a process, a zombie too."""
    return Path(f"/proc/{process}").exists()


def wait_until(true):
    """Wait for something that another process does."""
    deadline = time.monotonic() + 600
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_translations_come_back_in_order_and_unchanged(fake):
    batch = [utterance(f"u{k}", f"word {k}", 700 + k) for k in range(5)]
    backend = fake()
    assert backend.open() == {}
    for _ in range(2):
        found = backend.translate(batch, "fra")
        for asked, translation in zip(batch, found, strict=True):
            np.testing.assert_array_equal(
                translation.samples, asked.samples / 2
            )
            assert translation.sample_rate == 16000
            assert translation.text == asked.text.upper()
            assert translation.error == ""
    assert len(backend.starts) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("die", "ended with exit status 3: that was too much"),
        ("crash", "was killed by SIGSEGV"),
        ("hang", "gave no answer within 2 s"),
        ("garbage", "no message: 'segmentation of utterance done'"),
        ("deep", "no message: '[[[["),
        ("endless", "wrote a line that does not end"),
        ("other request", "answered request"),
        ("not asked", 'gave a result for {"id": "nobody"'),
        ("twice", "gave two results for bad"),
        ("no path", "neither audio nor error"),
        ("close", "closed its stdin or stdout"),
    ],
)
def test_what_the_worker_does_over_one_costs_no_other(
    fake, monkeypatch, text, reason
):
    if text == "endless":
        monkeypatch.setattr(worker, "MAX_LINE", 900)
    monkeypatch.setattr(worker, "SECONDS_TO_END", 0.5)
    seconds = {"request_timeout": 2} if text == "hang" else {}
    backend = fake(**seconds)
    batch = [utterance("a"), utterance("bad", text), utterance("b")]
    first, bad, last = backend.translate(batch, "fra")
    assert first.text == last.text == "HELLO"
    assert bad.samples is None
    assert reason in bad.error
    # At first, after the batch, and after it was asked alone
    assert len(backend.starts) == 3
    wait_until(lambda: not any(map(exists, backend.starts[:2])))


def test_one_alone_has_a_second_chance_too(fake):
    backend = fake()
    (bad,) = backend.translate([utterance("bad", "die")], "fra")
    assert "exit status 3" in bad.error
    assert len(backend.starts) == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("refuse", "no speech in it"),
        ("leave out", "gave no result for it"),
        ("outside", "outside its folder"),
        ("climb", "outside its folder"),
        ("link", "outside its folder"),
        ("pipe", "wrote no file"),
        ("no file", "wrote no file"),
        ("odd path", "wrote no file"),
        ("no audio", "cannot be read"),
        ("stereo", "2 channels"),
        ("long name", "wrote no file xxxx"),
        ("deep name", "wrote no file"),
        ("long error", "eeee"),
        ("long text", "a text of 1000000 characters"),
        ("sparse", "of 4294967296 bytes"),
        ("promise", "promises 1073741780 samples"),
    ],
)
def test_audio_that_cannot_be_used_is_one_failure(fake, text, reason):
    backend = fake()
    batch = [utterance("a"), utterance("bad", text), utterance("b")]
    first, bad, last = backend.translate(batch, "fra")
    assert first.text == last.text == "HELLO"
    assert bad.samples is None
    assert reason in bad.error
    # It goes into a row.
    assert len(bad.error) < 500
    assert len(backend.starts) == 1
    assert soundfile.info(os.environ["OUTSIDE"]).frames == 800


def test_a_link_in_the_place_of_its_folder_is_not_followed(fake):
    backend = fake()
    (found,) = backend.translate([utterance("a", "link for folder")], "fra")
    assert found.samples is None
    assert "a link in the place of its folder" in found.error
    (found,) = backend.translate([utterance("a")], "fra")
    assert found.text == "HELLO"
    assert len(backend.starts) == 1


def test_a_link_in_the_place_of_all_its_folders_leads_nowhere(fake, tmp_path):
    backend = fake()
    before = sorted(path.name for path in tmp_path.iterdir())
    alone, after = (
        backend.translate([utterance("a", text)], "fra")[0]
        for text in ("link for all", "hello")
    )
    assert alone.samples is None and "a link in the place" in alone.error
    # Nothing is written through the link: the worker is started anew.
    assert after.text == "HELLO"
    assert len(backend.starts) == 2
    backend.close()
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == sorted({*before, "starts.txt"})


def test_a_link_in_the_place_of_the_next_request_is_not_followed(fake):
    backend = fake()
    first, second = (
        backend.translate([utterance("a", text)], "fra")[0]
        for text in ("next request", "hello")
    )
    assert first.samples is not None
    assert second.text == "HELLO"
    assert len(backend.starts) == 2


def test_a_path_may_be_relative_to_the_folder(fake):
    (found,) = fake().translate([utterance("a", "relative")], "fra")
    assert len(found.samples) == 800


def test_a_text_can_be_written_in_a_row(fake):
    (found,) = fake().translate([utterance("a", "odd letters")], "fra")
    assert found.text == "half ? character"


def test_temporary_files_are_gone_after_every_request(fake):
    backend = fake()
    backend.translate([utterance("a"), utterance("b", "die")], "fra")
    backend.translate([utterance("a")], "fra")
    folder = backend._worker.folder
    assert list(folder.iterdir()) == []
    backend.close()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("how", "message", "starts"),
    [
        ("dies", "did not start, 3 times: .*status 1.*\nout of luck", 3),
        ("hangs", "did not start, 3 times: it gave no answer within 1 s", 3),
        ("prints", "no message: 'Loading weights...'", 3),
        ("knows no languages", "names no languages", 3),
        ("is old", "version 0 of the protocol, version 1 is expected", 1),
        ("cannot", "^no weights: get some$", 1),
    ],
)
def test_a_worker_that_does_not_start_ends_the_run(fake, how, message, starts):
    seconds = 1 if how == "hangs" else 300
    backend = fake(*how.split(), start_timeout=seconds)
    with pytest.raises(InputError, match=f"(?s){message}"):
        backend.open()
    # One that hangs may be ended before it could note that it was started.
    assert how == "hangs" or len(backend.starts) == starts
    wait_until(lambda: not any(map(exists, backend.starts)))


def test_a_worker_that_always_dies_ends_the_run(fake):
    backend = fake(max_restarts=3)
    batch = [utterance(f"u{k}", "die") for k in range(9)]
    with pytest.raises(InputError, match=r"(?s)4 times in a row.*too much"):
        backend.translate(batch, "fra")
    assert len(backend.starts) == 4


def test_what_is_translated_between_deaths_keeps_the_run_going(fake):
    backend = fake(max_restarts=2)
    batch = [utterance(f"u{k}", "die" if k % 2 else "hello") for k in range(6)]
    found = backend.translate(batch, "fra")
    assert [bool(each.error) for each in found] == [False, True] * 3


def test_a_worker_that_does_not_read_cannot_hold_us_up(fake):
    backend = fake("is", "deaf", request_timeout=1)
    # More than a pipe holds
    long = utterance("a", "x" * 2**20)
    (found,) = backend.translate([long], "fra")
    assert "gave no answer within 1 s" in found.error


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"languages": ["fra", "ita", "ces"]}, "into ces, ita .languages."),
        ({"working_folder": "/no/such/folder"}, "no folder /no/such/folder"),
    ],
)
def test_settings_that_do_not_fit_the_worker(fake, settings, message):
    with pytest.raises(InputError, match=message):
        fake(**settings).open()


def test_a_full_disk_ends_the_run(fake):
    backend = fake()
    backend.open()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(InputError, match="File too large; temporary"):
            backend.translate([utterance("a")], "fra")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (found,) = backend.translate([utterance("a")], "fra")
    assert found.text == "HELLO"


def test_a_program_that_is_not_there():
    for program in ("no-such-program", "./no_such_worker", str(FAKE)):
        with pytest.raises(InputError, match=f"{program} is not there or"):
            ExternalBackend([program]).open()


def test_a_command_in_one_string_is_refused():
    with pytest.raises(InputError, match="expected a list"):
        ExternalBackend("python worker.py")


def test_a_language_that_it_lacks(fake):
    backend = fake()
    backend.open()
    assert backend.languages == ("fra", "deu")
    with pytest.raises(InputError, match="'cmn' is none of the languages"):
        backend.translate([utterance("a")], "cmn")


def test_the_shorter_limit_holds(fake):
    backend = fake("is", "short", max_seconds=20)
    backend.open()
    assert backend.max_seconds == 5


@pytest.mark.parametrize("fresh", [False, True])
def test_a_fresh_process_per_shard(fake, fresh):
    backend = fake(fresh_process_per_shard=fresh)
    backend.open()
    seen = []
    for shard in ("one", "two"):
        backend.begin_shard(shard)
        for _ in range(2):
            (found,) = backend.translate([utterance("a", "process")], "fra")
            seen.append(found.text)
    assert seen[0] == seen[1]
    assert seen[2] == seen[3]
    assert (seen[1] != seen[2]) == fresh
    assert len(backend.starts) == 1 + fresh


def test_where_and_with_what_it_runs(fake, tmp_path, monkeypatch):
    monkeypatch.setenv("UNWANTED", "1")
    backend = fake(
        environment={"WANTED": 7, "UNWANTED": None},
        working_folder=tmp_path,
        log_folder=tmp_path / "logs",
    )
    where, _ = backend.translate(
        [utterance("a", "where"), utterance("b", "die")], "fra"
    )
    folder, environment = json.loads(where.text)
    assert folder == str(tmp_path)
    assert environment["WANTED"] == "7"
    assert "UNWANTED" not in environment
    (log,) = (tmp_path / "logs").iterdir()
    # In the batch and alone
    assert log.read_text() == "that was too much\n" * 2


def test_the_last_words_are_those_of_the_last_process(fake, tmp_path):
    # A log goes on where another run's has ended.
    name = f"worker-{os.uname().nodename}-{os.getpid()}.log"
    (tmp_path / name).write_text("an old complaint\n")
    backend = fake("dies", log_folder=tmp_path)
    with pytest.raises(InputError) as caught:
        backend.open()
    assert "an old complaint" not in str(caught.value)
    assert str(caught.value).count("out of luck") == 1


def test_nothing_of_it_is_left_after_closing(fake):
    backend = fake()
    batch = [utterance("a", "have children"), utterance("b", "process")]
    child, itself = (
        int(found.text) for found in backend.translate(batch, "fra")
    )
    guard = backend._worker._process.pid
    backend.close()
    backend.close()
    assert not exists(itself)
    assert not exists(guard)
    # An orphan by then, which is not ours to bury.
    assert not exists(child) or " Z " in Path(f"/proc/{child}/stat").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux adopts orphans")
@pytest.mark.parametrize("how", ["closed", "killed"])
def test_a_child_that_left_its_session_does_not_outlive_it(fake, how):
    backend = fake()
    found = backend.translate(
        [utterance("a", "have a daemon"), utterance("b", "process")], "fra"
    )
    daemon, itself = (int(translation.text) for translation in found)
    assert exists(daemon)
    assert os.getsid(daemon) == daemon != os.getsid(itself)
    if how == "killed":
        os.kill(itself, 9)
        backend._worker._process.wait()
    backend.close()
    assert not exists(daemon)


DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_external import Fake, utterance
folder = Path({folder!r})
backend = Fake(folder, log_folder=folder / "logs")
backend.open()
(folder / "scratch").write_text(str(backend._worker.folder))
backend.translate([utterance("a", {text!r})], "fra")
(folder / "logs" / "done").write_text("done")
sys.stdin.read()
"""


@pytest.mark.parametrize("text", ["hang", "hello"])
def test_it_does_not_outlive_a_process_that_is_killed(tmp_path, text):
    script = DRIVER.format(here=str(HERE), folder=str(tmp_path), text=text)
    driver = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, cwd=ROOT
    )
    # While it hangs, and while there is nothing to do
    sign = {"hang": "hanging", "hello": "done"}[text]
    try:
        wait_until(
            lambda: any(
                sign in path.read_text()
                for path in (tmp_path / "logs").glob("*")
            )
        )
    finally:
        driver.kill()
        driver.wait()
    (process,) = map(int, (tmp_path / "starts.txt").read_text().split())
    scratch = Path((tmp_path / "scratch").read_text())
    wait_until(lambda: not exists(process) and not scratch.exists())


def test_what_dead_processes_left_is_removed(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.Popen(["true"])
    dead.wait()
    begin = f"mser-worker-{socket.gethostname()}"
    kept = [
        f"{begin}-{os.getpid()}-1",
        # Somebody else's process, and another host's
        f"{begin}-1-2",
        f"mser-worker-elsewhere-{dead.pid}-3",
        f"{begin}-words-4",
    ]
    for name in (*kept, f"{begin}-{dead.pid}-5"):
        (tmp_path / name / "out").mkdir(parents=True)
    fake().open()
    found = {path.name for path in tmp_path.glob("mser-worker-*")}
    assert found > set(kept)
    (new,) = found - set(kept)
    assert new.startswith(f"{begin}-{os.getpid()}-")


def test_it_does_not_outlive_its_guard(fake):
    backend = fake()
    backend.open()
    guard = backend._worker._process
    guard.kill()
    # Its end kills the worker; until then the worker may well answer
    guard.wait()
    first, second = backend.translate(
        [utterance("a"), utterance("b", "process")], "fra"
    )
    assert first.text == "HELLO"
    assert int(second.text) == backend.starts[1]


def test_an_interrupted_request_leaves_no_answer_for_the_next(
    fake, monkeypatch
):
    backend = fake()
    backend.open()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(external, "check_answer", interrupt)
    with pytest.raises(KeyboardInterrupt):
        backend.translate([utterance("a", "one")], "fra")
    monkeypatch.undo()
    (found,) = backend.translate([utterance("b", "two")], "fra")
    assert found.text == "TWO"
    assert len(backend.starts) == 2


def test_settings_are_what_changes_the_audio():
    command = ["python", "worker.py", "--voice", "a"]
    plain = ExternalBackend(command)
    same = ExternalBackend(
        command, request_timeout=1, max_restarts=0, log_folder="logs"
    )
    other = ExternalBackend([*command[:3], "b"])
    named = ExternalBackend(command, audio_settings={"voice": "a"})
    assert plain.settings() == same.settings() != other.settings()
    assert named.settings()["voice"] == "a"
    assert "command" not in named.settings()
    json.dumps(plain.settings())


def test_it_can_be_sent_to_another_process_before_it_is_opened(tmp_path):
    backend = pickle.loads(pickle.dumps(Fake(tmp_path)))
    (found,) = backend.translate([utterance("a")], "fra")
    backend.close()
    assert found.text == "HELLO"


def test_the_example_speaks_the_protocol():
    assert len(EXAMPLE.read_text().splitlines()) <= 40
    backend = ExternalBackend(["python", EXAMPLE.name], ["fra", "spa"])
    backend.working_folder = str(EXAMPLE.parent)
    asked = utterance("a", "Good morning")
    (found,) = backend.translate([asked], "fra")
    backend.close()
    assert found.text == "[fra] Good morning"
    np.testing.assert_allclose(found.samples, asked.samples / 2, atol=2e-4)


def test_what_a_worker_prints_disturbs_nobody(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(
        "import os\n"
        "from speechbrain_mser.synthesis.backends.protocol import serve\n"
        "def load():\n"
        "    print('loading')\n"
        "    os.system('echo a program, too')\n"
        "    return {'languages': ['fra']}, translate\n"
        "def translate(request):\n"
        "    print('translating')\n"
        "    os.write(1, b'and C')\n"
        "    return [{'id': 'a', 'error': 'none'}]\n"
        "serve(load)\n"
    )
    backend = ExternalBackend(
        ["python", script],
        environment={"PYTHONPATH": str(ROOT)},
        log_folder=tmp_path / "logs",
    )
    (found,) = backend.translate([utterance("a")], "fra")
    backend.close()
    assert found.error == "none"
    (log,) = (tmp_path / "logs").iterdir()
    assert log.read_text().split() == (
        ["a", "program,", "too", "loading", "translating", "and", "C"]
        if log.read_text().startswith("a program")
        else ["loading", "a", "program,", "too", "translating", "and", "C"]
    )


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("external", {"torch", "transformers", "pandas", "speechbrain"}),
        ("seamless_expressive", {"torch", "transformers", "fairseq2"}),
        ("seamless_m4t", {"torch", "transformers"}),
        # A worker's environment has no more than Python.
        ("protocol", {"numpy", "soundfile", "torch"}),
    ],
)
def test_importing_a_backend_is_light(module, unwanted):
    code = (
        f"import speechbrain_mser.synthesis.backends.{module}, sys\n"
        "print(*sys.modules)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert unwanted.isdisjoint(printed.split())
