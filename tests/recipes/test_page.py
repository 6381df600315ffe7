"""The page: its answers, its limits, and that nothing is kept."""

import base64
import json
import re
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from babble import babble, pause

pytest.importorskip("gradio", reason="the extra page is not installed")

from gradio_client import Client, handle_file

from speechbrain_mser.errors import InputError
from speechbrain_mser.page.answers import Answers, read_words
from speechbrain_mser.page.layout import served
from speechbrain_mser.page.picture import timeline_html
from speechbrain_mser.timeline import (
    Segment,
    Timeline,
    make_timeline,
)

RATE = 16000


@pytest.fixture(scope="module")
def utterance(tiny_corpus):
    """A file of half a second."""
    return str(min((tiny_corpus / "corpora" / "tiny").glob("*.wav")))


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    """A file of 25 seconds, speech and pauses."""
    parts = [babble(9, 1), pause(2), babble(8, 4), pause(6)]
    path = tmp_path_factory.mktemp("call") / "Ärger <1>.wav"
    soundfile.write(path, np.concatenate(parts), RATE)
    return str(path)


@pytest.fixture(scope="module")
def answers(recognizer):
    return Answers(recognizer, max_minutes=0.5)


@pytest.fixture(scope="module")
def page(recognizer):
    """The page, served; it takes half a minute and half a megabyte."""
    with served(recognizer, port=None, max_mb=1, max_minutes=0.5) as page:
        yield page


@pytest.fixture(scope="module")
def client(page, tmp_path_factory):
    folder = tmp_path_factory.mktemp("client")
    return Client(page.local_url, download_files=folder, verbose=False)


def test_an_utterance_is_recognised_as_by_the_library(
    client, utterance, recognizer
):
    label, timeline, _ = client.predict(
        handle_file(utterance), "bored, Proud", api_name="/recognize"
    )
    [word], log_probs = recognizer.recognize_file(utterance, ["bored", "Proud"])
    assert label["label"] == word and not timeline
    found = {one["label"]: one["confidence"] for one in label["confidences"]}
    wanted = log_probs[0].exp().tolist()
    assert found == pytest.approx(
        dict(zip(("bored", "Proud"), wanted, strict=True)), abs=1e-6
    )
    # Without words, the recogniser's own
    label, _, _ = client.predict(
        handle_file(utterance), "", api_name="/recognize"
    )
    words = {one["label"] for one in label["confidences"]}
    assert words == {*recognizer.labels()}


def test_a_long_recording_has_a_timeline_to_take_away(client, call, recognizer):
    label, shown, _ = client.predict(
        handle_file(call), "", api_name="/recognize"
    )
    wanted = make_timeline(recognizer, call, progress=False)
    assert len(wanted.segments) > 1
    links = re.findall(r'download="([^"]*)" href="data:[^,]*,([^"]*)"', shown)
    files = {name[-4:]: base64.b64decode(data) for name, data in links}
    said = json.loads(files["json"])
    assert said["segments"] == wanted.to_dict()["segments"]
    assert "/" not in said["source"]
    assert files[".csv"].decode("utf-8").count("\n") == 1 + len(wanted.segments)
    # Each segment in the picture and in the list
    assert shown.count("data-start=") == 2 * len(wanted.segments)
    confidences = [one["confidence"] for one in label["confidences"]]
    assert sum(confidences) == pytest.approx(1)


@pytest.mark.parametrize(
    ("make", "words", "message"),
    [
        (lambda path: path.write_text("no audio"), "", "a.wav: "),
        (lambda path: path.write_bytes(b""), "", "a.wav: .*empty"),
        (lambda path: write(path, np.zeros(RATE)), "", "a.wav: .*zero"),
        (lambda path: write(path, noise(20)), "", "no speech was found"),
        (lambda path: write(path, noise(31), 8000), "", "1.0 minutes.*0.5 at"),
        (lambda path: write(path, noise(1)), "sad, sad", "given twice"),
        (lambda path: write(path, noise(1)), "sad,,", "label 2 of 3 is empty"),
        (lambda path: write(path, noise(1)), "a," * 999, "500 at most"),
    ],
)
def test_what_cannot_be_used_is_said_without_a_path(
    client, tmp_path, make, words, message
):
    make(tmp_path / "a.wav")
    with pytest.raises(Exception, match=message) as refused:
        client.predict(
            handle_file(str(tmp_path / "a.wav")), words, api_name="/recognize"
        )
    assert "/" not in str(refused.value).replace("/recognize", "")


def noise(seconds):
    rng = np.random.default_rng(0)
    return 1e-4 * rng.standard_normal(int(RATE * seconds))


def write(path, samples, rate=RATE):
    soundfile.write(path, samples, rate)


