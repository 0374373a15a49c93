"""The failure matrix on its page: every fault, every kind of call, and a test that exists in every cell."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "failure-matrix.md").read_text()
FAULTS = [
    "database down", "database slow", "database read-only", "database failed over", "database full", "ledger append fails",
    "policy fails to load", "issuer unreachable", "tool down", "answer too long", "clock jumps", "lease lost", "process killed or paused", "disk full",
    "database restored",
]  # fmt: skip
COLUMNS = ["read", "write", "destructive", "egress", "control change"]
TEST = re.compile(r"\[\w+\]\(\.\./(tests/[\w/]+\.py)#(\w+)\)")


def rows():
    lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return cells[0], cells[2:]


def test_every_fault_meets_every_kind_of_call():
    head, body = rows()
    assert head[1:] == COLUMNS
    assert [row[0] for row in body] == FAULTS


def test_every_cell_says_what_happens_and_names_tests_that_exist():
    _, body = rows()
    for row in body:
        assert len(row) == len(COLUMNS) + 1
        for column, cell in zip(COLUMNS, row[1:], strict=True):
            named = TEST.findall(cell)
            assert named, (row[0], column)
            assert len(TEST.sub("", cell).strip()) > 10, (row[0], column)
            for file, test in named:
                known = {
                    node.name
                    for node in ast.walk(ast.parse((ROOT / file).read_text()))
                    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
                }
                assert test in known, (row[0], column, file, test)
