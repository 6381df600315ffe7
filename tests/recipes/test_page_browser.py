"""The page in a browser: upload, record, timeline, a bad file, a phone."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from babble import babble, pause

pytest.importorskip("gradio", reason="the extra page is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")

from playwright.sync_api import sync_playwright

from speechbrain_mser.page.layout import served

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")
RATE = 16000
# Where pictures of the page are put, if somebody wants to look at them
PICTURES = os.environ.get("MSER_TEST_PICTURES")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with an utterance, a recording of two parts, and no audio."""
    folder = tmp_path_factory.mktemp("files")
    soundfile.write(folder / "short.wav", babble(3, 1), RATE)
    one = np.concatenate([babble(9, 1), pause(11)])
    two = np.concatenate([pause(11), babble(8, 4), pause(1)])
    soundfile.write(folder / "call.wav", np.stack([one, two], 1), RATE)
    (folder / "broken.wav").write_text("no audio")
    return folder


@pytest.fixture(scope="module")
def browser(files):
    """Chromium, whose microphone plays the utterance."""
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={files / 'short.wav'}",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url(recognizer):
    with served(recognizer, port=None) as page:
        yield page.local_url


@pytest.fixture
def tab(browser, url, request):
    """A tab of it; at its end, nothing was asked of another machine."""
    phone = {"viewport": {"width": 375, "height": 800}, "has_touch": True}
    context = browser.new_context(
        permissions=["microphone"],
        **(phone if "phone" in request.node.name else {}),
    )
    tab = context.new_page()
    tab.set_default_timeout(60_000)
    asked = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(url)
    tab.get_by_role("button", name="Recognise").wait_for()
    yield tab
    if PICTURES:
        name = f"{request.node.name}.png"
        tab.screenshot(path=Path(PICTURES, name), full_page=True)
    context.close()
    others = [
        one for one in asked if not one.startswith((url, "data:", "blob:"))
    ]
    assert not others


def upload(tab, path):
    tab.locator("input[type=file]").first.set_input_files(path)
    tab.locator("#speech audio, #speech #waveform").first.wait_for(
        state="attached"
    )
    tab.get_by_role("button", name="Recognise").click()


def test_an_upload_is_recognised(tab, files):
    tab.get_by_label("Candidate words").fill("bored, proud")
    upload(tab, files / "short.wav")
    tab.get_by_text("proud", exact=True).first.wait_for()
    assert tab.locator("#timeline button").count() == 0


@pytest.mark.parametrize("how", ["desk", "phone"])
def test_a_long_recording_has_parts_to_hear(tab, files, how, tmp_path):
    tab.get_by_label("a channel each").check()
    upload(tab, files / "call.wav")
    parts = tab.locator("#timeline button")
    parts.first.wait_for()
    assert parts.count() > 1
    names = tab.locator("#timeline .mser-name").all_inner_texts()
    assert names == ["channel 1", "channel 2"]
    parts.first.click()
    tab.locator("#part").get_by_label("Play", exact=False).first.wait_for()
    with tab.expect_download() as download:
        tab.get_by_role("link", name="CSV").click()
    download.value.save_as(tmp_path / "call.csv")
    text = (tmp_path / "call.csv").read_text("utf-8")
    assert text.count("\n") == 1 + parts.count()
    # It does not lead elsewhere
    assert tab.get_by_label("Download").count() >= 2
    assert tab.get_by_label("Share").count() == 0
    # Nothing is wider than the screen
    assert tab.evaluate(
        "document.documentElement.scrollWidth <= window.innerWidth"
    )


def test_what_is_recorded_is_recognised(tab):
    tab.get_by_label("Record audio").click()
    tab.get_by_role("button", name="Record", exact=True).click()
    tab.wait_for_timeout(2000)
    with tab.expect_response(lambda one: "/upload" in one.url) as sent:
        tab.get_by_role("button", name="Stop").click()
    sent.value.finished()
    tab.wait_for_timeout(500)
    tab.get_by_role("button", name="Recognise").click()
    tab.locator("#emotion").get_by_text("%").first.wait_for()


def test_a_bad_file_is_said(tab, files):
    upload(tab, files / "broken.wav")
    said = tab.get_by_text("broken.wav: ", exact=False)
    said.wait_for()
    assert "Traceback" not in tab.content()
