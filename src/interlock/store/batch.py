"""A batch of requests as the columns that `commit_requests` takes. Pure: no connection, no clock."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Sequence
from itertools import islice
from typing import Any, TypeAlias, assert_never

import msgspec

from interlock.core.budget import Charge
from interlock.core.claim import ClaimRequest, OfWork, RecordRequest, SettleRequest

Request: TypeAlias = ClaimRequest | RecordRequest | SettleRequest

_Column: TypeAlias = Sequence[str | int | None]

_ENCODER = msgspec.json.Encoder()


class _Asked(msgspec.Struct):
    """One budget that claims of the batch ask of."""

    number: int
    account: str
    holder: str
    about: str
    cap: int
    window_s: int
    wanted: int = 0


def arguments(process_id: str, requests: Sequence[Request], *, again: bool, known: Container[str]) -> tuple[Any, ...]:
    """The arguments of `commit_requests`, in its order. `again`: these may have been committed before.

    `known` are accounts of budgets that had rows; the others may have to be made.
    """
    claims = [(number, request) for number, request in enumerate(requests) if isinstance(request, ClaimRequest)]
    ended = [request for request in requests if isinstance(request, SettleRequest) and request.state != "in_doubt"]
    keys = [claim.idempotency.key for _, claim in claims if claim.idempotency]
    epochs = {request.epochs for request in requests if not isinstance(request, SettleRequest)} - {None}
    is_plain = not again and len(epochs) <= 1 and len(set(keys)) == len(keys) and all(map(may_be_plain, requests))
    epoch = next(iter(epochs), None)
    budgets, charges = _charged(process_id, claims)
    bodies, *events = _events(requests)
    tokens, *entering = _entering(requests)
    columns = arrays(
        (
            [request.session_id for request in requests],
            [request.lineage_id for request in requests],
            list(_lineages(requests)),
            list({scope: None for _, claim in claims for scope in claim.scopes}),
            [request.claim_id for request in ended],
            *_compared(requests),
            *_budgets(budgets),
            *charges,
            *events,
            *entering,
        )
    )
    return (
        process_id,
        _ENCODER.encode(_wanted(process_id, requests, again=again)).decode(),
        *islice(columns, 2),
        [request.outcome if isinstance(request, SettleRequest) else None for request in requests],
        *islice(columns, 3),
        any(request.release_key or request.spent for request in ended),
        is_plain,
        *((None, None, None) if epoch is None else (epoch.control, epoch.release, epoch.revocation)),
        *islice(columns, 7),
        bool(keys),
        any(not budget.holder and budget.account not in known for budget in budgets),
        *islice(columns, 6 + 4 + 3),
        bodies,
        *columns,
        tokens,
    )


def _wanted(process_id: str, requests: Sequence[Request], *, again: bool) -> list[dict[str, Any]]:
    wanted: list[dict[str, Any]] = []
    for number, request in enumerate(requests):
        match request:
            case ClaimRequest():
                wanted.append(_claim(number, request, process_id))
            case RecordRequest():
                wanted.append(_record(number, request, again=again))
            case SettleRequest():
                wanted.append(_settle(number, request))
            case _:
                assert_never(request)
    return wanted


def _charged(process_id: str, claims: Sequence[tuple[int, ClaimRequest]]) -> tuple[Collection[_Asked], Sequence[_Column]]:
    """The budgets that claims ask of, and what each claim charges to them, in columns."""
    asked: dict[tuple[str, str], _Asked] = {}
    numbers: list[int] = []
    charged_to: list[int] = []
    amounts: list[int] = []
    lifted: list[bool] = []
    for number, claim in claims:
        for charge in claim.charges:
            numbers.append(number)
            charged_to.append(_budget(charge, process_id, asked).number)
            amounts.append(charge.amount)
            lifted.append(charge.lifted)
    return asked.values(), (numbers, charged_to, amounts, lifted)


def _budgets(budgets: Collection[_Asked]) -> Sequence[_Column]:
    if not budgets:
        return ((),) * 6
    return tuple(
        zip(*((one.account, one.holder, one.about, one.cap, one.window_s, one.wanted) for one in budgets), strict=True)
    )


def _events(requests: Sequence[Request]) -> tuple[Any, ...]:
    """The bodies of the events of all requests, and the rest of them in columns."""
    bodies: list[str] = []
    columns: tuple[list[Any], ...] = ([], [], [], [], [])
    numbers, kinds, calls, salts, commitments = columns
    for number, request in enumerate(requests):
        for event in request.events:
            numbers.append(number)
            kinds.append(event.kind)
            calls.append(event.call_id)
            bodies.append(event.body)
            salts.append("\\x" + event.salt.hex())
            commitments.append("\\x" + event.commitment.hex())
    return bodies, *columns


def _lineages(requests: Sequence[Request]) -> dict[str, None]:
    """All lineages that the requests have to do with: they are locked."""
    found: dict[str, None] = {}
    for request in requests:
        found[request.lineage_id] = None
        if request.work is not None and request.work.is_looked_at:
            found[request.work.lineage_id] = None
    return found


def _of_work(work: OfWork | None) -> dict[str, Any]:
    if work is None:
        return {}
    told: dict[str, Any] = {"work": work.lineage_id}
    if work.counts:
        told["counts"] = True
    if work.version is not None:
        told["work_version"] = work.version
    return told


def arrays(columns: Sequence[_Column]) -> Iterator[str]:
    """Columns as arrays as Postgres reads them: JSON but for the brackets, where it escapes nothing but the backslash of bytes.

    asyncpg looks at each member of an array several times; this takes half of the time.
    """
    text = _ENCODER.encode(columns).decode()
    found = text[2:-2].split("],[")
    if len(found) == len(columns) and text.count("\\") == 2 * text.count("\\\\x"):
        return iter(["{" + column + "}" for column in found])
    return map(_array, columns)


def _array(column: _Column) -> str:
    return "{" + ",".join([_member(value) for value in column]) + "}"


def _member(value: str | int | None) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return "NULL" if value is None else str(value)


def may_be_plain(request: Request) -> bool:
    """Whether everything that can refuse this request is compared by `commit_requests` for the whole batch at once."""
    if request.work is not None and request.work.is_looked_at:
        return False
    match request:
        case ClaimRequest():
            return not (
                request.rates or request.approvals or request.history is not None or request.history_version is not None
            )
        case RecordRequest():
            return request.history_version is None
        case SettleRequest():
            return not (request.release_key or request.spent)
        case _:
            assert_never(request)


def _compared(requests: Sequence[Request]) -> Sequence[_Column]:
    """What is compared for a whole batch at once, in columns: kind, claim, key, facts version, labels, attempt."""
    kinds: list[str] = []
    claims: list[str | None] = []
    keys: list[str | None] = []
    versions: list[int | None] = []
    tainted: list[bool | None] = []
    ranks: list[int | None] = []
    attempts: list[int | None] = []
    for request in requests:
        claim_id, key, version, labels, attempt = None, None, None, None, None
        match request:
            case ClaimRequest():
                kind, claim_id, key = "claim", request.claim_id, request.idempotency
                version, labels = request.facts_version, request.worst_labels
            case RecordRequest():
                kind, version = "record", request.facts_version
            case SettleRequest():
                kind, claim_id, attempt = "settle", request.claim_id, request.attempt
            case _:
                assert_never(request)
        kinds.append(kind)
        claims.append(claim_id)
        keys.append(None if key is None else f"\\x{key.key.hex()}")
        versions.append(version)
        tainted.append(None if labels is None else labels.tainted)
        ranks.append(None if labels is None else labels.confidentiality)
        attempts.append(attempt)
    return kinds, claims, keys, versions, tainted, ranks, attempts


def _budget(charge: Charge, process_id: str, asked: dict[tuple[str, str], _Asked]) -> _Asked:
    holder = process_id if charge.shared else ""
    found = asked.get((charge.account, holder))
    if found is None:
        found = asked[charge.account, holder] = _Asked(
            number=len(asked) + 1,
            account=charge.account,
            holder=holder,
            about=charge.about,
            cap=charge.limit,
            window_s=charge.window_s,
        )
    found.cap = min(found.cap, charge.limit)
    if not charge.lifted:
        found.wanted += charge.amount
    return found


def _entering(requests: Sequence[Request]) -> tuple[Any, ...]:
    """What enters contexts with the settlements: hashes of tokens, and the rest in columns.

    Item k has the hashes after `after[k]` up to `until[k]`.
    """
    columns: tuple[list[Any], ...] = ([], [], [], [], [], [], [])
    standings: list[int] = []
    tokens: list[bytes] = []
    entered: dict[str, int] = {}
    for number, request in enumerate(requests):
        if not isinstance(request, SettleRequest) or request.enters is None:
            continue
        item = request.enters
        entered[request.lineage_id] = entered.get(request.lineage_id, 0) + 1
        before = len(tokens)
        for standing, hashes in sorted(item.tokens.items()):
            standings.append(standing)
            tokens.append(hashes)
        row = (number, entered[request.lineage_id], before, len(tokens), item.source, item.reference, item.is_complete)
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    return tokens, *columns, standings


def _claim(number: int, request: ClaimRequest, process_id: str) -> dict[str, Any]:
    epochs, key = request.epochs, request.idempotency
    told: dict[str, Any] = {
        "n": number,
        "kind": "claim",
        "claim_id": request.claim_id,
        "call_id": request.call_id,
        "operation": request.operation,
        "call_hash": request.call_hash,
        "release_digest": request.release_digest,
        "scopes": request.scopes,
        "control": epochs.control,
        "release": epochs.release,
        "revocation": epochs.revocation,
        "facts_version": request.facts_version,
        "history_version": request.history_version,
        "tainted": request.worst_labels.tainted,
        "confidentiality": request.worst_labels.confidentiality,
        "settle_by_ms": request.settle_by_ms,
    }
    if key is not None:
        told |= {"key": key.key.hex(), "key_source": key.source, "key_window_s": key.window_s}
    if request.rates:
        told["rates"] = [(rate.limit, rate.window_s) for rate in request.rates]
    if request.approvals:
        told |= {"approvals": request.approvals, "approved_hash": request.approved_hash}
    if request.history is not None:
        told |= {"history": True, "remembered": request.history}
    told |= _of_work(request.work)
    for charge in request.charges:
        if charge.account:
            # Keys are short: there are many. The claim keeps them for its settlement.
            holder = process_id if charge.shared else ""
            kept = {"a": charge.account, "h": holder, "m": charge.amount, "w": charge.window_s}
            told.setdefault("holding" if charge.window_s else "reserved", []).append(kept)
    return told


def _record(number: int, request: RecordRequest, *, again: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"n": number, "kind": "record", "call_id": request.call_id, "again": again}
    if request.epochs is not None:
        told |= {
            "control": request.epochs.control,
            "release": request.epochs.release,
            "revocation": request.epochs.revocation,
            "facts_version": request.facts_version,
            "history_version": request.history_version,
        }
        told |= _of_work(request.work)
    return told


def _settle(number: int, request: SettleRequest) -> dict[str, Any]:
    told: dict[str, Any] = {
        "n": number,
        "kind": "settle",
        "claim_id": request.claim_id,
        "attempt": request.attempt,
        "state": request.state,
        "release_key": request.release_key,
    }
    if request.spent:
        told["spent"] = request.spent
    return told | _of_work(request.work)
