"""Every limit stands on one page, with the value that the code has. `INTERLOCK_UPDATE_GOLDEN=1` writes it."""

import importlib
import os
import re
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "limits.md"
SOURCES = ROOT / "src" / "interlock"
# Which modules stand under which title: the longest of these names that a module's own begins with says it.
ROOMS = {
    "Ways in": "server",
    "The page": "server.page app.live",
    "Logging in": "server.login identity.login app.logins app.outside_logins",
    "Identity": "identity",
    "Values": "core",
    "Texts that are looked through": "core.disguise core.texts provenance risk app.risk app.detectors",
    "The gate": "gateway",
    "Policies": "policy",
    "Tools": "tools",
    "Files of a release": "release",
    "A gateway": "app",
    "The database": "store",
    "Marks beside the database": "store.mark app.marking app.restoring",
    "The record": "ledger",
    "Telemetry": "telemetry",
    "Commands": "cli",
    "Attacks on one's own release": "redteam app.redteam",
}
LIMIT = re.compile(
    r"(?:^|_)(?:MAX|MIN|MOST|LONGEST|CEILING|FEW)_"
    r"|_(?:S|MS|US|DAYS|BYTES|CHARS|LEVELS|DIGITS|BITS|LENGTH|PERCENT|CALLS|EVENTS|ITEMS|PEOPLE|OBJECTS|ONCE|ROUNDS|WORDS|CHUNKS)$"
)
HEAD = """# Limits

*For operators and security reviewers.*

Every loop, queue, payload and wait has a limit with a name, and the unit stands at the end of it. This page is made from the
code by a test, which fails when they differ; nothing here is configured, and what exceeds a limit is refused or withheld with an error that
names it. What a contract or a release sets for itself (timeouts, rates, budgets, places) is in [release.md](release.md).
"""


def modules():
    """Every module, by its name below the package."""
    return sorted(".".join(path.relative_to(SOURCES).with_suffix("").parts) for path in SOURCES.rglob("*.py"))


def room_of(module):
    """The title that a module stands under; empty for one that has no place on the page."""
    places = {prefix: title for title, prefixes in ROOMS.items() for prefix in prefixes.split()}
    fitting = [prefix for prefix in places if f"{module}.".startswith(f"{prefix}.")]
    return places[max(fitting, key=len)] if fitting else ""


def limits_of(module):
    """Names and values of a module's own limits, and of the fields of `ToolLimits`."""
    text = (SOURCES / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    names = [name for name in re.findall(r"^([A-Z][A-Z0-9_]*): Final\b", text, re.MULTILINE) if LIMIT.search(name)]
    if not names and "\nDEFAULT_LIMITS" not in text:
        return {}
    found = importlib.import_module(f"interlock.{module}")
    if hasattr(found, "DEFAULT_LIMITS") and found.DEFAULT_LIMITS.__class__.__module__ == found.__name__:
        return msgspec.structs.asdict(found.DEFAULT_LIMITS)
    return {name: getattr(found, name) for name in names if type(getattr(found, name)) in (int, float)}


def rendered():
    limits = {module: limits_of(module) for module in modules()}
    lines = [HEAD]
    for title in ROOMS:
        lines += [f"## {title}", "", "| limit | value | in |", "|---|---|---|"]
        for module, found in limits.items():
            if room_of(module) == title:
                lines += [f"| `{name}` | {value:,} | `{module}` |" for name, value in found.items()]
        lines.append("")
    return "\n".join(lines)


def test_the_page_of_limits_says_what_the_code_has():
    if os.environ.get("INTERLOCK_UPDATE_GOLDEN"):
        PAGE.write_text(rendered(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == rendered()


def test_every_module_that_has_a_limit_has_a_place_on_the_page():
    assert [module for module in modules() if limits_of(module) and not room_of(module)] == []
