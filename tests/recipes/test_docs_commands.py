"""Every command that a page shows is one that there is, or says what it needs."""

import re
import shlex
from pathlib import Path

import pytest
from miniature import RECIPES

from speechbrain_mser.command.main import build_parser
from speechbrain_mser.settings.flags import read_command_line

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "manifests" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
# What no test has: it stands before the commands.
NEEDS = r"<!-- needs (?:a licence|the hub|a licence and the hub) -->\n"
BLOCK = re.compile(rf"({NEEDS})?```(\w*)\n(.*?)```", re.DOTALL)


def commands():
    """Page, whether it says what it needs, and words of every command."""
    for page in PAGES:
        for needs, language, text in BLOCK.findall(page.read_text("utf-8")):
            if language not in ("sh", "bash"):
                continue
            for line in text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    yield pytest.param(
                        bool(needs), words, id=f"{page.stem}: {line[:50]}"
                    )


@pytest.mark.parametrize(("says_what_it_needs", "words"), commands())
def test_a_command_is_one_that_there_is(
    says_what_it_needs, words, run_script, capsys
):
    if words[0] == "make":
        targets = re.findall(
            r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M
        )
        assert words[1] in targets
        return
    if words[0] == "mser":
        build_parser().parse_args(words[1:])
        return
    assert says_what_it_needs, f"say what it needs: {shlex.join(words)}"
    if words[0] not in ("python", "torchrun"):
        return
    at = next(i for i, word in enumerate(words) if word.endswith(".py"))
    script, arguments = words[at], words[at + 1 :]
    assert (RECIPES / script).is_file()
    if arguments[0].endswith(".yaml"):
        if "--part" in arguments:
            place = arguments.index("--part")
            del arguments[place : place + 2]
        read_command_line(arguments)
        return
    assert run_script(script.removesuffix(".py"), "--help") == 0
    known = set(re.findall(r"--\w+", capsys.readouterr().out))
    given = {word for word in arguments if word.startswith("--")}
    assert given <= known


def test_the_examples_of_the_pages_are_those_that_tests_run():
    pages = [ROOT / "docs" / name for name in ("extend.md", "timeline.md")]
    page = "\n".join(path.read_text("utf-8") for path in pages)
    shown = re.findall(
        r"<!-- (docs/examples/\S+) -->\n```\w+\n(.*?)```", page, re.DOTALL
    )
    assert {ROOT / path for path, _ in shown} == {
        path
        for path in (ROOT / "docs" / "examples").iterdir()
        if path.suffix in (".py", ".yaml")
    }
    for path, text in shown:
        assert text == (ROOT / path).read_text("utf-8")
