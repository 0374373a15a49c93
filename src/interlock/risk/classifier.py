"""What a small head says of sentences, given their embeddings. Pure: where embeddings come from is somebody else's matter.

A text is looked at sentence by sentence, for a hostile one among many harmless ones would drown in the mean. The strongest
sentence is the evidence. The head is a logistic regression; what it is made of and worth: docs/models/injection-classifier.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from interlock.core.risk import Signal, SignalKind

NAME: Final = "classifier"
MAX_SENTENCE_CHARS: Final = 160
MIN_SENTENCE_CHARS: Final = 40
MAX_SENTENCES: Final = 512
EVIDENCE_CHARS: Final = 60
# From the first threshold on a sentence is evidence; the score rises to the second, which harmless texts hardly reach.
FIRST_SCORE: Final = 40
FULL_SCORE: Final = 70
_ENDS: Final = re.compile(r"(?<=[.!?;:])\s+|\n+")
_WORD: Final = re.compile(r"[^\W\d_]{2,}")


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A linear model on embeddings: `weights` by dimension and `bias`, as log-odds. `first` and `full` are log-odds too.

    `model` and `vocabulary` are the SHA-256 of the files that the embeddings must come from, `texts` that of what it was
    trained on.
    """

    model: str
    vocabulary: str
    texts: str
    bias: float
    first: float
    full: float
    weights: tuple[float, ...]

    def of(self, embedding: Sequence[float]) -> float:
        """The log-odds that a sentence speaks to a model. Raises `ValueError` for an embedding of another size."""
        return self.bias + math.fsum(weight * value for weight, value in zip(self.weights, embedding, strict=True))


def sentences(text: str) -> list[str]:
    """The sentences of a text, short ones together, long ones cut; what holds no two words is left out."""
    found: list[str] = []
    gathered = ""
    for part in _ENDS.split(text):
        rest = part.strip()
        while rest:
            cut = rest.rfind(" ", MAX_SENTENCE_CHARS // 2, MAX_SENTENCE_CHARS) if len(rest) > MAX_SENTENCE_CHARS else len(rest)
            cut = cut if cut > 0 else MAX_SENTENCE_CHARS
            gathered = f"{gathered} {rest[:cut]}".strip()
            rest = rest[cut:].strip()
            if len(gathered) >= MIN_SENTENCE_CHARS:
                found.append(gathered)
                gathered = ""
    if gathered:
        found.append(gathered)
    return [sentence for sentence in found if len(_WORD.findall(sentence)) > 1]


def score_of(odds: float, head: Head) -> int:
    """0 below the first threshold, there `FIRST_SCORE`, rising to `FULL_SCORE` at the second. Higher odds never give less."""
    if not odds >= head.first:
        return 0
    share = 1.0 if odds >= head.full else (odds - head.first) / (head.full - head.first)
    return FIRST_SCORE + int((FULL_SCORE - FIRST_SCORE) * share)


def evidence(looked_at: Sequence[tuple[str, float]], head: Head) -> tuple[Signal, ...]:
    """The strongest sentence, if it is evidence at all. `looked_at` are sentences and their log-odds."""
    if any(math.isnan(odds) for _, odds in looked_at):
        raise ValueError("the embedding is not a number")
    if not looked_at:
        return ()
    sentence, odds = max(looked_at, key=lambda item: item[1])
    score = score_of(odds, head)
    if not score:
        return ()
    told = " ".join("".join(char if char.isprintable() else " " for char in sentence).split())[:EVIDENCE_CHARS]
    return (Signal(kind=SignalKind.INJECTION, subject=NAME, score=score, evidence=f"odds {odds:.1f}: {told}"),)
