"""Golden files: set INTERLOCK_UPDATE_GOLDEN=1 to accept a change, and read the diff."""

import os
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def golden(name, text):
    """Compare with the golden file of this name below tests/, or write it."""
    path = TESTS / name
    if os.environ.get("INTERLOCK_UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text, "set INTERLOCK_UPDATE_GOLDEN=1 to accept a change, and read the diff"
