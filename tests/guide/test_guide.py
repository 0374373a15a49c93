"""The newcomer's guide holds, and whoever follows it notices when it does not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from examples.guide.blocks import Broken, blocks_of, missing, typed
from examples.guide.follow import GUIDE, ROOT, main

WAIT_S = 900


@pytest.fixture
def follow(capsys):
    def run(guide, *words):
        code = main([str(guide), "--here", "--json", *words])
        return code, json.loads(capsys.readouterr().out)

    return run


def test_the_guide_holds_word_by_word_from_an_mcp_server_to_the_export():
    command = [sys.executable, "-m", "examples.guide.follow", "--here", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=WAIT_S)
    assert done.stdout, done.stderr
    code, told = done.returncode, json.loads(done.stdout)
    assert told["broken"] is None
    assert (code, told["held"], told["cloned"]) == (0, True, False)
    assert told["first_governed_call_s"] > 0
    # Nothing of it was passed over but the clone and the set-up.
    places = [block.place for block in blocks_of(GUIDE.read_text(), "docs/guide.md")]
    followed = {block["place"] for block in told["blocks"]}
    skipped = [place for place in places if place not in followed]
    kinds = {block.place: block for block in blocks_of(GUIDE.read_text(), "docs/guide.md")}
    assert [place for place in skipped if kinds[place].kind not in {"conversation", "by"}] == [places[0]]
    assert "set-up" in kinds[places[0]].words


@pytest.mark.parametrize(
    ("lie", "line", "why"),
    [
        ("```sh run\necho tea\n```\n\n```text shows\ncoffee\n```\n", 5, "not shown: coffee"),
        ("```sh run\necho tea\necho rice\n```\n\n```text shows whole\ntea\n```\n", 6, "not shown: rice"),
        ("```sh run\necho tea\necho rice\n```\n\n```text shows\nrice\ntea\n```\n", 6, "not shown: tea"),
        ("A word.\n\n```sh run\nfalse\n```\n", 3, "ended with 1 and not with 0"),
        ("```sh run exit=1\ntrue\n```\n", 1, "ended with 0 and not with 1"),
        ("```sh run\nfalse\ntrue\n```\n", 1, "ended with 1"),
        ('```sh run terminal=server until="ready"\necho soon\n```\n', 1, "'ready' did not come"),
        (
            "```sh run\nread -p 'sure? ' it; echo so $it\n```\n\n```conversation\nreally? y⏎\n```\n",
            5,
            "'really? y⏎' did not come",
        ),
        ("```yaml file=a.yaml\na: 1\n```\n\n```yaml replace=a.yaml\nb: 1\n```\n\n```yaml by\nb: 2\n```\n", 5, "exactly once"),
        ("```sh runn\ntrue\n```\n", 1, "nobody knows how to follow"),
        ("```keys terminal=server\nCtrl-C\n```\n", 1, "nothing runs"),
    ],
)
def test_a_guide_that_does_not_hold_fails_and_names_the_block(follow, tmp_path, lie, line, why):
    guide = tmp_path / "lie.md"
    guide.write_text(lie)
    # Whatever is conversed about here never comes, so a short patience tells the same as a long one.
    code, told = follow(guide, "--patience-s", "1")
    assert (code, told["held"]) == (1, False)
    assert told["broken"]["place"] == f"{guide}:{line}"
    assert why in told["broken"]["why"]


def test_a_terminal_remembers_its_folder_and_variables_and_a_conversation_is_typed(follow, tmp_path):
    guide = tmp_path / "guide.md"
    guide.write_text(
        "```sh run\nmkdir a\ncd a\nexport WHAT=tea\n```\n\n"
        "```sh run\nread -p 'how much? ' n; echo $n of $WHAT in $(basename $PWD)\n```\n\n"
        "```conversation\nhow much? 3⏎\n3 of tea in a\n```\n\n"
        '```sh run terminal=other\nbasename $PWD; echo "[$WHAT]"\n```\n\n```text shows whole\nstart\n[]\n```\n'
    )
    code, told = follow(guide)
    assert (code, told["broken"]) == (0, None)


def test_what_differs_each_time_is_written_as_dots_and_nothing_else_is_let_through():
    assert missing(["ordered … of rice"], "so: ordered 5 of rice\n") is None
    assert missing(["ordered … of rice"], "ordered 5 of tea\n") == "ordered … of rice"
    assert missing(["a.c"], "abc\n") == "a.c"
    assert typed("  does [r]: ⏎") == ("  does [r]: ", "")
    assert typed("force? [y/N] y⏎") == ("force? [y/N] ", "y")
    assert typed("pantry lists 3 tools.") == ("pantry lists 3 tools.", None)


def test_a_block_that_is_never_closed_is_no_block():
    with pytest.raises(Broken, match="never closed"):
        blocks_of("```sh run\ntrue\n", "guide.md")


def test_what_the_guide_calls_a_picture_is_in_the_documentation():
    for block in blocks_of(GUIDE.read_text(), "guide.md"):
        for line in block.lines if block.kind == "browser" else ():
            verb, _, name = line.partition(" ")
            assert verb != "picture" or (Path(GUIDE).parent / "images" / name.strip()).exists()
