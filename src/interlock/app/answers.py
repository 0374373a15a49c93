"""One key, one effect, one answer: requests that change something and carry an Idempotency-Key.

The key is taken before anything is done and the answer is kept after. A crash in between leaves a key without an answer: from
then on the truth, that nobody knows whether it took effect, is told, and nothing is done again by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, assert_never

from interlock.core.who import Person
from interlock.store.answers import KeptAnswers, KeyOwner, KeyState
from interlock.store.errors import StoreUnavailableError

ANSWER_WINDOW_S: Final = 24 * 3600
LONGEST_REQUEST_S: Final = 600
MAX_KEY_CHARS: Final = 255

_log = logging.getLogger(__name__)


class AnswerConflictError(Exception):
    """The key cannot be answered. `effect`: what this request did (`none`), or what is known of the earlier (`unknown`)."""

    def __init__(self, message: str, effect: str) -> None:
        super().__init__(message)
        self.effect = effect


class Answers:
    """Answers kept for a day, per person. Raises `StoreUnavailableError` before anything is done."""

    def __init__(self, kept: KeptAnswers, process_id: str) -> None:
        self._kept = kept
        self._process_id = process_id
        self._running: set[KeyOwner] = set()

    async def once(
        self,
        person: Person,
        key: str,
        asked: bytes,
        do: Callable[[], Awaitable[str]],
        *,
        changes_nothing: tuple[type[Exception], ...],
    ) -> tuple[str, bool]:
        """The answer to a request, as JSON text, and whether it is an earlier one.

        `asked` is the SHA-256 of the request; errors in `changes_nothing` free the key: nothing was done.

        Raises:
            AnswerConflictError: the key is another request's, or the earlier one is under way, or its effect is unknown.
        """
        owner = KeyOwner(tenant=person.tenant, user=person.user, key=key)
        found = await self._kept.begin(
            owner, asked, process_id=self._process_id, window_s=ANSWER_WINDOW_S, longest_s=LONGEST_REQUEST_S
        )
        match found.state:
            case KeyState.ANSWERED:
                return found.answer or "null", True
            case KeyState.BEGUN:
                return await self._do(owner, do, changes_nothing), False
            case KeyState.REUSED:
                raise AnswerConflictError("this Idempotency-Key belongs to another request; use a new one", "none")
            case KeyState.RUNNING if found.process_id != self._process_id or owner in self._running:
                raise AnswerConflictError("the request with this Idempotency-Key is still under way; ask again", "unknown")
            case KeyState.UNKNOWN | KeyState.RUNNING:
                raise AnswerConflictError(
                    "the request with this Idempotency-Key was begun and its answer was lost: whether it took effect is not "
                    "known, and it is not done again. Look at what it was to change, and use a new key",
                    "unknown",
                )
            case _:
                assert_never(found.state)

    async def _do(self, owner: KeyOwner, do: Callable[[], Awaitable[str]], changes_nothing: tuple[type[Exception], ...]) -> str:
        self._running.add(owner)
        try:
            try:
                answer = await do()
            except changes_nothing:
                await self._kept.give_back(owner)
                raise
            try:
                await self._kept.keep(owner, answer)
            except StoreUnavailableError:
                # It was done, and the caller is told so now. Whoever repeats it is told that the answer was lost.
                _log.exception("the answer to a request could not be kept", extra={"event": "answer.not_kept"})
            return answer
        finally:
            self._running.discard(owner)
