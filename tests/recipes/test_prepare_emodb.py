"""What `emodb_prepare.py` makes of EmoDB as people have it on disk."""

import pytest
from emodb_prepare import prepare_emodb
from miniature import read_csv, read_dropped, refused, write_noise

from speechbrain_mser.dataio.manifest import read_manifest


@pytest.fixture
def release(tmp_path):
    """One utterance per emotion, by seven speakers, and the rest of the zip."""
    root = tmp_path / "EmoDB"
    for name in (
        *("03a01Wa", "08a02Lb", "09a04Ec", "10b01Ad", "11b02Fa"),
        *("16b03Ta", "14b10Nc"),
    ):
        write_noise(root / f"wav/{name}.wav")
    for companion in ("lablaut/03a01Wa.lablaut", "silb/03a01Wa.silb"):
        (root / companion).parent.mkdir()
        (root / companion).write_text("0.1 # a\n")
    (root / "erkennung.txt").write_text("Satz erkannt\n")
    return root


def test_letters_are_german_words_for_emotions(release, tmp_path):
    manifest = prepare_emodb(release, tmp_path / "out")
    columns = ["ID", "split", "speaker", "gender", "emotion", "label"]
    assert read_manifest(manifest, release)[columns].values.tolist() == [
        ["emodb_03a01Wa", "train", "03", "male", "angry", "anger"],
        ["emodb_08a02Lb", "train", "08", "female", "boredom", "boredom"],
        ["emodb_09a04Ec", "valid", "09", "female", "disgust", "disgust"],
        ["emodb_10b01Ad", "valid", "10", "male", "fear", "fear"],
        ["emodb_11b02Fa", "train", "11", "male", "happy", "happiness"],
        ["emodb_14b10Nc", "train", "14", "female", "neutral", "neutral"],
        ["emodb_16b03Ta", "train", "16", "female", "sad", "sadness"],
    ]


def test_a_row_is_complete(release, tmp_path):
    manifest = prepare_emodb(release, tmp_path / "out")
    assert read_csv(manifest)[1] == [
        *("emodb_03a01Wa", "0.3", "$data_root/wav/03a01Wa.wav", "", ""),
        *("emodb", "train", "deu", "03", "male", "angry", "anger"),
        "Der Lappen liegt auf dem Eisschrank.",
    ]


def test_what_the_release_holds_beside_its_audio_is_only_counted(
    release, tmp_path, capsys
):
    prepare_emodb(release, tmp_path / "out")
    assert read_csv(tmp_path / "out/emodb_dropped.csv") == [["item", "reason"]]
    assert "ignored: companions of the audio 3" in capsys.readouterr().out


def test_unknown_speakers_texts_letters_and_formats_are_dropped(
    release, tmp_path
):
    misnamed = ("04a01Wa", "03a03Wa", "03a01Xa", "03a01W", "03a01Wa (1)")
    for name in misnamed:
        write_noise(release / f"wav/{name}.wav")
    (release / "wav/list.xls").write_bytes(b"\xd0\xcf")
    prepare_emodb(release, tmp_path / "out")
    dropped = read_dropped(tmp_path / "out")
    assert dropped == {
        **{f"wav/{n}.wav": "misnamed: not like 03a01Fa" for n in misnamed},
        "wav/list.xls": "not audio: .xls",
    }


def test_flac_gives_the_rows_of_wav(release, tmp_path):
    for path in (release / "wav").iterdir():
        write_noise(tmp_path / f"flac/wav/{path.stem}.flac")
    wav = prepare_emodb(release, tmp_path / "out").read_text()
    flac = prepare_emodb(tmp_path / "flac", tmp_path / "out_flac").read_text()
    assert flac.replace(".flac", ".wav") == wav


def test_a_folder_that_is_not_there_ends_with_a_message(tmp_path):
    out = tmp_path / "out"
    message = refused("emodb", tmp_path / "EmoDB", out)
    assert f"{tmp_path / 'EmoDB'}: no such folder" in message
    assert not out.exists()


def test_another_corpus_ends_with_what_was_sought_and_found(tmp_path):
    (tmp_path / "IEMOCAP/Session1").mkdir(parents=True)
    out = tmp_path / "out"
    message = refused("emodb", tmp_path / "IEMOCAP", out)
    assert "looked for wav/[0-9][0-9][ab]*" in message
    assert "found here: Session1" in message
    assert not out.exists()


def test_a_folder_without_one_good_file_leaves_no_manifest(tmp_path):
    (tmp_path / "EmoDB/wav").mkdir(parents=True)
    (tmp_path / "EmoDB/wav/03a01Wa.wav").touch()
    out = tmp_path / "out"
    message = refused("emodb", tmp_path / "EmoDB", out)
    assert "none of 1 audio files can be used" in message
    assert "wav/03a01Wa.wav: empty: 0 bytes" in message
    assert list(out.iterdir()) == []
