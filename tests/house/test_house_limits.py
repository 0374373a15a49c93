"""Every limit that somebody outside can meet stands on one page, with the value that the code has. `INTERLOCK_UPDATE_GOLDEN=1` writes it."""

import importlib
import os
import re
from pathlib import Path

import msgspec

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "limits.md"
ROOMS = {
    "Ways in": "interlock.server.limits",
    "Values": "interlock.core.canonical",
    "The gate": "interlock.gateway.limits",
    "Tools": "interlock.tools.limits",
    "Texts that are looked through": "interlock.core.disguise interlock.provenance.tokens interlock.provenance.files interlock.risk.injection",
    "Tokens of identity": "interlock.identity.tokens interlock.identity.jwks",
    "Issuers outside": "interlock.identity.fetch interlock.identity.outside",
    "Logging in": "interlock.identity.login.codes interlock.identity.login.provider",
    "Work that is handed on": "interlock.identity.handing_down",
    "The page": "interlock.server.page.stream interlock.server.page.forms interlock.app.live",
    "Files of a release": "interlock.release.documents interlock.release.load interlock.release.shapes interlock.release.issuers",
    "The database": "interlock.store.database interlock.store.writer",
    "Marks beside the database": "interlock.store.mark interlock.app.marking",
    "Leaving": "interlock.app.leaving interlock.app.answers",
}
HEAD = """# Limits

Every loop, queue, payload and wait has a limit with a name, and the unit stands at the end of it. This page is made from the
code by a test, which fails when they differ; nothing here is configured, and what exceeds a limit is refused or withheld with an error that
names it. What a contract or a release sets for itself (timeouts, rates, budgets, places) is in [release.md](release.md).
"""


def limits_of(module):
    """Names and values of a module's numbers, and of the fields of `ToolLimits`."""
    found = importlib.import_module(module)
    if hasattr(found, "DEFAULT_LIMITS"):
        return msgspec.structs.asdict(found.DEFAULT_LIMITS)
    return {
        name: value
        for name, value in vars(found).items()
        if re.fullmatch(r"[A-Z][A-Z0-9_]+", name) and type(value) in (int, float) and module == _home(found, name)
    }


def _home(module, name):
    text = Path(module.__file__).read_text(encoding="utf-8")
    return module.__name__ if re.search(rf"^{name}: Final", text, re.MULTILINE) else ""


def rendered():
    lines = [HEAD]
    for title, modules in ROOMS.items():
        lines += [f"## {title}", "", "| limit | value | in |", "|---|---|---|"]
        for module in modules.split():
            lines += [
                f"| `{name}` | {value:,} | `{module.removeprefix('interlock.')}` |" for name, value in limits_of(module).items()
            ]
        lines.append("")
    return "\n".join(lines)


def test_the_page_of_limits_says_what_the_code_has():
    if os.environ.get("INTERLOCK_UPDATE_GOLDEN"):
        PAGE.write_text(rendered(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == rendered()
