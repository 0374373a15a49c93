"""What clients were told: counted by code. What has no code of ours, or no form of ours, is odd, and kept with its text."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from interlock.gateway.refusals import WORDINGS

MAX_KEPT: Final = 200
MAX_CHARS: Final = 600
BROKEN: Final = "connection broke"


class OddError(Exception):
    """An answer that a client could not understand."""


class Tally:
    """Counts of answers, by who asked and by code."""

    def __init__(self) -> None:
        self.answers: Counter[tuple[str, str]] = Counter()
        self.odd: list[str] = []
        self.broken: list[str] = []
        self.told_done: set[str] = set()
        self.told_not_done: set[str] = set()
        self.streams = 0

    def note(self, who: str, code: str) -> str:
        """Count an answer; gives its code."""
        self.answers[who, code] += 1
        return code

    def note_odd(self, who: str, text: str) -> str:
        """Count and keep what nobody could understand."""
        if len(self.odd) < MAX_KEPT:
            self.odd.append(f"{who}: {text[:MAX_CHARS]}")
        return self.note(who, "ODD")

    def note_broken(self, who: str, error: BaseException, when: str) -> str:
        """Count a connection that broke under a request."""
        if len(self.broken) < MAX_KEPT:
            self.broken.append(f"{when} {who}: {type(error).__name__}: {error}"[:MAX_CHARS])
        return self.note(who, BROKEN)

    def calls(self) -> int:
        """All that was asked."""
        return self.answers.total()


def code_of_result(result: dict[str, Any]) -> str:
    """The code of a tool's result as MCP has it. Raises `OddError`."""
    meta = result.get("_meta") or {}
    said = meta.get("interlock/decision")
    if not result.get("isError"):
        return "replayed" if "interlock/replayed" in meta else "done"
    if not isinstance(said, dict) or said.get("code") not in WORDINGS:
        raise OddError(f"an error without a code: {result}")
    if not any(part.get("text") for part in result.get("content", ())):
        raise OddError(f"an error without a text: {result}")
    return str(said["code"])


def code_of_problem(status: int, media: str, body: Any) -> str:
    """The code of an answer of the HTTP API that is no success. Raises `OddError`."""
    if isinstance(body, dict) and isinstance(body.get("error"), dict) and "code" in body["error"]:
        return f"JSON-RPC {body['error']['code']}"
    if isinstance(body, dict) and isinstance(body.get("error"), str):
        return f"{status} {body['error']}"
    if not media.startswith("application/problem+json") or not isinstance(body, dict) or not body.get("title"):
        raise OddError(f"{status} {media}: {body}")
    said = body.get("interlock/decision")
    return f"{status} {said['code']}" if isinstance(said, dict) else f"{status} {body['title']}"
