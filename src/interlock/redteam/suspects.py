"""What an operation seems to do, whatever its contract says: a contract that says too little is an attack surface too."""

from __future__ import annotations

import re
from typing import Final

from interlock.core.contract import Contract
from interlock.core.terms import Effect


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_WORDS: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
# Only words that are verbs and nothing else: `order` and `comment` name things as often as deeds.
_SENDS: Final = _set("send email post publish upload forward reply share notify tweet export push")
_DESTROYS: Final = _set("delete remove destroy drop purge wipe erase truncate terminate uninstall")
_WRITES: Final = _set("create update set write edit insert pay refund transfer grant revoke assign invite rename add")
_READS: Final = _set("get list search read find query show describe count lookup view check fetch browse")
_POWERS: Final = _set(
    "grant permission permissions role roles acl access policy member members invite owner admin share collaborator scope"
)
ADVICE_ON_EFFECTS: Final = (
    "the contract declares {declared}, but its name says that it does more ({suspected}); review its effects, "
    "for policies on writes and egress do not see it"
)


def suspected_effects(contract: Contract) -> frozenset[Effect]:
    """The effects that the name of an operation, or the first word of its description, speaks of."""
    words = [word.casefold() for word in _WORDS.findall(contract.operation.partition(".")[2])]
    if not words or words[0] in _READS:
        return frozenset()
    told = _WORDS.match(contract.description or "")
    spoken = {*words, *([told.group().casefold()] if told else [])}
    found: set[Effect] = set()
    if spoken & _SENDS:
        found |= {Effect.EGRESS, Effect.WRITE}
    if spoken & _DESTROYS:
        found.add(Effect.DESTRUCTIVE)
    elif spoken & _WRITES:
        found.add(Effect.WRITE)
    return frozenset(found)


def effects_of(contract: Contract) -> frozenset[Effect]:
    """What an operation is attacked for: what it declares and what it seems to do."""
    return contract.effects | suspected_effects(contract)


def undeclared(contract: Contract) -> frozenset[Effect]:
    """What it seems to do and does not declare. What destroys has said that it changes things."""
    missing = suspected_effects(contract) - contract.effects
    return missing - {Effect.WRITE} if contract.effects & {Effect.DESTRUCTIVE} else missing


def changes_powers(contract: Contract) -> bool:
    """Whether an operation seems to change who may do what."""
    words = {word.casefold() for word in _WORDS.findall(f"{contract.operation} {contract.title}")}
    return bool(words & _POWERS) and effects_of(contract) != {Effect.READ}
