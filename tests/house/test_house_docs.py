"""Documentation that cannot rot: what it names exists, and its commands are the program's."""

import ast
import contextlib
import io
import json
import re
from pathlib import Path

import pytest

from interlock.cli.main import app
from interlock.policy.testing import run_tests
from interlock.release.load import from_files

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SYMBOL = re.compile(r"`((?:\w+/)+\w+\.py):(\w+(?:\.\w+)?)`")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
COMMAND = re.compile(r"^\s*(?:[$] )?interlock ([a-z]+)(?: ([a-z]+))?", re.MULTILINE)
GROUPS = {"db", "release", "policy", "trace", "sessions", "audit"}


def names_in(path):
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef))
            }
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_symbol_and_test_a_page_names_exists(page):
    text = page.read_text()
    for path, symbol in SYMBOL.findall(text):
        assert symbol in names_in(ROOT / "src" / "interlock" / path), f"{page.name}: {path}:{symbol}"
    for path, test in TEST.findall(text):
        assert test in names_in(ROOT / path), f"{page.name}: {path}::{test}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_command_in_the_documentation_is_one_of_the_programs():
    commands = {match for page in PAGES for match in COMMAND.findall(page.read_text())}
    assert commands
    for command, word in sorted({(command, word if command in GROUPS else "") for command, word in commands}):
        words = [part for part in (command, word) if part]
        with contextlib.redirect_stdout(io.StringIO()) as said:
            app([*words, "--help"], exit_on_error=False, result_action="return_value")
        assert "Usage: interlock " + " ".join(words) in said.getvalue(), words


def commands_of(group, path=()):
    for word in (name for name in group if not name.startswith("-")):
        inner = group[word]
        if any(not name.startswith("-") for name in inner):
            yield from commands_of(inner, (*path, word))
        else:
            yield " ".join((*path, word)), inner


def test_every_option_of_every_command_says_what_it_is():
    silent = [
        f"{name} {argument.name}"
        for name, command in commands_of(app)
        for argument in command.assemble_argument_collection()
        if not argument.parameter.help and not argument.children
    ]
    assert not silent


def test_every_page_is_reachable_from_the_readme_or_the_decisions():
    readme = (ROOT / "README.md").read_text()
    for page in PAGES[1:]:
        name = page.relative_to(ROOT).as_posix()
        assert name in readme or "docs/decisions" in name, name


def test_the_release_in_the_reference_loads_and_passes_its_tests():
    page = (ROOT / "docs" / "reference" / "release.md").read_text()
    files = dict(re.findall(r"```\w+ file=(\S+)\n(.*?)```", page, re.DOTALL))
    results = run_tests(from_files(files))
    assert len(results) == 4
    assert all(result.passed for result in results), [result.why for result in results]


def test_decisions_are_numbered_each_once_and_without_gaps():
    names = sorted(path.name for path in (ROOT / "docs" / "decisions").iterdir())
    assert [name[:5] for name in names] == [f"{number:04d}-" for number in range(1, len(names) + 1)], names


LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page):
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_each_claim_of_the_threat_model_names_a_test_or_how_it_is_measured():
    page = (ROOT / "docs" / "threat-model.md").read_text()
    claims = page[page.index("## Guaranteed by structure") : page.index("## Known limits")]
    rows = [line for line in claims.splitlines() if line.startswith("| ") and not line.startswith(("| what ", "|--"))]
    assert len(rows) > 20
    for row in rows:
        evidence = row.rstrip(" |").rsplit("|", 1)[1]
        assert TEST.search(evidence) or "python -m bench." in evidence, row


def test_the_figures_of_the_threat_model_are_the_ones_that_were_measured():
    page = (ROOT / "docs" / "threat-model.md").read_text()
    kept = json.loads((ROOT / "bench" / "results" / "detectors.json").read_text())
    whole = kept["hostile"]["agentdojo all"]
    assert f"Of {whole['texts']} attack texts" in page
    assert f"{round(whole['rules'])} %: all that" in page
    stated = [kept["hostile"][f"agentdojo {name}"] for name in ("direct", "ignore_previous", "system_message")]
    assert {round(item["rules"]) for item in stated} == {9}
    assert f"it finds {round(whole['classifier'])} % (46 to 57 %" in page
    assert {round(item["classifier"]) for item in stated} == {46, 57, 49}
    assert f"with the rules {round(whole['either'])} %" in page
    known, held_out = kept["harmless"]["benign"], kept["harmless"]["benign_held_out"]
    assert (known["either"], held_out["either"]) == (0, 0)
    assert f"none of {known['texts']} benign" in page
    assert f"none of {held_out['texts']} that were written afterwards" in page
    unknown = [item for name, item in kept["harmless"].items() if name != "benign" and "requests" not in name]
    assert {item["classifier"] for item in unknown} == {0}
    assert f"none of {sum(item['texts'] for item in unknown)} harmless texts" in page


def test_the_floors_of_the_architecture_page_are_those_of_the_contract():
    contract = (ROOT / ".importlinter").read_text()
    layers = re.search(r"\nlayers =\n((?:    .+\n)+)", contract)[1].splitlines()
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| \d \| (.+?) \|", page, re.MULTILINE)
    assert [set(re.findall(r"`(\w+)`", row)) for row in regrouped(rows, layers)] == [
        set(re.findall(r"\w+", line)) for line in layers
    ]


def regrouped(rows, layers):
    """`cli` stands above `server`, and both on one floor of the page."""
    first = rows[0]
    assert set(re.findall(r"`(\w+)`", first)) == {"cli", "server"}
    assert [line.strip() for line in layers[:2]] == ["cli", "server"]
    return ["`cli`", "`server`", *rows[1:]]
