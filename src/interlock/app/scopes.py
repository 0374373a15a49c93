"""What a control may be set on, written as text: which tenant it lies in, and whether its name means anything."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

from interlock.core.terms import Scope
from interlock.release.model import Release
from interlock.store.sessions import Sessions

_NAME: Final = re.compile(r"^[^\s:]+$")
_USER: Final = re.compile(r"^[^\s:/]+/\S+$")


class UnknownScopeError(Exception):
    """A control scope that is not written as scopes are."""


def check_scope(text: str) -> str:
    """A control scope as it is stored. Raises `UnknownScopeError`."""
    kind, _, name = text.partition(":")
    if text == Scope.FLEET:
        return text
    pattern = _USER if kind == Scope.USER else _NAME
    if kind in {scope.value for scope in Scope if scope is not Scope.FLEET} and pattern.match(name):
        return text
    named = [scope for scope in Scope if scope not in {Scope.FLEET, Scope.USER}]
    kinds = ", ".join([*(f"{scope.value}:NAME" for scope in named), "user:TENANT/USER"])
    raise UnknownScopeError(f"{text!r} is no scope; write `fleet`, or one of {kinds}")


async def tenant_of(scope: str, sessions: Sessions) -> str:
    """The tenant that a scope lies in; empty for scopes that reach over tenants and for sessions nobody knows."""
    kind, _, name = scope.partition(":")
    match kind:
        case Scope.TENANT:
            return name
        case Scope.USER:
            return name.partition("/")[0]
        case Scope.SESSION:
            return await sessions.tenant(name)
        case _:
            return ""


def note_on(scope: str, release: Release) -> str:
    """What whoever stops a scope should know about its name: a slip of the pen stops nothing."""
    kind, _, name = scope.partition(":")
    known: Mapping[str, Collection[str]] = {
        Scope.TOOL: release.tools,
        Scope.OPERATION: release.contracts,
        Scope.AGENT: {identity.agent for identity in release.identities},
        Scope.ENVIRONMENT: {identity.environment for identity in release.identities},
    }
    if kind in known and name not in known[kind]:
        return f"the release in force knows no {kind} {name}; it is stopped all the same, should it come"
    return ""
