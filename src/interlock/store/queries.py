"""Named SQL: statements live in `sql/<file>.sql`, each under `-- name: a_name` and a sentence that says what it does."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_HEADER = re.compile(r"^-- name: (\w+)\n-- (.+)\n", re.MULTILINE)


@cache
def load(file: str) -> dict[str, str]:
    """All statements of `sql/<file>.sql` by name. Raises ValueError for one that has no sentence."""
    text = (files("interlock.store") / "sql" / f"{file}.sql").read_text(encoding="utf-8")
    parts = _HEADER.split(text)
    if text.count("-- name:") != len(parts) // 3:
        raise ValueError(f"{file}.sql: every statement needs a name and a sentence")
    return {name: sql.strip() for name, sql in zip(parts[1::3], parts[3::3], strict=True)}
