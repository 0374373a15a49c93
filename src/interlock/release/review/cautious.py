"""What a tool's listing suggests about it, erring on the side of more: a person may say less, a tool may not.

INVARIANT: a tool's own hints only ever make a suggestion stricter.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from interlock.core.contract import Kind, OpaqueShape
from interlock.core.listing import ListedTool
from interlock.core.terms import Effect
from interlock.release.shapes import arguments_shape

_WORDS: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_READS: Final = _set(
    "get list search read find query show describe count lookup view check fetch browse peek status stat info tree diff "
)
_DESTROYS: Final = _set(
    "delete remove drop destroy purge clear reset revoke cancel truncate wipe erase kill terminate "
    "uninstall archive overwrite replace force disable exec execute eval run shell command script sql "
)
_SENDS: Final = _set(
    "send mail email post publish notify share upload push forward reply tweet message invite export webhook call sms "
)
_WRITES: Final = _set(
    "create add update set write edit insert append put save make open close comment move rename copy "
    "assign pay refund transfer order book schedule enable start stop merge tag label upsert register "
    "subscribe complete apply submit "
)
_OUT: Final = _set("url uri href endpoint webhook host domain website link")
_TEXTS: Final = _set("text body message content description subject title note notes comment summary html markdown prompt")
_QUERIES: Final = _set("query q words search limit offset page cursor count size sort order format fields include")


class Suggestion(msgspec.Struct, frozen=True, kw_only=True):
    """What is preselected when a person reviews an operation; `why` says what it was read from."""

    effects: frozenset[Effect]
    targets: tuple[str, ...]
    content: tuple[str, ...]
    why: str


def suggest(tool: ListedTool) -> Suggestion:
    """The cautious reading of a listing: an unknown verb may do anything, an unclear argument says who or what."""
    effects, why = _effects(tool)
    schema: dict[str, Any] = msgspec.json.decode(tool.input_schema, type=dict[str, Any])
    fields = arguments_shape(schema).fields
    visible = [name for name, shape in fields.items() if not isinstance(shape, OpaqueShape)]
    content = tuple(name for name in visible if _last(name) in _TEXTS)
    is_read = effects == {Effect.READ}
    targets = tuple(name for name in visible if name not in content and not (is_read and _last(name) in _QUERIES))
    return Suggestion(effects=effects, targets=targets, content=content, why=why)


def _effects(tool: ListedTool) -> tuple[frozenset[Effect], str]:
    if tool.kind is not Kind.TOOL:
        return frozenset({Effect.READ}), f"it is a {tool.kind}"
    verbs = _words(tool.name)
    found: set[Effect] = set()
    why: list[str] = []

    def add(effect: Effect, reason: str) -> None:
        if effect not in found:
            found.add(effect)
            why.append(reason)

    # After a reading verb come nouns (`get_order`), unless the name says that it does several things.
    reads = bool(verbs) and verbs[0] in _READS and not {"and", "or", "then"} & set(verbs)
    for verb in [] if reads else verbs:
        for known, effect in ((_DESTROYS, Effect.DESTRUCTIVE), (_SENDS, Effect.EGRESS), (_WRITES, Effect.WRITE)):
            if verb in known:
                add(effect, f"its name says “{verb}”")
    if Effect.EGRESS in found:
        add(Effect.WRITE, "what is sent cannot be taken back")
    if not found:
        if reads:
            add(Effect.READ, f"its name begins with “{verbs[0]}”")
        else:
            add(Effect.WRITE, "its name does not say that it only reads")
            add(Effect.DESTRUCTIVE, "nor that it can be undone")
    arguments = msgspec.json.decode(tool.input_schema, type=dict[str, Any]).get("properties", {})
    if isinstance(arguments, dict) and any(_last(str(name)) in _OUT for name in arguments):
        add(Effect.EGRESS, "it takes an address")
    hints = tool.hints
    if hints.get("destructiveHint") is True and hints.get("readOnlyHint") is not True:
        add(Effect.DESTRUCTIVE, "it says itself that it destroys")
    if hints.get("openWorldHint") is True and Effect.READ not in found:
        add(Effect.EGRESS, "it says itself that it reaches out")
    if hints.get("readOnlyHint") is False and found == {Effect.READ}:
        add(Effect.WRITE, "it says itself that it does not only read")
    return frozenset(found), "; ".join(why)


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORDS.findall(name)]


def _last(name: str) -> str:
    words = _words(name)
    return words[-1] if words else ""