def test_more_than_the_limit_is_not_taken(client, tmp_path):
    write(tmp_path / "a.wav", noise(40))
    with pytest.raises(Exception, match=r"413|[Mm]aximum"):
        client.predict(
            handle_file(str(tmp_path / "a.wav")), "", api_name="/recognize"
        )


def test_nothing_is_kept(recognizer, utterance, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    with served(recognizer, port=None) as page:
        [folder] = tmp_path.glob("mser-page-*")
        client = Client(page.local_url, download_files=False, verbose=False)
        client.predict(handle_file(utterance), "", api_name="/recognize")
        assert [path.name for path in folder.rglob("*.wav")]
        # Whatever is old is swept while it runs
        frequency, age = page.delete_cache
        assert frequency <= 60 and age <= 1800
        assert not page.analytics_enabled and not page.share
    assert not list(tmp_path.glob("mser-page-*"))
    assert recognizer.heard is None


def test_it_is_this_machines_alone_by_default(page):
    assert page.local_url.startswith("http://127.0.0.1:")


def test_a_port_that_is_taken_is_said(recognizer, page):
    with (
        pytest.raises(InputError, match="name another port"),
        served(recognizer, port=page.server_port),
    ):
        pass


@pytest.mark.parametrize("port", [-1, 99999])
def test_a_port_that_cannot_be_is_said(recognizer, port):
    with (
        pytest.raises(InputError, match=f"port is {port}"),
        served(recognizer, port=port),
    ):
        pass


@pytest.mark.parametrize("limit", ["max_mb", "max_minutes"])
def test_a_limit_of_nothing_is_refused(recognizer, limit):
    with (
        pytest.raises(InputError, match=limit),
        served(recognizer, port=None, **{limit: 0}),
    ):
        pass


def test_two_at_once_have_their_own_answers(answers, call, utterance):
    alone = answers(call), answers(utterance)
    order, begun = [], threading.Event()

    def one():
        found.append(answers(call, progress=lambda done: begun.set()))
        order.append("call")

    found = []
    thread = threading.Thread(target=one)
    thread.start()
    assert begun.wait(60)
    # Is let through, and hears nothing of what the other is heard by
    short = answers(utterance)
    thread.join()
    assert [found[0], short] == list(alone)


def test_speakers_are_the_channels_where_that_is_chosen(
    client, answers, recognizer, tmp_path, utterance
):
    path = str(tmp_path / "call.wav")
    both = np.stack([babble(4, 1), pause(4)], 1)
    soundfile.write(path, np.concatenate([both, both[:, ::-1]]), RATE)
    _, shown, _ = client.predict(
        handle_file(path), "", "channels", api_name="/recognize"
    )
    wanted = make_timeline(
        recognizer, path, speakers="channels", progress=False
    )
    assert wanted.speakers == ["channel 1", "channel 2"]
    assert shown.count('class="mser-row"') == 2
    names = re.findall(r'class="mser-name">([^<]*)<', shown)
    assert names == wanted.speakers
    assert answers(path, "", "channels")[1].segments == wanted.segments
    # By default it is one, and an utterance
    assert answers(path)[1] is None
    with pytest.raises(InputError, match=r"1 channel\(s\).*choose one"):
        answers(utterance, "", "channels")


def test_a_part_is_what_lies_there(answers, call):
    whole, _ = soundfile.read(call, dtype="float32")
    found = answers.cut(call, 1.0, 2.5)
    assert np.array_equal(found, whole[RATE : RATE * 5 // 2])
    with pytest.raises(InputError, match=r"^gone\.wav is no longer kept"):
        answers.cut("/tmp/place/gone.wav", 0, 1)


def test_names_and_words_of_strangers_are_text():
    evil = '"><script>alert(1)</script>'
    segment = Segment(0.0, 1.0, evil, {evil: 1.0})
    timeline = Timeline([segment], [evil], 1.0, f"/{evil}.wav")
    assert "<script" not in timeline_html(timeline)
    several = replace(
        timeline, segments=[segment, replace(segment, speaker=None)]
    )
    assert timeline_html(several).count('class="mser-row"') == 2


def test_words_are_those_of_the_box():
    assert read_words("paper4") == ["neutral", "happy", "sad", "angry"]
    assert read_words("a b,ç") == ["a b", "ç"]


def test_the_space_is_this_page():
    space = Path(__file__).parents[2] / "docs" / "examples" / "space"
    names = {}
    exec(compile((space / "app.py").read_text(), "app.py", "exec"), names)
    assert callable(names["serve"])


def test_the_command_hands_its_limits_on(mser):
    code, out, said = mser("serve", "--max-minutes", "0")
    assert (code, out) == (2, "") and "max_minutes is 0" in said
