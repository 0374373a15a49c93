"""`Idempotency-Key` for requests that change something: the same key and body give the first answer."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec
from litestar import Request
from litestar.exceptions import HTTPException

from interlock.app.administration import NotPermittedError
from interlock.app.answers import MAX_KEY_CHARS
from interlock.app.fresh import FreshConflictError, NothingToStartFreshError
from interlock.app.plane import Plane
from interlock.app.postures import PostureConflictError, UnknownLineageError
from interlock.app.releases import ReleaseConflictError
from interlock.app.revocations import UnknownSessionError, UnknownTargetError
from interlock.app.scopes import UnknownScopeError
from interlock.app.sessions import InputRefusedError, SessionOverError
from interlock.app.sight import UnknownRecordError
from interlock.app.tools import ToolConflictError, UnknownOperationError
from interlock.approvals.errors import ApprovalError
from interlock.core.who import Person
from interlock.release.errors import ReleaseError
from interlock.store.errors import UnknownReleaseError

REPLAYED: Final = "replayed"
# INVARIANT: whoever raises one of these has changed nothing.
CHANGES_NOTHING: Final = (
    NotPermittedError,
    UnknownScopeError,
    PostureConflictError,
    UnknownLineageError,
    ReleaseConflictError,
    ApprovalError,
    ReleaseError,
    SessionOverError,
    FreshConflictError,
    NothingToStartFreshError,
    InputRefusedError,
    UnknownRecordError,
    UnknownReleaseError,
    UnknownTargetError,
    UnknownSessionError,
    UnknownOperationError,
    ToolConflictError,
    HTTPException,
)
T = TypeVar("T")


async def once(
    plane: Plane, request: Request[Any, Any, Any], person: Person, kind: type[T], do: Callable[[], Awaitable[T]]
) -> T:
    """The answer of `do`, or the first one to the same request under its Idempotency-Key. Raises as `do` and `Answers.once`."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return await do()
    if not 0 < len(key) <= MAX_KEY_CHARS or not key.isprintable():
        raise HTTPException(status_code=400, detail=f"Idempotency-Key is 1 to {MAX_KEY_CHARS} printable characters")

    async def done() -> str:
        return msgspec.json.encode(await do()).decode()

    asked = hashlib.sha256()
    for part in (request.method.encode(), request.scope["raw_path"], request.scope["query_string"], await request.body()):
        asked.update(len(part).to_bytes(8, "big") + part)
    answer, replayed = await plane.answers.once(person, key, asked.digest(), done, changes_nothing=CHANGES_NOTHING)
    request.scope["state"][REPLAYED] = replayed
    return msgspec.json.decode(answer, type=kind)
