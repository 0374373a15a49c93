"""`tests/requirements.toml` maps SPEC ids to tests; this keeps it honest in both directions."""

import ast
import tomllib
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
MANIFEST = tomllib.loads((TESTS / "requirements.toml").read_text())

SPEC_IDS = {
    *(f"C{n}" for n in range(1, 10)),
    *(f"P{n}" for n in range(1, 10)),
    *(f"X{n}" for n in range(1, 9)),
    *(f"R{n}" for n in range(1, 7)),
    *(f"T{n}" for n in range(1, 8)),
    *(f"I{n}" for n in range(1, 7)),
    *(f"A{n}" for n in range(1, 8)),
    *(f"O{n}" for n in range(1, 13)),
    *(f"F{n}" for n in range(1, 7)),
}
STATES = {"done", "part", "open"}


def test_functions_in(path):
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


test_functions_in.__test__ = False


def test_the_manifest_lists_every_requirement_and_no_other():
    assert set(MANIFEST) == SPEC_IDS


def test_every_requirement_has_a_state_and_says_what_is_missing():
    for name, entry in MANIFEST.items():
        assert entry["state"] in STATES, name
        assert set(entry) <= {"state", "tests", "missing"}, name
        if entry["state"] == "part":
            assert entry["missing"], f"{name} is done in part: say which part is missing"


def test_what_is_done_or_begun_is_proved_by_tests_that_exist():
    for name, entry in MANIFEST.items():
        tests = entry.get("tests", [])
        assert bool(tests) == (entry["state"] != "open"), name
        for test in tests:
            file, _, function = test.partition("::")
            assert (TESTS / file).is_file(), f"{name}: no file {file}"
            assert function in test_functions_in(TESTS / file), f"{name}: no test {test}"
