"""Own rules for texts that speak to a model instead of to people. They find the clumsy ones; nothing rests on them.

Each rule is a signal of its own, so that two weak ones together weigh more than either. Texts are looked at as a model reads
them: look-alike letters and invisible characters undone, encoded parts decoded.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from interlock.core.disguise import tags_in, variants
from interlock.core.risk import Signal, SignalKind

MAX_LOOKED_AT_CHARS: Final = 256 * 1024
PIECE_CHARS: Final = 4_096
OVERLAP_CHARS: Final = 512
EVIDENCE_CHARS: Final = 80
_INVISIBLE: Final = re.compile("[\u200b\u200c\u2060\u2061-\u2064\u202a-\u202e\u2066-\u2069\ufeff]")
_FEW_INVISIBLE: Final = 3
_FLAGS: Final = re.IGNORECASE | re.DOTALL


class Rule(NamedTuple):
    """A pattern and how much it says, were it all there is. `words`: without one of these the pattern cannot fit."""

    name: str
    score: int
    words: tuple[str, ...]
    pattern: re.Pattern[str]


def _rule(name: str, score: int, words: str, *patterns: str) -> Rule:
    return Rule(name, score, tuple(words.split("|")), re.compile("|".join(patterns), _FLAGS))


_ORDERS: Final = r"(?:instructions?|directives?|prompts?|rules|guidelines|commands?|programming|training|restrictions)"
RULES: Final = (
    _rule(
        "override",
        75,
        "ignor|disregard|forget|overrid|bypass|neglect|negeer|only follow",
        rf"\b(?:ignore|disregard|forget|override|bypass|neglect)\b.{{0,30}}\b(?:all|any|every|your|my|these|the)\b.{{0,30}}"
        rf"\b(?:previous|prior|above|earlier|preceding|initial|original|system)\b.{{0,20}}\b{_ORDERS}\b",
        rf"\b(?:ignore|disregard|forget|override|bypass)\b.{{0,20}}\b(?:your|all)\b.{{0,20}}\b{_ORDERS}\b",
        r"\bonly follow the following instructions?\b",
        r"\bignor(?:iere|a|ez|eer|era)\b.{0,30}\b(?:alle|todas|toutes|tutte)\b.{0,40}"
        r"\b(?:anweisungen|instrucciones|instructions|istruzioni|instructies|précédentes|anteriores)\b",
    ),
    _rule(
        "markup",
        60,
        "<|[inst|[/inst|## ",
        r"<\|(?:im_start|im_end|system|endoftext)\|>|\[/?INST\]|<</?SYS>>",
        r"<\s*/?\s*(?:system|information|important|instructions?|admin|assistant|secret)(?: message| prompt)?\s*/?>",
        r"^\s*#{2,}\s*(?:system|new instructions?)\s*:",
    ),
    _rule(
        "new-task",
        55,
        "your |before you|follow|execute|carry out|perform|obey",
        r"\byour (?:new|real|actual|true) (?:task|goal|objective|mission|instructions?) (?:is|are)\b",
        r"\bbefore you (?:can |may )?(?:solve|continue|answer|complete|finish|proceed|do)\b.{0,60}"
        r"\b(?:task|request|question|job)\b",
        r"\b(?:execute|follow|carry out|perform|obey) (?:only )?the following (?:instructions?|task|commands?|request)\b",
        r"\b(?:please )?do the following (?:first|instead|immediately)\b",
    ),
    _rule(
        "to-the-model",
        45,
        "ai|llm|model|assistant|gpt|claude|gemini|chatbot|dan|unrestricted|jailbr|message from me",
        r"\b(?:dear|hey|hello|hi|attention|note to(?: the)?)[ ,:]+"
        r"(?:ai|llm|(?:ai|language) (?:model|assistant|agent)|chatbot|gpt|claude|gemini)\b",
        r"\byou are (?:now |no longer )?(?:an? )?"
        r"(?:ai|large language model|language model|assistant|chatbot|dan|unrestricted|jailbroken)\b",
        r"\b(?:important )?message from me\b.{0,40}\bto you\b",
        r"\b(?:ai|llm|language model)s? (?:reading|processing|parsing|summari[sz]ing) this\b",
    ),
    _rule(
        "secrecy",
        40,
        "do not|don't|never|without",
        r"\b(?:do not|don't|never|without)\b.{0,20}"
        r"\b(?:tell(?:ing)?|mention(?:ing)?|inform(?:ing)?|reveal(?:ing)?|alert(?:ing)?|notify(?:ing)?|let)\b.{0,25}"
        r"\bthe (?:user|human|operator|person you)\b",
    ),
    _rule(
        "no-limits",
        60,
        " mode|jailbreak|anything now|no longer bound|without any",
        r"\b(?:developer|god|debug|unrestricted|jailbreak) mode\b.{0,30}\b(?:enabled|activated)\b",
        r"\b(?:jailbreak|do anything now|no longer bound by|without any (?:restrictions|filters|limitations))\b",
    ),
    _rule(
        "prompt-leak",
        60,
        "prompt|instructions",
        r"\b(?:reveal|print|repeat|show|output|disclose|tell me)\b.{0,30}"
        r"\b(?:system prompt|initial instructions|hidden (?:prompt|instructions)|your (?:instructions|prompt))\b",
    ),
    _rule(
        "take-out",
        50,
        "password|api|credential|secret|token|key|2fa|security code|all |history",
        r"\b(?:send|forward|post|upload|e?mail|exfiltrate|leak|copy)\b.{0,80}"
        r"\b(?:passwords?|api[ _-]?keys?|credentials?|secrets?|access tokens?|private keys?|2fa|security codes?|"
        r"all (?:the )?(?:e-?mails?|files|contacts|messages|records|documents)|"
        r"(?:full |entire )?(?:conversation|chat) history)\b"
        r".{0,60}\bto\b.{0,12}(?:\S+@\S+|https?://|www\.)",
    ),
    _rule(
        "tool-talk",
        30,
        "tool|function",
        r"\b(?:call|invoke|use|trigger)\b.{0,20}\b[a-z]+(?:_[a-z]+)+\b.{0,30}\b(?:tool|function)\b",
        r"\b(?:call|invoke|use)\b.{0,12}\bthe\b.{0,30}\b(?:tool|function)\b.{0,60}\bwith\b.{0,30}\b(?:parameters?|arguments?)\b",
    ),
)
_HIDING: Final = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0|color\s*:\s*(?:white|#fff)", re.IGNORECASE
)
_TAG: Final = re.compile(r"<[a-z]", re.IGNORECASE)
_TAG_CHARS: Final = 400


class InjectionRules:
    """The `TextDetector` of these rules."""

    name = "injection-rules"

    def look(self, text: str) -> tuple[Signal, ...]:
        """One signal for each rule that fits anywhere in the text, and for what the text hides."""
        found: dict[str, Signal] = {}
        # In pieces: a search in a long text would keep every other thread waiting until it is done.
        for start in range(0, max(len(text[:MAX_LOOKED_AT_CHARS]) - OVERLAP_CHARS, 1), PIECE_CHARS - OVERLAP_CHARS):
            for signal in _in_piece(text[start : start + PIECE_CHARS]):
                found.setdefault(signal.subject, signal)
        return tuple(found.values())


def _in_piece(piece: str) -> tuple[Signal, ...]:
    seen = piece if _is_plain(piece) else " ".join(variants(piece))
    lowered = seen.lower()
    found = [
        Signal(kind=SignalKind.INJECTION, subject=rule.name, score=rule.score, evidence=_excerpt(match.group()))
        for rule in RULES
        if any(word in lowered for word in rule.words) and (match := rule.pattern.search(seen)) is not None
    ]
    return (*found, *_hidden(piece))


_ENCODED: Final = re.compile(r"[A-Za-z0-9+/_-]{24,}|%[0-9A-Fa-f]{2}|&#?\w{2,8};|\b(?:[0-9A-Fa-f]{2}){12,}\b")


def _is_plain(text: str) -> bool:
    return text.isascii() and _ENCODED.search(text) is None


def _hidden(text: str) -> tuple[Signal, ...]:
    found = []
    tags = "" if text.isascii() else tags_in(text)
    if tags:
        found.append(Signal(kind=SignalKind.HIDDEN, subject="tags", score=80, evidence=_excerpt(tags)))
    invisible = 0 if text.isascii() else len(_INVISIBLE.findall(text))
    if invisible >= _FEW_INVISIBLE:
        found.append(
            Signal(kind=SignalKind.HIDDEN, subject="invisible", score=35, evidence=f"{invisible} invisible characters")
        )
    markup = _hidden_markup(text)
    if markup:
        found.append(Signal(kind=SignalKind.HIDDEN, subject="markup", score=30, evidence=_excerpt(markup)))
    return tuple(found)


def _hidden_markup(text: str) -> str:
    """A tag that hides what stands in it; empty when there is none. Read from the style outwards: open tags cost nothing."""
    for match in _HIDING.finditer(text):
        before = text[max(0, match.start() - _TAG_CHARS) : match.start()].rpartition(">")[2]
        after, closed, _ = text[match.end() : match.end() + _TAG_CHARS].partition(">")
        tag = _TAG.search(before)
        if tag is not None and closed:
            return f"{before[tag.start() :]}{match.group()}{after}{closed}"
    return ""


def _excerpt(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:EVIDENCE_CHARS]
