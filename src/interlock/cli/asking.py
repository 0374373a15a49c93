"""The review as a conversation: one operation at a time, what is suggested in brackets, Enter takes it."""

from __future__ import annotations

import sys
from typing import Final

from rich.console import Console

from interlock.cli.output import USAGE, Failure
from interlock.cli.shown import Text
from interlock.core.contract import Passes
from interlock.core.terms import Effect
from interlock.release.review.answers import Answer, Pending

_LETTERS: Final = {"r": Effect.READ, "w": Effect.WRITE, "d": Effect.DESTRUCTIVE, "e": Effect.EGRESS}
_ASKS: Final = "a"
_SKIP: Final = "s"
_ASKED: Final = (Passes.ELICITATION, Passes.SAMPLING, Passes.ROOTS)


def ask_all(waiting: tuple[Pending, ...]) -> dict[str, Answer]:
    """Ask a person about every draft; what they skip stays a draft. Raises `Failure` where nobody can answer."""
    if not sys.stdin.isatty():
        raise Failure(
            "nobody is here to answer", hint="use a terminal, --answers FILE, or --yes for the cautious suggestions", code=USAGE
        )
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        "For each operation: what does it do to the world? r reads · w writes · d destroys · e sends out · s skips it.\n"
        "Add a if it asks something back while it runs, and that is to be passed on. Enter takes what stands in brackets.\n"
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
    letters = _does(console, item)
    if letters is None:
        return None
    effects = tuple(effect for letter, effect in _LETTERS.items() if letter in letters)
    passes = _passes(console) if _ASKS in letters else ()
    targets = _targets(console, item)
    return Answer(
        effects=effects,
        targets=targets,
        content=_rest(item, targets),
        acknowledged=acknowledged,
        passes=passes,
        asks_before_acting=bool(passes) and effects != (Effect.READ,) and _asks_first(),
    )


def _does(console: Console, item: Pending) -> str | None:
    suggested = "".join(letter for letter, effect in _LETTERS.items() if effect in item.effects)
    while True:
        said = _line(f"  does [{suggested}]: ").lower().replace(",", "").replace(" ", "") or suggested
        if said == _SKIP:
            return None
        if set(said) - {_ASKS} and set(said) <= {*_LETTERS, _ASKS}:
            return said
        console.print("  letters of r, w, d, e, with a or without, or s")


def _passes(console: Console) -> tuple[Passes, ...]:
    while True:
        said = _line(f"  what it may ask (of {' '.join(_ASKED)}; - for nothing) [elicitation]: ") or "elicitation"
        names = [] if said == "-" else said.replace(",", " ").split()
        if set(names) <= set(_ASKED):
            return tuple(item for item in _ASKED if item in names)
        console.print(f"  words of {', '.join(_ASKED)}, or -")


def _asks_first() -> bool:
    said = _line("  you know that it has done nothing yet when it asks: y or n [n]: ").lower()
    return said in {"y", "yes"}


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
