"""mser: what is printed, where a file is bad, and how it ends."""

import csv
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import jsonschema
import pytest
import soundfile
import torch
from mser_output import IN_ROOMS, SCHEMAS, WORDS, lines

from speechbrain_mser import __version__
from speechbrain_mser.command import recognize, results, workers
from speechbrain_mser.command.main import COMMANDS
from speechbrain_mser.inference import HeardSpeech
from speechbrain_mser.settings.project_files import PACKAGE, PROJECT


def test_schemas_are_schemas():
    for path in SCHEMAS.glob("*.json"):
        schema = json.loads(path.read_text("utf-8"))
        jsonschema.Draft202012Validator.check_schema(schema)


def test_help_imports_no_torch():
    code = (
        "import sys\n"
        "sys.argv[0] = 'mser'\n"
        "from speechbrain_mser.command.main import main\n"
        "try:\n    main(['--help'])\n"
        "finally:\n"
        "    heavy = {'torch', 'speechbrain', 'transformers', 'pandas'}\n"
        "    assert not heavy & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert done.returncode == 0, done.stderr
    assert all(f"\n    {name}" in done.stdout for name in COMMANDS)


def test_every_subcommand_has_help_and_mser_a_version(mser):
    for name in COMMANDS:
        code, out, _ = mser(name, "--help", own=False)
        assert code == 0 and f"usage: mser {name}" in out
    assert mser("--version", own=False)[:2] == (0, f"{__version__}\n")


def test_a_folder_is_walked_and_a_bad_file_is_a_line(mser, rooms, recognizer):
    code, out, errors = mser("recognize", rooms)
    records = lines(out)
    assert code == 3
    assert [r["path"] for r in records] == [f"{rooms}/{n}" for n in IN_ROOMS]
    assert [n for n, r in enumerate(records) if "error" in r] == [2]
    assert "cannot be decoded" in records[2]["error"]
    assert str(rooms) not in records[2]["error"]
    for said in ("took 5", "2 .txt", "1 without extension", "1 hidden"):
        assert said in errors
    # What the library says, file by file
    for record in records[:2]:
        words, log_probs = recognizer.recognize_file(record["path"])
        assert record["emotion"] == words[0]
        assert list(record["probabilities"]) == WORDS
        torch.testing.assert_close(
            torch.tensor(list(record["probabilities"].values())),
            log_probs[0].exp(),
            atol=1e-5,
            rtol=0,
        )
        heard = soundfile.info(record["path"])
        assert record["duration"] == pytest.approx(heard.duration, abs=1e-3)


def test_files_folders_and_stdin_each_once(mser, rooms, monkeypatch):
    listed = f"{rooms}/deep\n\n{rooms}/b.wav\r\n{rooms}/gone.wav\n"
    stdin = io.TextIOWrapper(io.BytesIO(listed.encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    code, out, errors = mser("recognize", rooms / "b.wav", "-")
    records = lines(out)
    names = [os.path.relpath(record["path"], rooms) for record in records]
    assert names == [
        *("b.wav", "deep/broken.wav", "deep/z.wav", "deep/Öl.wav"),
        "gone.wav",
    ]
    assert code == 3 and records[-1]["error"] == "no such file"
    assert "1 named more than once" in errors


def test_other_words_and_sets_of_words(mser, rooms):
    wav = rooms / "b.wav"
    code, out, _ = mser("recognize", wav, "--labels", "bored, excited")
    assert code == 0
    assert list(lines(out)[0]["probabilities"]) == ["bored", "excited"]
    _, out, _ = mser("recognize", wav, "--labels", "aesdd5")
    assert len(lines(out)[0]["probabilities"]) == 5


def test_csv_says_the_same_as_json(mser, rooms):
    _, out, _ = mser("recognize", rooms, "--json")
    code, table, _ = mser("recognize", rooms, "--csv")
    rows = list(csv.DictReader(io.StringIO(table)))
    assert code == 3
    for row, record in zip(rows, lines(out), strict=True):
        for name in ("path", "emotion", "error", "recognizer", "schema"):
            assert row[name] == record.get(name, "")
        for word, probability in record.get("probabilities", {}).items():
            assert float(row[f"p_{word}"]) == probability


def test_people_get_a_table_and_no_control_character(
    mser, rooms, tmp_path, monkeypatch
):
    shutil.copy(rooms / "b.wav", tmp_path / "a\x1b[2J.wav")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    code, out, _ = mser(
        "recognize", tmp_path / "a\x1b[2J.wav", rooms / "deep" / "broken.wav"
    )
    first, second = out.splitlines()
    assert code == 3 and "\x1b" not in out
    assert first.split()[0] in WORDS and first.endswith("a\\x1b[2J.wav")
    assert second.startswith("?") and "cannot be decoded" in second


def test_a_path_that_is_no_utf8_comes_through(mser, rooms, tmp_path):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    shutil.copy(rooms / "b.wav", odd)
    code, out, _ = mser("recognize", odd)
    assert code == 0 and lines(out)[0]["path"] == odd
    output = tmp_path / "out.csv"
    arguments = ("recognize", odd, "--csv", "-o", output, "--resume")
    assert mser(*arguments)[0] == mser(*arguments)[0] == 0
    assert output.read_bytes().count(b"caf\xe9.wav") == 1


@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_interrupted_anywhere_it_goes_on_to_the_same_bytes(
    mser, rooms, tmp_path, form
):
    (rooms / "line\nbreak, and comma.wav").write_text("no audio")
    output = tmp_path / "out"
    arguments = ("recognize", rooms, form, "-o", output)
    assert mser(*arguments)[:2] == (3, "")
    whole = output.read_bytes()
    # Within a line, between lines, within a name with a line break
    places = {0, 5, whole.index(b"\n") + 1, whole.index(b"line") + 6}
    for place in {*places, len(whole) - 1, len(whole)}:
        output.write_bytes(whole[:place])
        assert mser(*arguments, "--resume")[0] == 3
        assert output.read_bytes() == whole


def test_what_is_finished_is_not_done_again(mser, rooms, tmp_path, monkeypatch):
    output = tmp_path / "out"
    done = []

    def interrupted(recognizer, path, *asked):
        done.append(path)
        if len(done) == 3:
            raise KeyboardInterrupt
        return workers.recognize_one(recognizer, path, *asked)

    monkeypatch.setattr(recognize, "recognize_one", interrupted)
    arguments = ("recognize", rooms, "-o", output)
    code, _, errors = mser(*arguments)
    assert code == 130 and "--resume" in errors
    assert "run it again" not in errors  # that alone would begin anew
    assert [r["path"] for r in lines(output.read_text("utf-8"))] == done[:2]
    assert mser(*arguments, "--resume")[0] == 3
    assert done[2:] == [
        f"{rooms}/{name}" for name in (IN_ROOMS[2:3] + IN_ROOMS[2:])
    ]


def test_another_output_is_not_gone_on_with(mser, rooms, tmp_path):
    output = tmp_path / "out"
    wav = rooms / "b.wav"
    assert mser("recognize", wav, "-o", output)[0] == 0
    kept = output.read_bytes()
    for arguments, said in (
        ((), "is there already: --resume"),
        (("--resume", "--labels", "bored,excited"), "the labels neutral"),
        (("--resume", "--adapt"), "another heard"),
        (("--resume", "--csv"), "expected 'path,duration"),
    ):
        code, _, errors = mser("recognize", wav, "-o", output, *arguments)
        assert code == 2 and said in errors
        assert output.read_bytes() == kept
    row = f'{results.CSVRows(WORDS).head}"{"x" * 200_000}'
    output.write_text(row)
    code, _, errors = mser("recognize", wav, "-o", output, "--resume", "--csv")
    assert code == 2 and "no result of mser" in errors
    assert output.read_text() == row
    for text in (
        *("precious", '{"path": "a"}\nprecious\n', "[]\n", "7\n"),
        *('{"path": 5}\n', '{"path": "a", "probabilities": [1]}\n'),
        "[" * 100_000 + "\n",
    ):
        output.write_text(text)
        code, _, errors = mser("recognize", wav, "-o", output, "--resume")
        assert code == 2 and "no result of mser" in errors
        assert output.read_text() == text


def test_several_processes_say_the_same_in_order(mser, rooms, tmp_path):
    _, out, _ = mser("recognize", rooms, "--adapt")
    code, by_two, _ = mser("recognize", rooms, "--adapt", "--jobs", "2")
    assert code == 3
    for one, other in zip(lines(out), lines(by_two), strict=True):
        assert one.pop("probabilities", None) == pytest.approx(
            other.pop("probabilities", None), abs=1e-5
        )
        assert one == other


def test_what_was_heard_serves_again(mser, rooms, tmp_path, recognizer):
    room = tmp_path / "room.safetensors"
    code, out, errors = mser("listen", rooms, "-o", room)
    assert (code, out) == (3, "") and "heard 4 of 5 recordings" in errors
    assert HeardSpeech.load(room).utterances == 4
    # Listening first, or long before: the same
    _, adapted, _ = mser("recognize", rooms, "--adapt")
    _, again, _ = mser("recognize", rooms, "--heard", room)
    assert again == adapted and lines(again)[0]["heard"]
    assert again != mser("recognize", rooms)[1]
    more = tmp_path / "more.safetensors"
    wav = rooms / "b.wav"
    assert mser("listen", wav, "--heard", room, "-o", more)[0] == 0
    assert HeardSpeech.load(more).utterances == 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["recognize"], "required"),
        (["recogniez", "a.wav"], "invalid choice"),
        (["recognize", "a.wav", "--json", "--csv"], "not allowed with"),
        (["recognize", "a.wav", "--labels", "sad,sad"], "given twice"),
        (["recognize", "a.wav", "--labels", "sad,"], "label 2 of 2 is empty"),
        (["recognize", "a.wav", "--resume"], "name it"),
        (["recognize", "a.wav", "--jobs", "0"], "expected 1 or more"),
        (["recognize", "a.wav", "--calibration", "hot"], "give none, temp"),
        (["recognize", "a.wav", "--calibration", "temperature"], "calibrat"),
        (["recognize", "a.wav", "--recognizer", "./no"], "no folder ./no"),
        (["recognize", "a.wav", "--device", "gpu"], "which is none"),
        (["recognize", "a.wav", "--device", "cpu,gpu"], "'gpu', which is none"),
        (
            ["recognize", "a.wav", "--jobs", "2", "--device", "cpu,cuda:99"],
            "'cuda:99', which is not to be had",
        ),
        (["recognize", "a.wav", "-o", "a.wav/x"], "a.wav: a file, where"),
        (["recognize", "a.wav", "-o", "/proc/no/x"], "/proc/no/x: cannot be"),
        (["recognize", "a.wav", "--heard", "no"], "no such file"),
        (["recognize", "a.wav", "--output", "."], "a folder"),
        (["recognize", "no.wav", "--adapt"], "none of 1 recordings"),
        (["listen", "a.wav"], "required: -o"),
        (["listen", "a.wav", "-o", "."], ".: a folder; name a file in it"),
        (["listen", "a.wav", "-o", "a.wav/x"], "a.wav: a file, where"),
        (["listen", "a.wav", "-o", "/proc/no/x"], "/proc/no/x: cannot be made"),
        (
            ["listen", "a.wav", "-o", "x" * 250],
            "cannot be made there (File name",
        ),
        (["recognize", "none"], "there is no recording: none"),
        (["recognize", "none", "-o", "x"], "there is no recording: none"),
        (["find", "sad", "none"], "there is no recording: none"),
        (["listen", "no.wav", "-o", "x"], "none of 1 recordings"),
        (["timeline", "no.wav"], "no such file"),
        (["timeline", "a.wav", "--rttm", "no"], "no: there is no such file"),
        (["timeline", "a.wav", "--format", "xml"], "invalid choice"),
        (["timeline", "a.wav", "-o", "a.wav/x"], "a.wav: a file, where"),
        (
            ["timeline", "a.wav", "--plot", "a.wav/x.png"],
            "a.wav: a file, where",
        ),
        (["timeline", "a.wav", "--calibration", "hot"], "give none, temp"),
        (["find", "sad", "a.wav", "--calibration", "hot"], "give none, temp"),
        (["find", "sad"], "required"),
        (["find", " ", "a.wav"], "label 1 of 1 is empty"),
        (["find", "sad", "a.wav", "--top", "0"], "expected 1 or more"),
        (["models", "fetch", "open:no"], "no open model is called"),
        (["card", "--recognizer", "./no"], "no folder"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    mser, rooms, tmp_path, monkeypatch, arguments, said
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(rooms / "b.wav", "a.wav")
    (tmp_path / "none").mkdir()
    own = arguments[0] in ("recognize", "find", "listen", "timeline") and (
        "--recognizer" not in arguments
    )
    code, out, errors = mser(*arguments, own=own)
    assert (code, out) == (2, "") and said in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "closed"),
    [
        (["models"], ">&-"),
        (["card"], ">&-"),
        (["recognize", "-"], "<&-"),
        (["find", "sad", "-"], "<&-"),
        (["timeline", "-"], "<&-"),
    ],
)
def test_closed_streams_are_said(folder, arguments, closed):
    if arguments != ["models"]:
        arguments = [*arguments, "--recognizer", str(folder)]
    command = [sys.executable, "-m", "speechbrain_mser", *arguments]
    done = subprocess.run(
        f"{shlex.join(command)} {closed}",
        shell=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "is closed" in done.stderr


def test_capitals_make_no_other_word(mser, rooms, recognizer):
    wav = rooms / "b.wav"
    plain = recognizer.recognize_file(wav, ["sad", "proud", "angry"])
    asked = iter(["SAD", "proud", "Angry"])
    words, log_probs = recognizer.recognize_file(wav, asked)
    assert torch.equal(log_probs, plain[1])
    assert words[0] in ("SAD", "proud", "Angry")
    assert words[0].casefold() == plain[0][0]
    assert recognizer.meant_words(["Sad"]) == set()
    _, small, _ = mser("find", "sad", wav)
    for word in ("Sad", "sad\u200b"):
        code, out, _ = mser("find", word, wav)
        assert code == 0 and out == small


def test_a_recording_that_memory_does_not_hold_is_a_line(
    mser, rooms, monkeypatch
):
    """As numpy raises it while it is decoded; the others go on."""
    read = soundfile.SoundFile.read

    def large(sound, *frames, **kinds):
        if sound.name.endswith("b.wav"):
            raise MemoryError("Unable to allocate 3.34 GiB")
        return read(sound, *frames, **kinds)

    monkeypatch.setattr(soundfile.SoundFile, "read", large)
    code, out, _ = mser("recognize", rooms / "b.wav", rooms / "deep/z.wav")
    first, second = lines(out)
    assert code == 3 and "memory" in first["error"] and "emotion" in second


def test_a_card_is_printed_or_said_to_be_missing(mser, tmp_path):
    # Written of what its training has noted
    code, out, _ = mser("card")
    assert code == 0 and "| tiny " in out and "seed 1234" in out
    code, _, errors = mser("card", "--recognizer", tmp_path, own=False)
    assert code == 2 and "has no README.md" in errors
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n\n# Mine\n")
    (tmp_path / "card.json").write_text('{"ua": 0.5}')
    own = ("--recognizer", tmp_path)
    assert mser("card", *own, own=False)[:2] == (0, "# Mine\n")
    code, out, _ = mser("card", *own, "--json", own=False)
    assert json.loads(out) == {"ua": 0.5}


def test_the_released_card_says_what_it_is_not_for(mser):
    released = PACKAGE / "models" / "open" / "README.md"
    if not released.is_file():
        pytest.skip("the released recogniser was not trained")
    code, out, _ = mser("card", own=False)
    assert code == 0 and "What it is not for" in out


def test_a_page_that_is_not_installed_says_what_to_do(mser, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    # Other tests may have had it.
    for name in [*sys.modules]:
        if name.startswith("speechbrain_mser.page"):
            monkeypatch.delitem(sys.modules, name)
    code, _, errors = mser("serve")
    assert code == 2 and "pip install 'speechbrain-mser[page]'" in errors


def test_prints_of_libraries_are_no_data(mser, rooms, monkeypatch):
    def talkative(recognizer, path, *asked):
        print("I am a library")
        return workers.recognize_one(recognizer, path, *asked)

    monkeypatch.setattr(recognize, "recognize_one", talkative)
    _, out, errors = mser("recognize", rooms / "b.wav")
    assert len(lines(out)) == 1 and "I am a library" in errors


def test_in_a_pipe_nothing_but_data_and_no_traceback(folder, rooms):
    """As before ``head -1``: the first line comes at once, then no reader."""
    # More than a pipe holds
    listed = "\n".join(f"{rooms}/{'no' * 99}{n}.wav" for n in range(999))
    command = [
        *(sys.executable, "-m", "speechbrain_mser", "recognize"),
        *("-", "--recognizer", str(folder)),
    ]
    kind = {"stdin": -1, "stdout": -1, "stderr": -1}
    env = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(command, **kind, env=env, cwd=rooms) as process:
        process.stdin.write(f"{rooms}/b.wav\n".encode())
        process.stdin.flush()
        # It comes while more is awaited
        first = process.stdout.readline()
        assert lines(first.decode())[0]["emotion"] in WORDS
        process.stdout.close()
        try:
            process.stdin.write(listed.encode())
            process.stdin.close()
        except BrokenPipeError:
            pass
        errors = process.stderr.read().decode()
        process.stdin = None
        assert process.wait() == 141
    assert "Traceback" not in errors and "BrokenPipe" not in errors


def test_the_page_shows_lines_as_their_schema_says():
    page = (PROJECT / "docs" / "using.md").read_text("utf-8")
    (shown,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    assert len(lines(shown)) == 2


def test_half_rows_are_none():
    rows = results.CSVRows(["sad"])
    assert rows.read("") == rows.read(rows.head[:9]) == []
