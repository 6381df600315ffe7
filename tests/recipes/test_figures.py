"""The figures' numbers against naive ones, and their files whole or absent."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas
import pytest
import soundfile
import torch

from speechbrain_mser.dataio.audio import load_audio
from speechbrain_mser.dataio.manifest import read_manifest, write_manifest
from speechbrain_mser.emotions import CANONICAL
from speechbrain_mser.evaluation.drawing import new_figure, save_figure, styles
from speechbrain_mser.inference import EmotionRecognizer

HPARAMS = Path(__file__).resolve().parents[2] / "hparams"


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def table(tiny_corpus):
    return read_manifest(
        tiny_corpus / "manifests" / "tiny.csv", tiny_corpus / "corpora/tiny"
    )


def draw(run_script, command, tiny_corpus, output, *more):
    return run_script(
        "figures",
        command,
        *("--manifest", tiny_corpus / "manifests" / "tiny.csv"),
        tiny_corpus / "corpora/tiny",
        *("--output", output),
        *more,
    )


def written(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_figure_that_cannot_be_drawn_leaves_the_old_one(tmp_path):
    save_figure(new_figure(1, 1), tmp_path / "a")
    before = (tmp_path / "a.png").read_bytes()
    broken = new_figure(1, 1)
    broken.text(0.5, 0.5, r"$\nosuchsymbol$")
    with pytest.raises(ValueError):
        save_figure(broken, tmp_path / "a")
    assert (tmp_path / "a.png").read_bytes() == before
    assert written(tmp_path) == ["a.pdf", "a.png"]


def test_the_same_figure_is_the_same_file(tmp_path):
    for name in "ab":
        save_figure(new_figure(1, 1), tmp_path / name)
    for kind in ("png", "pdf"):
        first, second = (tmp_path / f"{name}.{kind}" for name in "ab")
        assert first.read_bytes() == second.read_bytes()


def test_no_two_emotions_look_alike_in_colour_or_without():
    looks = styles(list(CANONICAL)).values()
    assert len({color for color, _ in looks}) == len(CANONICAL)
    assert len({marker for _, marker in looks}) == len(CANONICAL)


def naive_mmd(x, y):
    together = [*x, *y]
    squares = [
        sum((a - b) ** 2) for i, a in enumerate(together) for b in together[:i]
    ]
    width = np.median(squares)

    def mean(pairs):
        return np.mean([np.exp(-sum((a - b) ** 2) / width) for a, b in pairs])

    def different(z):
        return [
            (a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j
        ]

    return (
        mean(different(x))
        + mean(different(y))
        - 2 * mean([(a, b) for a in x for b in y])
    )


def test_mmd_is_the_naive_one(rng):
    from speechbrain_mser.evaluation.separation import mmd

    x, y = rng.normal(size=(7, 3)), rng.normal(1, 2, size=(5, 3))
    assert mmd(x, y) == pytest.approx(naive_mmd(x, y))


def test_mmd_tells_a_shift_from_none(rng):
    from speechbrain_mser.evaluation.separation import mmd

    x, y = rng.normal(size=(2, 200, 4))
    assert abs(mmd(x, y)) < 0.02 < 0.2 < mmd(x, y + 2)


def test_centroid_ratios_by_hand():
    from speechbrain_mser.evaluation.separation import centroid_ratios

    # The source's emotions lie 4 apart; the other language's are 1 and 3
    # from them, its fear is nobody's.
    source = np.array([[0.0, 0], [0, 2], [4, 1]])
    words = np.array(["sad", "sad", "angry"])
    other = np.array([[1.0, 1], [4, 4], [90, 90]])
    ratios = centroid_ratios(
        other, np.array(["sad", "angry", "fear"]), source, words
    )
    assert ratios == pytest.approx({"sad": 1 / 4, "angry": 3 / 4})
    assert centroid_ratios(other[2:], np.array(["fear"]), source, words) == {}


def test_silhouette_by_hand():
    from speechbrain_mser.evaluation.separation import silhouette

    # sad at 0 and 1, angry at 10: (9.5 is nobody's mean; a = 1, b = 10 and 9)
    points = np.array([[0.0], [1], [10], [11]])
    words = np.array(["sad", "sad", "angry", "angry"])
    # 0: a 1, b 10.5; 1: a 1, b 9.5; the others likewise
    expected = np.mean([1 - 1 / 10.5, 1 - 1 / 9.5])
    assert silhouette(points, words) == pytest.approx(expected)
    assert silhouette(points, np.array(["sad"] * 4)) is None


def utterances(**columns):
    return pandas.DataFrame({"corpus": "c", **columns})


def test_probe_is_told_nothing_by_the_speakers_it_learnt_from():
    from speechbrain_mser.evaluation.separation import probe

    # Every speaker says his emotions in dimensions of his own: known for
    # those of the training, nothing for others.
    emotions = ["sad", "angry"] * 4
    speakers = [f"s{k // 2}" for k in range(8)]
    english = utterances(language="eng", emotion=emotions, speaker=speakers)
    ua, chance = probe(np.eye(8), english, "eng", "eng")
    assert (ua, chance) == (0.5, 0.5)
    # One emotion a speaker, or one speaker: there is nothing to learn from.
    for speaker in ("s", english.emotion):
        few = english.assign(speaker=speaker)
        assert probe(np.eye(8), few, "eng", "eng") == (None, None)


def test_probe_carries_over_what_languages_share():
    from speechbrain_mser.evaluation.separation import probe

    table = utterances(
        language=["eng"] * 8 + ["deu"] * 6,
        emotion=["sad", "angry"] * 4 + ["sad", "angry", "fear"] * 2,
        speaker=[f"s{k // 2}" for k in range(14)],
    )
    level = np.where(table.emotion == "sad", -1.0, 1.0)[:, None]
    # Fear is in German alone, and asked of nobody.
    assert probe(level, table, "eng", "deu") == (1.0, 0.5)
    assert probe(-level, table, "eng", "deu")[0] == 1.0
    flipped = np.where(
        (table.language == "deu").to_numpy()[:, None], -level, level
    )
    assert probe(flipped, table, "eng", "deu")[0] == 0.0


def test_samples_are_balanced(rng):
    from speechbrain_mser.evaluation.corpus_figures import balanced_sample

    table = utterances(
        ID=range(100),
        language=["eng"] * 90 + ["deu"] * 10,
        emotion=["sad"] * 50 + ["angry"] * 40 + ["sad"] * 10,
    )
    sample = balanced_sample(table, 36, seed=1)
    cells = sample.groupby(["language", "emotion"]).size()
    assert cells.to_dict() == {
        ("eng", "sad"): 13,
        ("eng", "angry"): 13,
        ("deu", "sad"): 10,
    }
    assert sample.ID.is_unique
    assert len(balanced_sample(table, 1000, seed=1)) == 100


def test_mean_spectrograms_follow_pitch_and_level(tmp_path):
    from speechbrain_mser.evaluation.corpus_figures import (
        N_MELS,
        mean_spectrograms,
    )

    time = np.arange(16000) / 16000
    tones = [(440, 0.01), (440, 0.1), (3000, 0.1)]
    rows = []
    for number, (pitch, level) in enumerate(tones):
        path = tmp_path / f"{number}.wav"
        soundfile.write(
            path, level * np.sin(2 * np.pi * pitch * time), 16000, "FLOAT"
        )
        rows.append({"ID": str(number), "wav": str(path), "emotion": "sad"})
    rows.append({"ID": "gone", "wav": "/no/such.wav", "emotion": "sad"})
    whole = {"start": np.nan, "stop": np.nan, "duration": 1.0}
    features, read = mean_spectrograms(
        utterances(**pandas.DataFrame(rows), **whole, language="eng")
    )
    assert features.shape == (3, N_MELS)
    assert list(read.ID) == ["0", "1", "2"]

    def mel(hertz):
        return 2595 * np.log10(1 + hertz / 700)

    for (pitch, _), spectrum in zip(tones, features, strict=True):
        # The band's middle is the first edge but one of N_MELS + 2.
        band = mel(pitch) / mel(8000) * (N_MELS + 1) - 1
        assert abs(spectrum.argmax() - band) <= 1
    # Ten times the amplitude is 20 dB
    assert features[1].max() - features[0].max() == pytest.approx(20, abs=0.01)


def test_distributions_count_utterances_and_hours(
    run_script, tiny_corpus, table, tmp_path
):
    assert draw(run_script, "distributions", tiny_corpus, tmp_path / "a") == 0
    assert written(tmp_path) == ["a.json", "a.pdf", "a.png"]
    numbers = json.loads((tmp_path / "a.json").read_text())
    for column, count in (("emotion", 10), ("language", 20), ("corpus", 40)):
        for word, found in numbers[column].items():
            assert found["utterances"] == count
            seconds = sum(table.duration[table[column] == word])
            assert found["hours"] == pytest.approx(seconds / 3600)


def test_a_map_of_spectrograms_and_its_numbers(
    run_script, tiny_corpus, tmp_path
):
    output = tmp_path / "map"
    assert draw(run_script, "spectrograms", tiny_corpus, output) == 0
    assert written(tmp_path) == ["map.json", "map.pdf", "map.png"]
    numbers = json.loads(output.with_suffix(".json").read_text())
    # The tiny corpus's languages differ in noise only, its emotions in pitch.
    assert numbers["n"] == 40
    german = numbers["languages"]["deu"]
    assert german["probe"] == numbers["languages"]["eng"]["probe"] == 1.0
    assert abs(german["mmd"]) < 0.05
    # Five utterances of noise do not average out, but stay below a half.
    assert german["centroids"] < 0.5
    by = numbers["silhouette"]
    assert by["emotion"] > 0.2 > 0 > by["language"]


def test_each_corpus_by_itself_is_heard_without_its_level(
    run_script, tiny_corpus, tmp_path
):
    # The same corpus again, ten times as quiet and under another name
    manifest = tiny_corpus / "manifests" / "tiny.csv"
    rows = list(csv.DictReader(manifest.open()))
    for row in rows:
        name = row["wav"].removeprefix("$data_root/")
        wav, rate = soundfile.read(tiny_corpus / "corpora/tiny" / name)
        soundfile.write(tmp_path / name, wav / 10, rate, "FLOAT")
        row |= {"ID": f"quiet_{row['ID']}", "corpus": "quiet"}
    write_manifest(tmp_path / "quiet.csv", rows)
    by_corpus = {}
    for flags in ([], ["--standardize_each"]):
        output = tmp_path / "map"
        more = ("--manifest", tmp_path / "quiet.csv", tmp_path, *flags)
        ended = draw(run_script, "spectrograms", tiny_corpus, output, *more)
        assert ended == 0
        numbers = json.loads(output.with_suffix(".json").read_text())
        by_corpus[len(flags)] = numbers["silhouette"]["corpus"]
    assert by_corpus[0] > 0.1 > 0 > by_corpus[1]


@pytest.mark.parametrize(
    "command, more, says",
    [
        ("spectrograms", ["--source", "fra"], "source is 'fra'"),
        ("spectrograms", ["--most", "5"], "a map needs 10 or more"),
        ("distributions", ["--split", "none"], "no utterance has split none"),
    ],
)
def test_what_cannot_be_drawn_is_explained(
    run_script, tiny_corpus, tmp_path, capsys, command, more, says
):
    assert draw(run_script, command, tiny_corpus, tmp_path / "a", *more) == 2
    assert says in capsys.readouterr().err
    assert written(tmp_path) == []


def test_audio_without_a_folder_is_asked_for(run_script, tiny_corpus, capsys):
    manifest = tiny_corpus / "manifests" / "tiny.csv"
    options = ("--manifest", manifest, "--output", "nowhere")
    assert run_script("figures", "spectrograms", *options) == 2
    assert f"--manifest {manifest} FOLDER" in capsys.readouterr().err


@pytest.fixture
def recognizer(run_script, tiny_flags, tmp_path):
    folder = tmp_path / "trained"
    flags = {**tiny_flags, "output_folder": folder}
    assert run_script("train", HPARAMS / "stage1.yaml", flags=flags) == 0
    return folder / "recognizer"


def test_embeddings_are_the_recognizers_with_or_without_a_store(
    run_script, tiny_corpus, table, recognizer, tmp_path, capsys
):
    from figures import embeddings

    system = EmotionRecognizer.from_hparams(str(recognizer))
    folder = tmp_path / "features"
    for store in (None, folder, folder):
        vectors, read = embeddings(system, table, store)
        assert list(read.ID) == list(table.ID)
        for vector, wav in list(zip(vectors, table.wav, strict=True))[::9]:
            alone = system.encode_batch(load_audio(wav)[None])[0]
            cosine = torch.cosine_similarity(
                torch.tensor(vector), alone.float(), dim=0
            )
            assert cosine.item() > 0.9999
            assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)

    # One recogniser on both sides: the same numbers, and the figure is there.
    output = tmp_path / "drawn" / "maps"
    ended = draw(
        run_script,
        "embeddings",
        tiny_corpus,
        output,
        *("--without", recognizer, "--with", recognizer),
        *("--feature_folder", tmp_path / "drawn_from"),
    )
    assert ended == 0
    assert any((tmp_path / "drawn_from").iterdir())
    first, second = list(
        json.loads(output.with_suffix(".json").read_text()).values()
    )[1:]
    assert first == second
    assert written(output.parent) == ["maps.json", "maps.pdf", "maps.png"]
    # A single emotion is nothing to tell apart.
    ended = draw(
        run_script,
        "embeddings",
        tiny_corpus,
        tmp_path / "one",
        *("--without", recognizer, "--with", recognizer),
        *("--emotions", "sad"),
    )
    assert ended == 2
    assert "one emotion only" in capsys.readouterr().err
    assert not list(tmp_path.glob("one*"))
