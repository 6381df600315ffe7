"""python -m speechbrain_mser: the scripts by name, and torchaudio mended."""

import os
import subprocess
import sys

import pytest

from speechbrain_mser.__main__ import find_scripts, main
from speechbrain_mser.settings.project_files import PROJECT

TORCHAUDIO = 'raise OSError("libcudart.so.13: cannot open shared object file")'


def test_every_script_is_listed_without_importing_torch():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import runpy, sys\n"
            "sys.argv = ['-m', '--help']\n"
            "try:\n"
            "    runpy.run_module('speechbrain_mser', run_name='__main__')\n"
            "finally:\n"
            "    assert not {'torch', 'speechbrain'} & set(sys.modules)",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert done.returncode == 0, done.stderr
    listed = {line.split()[0] for line in done.stdout.splitlines() if line}
    assert {"train", "evaluate", "demo", "mend-torchaudio"} <= listed
    assert set(find_scripts()) <= listed
    # No script, but what scripts share
    assert not {"corpora", "steps"} & listed


@pytest.fixture
def called(monkeypatch):
    """Calls the command in this process and puts back what it changes."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["-m"])
    return main


def test_a_script_runs_as_if_called_by_its_path(called, tmp_path, capsys):
    nowhere = str(tmp_path / "nowhere")
    with pytest.raises(SystemExit) as ended:
        called(
            [
                *("ravdess_prepare", "--data_folder", nowhere),
                *("--save_folder", str(tmp_path / "manifests")),
            ]
        )
    assert ended.value.code == 2
    assert nowhere in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        called(["ravdess_prepare", "--help"])
    assert ended.value.code == 0
    assert "usage: ravdess_prepare.py" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("trian", "did you mean train?"),
        ("ravdess-prepare", "did you mean ravdess_prepare"),
        ("mend_torchaudio", "did you mean mend-torchaudio?"),
        ("xyzzy", "see --help"),
    ],
)
def test_a_wrong_name_gives_the_nearest(called, name, hint, capsys):
    assert called([name]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: no script is called {name!r}; {hint}")


@pytest.fixture
def cpu_torch(tmp_path):
    """Runs Python with a torch without CUDA and a torchaudio that needs it."""
    for name, code, library in (
        ("torch", "", "libtorch_cpu.so"),
        ("torchaudio", TORCHAUDIO, "_torchaudio.so"),
    ):
        folder = tmp_path / name / "lib"
        folder.mkdir(parents=True)
        (folder / library).write_bytes(b"\x7fELF libcudart.so.13\0")
        (folder.parent / "__init__.py").write_text(code)

    def run(*arguments):
        return subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            env={"PYTHONPATH": os.pathsep.join([str(tmp_path), str(PROJECT)])},
        )

    return run


def test_torchaudio_that_needs_cuda_is_said_and_mended(cpu_torch, tmp_path):
    extension = tmp_path / "torchaudio/lib/_torchaudio.so"
    line = (
        "torchaudio needs CUDA, and this torch is a build without it: run "
        "python -m speechbrain_mser mend-torchaudio, once in this environment"
    )
    done = cpu_torch("-c", "import speechbrain_mser")
    assert done.stderr.splitlines()[-1] == f"ImportError: {line}"
    assert "libcudart" not in done.stderr
    done = cpu_torch("-m", "speechbrain_mser", "train")
    assert (done.returncode, done.stderr) == (2, f"error: {line}\n")
    assert cpu_torch("-m", "speechbrain_mser", "--help").returncode == 0
    # It may be importable all the same, where there are CUDA's libraries
    module = tmp_path / "torchaudio/__init__.py"
    module.write_text("")
    assert cpu_torch("-c", "import speechbrain_mser").returncode == 0
    done = cpu_torch("-m", "speechbrain_mser", "mend-torchaudio")
    assert "nothing to mend" in done.stdout and extension.is_file()
    module.write_text(TORCHAUDIO)
    done = cpu_torch("-m", "speechbrain_mser", "mend-torchaudio")
    assert "removed _torchaudio.so" in done.stdout and not extension.exists()
    # What else torchaudio suffers from is not taken for it
    assert cpu_torch("-c", "import speechbrain_mser").returncode == 0
    done = cpu_torch("-m", "speechbrain_mser", "mend-torchaudio")
    assert "nothing to mend" in done.stdout


def test_torchaudio_stays_as_it_is_beside_a_torch_with_cuda(
    cpu_torch, tmp_path
):
    (tmp_path / "torch/lib/libtorch_cuda.so").touch()
    done = cpu_torch("-m", "speechbrain_mser", "mend-torchaudio")
    assert "nothing to mend" in done.stdout
    assert (tmp_path / "torchaudio/lib/_torchaudio.so").is_file()
