"""The house rules as tests: import contracts that can be broken, rooms of a readable size, nothing of this machine."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "interlock"

VIOLATIONS = {
    "A package imports only from lower floors": ("core/intruder.py", "import interlock.gateway.keys\n"),
    "Tools are importable only from the gateway and the composition root": (
        "policy/intruder.py",
        "import interlock.tools.port\n",
    ),
    "Only the gateway handles permits": ("identity/intruder.py", "import interlock.policy.permit\n"),
    "The verifier shares nothing with the writer": ("ledger/verify.py", "import interlock.ledger.events\n"),
    "Core and policy do no I/O, read no clock, roll no dice": ("policy/intruder.py", "import secrets\n"),
    "Only telemetry speaks to telemetry's libraries": ("gateway/intruder.py", "import opentelemetry.trace\n"),
}


def lint_imports(folder):
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", script, "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(folder / "src"), "PATH": "/usr/bin:/bin"},
    )


@pytest.mark.parametrize("contract", VIOLATIONS)
def test_each_import_contract_notices_when_it_is_broken(contract, tmp_path):
    copy_of_house(tmp_path)
    place, line = VIOLATIONS[contract]
    target = tmp_path / "src" / "interlock" / place
    before = target.read_text() if target.exists() else '"""An intruder."""\n'
    target.write_text(before + line)
    found = lint_imports(tmp_path)
    assert found.returncode != 0, found.stdout
    assert re.search(re.escape(contract) + r"\s+BROKEN", found.stdout), found.stdout


def test_every_contract_of_the_house_is_broken_once_on_purpose():
    named = set(re.findall(r"^name = (.+)$", (ROOT / ".importlinter").read_text(), re.MULTILINE))
    assert named == set(VIOLATIONS)


def copy_of_house(folder):
    (folder / ".importlinter").write_text((ROOT / ".importlinter").read_text())
    for path in SOURCE.rglob("*.py"):
        target = folder / "src" / "interlock" / path.relative_to(SOURCE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())


def code_of_ours():
    found = (path for folder in ("src", "tests", "bench", "examples") for path in (ROOT / folder).rglob("*.py"))
    return [path for path in found if "node_modules" not in path.parts]  # what `make conformance` fetches


def test_no_room_is_longer_than_five_hundred_lines():
    long = {
        str(path.relative_to(ROOT)): lines for path in code_of_ours() if (lines := len(path.read_text().splitlines())) > 500
    }
    assert not long


def lengths_of(text, least=70):
    """How many lines of code the long functions have: without its signature, its docstring, comments, blank lines and functions inside it."""
    lines = text.splitlines()
    for function in ast.walk(ast.parse(text)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) or function.end_lineno - function.lineno < least:
            continue
        first = function.body[1 if ast.get_docstring(function) and len(function.body) > 1 else 0]
        ours = set(range(first.lineno, function.end_lineno + 1))
        for inner in ast.walk(function):
            if inner is not function and isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                ours -= set(range(min([inner.lineno, *(d.lineno for d in inner.decorator_list)]), inner.end_lineno + 1))
        yield function.name, sum(bool(line := lines[number - 1].strip()) and line[0] != "#" for number in ours)


def test_no_function_is_longer_than_seventy_lines():
    long = {
        (f"{path.relative_to(ROOT)}:{function}", lines)
        for path in code_of_ours()
        for function, lines in lengths_of(path.read_text())
        if lines > 70
    }
    assert not long
    inside = 'def a():\n    """Say."""\n    # why\n\n    @b\n    def c():\n        return 1\n\n    return c\n'
    assert list(lengths_of(inside, least=1)) == [("a", 1), ("c", 1)]


def naps_of(text):
    """Lines on which a test lets time pass: `asyncio.sleep` and `time.sleep`, however imported, of more than nothing."""
    naps = (
        call
        for call in ast.walk(ast.parse(text))
        if isinstance(call, ast.Call) and getattr(call.func, "attr", getattr(call.func, "id", "")) == "sleep"
    )
    return [
        call.lineno for call in naps if not (call.args and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0)
    ]


def test_tests_wait_for_what_they_wait_for_and_never_for_time_to_pass():
    """`tests.support.patience` has the two ways to wait; a fixed pause is too short on some machine and too long on all others."""
    waits = ROOT / "tests" / "support" / "patience.py"
    text = {path: path.read_text() for path in (ROOT / "tests").rglob("*.py") if path != waits}
    naps = {str(path.relative_to(ROOT)): lines for path, read in text.items() if "sleep(" in read and (lines := naps_of(read))}
    assert not naps
    assert naps_of(waits.read_text())
    assert naps_of("from time import sleep\nsleep(0.1)\nasyncio.sleep(0)\nasyncio.sleep(delay=pause)\n") == [2, 4]


def test_every_package_says_what_its_room_is_for():
    silent = [str(path) for path in SOURCE.rglob("__init__.py") if not path.read_text().startswith('"""')]
    assert not silent


def test_no_package_is_an_empty_room():
    rooms = [folder for folder in SOURCE.iterdir() if folder.is_dir() and not folder.name.startswith("_")]
    empty = [folder.name for folder in rooms if not list(folder.glob("[!_]*"))]
    assert not empty
