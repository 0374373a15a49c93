"""What the classifier is trained with: texts written for it, in two files beside this one, with their slots filled in."""

import hashlib
import re
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
FILES: Final = ("attacks.txt", "benign.txt")
FILLED: Final = 4
_HEADING: Final = re.compile(r"\[(= )?([\w ,'-]+)\]")
_SLOT: Final = re.compile(r"\{(\w+)\}")
_PAST: Final = {"send": "sent", "post": "posted", "buy": "bought", "run": "ran", "set": "set"}


def families(name: str) -> dict[str, list[list[str]]]:
    """The texts of a file by family and line; each line filled in up to `FILLED` times, always in the same way."""
    made, slots = _read(HERE / name)
    return {
        family: [
            list(dict.fromkeys(_filled(line, slots, number, turn) for turn in range(FILLED)))
            for number, line in enumerate(lines)
        ]
        for family, lines in made.items()
    }


def digest() -> str:
    """The SHA-256 of everything the head is trained with."""
    return hashlib.sha256(b"\0".join((HERE / name).read_bytes() for name in FILES)).hexdigest()


def _read(path: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    made: dict[str, list[str]] = {}
    slots: dict[str, list[str]] = {}
    into: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("# "):
            continue
        if heading := _HEADING.fullmatch(line):
            into = (slots if heading[1] else made).setdefault(heading[2], [])
        else:
            into.append(line)
    return made, slots


def _filled(line: str, slots: dict[str, list[str]], number: int, turn: int) -> str:
    at = number * 31 + turn * 7

    def value(match: re.Match[str]) -> str:
        nonlocal at
        name = match[1]
        base = "goal" if name.lower().startswith("goal") and name != "goal_args" else name
        if base not in slots:
            return match[0]
        at += 5
        text = slots[base][at % len(slots[base])]
        verb, _, rest = text.partition(" ")
        match name:
            case "Goal":
                return text[0].upper() + text[1:]
            case "goal_s":
                return f"{verb}{'es' if verb.endswith(('sh', 'ss', 'ch')) else 's'} {rest}"
            case "goal_past":
                return f"{_PAST.get(verb, verb.rstrip('e') + 'ed')} {rest}"
            case _:
                return text

    for _ in range(3):  # slots hold slots
        line = _SLOT.sub(value, line)
    return line
