"""`interlock policy` on folders: what it prints, and its exit codes."""

import json

import pytest

from interlock.cli.output import NO, OK, Failure
from interlock.cli.release import run
from tests.support.shop import FILES

STOCK = "- {call: shop.stock, as: Staff, args: {item: nut}, expect: allow}\n"


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "release", {**FILES, "tests/a.yaml": STOCK})
    return tmp_path / "release"


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_tests_are_run_and_their_coverage_is_said_in_a_line(folder, capsys):
    assert run(folder) == OK
    out = capsys.readouterr().out
    assert "1 tests, all passed" in out
    assert "coverage: 4 of 44 policies exercised (9 %)" in out
    assert "agents.yaml:" not in out
    run(folder, coverage=True)
    assert "agents.yaml:5" in capsys.readouterr().out


def test_too_little_coverage_is_a_no(folder, capsys):
    assert run(folder, min_coverage=9) == OK
    assert run(folder, min_coverage=10) == NO
    assert "coverage is below 10 %" in capsys.readouterr().out


def test_a_failing_test_is_a_no(folder):
    write(folder, {"tests/b.yaml": STOCK.replace("allow", "deny 3")})
    assert run(folder) == NO
    assert run(folder, only="tests/a.yaml") == OK


def test_tests_from_elsewhere_are_run_beside_the_releases_own(folder, tmp_path, capsys):
    write(tmp_path / "mine", {"deep/x.yaml": "- {name: mine, call: shop.pay, as: Nobody, expect: deny 3}\n"})
    assert run(folder, tests=[tmp_path / "mine"]) == OK
    assert "2 tests, all passed" in capsys.readouterr().out
    assert run(folder, tests=[tmp_path / "mine" / "deep" / "x.yaml"], only="mine", as_json=True) == OK
    answer = json.loads(capsys.readouterr().out)
    assert [result["name"] for result in answer["results"]] == ["mine"]
    assert answer["coverage"]["percent"] == answer["coverage"]["exercised"] * 100 // len(answer["coverage"]["policies"])


def test_a_test_of_an_operation_that_is_not_there_fails_and_says_so(folder, tmp_path, capsys):
    write(tmp_path, {"x.yaml": "- {call: shop.ghost, as: Staff, expect: deny 1}\n"})
    assert run(folder, tests=[tmp_path / "x.yaml"]) == NO
    assert "there is no operation 'shop.ghost'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[}", "x.yaml:1"),
        ("- {cal: shop.stock}\n", "did you mean 'call'"),
        ("call: shop.stock\n", "a list of requests"),
        ("", "there are no tests here"),
    ],
)
def test_mistakes_in_tests_from_elsewhere_are_named_with_their_place(folder, tmp_path, text, says):
    write(tmp_path, {"x.yaml": text})
    with pytest.raises(Failure, match="in the tests") as failed:
        run(folder, tests=[tmp_path / "x.yaml"])
    assert says in str(failed.value)


def test_nothing_to_run_is_no_success(folder):
    with pytest.raises(Failure, match="no test matches"):
        run(folder, only="ghost")
    (folder / "tests" / "a.yaml").unlink()
    with pytest.raises(Failure, match="there are no tests"):
        run(folder)
