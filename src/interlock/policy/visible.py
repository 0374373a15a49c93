"""Which operations are worth showing to a session: those that some call of it might be allowed.

Cedar evaluates partially here, with arguments and object unknown. The answer is a hint for lists and never a permission:
whatever is unclear is shown, and each call is decided in full.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

import cedarpy
import msgspec

from interlock.core.contract import Contract
from interlock.core.decision import Facts
from interlock.core.terms import Layer, Posture
from interlock.core.who import AttributeValue
from interlock.policy.case import READ_ONLY_EFFECTS
from interlock.policy.encoding import Section, json_text, now_section, sections
from interlock.policy.errors import PolicyError
from interlock.policy.prepared import Prepared
from interlock.policy.slices import USER_LAYERS, Handle, Slices

VISIBLE_MEMO_MAX_ENTRIES: Final = 512
VISIBLE_TIME_STEP_US: Final = 60_000_000
UNKNOWN_ARGUMENTS: Final = {"__extn": {"fn": "unknown", "arg": "args"}}


class Viewer(msgspec.Struct, frozen=True, kw_only=True):
    """A session as far as it decides what is worth showing. `now_us` is only looked at where policies read the time."""

    agent: str
    user: str
    tenant: str
    environment: str
    task: str
    purpose: str
    roles: tuple[str, ...]
    attributes: Mapping[str, AttributeValue]
    posture: Posture
    tainted: bool
    confidentiality: int
    now_us: int


class _Answer(Enum):
    YES = auto()
    NO = auto()
    UNCLEAR = auto()


def visible(prepared: Prepared, viewer: Viewer) -> tuple[str, ...]:
    """The operations worth showing, sorted by name. Errors hide an operation."""
    task = prepared.release.tasks.get(viewer.task)
    if viewer.posture is Posture.HALTED or task is None or task.purpose != viewer.purpose:
        return ()
    return tuple(
        name
        for name, contract in sorted(prepared.release.contracts.items())
        if not contract.internal and contract.reviewed_by and _is_worth_showing(prepared, contract, viewer)
    )


def reads_the_time(slices: Slices) -> bool:
    """Whether any policy of the release reads `context.now`, so that what is visible changes with time."""
    return any("now" in rule.reads().context for rule in slices.rules.values())


def _is_worth_showing(prepared: Prepared, contract: Contract, viewer: Viewer) -> bool:
    if viewer.posture is Posture.READ_ONLY and contract.effects != READ_ONLY_EFFECTS:
        return False
    try:
        look = _Look(prepared, contract, viewer)
        return look.has_permits() and all(look.at(layer) is not _Answer.NO for layer in Layer)
    except (PolicyError, ValueError):
        return False


class _Look:
    """One operation as one viewer may see it."""

    __slots__ = ("_context", "_contract", "_slices", "_viewer", "rules")

    def __init__(self, prepared: Prepared, contract: Contract, viewer: Viewer) -> None:
        self.rules = prepared.slices.rules
        self._contract = contract
        self._viewer = viewer
        self._slices = prepared.slices.of(contract, contract.effects, viewer.agent)
        shown: dict[str, Section] = sections(_facts(contract, viewer), contract, prepared.release.user_attributes)
        shown["args"] = UNKNOWN_ARGUMENTS
        shown |= {name: {"__extn": {"fn": "unknown", "arg": name}} for name in ("origins", "provenance", "plan", "history")}
        shown["now"] = now_section(viewer.now_us)
        self._context = json_text(shown)

    def has_permits(self) -> bool:
        """Whether each layer but the guard could say yes to anything at all."""
        return all(self._slices.layers[layer].permits is not None for layer in Layer if layer is not Layer.GUARD)

    def at(self, layer: Layer) -> _Answer:
        """What a layer says while arguments and object are unknown."""
        piece = self._slices.layers[layer]
        if piece.full is None:
            return _Answer.YES if layer is Layer.GUARD else _Answer.NO
        answer, fired = self._partly(layer, piece.full)
        if answer is not _Answer.NO or not fired:
            return answer
        if any(not self.rules[name].is_liftable for name in fired):
            return _Answer.NO
        if piece.permits is None:
            return _Answer.UNCLEAR
        return self._partly(layer, piece.permits)[0]

    def _partly(self, layer: Layer, handle: Handle) -> tuple[_Answer, tuple[str, ...]]:
        """What a policy set says with the unknown left open, and the forbids that hold whatever it is."""
        viewer, is_user = self._viewer, layer in USER_LAYERS
        request = {
            "principal": _uid("User", viewer.user) if is_user else _uid("Agent", viewer.agent),
            "action": _uid("Action", self._slices.action_id),
            "context": self._context,
        }
        if self._contract.resource is None:
            request["resource"] = _uid("Tool", self._contract.tool)
        entities = self._slices.entities
        if is_user:
            parents = [{"type": "Role", "id": role} for role in viewer.roles]
            user = {"uid": {"type": "User", "id": viewer.user}, "attrs": {}, "parents": parents}
            entities = entities.with_added_json_str(json_text([user]))
        result = cedarpy.is_authorized_partial(request, handle.policies, entities)
        if result.diagnostics.errors:
            return _Answer.NO, ()
        if result.decision is cedarpy.Decision.Allow:
            return _Answer.YES, ()
        if result.decision is cedarpy.Decision.Deny:
            # A partial answer names the permits that hold as well, the guard's own among them.
            rules = self.rules
            return _Answer.NO, tuple(name for name in result.diagnostics.reasons if name in rules and rules[name].is_forbid)
        return _Answer.UNCLEAR, ()


def _uid(kind: str, name: str) -> str:
    """An entity as Cedar writes it. A name with characters that Cedar escapes in other ways is an error there, and hides."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("'", "\\'")
    return f'{kind}::"{escaped}"'


def _facts(contract: Contract, viewer: Viewer) -> Facts:
    return Facts(
        operation=contract.operation,
        arguments="{}",
        call_hash="",
        effects=contract.effects,
        classification=contract.classification,
        entities=contract.entities if isinstance(contract.entities, int) else 1,
        agent=viewer.agent,
        user=viewer.user,
        tenant=viewer.tenant,
        environment=viewer.environment,
        task=viewer.task,
        purpose=viewer.purpose,
        roles=viewer.roles,
        attributes=viewer.attributes,
        session_id="",
        posture=viewer.posture,
        tainted=viewer.tainted,
        confidentiality=viewer.confidentiality,
        resource=None,
        now_us=viewer.now_us,
    )
