"""A job array fills the store, and training finds everything in it."""

import shutil
from pathlib import Path

import pytest

from speechbrain_mser.lobes.whisper import WhisperEncoder

ROOT = Path(__file__).resolve().parents[2]
STAGE1 = ROOT / "hparams" / "stage1.yaml"


@pytest.fixture
def flags(tiny_flags, tmp_path):
    return {
        **tiny_flags,
        "languages": "[eng, deu]",
        "feature_folder": str(tmp_path / "features"),
    }


@pytest.fixture
def encoded(monkeypatch):
    """How many utterances each call of the encoder got."""
    counts = []
    forward = WhisperEncoder.forward

    def count(self, wavs, wav_lens=None):
        counts.append(len(wavs))
        return forward(self, wavs, wav_lens)

    monkeypatch.setattr(WhisperEncoder, "forward", count)
    return counts


def test_parts_share_the_work_and_training_does_none_of_it(
    run_script, flags, encoded, tmp_path, capsys
):
    # 3 speakers train and 1 validates: 4 x 4 emotions x 2 languages
    for part, expected in (("1/3", 11), ("2/3", 11), ("3/3", 10)):
        before = sum(encoded)
        ended = run_script("extract", STAGE1, "--part", part, flags=flags)
        assert ended == 0
        assert sum(encoded) - before == expected
        out = capsys.readouterr().out
        assert f"{expected} encoded, 0 stored before, 0 unreadable" in out
    run_script("extract", STAGE1, flags=flags)
    assert "0 encoded, 32 stored before" in capsys.readouterr().out
    assert sum(encoded) == 32
    for mode in ("read", "write"):
        output = {"output_folder": tmp_path / mode, "features": mode}
        assert run_script("train", STAGE1, flags={**flags, **output}) == 0
    assert sum(encoded) == 32


def test_unreadable_utterances_are_named(
    run_script, flags, tmp_path, capsys, caplog
):
    data = tmp_path / "corpora"
    shutil.copytree(flags["data_root"], data)
    (data / "tiny" / "tiny_eng_1_sad.wav").write_bytes(b"no audio")
    ended = run_script(
        "extract", STAGE1, flags={**flags, "data_root": str(data)}
    )
    assert ended == 0
    assert (
        "31 encoded, 0 stored before, 1 unreadable" in capsys.readouterr().out
    )
    assert "tiny_eng_1_sad" in caplog.text


@pytest.mark.parametrize("part", ["0/3", "4/3", "x", "1", ""])
def test_a_part_that_is_none_is_refused(run_script, flags, part, capsys):
    assert run_script("extract", STAGE1, "--part", part, flags=flags) == 2
    said = f"--part is {part!r}, expected for example 3/16"
    assert said in capsys.readouterr().err
