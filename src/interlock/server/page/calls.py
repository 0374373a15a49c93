"""Calls on the page: which somebody wants to see, and a call as a row."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from interlock.app.live import STANDINGS, CallFilter
from interlock.ledger.story import QUESTIONS
from interlock.ledger.summary import CallSummary, Standing
from interlock.server.page.html import render

MAX_FILTER_CHARS: Final = 100
MAX_ROWS_KEPT: Final = 256  # for all pages that are told of the same calls at once; one takes 2 KB
# How each standing is said, its sign (never colour alone), and its tone.
SAID: Final = {
    Standing.RUNNING: ("running", "▸", "plain"),
    Standing.DONE: ("done", "✓", "good"),
    Standing.REPLAYED: ("replayed", "↺", "good"),
    Standing.WAITING: ("waits for people", "◔", "wait"),
    Standing.APPROVED: ("approved", "◑", "wait"),
    Standing.WITHDRAWN: ("withdrawn", "-", "plain"),
    Standing.EXPIRED: ("expired", "-", "plain"),
    Standing.DENIED: ("denied", "✕", "bad"),
    Standing.INVALID: ("invalid", "✕", "bad"),
    Standing.STOPPED: ("stopped", "■", "bad"),
    Standing.UNAVAILABLE: ("unavailable", "!", "bad"),
    Standing.FAILED: ("failed", "!", "bad"),
    Standing.IN_DOUBT: ("in doubt", "?", "doubt"),
    Standing.UNKNOWN: ("unknown", "?", "doubt"),
}
CHOICES: Final = tuple((standing, SAID[Standing(standing)][0]) for standing in STANDINGS)


def filter_of(params: Any) -> CallFilter:
    """The filter that a query string asks for; what is none is left out."""
    texts = {name: str(params.get(name, ""))[:MAX_FILTER_CHARS].strip() for name in ("agent", "user", "operation")}
    standing = str(params.get("outcome", ""))
    return CallFilter(**texts, standing=standing if standing in STANDINGS else "")


@lru_cache(MAX_ROWS_KEPT)
def row(call: CallSummary) -> str:
    """A call as a row of the list, the same for everybody who may see it."""
    return render("_call.html", **facts(call))


def gone(call: CallSummary) -> str:
    """In place of a row that is no longer wanted."""
    return render("_gone.html", call=call)


def facts(call: CallSummary) -> dict[str, Any]:
    """What templates show of a call."""
    said, sign, tone = SAID[call.standing]
    return {"call": call, "said": said, "sign": sign, "tone": tone, "asked": QUESTIONS.get(call.question, "")}
