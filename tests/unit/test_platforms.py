"""Windows and macOS: what only Linux has is not needed to train, or guarded."""

import os
import subprocess
import sys

import pytest

from speechbrain_mser.dataio import loader_workers
from speechbrain_mser.files import atomic, folder_lock
from speechbrain_mser.settings.project_files import HPARAMS, PROJECT, RECIPE

# Other libraries are loaded before: they know where they are.
ELSEWHERE = """
import importlib, os, signal, sys
for name in (
    "asyncio", "filelock", "huggingface_hub", "matplotlib.pyplot",
    "multiprocessing.popen_spawn_posix", "pandas", "requests", "safetensors",
    "scipy.stats", "sklearn.linear_model", "soundfile", "soxr", "speechbrain",
    "tensorboard", "torch.utils.data", "torchaudio", "transformers", "tempfile",
    "torch.utils.tensorboard", "xxhash", "PIL.Image", "speechbrain.core",
):
    importlib.import_module(name)
for name in ("BertModel", "WhisperModel", "LlamaForCausalLM", "AutoTokenizer"):
    getattr(sys.modules["transformers"], name)
for name in ("fcntl", "resource", "pwd", "grp", "termios", "pty", "syslog"):
    sys.modules[name] = None
lacking = {
    os: "fork register_at_fork statvfs getuid geteuid getgid sysconf killpg "
        "setsid getpgid posix_fadvise uname mkfifo sched_getaffinity "
        "getloadavg O_DIRECTORY",
    signal: "SIGKILL SIGHUP SIGUSR1 SIGALRM SIGCHLD SIGBUS setitimer alarm "
            "pthread_sigmask sigwaitinfo sigwait",
}
for module, names in lacking.items():
    for name in names.split():
        delattr(module, name)
"""

TRAIN_AND_RECOGNIZE = """
recipe, yaml, wav, output = sys.argv[1:5]
sys.path.insert(0, recipe)
sys.argv = ["train.py", yaml, *sys.argv[5:], f"--output_folder={output}"]
import train, evaluate
train.main()
from speechbrain_mser.inference import EmotionRecognizer
recognizer = EmotionRecognizer.from_hparams(f"{output}/recognizer")
print(recognizer.recognize_file(wav))
"""


def test_training_and_recognition_need_nothing_that_windows_lacks(
    tiny_flags, tiny_corpus, tmp_path
):
    wav = tiny_corpus / "corpora/tiny/tiny_eng_5_happy.wav"
    flags = [f"--{name}={value}" for name, value in tiny_flags.items()]
    script = [sys.executable, "-c", ELSEWHERE + TRAIN_AND_RECOGNIZE]
    yaml = HPARAMS / "stage1.yaml"
    done = subprocess.run(
        [*script, RECIPE, yaml, wav, tmp_path / "out", *flags],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert done.returncode == 0, done.stderr
    assert any(
        word in done.stdout for word in ("neutral", "happy", "sad", "angry")
    )


@pytest.fixture
def windows(monkeypatch):
    """Says that this is Windows, while it lasts: paths cannot be made then."""

    def call(function, *arguments):
        with monkeypatch.context() as patch:
            patch.setattr(os, "name", "nt")
            return function(*arguments)

    return call


def test_a_folders_names_are_not_synced_on_windows(
    windows, tmp_path, monkeypatch
):
    file = tmp_path / "a.txt"
    file.write_text("a")
    opened = []
    open_file = os.open

    def watch(path, flags):
        opened.append((path, flags))
        return open_file(path, flags)

    monkeypatch.setattr(os, "open", watch)
    windows(atomic.to_disk, tmp_path)
    windows(atomic.to_disk, file)
    assert opened == [(file, os.O_RDWR)]


def test_on_windows_no_process_is_asked_whether_it_runs(windows, monkeypatch):
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("Ctrl-C was sent"))
    holder = {"host": folder_lock.socket.gethostname(), "process": 1}
    assert windows(folder_lock._may_run, holder)


def test_workers_do_without_what_windows_and_macos_lack(monkeypatch):
    monkeypatch.delattr(os, "statvfs")
    monkeypatch.delattr(loader_workers.signal, "sigwaitinfo")
    assert "not there" in loader_workers._room()
    assert loader_workers.worker_context(2) is None
