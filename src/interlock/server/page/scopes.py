"""What may be stopped, as a list to choose from: what this person may stop, and of sessions and users what they may see."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from interlock.app.plane import Plane
from interlock.app.scopes import UnknownScopeError, check_scope
from interlock.core.who import Person
from interlock.release.model import Release
from interlock.server.page.words import clock
from interlock.store.sessions import SessionRow

MAX_SESSIONS_OFFERED: Final = 50

Choices = list[tuple[str, list[tuple[str, str]]]]
"""Groups by title, each with scopes and how they are shown."""


async def choices(plane: Plane, person: Person, release: Release) -> Choices:
    """Everything this person may stop, the widest first; empty for somebody who may stop nothing."""
    stops_all, stops_own = await plane.admin.may(person, "kill"), await plane.admin.may(person, "kill", tenant=person.tenant)
    if not stops_own:
        return []
    own = f"tenant:{person.tenant}"
    live = await plane.desk.sessions.listed(
        person, user="", agent="", task="", state="live", after=None, limit=MAX_SESSIONS_OFFERED
    )
    live = tuple(row for row in live if stops_all or row.tenant == person.tenant)
    found: Choices = []
    if stops_all:
        identities = release.identities
        tenants = {f"tenant:{row.tenant}" for row in live} - {own}
        found = [
            ("Everything", _plain(["fleet"])),
            ("Environments", _plain({f"environment:{identity.environment}" for identity in identities})),
            ("Agents", _plain({f"agent:{identity.agent}" for identity in identities})),
            ("Tools", _plain(f"tool:{name}" for name in release.tools)),
            ("Operations", _plain(f"operation:{name}" for name in release.contracts)),
            ("Other tenants", _plain(tenants)),
        ]
    found.append(("Your tenant", _plain([own])))
    found.append(("Users", _plain({f"user:{row.tenant}/{row.user}" for row in live})))
    found.append(("Sessions, the newest first", [(f"session:{row.session_id}", _shown(row)) for row in live]))
    return [(title, scopes) for title, scopes in found if scopes]


def _plain(scopes: Iterable[str]) -> list[tuple[str, str]]:
    return [(scope, scope) for scope in sorted(scopes) if _is_scope(scope)]


def _is_scope(text: str) -> bool:
    try:
        return bool(check_scope(text))
    except UnknownScopeError:
        return False


def _shown(row: SessionRow) -> str:
    return f"{row.agent} for {row.user}, {row.task}, since {clock(row.opened_at_us)} UTC"
