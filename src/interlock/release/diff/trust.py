"""`issuers.yaml` compared: whom a release believes about people and agents, and how their tokens are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from interlock.release.diff.changes import Change, Direction, Found, Lines, Rule, always, differences, more_is, step
from interlock.release.issuers import AgentsRule, Issuer, LoginRule, PeopleRule, RolesRule
from interlock.release.model import Release

Part: TypeAlias = PeopleRule | AgentsRule | RolesRule | LoginRule
KIND: Final = "issuer"
FILE: Final = "issuers.yaml"
_MORE: Final = more_is(Direction.WIDENS)
_UNSURE: Final = always(Direction.UNKNOWN)
_NEUTRAL: Final = always(Direction.NEUTRAL)


def _looser(value: object) -> Rule:
    return lambda _old, new: Direction.WIDENS if new == value else Direction.NARROWS


ISSUER_RULES: Final[Mapping[str, Rule]] = {
    "kind": _UNSURE,
    "environments": _UNSURE,  # one by one, in `_differ`
    "name": _NEUTRAL,
    # Whose keys are believed, and where they are read from: other keys are other people.
    "issuer": _UNSURE,
    "jwks": _UNSURE,
    "sts": _UNSURE,
    "trust_domain": _UNSURE,
    "ca": _UNSURE,
    "credential": _UNSURE,
    "algorithms": _MORE,
    "leeway_s": _MORE,
    "max_lifetime_s": _MORE,
    "token_type": _looser("any"),
    "people": _UNSURE,
    "agents": _UNSURE,
    "login": _UNSURE,
    "tenants": _UNSURE,
    # What clients are told of where to log in; what is believed does not follow from it.
    "advertise": _NEUTRAL,
    "scopes": _NEUTRAL,
}
PEOPLE_RULES: Final[Mapping[str, Rule]] = {
    "user": _UNSURE,
    "prefix": _UNSURE,
    "tenant": _UNSURE,
    "roles": _UNSURE,
    # An attribute that is missing fails a permit that reads it, and silences a forbid.
    "attributes": _UNSURE,
    "clients": _MORE,
    "require": _UNSURE,
}
TENANT_RULES: Final[Mapping[str, Rule]] = {"fixed": _UNSURE, "claim": _UNSURE, "map": _UNSURE}
ROLES_RULES: Final[Mapping[str, Rule]] = {"claim": _UNSURE, "map": _UNSURE}
AGENTS_RULES: Final[Mapping[str, Rule]] = {"subject": _UNSURE, "delegated": _looser(True), "require": _UNSURE}

# By which client people log in there, and what they are told to be by which of its answers.
LOGIN_RULES: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(("client_id", "secret", "scopes", "claims", "directory", "cli"), _UNSURE),
    "title": _NEUTRAL,
}


def issuer_changes(old: Release, new: Release, was: Lines, now: Lines) -> list[Change]:
    """Issuers that came, went or are read differently."""
    found: list[Change] = []
    for name in sorted(old.issuers.keys() | new.issuers.keys()):
        before, after = old.issuers.get(name), new.issuers.get(name)
        lines = was if after is None else now
        if before is None and after is not None:
            told: Iterable[Found] = [(Direction.WIDENS, f"new: {_told(after)}")]
        elif before is not None and after is None:
            told = [(Direction.NARROWS, f"gone: {_told(before)}")]
        elif before is not None and after is not None:
            told = _differ(before, after)
        found += [
            Change(direction=direction, kind=KIND, name=name, what=what, file=FILE, line=lines.of(FILE, name))
            for direction, what in told
        ]
    return found


def _told(issuer: Issuer) -> str:
    of = [name for name in ("people", "agents") if getattr(issuer, name) is not None]
    return f"{issuer.issuer or issuer.trust_domain} for {' and '.join(of)} in {', '.join(sorted(issuer.environments))}"


def _differ(old: Issuer, new: Issuer) -> list[Found]:
    found = _fields(old, new, ISSUER_RULES, but=("environments", "people", "agents", "login", "tenants"))
    for environment in sorted(old.environments.keys() | new.environments.keys()):
        audiences = old.environments.get(environment, ()), new.environments.get(environment, ())
        if audiences[0] != audiences[1]:
            found.append((_MORE(*audiences), f"audiences in {environment}: {step(*audiences)}"))
    found += _mapped(old.tenants, new.tenants, "tenants")
    found += _people(old.people, new.people)
    found += _agents(old.agents, new.agents)
    if old.login is None or new.login is None:
        found += _whole("login", old.login, new.login)
    else:
        found += _fields(old.login, new.login, LOGIN_RULES, of="login ")
    return found


def _fields(old: Any, new: Any, rules: Mapping[str, Rule], *, but: Iterable[str] = (), of: str = "") -> list[Found]:
    """The fields that differ, but for those that are compared more closely."""
    closer = set(but)
    return [
        (direction, f"{of}{what}") for direction, what in differences(old, new, rules) if what.partition(":")[0] not in closer
    ]


def _people(old: PeopleRule | None, new: PeopleRule | None) -> list[Found]:
    if old is None or new is None:
        return _whole("people", old, new)
    found = _fields(old, new, PEOPLE_RULES, but=("tenant", "roles", "require"), of="people ")
    found += _fields(old.tenant, new.tenant, TENANT_RULES, but=("map",), of="people tenant ")
    found += _mapped(old.tenant.map, new.tenant.map, "people tenant map")
    found += _required(old.require, new.require, "people require")
    if old.roles is None or new.roles is None:
        return [*found, *_whole("people roles", old.roles, new.roles)]
    found += _fields(old.roles, new.roles, ROLES_RULES, but=("map",), of="people roles ")
    if (old.roles.map is None) != (new.roles.map is None):
        # Without a map every value of the claim becomes a role.
        direction = Direction.WIDENS if new.roles.map is None else Direction.NARROWS
        found.append((direction, f"people roles map: {step(old.roles.map, new.roles.map)}"))
    else:
        found += _mapped(old.roles.map or {}, new.roles.map or {}, "people roles map")
    return found


def _agents(old: AgentsRule | None, new: AgentsRule | None) -> list[Found]:
    if old is None or new is None:
        return _whole("agents", old, new)
    found = _fields(old, new, AGENTS_RULES, but=("require",), of="agents ")
    return found + _required(old.require, new.require, "agents require")


def _whole(name: str, old: Part | None, new: Part | None) -> list[Found]:
    """A part that is there or not: with it, more is believed."""
    if old is None and new is None:
        return []
    return [(Direction.WIDENS if old is None else Direction.NARROWS, f"{name}: {step(old, new)}")]


def _mapped(old: Mapping[str, str], new: Mapping[str, str], name: str) -> list[Found]:
    """A mapping of claims: what is added widens, what is gone narrows, what comes to mean something else is unknown."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        was, now = old.get(key), new.get(key)
        if was != now:
            direction = Direction.WIDENS if was is None else Direction.NARROWS if now is None else Direction.UNKNOWN
            found.append((direction, f"{name} {key}: {step(was, now)}"))
    return found


def _required(old: Mapping[str, tuple[Any, ...]], new: Mapping[str, tuple[Any, ...]], name: str) -> list[Found]:
    """Claims that a token must have: one more narrows, and so does a value less of one."""
    found = []
    for claim in sorted(old.keys() | new.keys()):
        was, now = old.get(claim), new.get(claim)
        if was is None or now is None:
            direction = Direction.NARROWS if was is None else Direction.WIDENS
        else:
            direction = _MORE(_typed(was), _typed(now))
            if set(_typed(was)) == set(_typed(now)):
                continue
        found.append((direction, f"{name} {claim}: {step(was or (), now or ())}"))
    return found


def _typed(values: tuple[Any, ...]) -> tuple[tuple[str, Any], ...]:
    """`true` is not `1` in a token, though Python says so."""
    return tuple((type(value).__name__, value) for value in values)
