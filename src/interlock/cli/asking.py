"""The review as a conversation: one operation at a time, what is suggested in brackets, Enter takes it."""

from __future__ import annotations

import sys
from typing import Final

from rich.console import Console

from interlock.cli.output import USAGE, Failure
from interlock.cli.shown import Text
from interlock.core.terms import Effect
from interlock.release.review.answers import Answer, Pending

_LETTERS: Final = {"r": Effect.READ, "w": Effect.WRITE, "d": Effect.DESTRUCTIVE, "e": Effect.EGRESS}
_SKIP: Final = "s"


def ask_all(waiting: tuple[Pending, ...]) -> dict[str, Answer]:
    """Ask a person about every draft; what they skip stays a draft. Raises `Failure` where nobody can answer."""
    if not sys.stdin.isatty():
        raise Failure(
            "nobody is here to answer", hint="use a terminal, --answers FILE, or --yes for the cautious suggestions", code=USAGE
        )
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        "For each operation: what does it do to the world? r reads · w writes · d destroys · e sends out · s skips it.\n"
        "Enter takes what stands in brackets.\n"
    )
    found = {}
    for number, item in enumerate(waiting, start=1):
        console.print(Text(f"{number}/{len(waiting)}  {item.operation}", style="bold"), Text(item.description[:300]))
        answer = _ask_one(console, item)
        if answer is not None:
            found[item.operation] = answer
        console.print()
    return found


def _ask_one(console: Console, item: Pending) -> Answer | None:
    acknowledged: tuple[str, ...] = ()
    if item.findings:
        for finding in item.findings:
            console.print(Text(f"  ! {finding}", style="bold red"))
        if _line("  Type accept to review it all the same, Enter to leave it a draft: ") != "accept":
            return None
        acknowledged = tuple(sorted({finding.partition(" ")[0] for finding in item.findings}))
    effects = _effects(console, item)
    if effects is None:
        return None
    targets = _targets(console, item)
    return Answer(effects=effects, targets=targets, content=_rest(item, targets), acknowledged=acknowledged)


def _effects(console: Console, item: Pending) -> tuple[Effect, ...] | None:
    suggested = "".join(letter for letter, effect in _LETTERS.items() if effect in item.effects)
    while True:
        said = _line(f"  does [{suggested}]: ").lower().replace(",", "").replace(" ", "") or suggested
        if said == _SKIP:
            return None
        if said and set(said) <= set(_LETTERS):
            return tuple(effect for letter, effect in _LETTERS.items() if letter in said)
        console.print("  letters of r, w, d, e, or s")


def _targets(console: Console, item: Pending) -> tuple[str, ...]:
    if not item.arguments:
        return ()
    suggested = " ".join(item.targets)
    while True:
        said = _line(f"  who, where, how much (of {' '.join(item.arguments)}; - for none) [{suggested}]: ") or suggested
        names = [] if said == "-" else said.replace(",", " ").split()
        unknown = [name for name in names if name not in item.arguments]
        if not unknown:
            return tuple(names)
        console.print(f"  there is no argument {unknown[0]!r}")


def _rest(item: Pending, targets: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in item.content if name not in targets)


def _line(prompt: str) -> str:
    try:
        return input(prompt).strip()
    except EOFError:
        raise Failure("the input ended before the review did; nothing was written", code=USAGE) from None
