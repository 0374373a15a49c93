"""Named SQL: statements live in `sql/*.sql`, each under `-- name: a_name` and a sentence that says what it does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

_HEADER = re.compile(r"^-- name: (\w+)\n-- (.+)\n", re.MULTILINE)


@cache
def load() -> Mapping[str, str]:
    """All statements by name. Raises ValueError for one that has no sentence, and for a name that stands twice."""
    found: dict[str, str] = {}
    for file in sorted((files("interlock.store") / "sql").iterdir(), key=lambda item: item.name):
        if not file.name.endswith(".sql"):
            continue
        text = file.read_text(encoding="utf-8")
        parts = _HEADER.split(text)
        if text.count("-- name:") != len(parts) // 3:
            raise ValueError(f"{file.name}: every statement needs a name and a sentence")
        for name, sql in zip(parts[1::3], parts[3::3], strict=True):
            if name in found:
                raise ValueError(f"{file.name}: the name {name} is taken")
            found[name] = sql.strip()
    return found
