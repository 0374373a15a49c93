"""A batch that may be plain, as the columns that `commit_plain` takes, and its answer. Pure: no connection, no clock."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias, assert_never

import msgspec

from interlock.core.claim import (
    Claimed,
    ClaimRequest,
    LineageState,
    Recorded,
    RecordRequest,
    Settled,
    SettleRequest,
)
from interlock.core.terms import Posture
from interlock.store import batch
from interlock.store.batch import Request, arrays

_ENCODER: Final = msgspec.json.Encoder()

_Done: TypeAlias = Claimed | Recorded | Settled
_Rows: TypeAlias = list[tuple[Any, ...]]
_Stands: TypeAlias = tuple[str, int, Posture, bool, int, int, str, str]
"""A lineage: its id, facts version, posture, labels, history version, and what set the labels."""

PLAIN_ANSWER: Final = msgspec.json.Decoder(tuple[int, list[_Stands]])
"""What `commit_plain` answers: when, in microseconds since the epoch, and how the lineages stand."""


class _Asked(msgspec.Struct):
    """What the claims of a batch ask of one budget: `wanted` has to have room, `taken` is what they take."""

    cap: int
    wanted: int = 0
    taken: int = 0


def plain_arguments(process_id: str, requests: Sequence[Request], known: Container[str]) -> tuple[Any, ...] | None:
    """The arguments of `commit_plain`, in its order; None for a batch that is looked at request by request.

    `known` are accounts of budgets that had rows.
    """
    claims = [request for request in requests if isinstance(request, ClaimRequest)]
    settles = [request for request in requests if isinstance(request, SettleRequest)]
    epochs = {request.epochs for request in requests if not isinstance(request, SettleRequest)} - {None}
    keys = [claim.idempotency.key for claim in claims if claim.idempotency]
    lineages, budgets = _lineages(requests), _budgets(process_id, claims, known)
    may_be = lineages is not None and budgets is not None and all(map(batch.may_be_plain, requests))
    if not may_be or lineages is None or budgets is None or len(epochs) > 1 or len(set(keys)) != len(keys):
        return None
    epoch = next(iter(epochs), None)
    told, tokens = _items(settles)
    chains, bodies = _chains(requests)
    columns = arrays(
        (
            *_columns(lineages, 5),
            *_columns(_sessions(requests), 3),
            list({scope: None for claim in claims for scope in claim.scopes}),
            *_columns(budgets, 5),
            *_columns(_claims(claims), 12),
            [scope for claim in claims for scope in claim.scopes],
            *_columns(map(_key, claims), 3),
            *_columns([(settle.claim_id, settle.attempt, settle.state) for settle in settles], 3),
            *told,
            *chains,
        )
    )
    return (
        process_id,
        *((None, None, None) if epoch is None else (epoch.control, epoch.release, epoch.revocation)),
        *_next(columns, 9),
        len(budgets),
        *_next(columns, 5),
        len(claims),
        *_next(columns, 13),
        [_reserved(claim, process_id) for claim in claims],
        len(keys),
        *_next(columns, 3),
        len(settles),
        *_next(columns, 3),
        [settle.outcome for settle in settles],
        sum(settle.enters is not None for settle in settles),
        *_next(columns, 9),
        tokens,
        *columns,
        bodies,
    )


def all_plain(
    requests: Sequence[Request], claimed_at_us: int, lineages: Iterable[_Stands]
) -> list[Claimed | Recorded | Settled]:
    """The answers when each request was done, and the lineages stand like this. Raises KeyError for one that is not told of."""
    states = {
        lineage: LineageState(
            facts_version=version,
            posture=posture,
            tainted=tainted,
            confidentiality=confidentiality,
            history_version=history,
            tainted_by=tainter,
            confidential_by=secret,
        )
        for lineage, version, posture, tainted, confidentiality, history, tainter, secret in lineages
    }
    answers: list[_Done] = []
    for request in requests:
        match request:
            case ClaimRequest():
                state = states[request.lineage_id]
                answers.append(Claimed(claim_id=request.claim_id, attempt=1, state=state, claimed_at_us=claimed_at_us))
            case RecordRequest():
                answers.append(Recorded())
            case SettleRequest():
                answers.append(Settled(state=states[request.lineage_id]))
            case _:
                assert_never(request)
    return answers


def _next(columns: Iterator[str], count: int) -> list[str]:
    return [next(columns) for _ in range(count)]


def _columns(rows: Iterable[tuple[Any, ...]], count: int) -> tuple[Sequence[Any], ...]:
    return tuple(zip(*rows, strict=True)) or ((),) * count


def _lineages(requests: Sequence[Request]) -> _Rows | None:
    """Each lineage with the facts decided on and the labels of its claims; None when two were on different facts."""
    found: dict[str, tuple[int | None, bool, bool, int]] = {}
    for request in requests:
        facts, claimed, tainted, rank = found.get(request.lineage_id, (None, False, False, 0))
        decided = None if isinstance(request, SettleRequest) else request.facts_version
        if decided is not None and facts is not None and decided != facts:
            return None
        if isinstance(request, ClaimRequest):
            labels = request.worst_labels
            claimed, tainted, rank = True, tainted or labels.tainted, max(rank, labels.confidentiality)
        found[request.lineage_id] = (facts if decided is None else decided, claimed, tainted, rank)
    return [(lineage, *asked) for lineage, asked in found.items()]


def _sessions(requests: Sequence[Request]) -> _Rows:
    """Each session that claims and records are of, with its lineage, and whether it has to be live."""
    found: dict[tuple[str, str], bool] = {}
    for request in requests:
        if not isinstance(request, SettleRequest):
            about = request.session_id, request.lineage_id
            found[about] = found.get(about, False) or request.facts_version is not None
    return [(*about, is_live) for about, is_live in found.items()]


def _budgets(process_id: str, claims: Sequence[ClaimRequest], known: Container[str]) -> _Rows | None:
    """Each budget with what is asked of it; None when one slides, or has no row yet."""
    asked: dict[tuple[str, str], _Asked] = {}
    for claim in claims:
        for charge in claim.charges:
            if charge.window_s or (not charge.shared and charge.account not in known):
                return None
            found = asked.setdefault((charge.account, process_id if charge.shared else ""), _Asked(charge.limit))
            found.cap = min(found.cap, charge.limit)
            found.taken += charge.amount
            found.wanted += 0 if charge.lifted else charge.amount
    return [(*about, budget.cap, budget.wanted, budget.taken) for about, budget in asked.items()]


def _claims(claims: Sequence[ClaimRequest]) -> Iterator[tuple[Any, ...]]:
    until = 0
    for claim in claims:
        after, until = until, until + len(claim.scopes)
        work = None if claim.work is None else claim.work.lineage_id
        yield (
            *(claim.claim_id, claim.call_id, claim.session_id, claim.lineage_id, claim.operation, claim.call_hash),
            *(claim.release_digest, claim.settle_by_ms, claim.worst_labels.tainted, work, after, until),
        )


def _key(claim: ClaimRequest) -> tuple[str | None, str | None, int | None]:
    key = claim.idempotency
    return (None, None, None) if key is None else (f"\\x{key.key.hex()}", key.source, key.window_s)


def _reserved(claim: ClaimRequest, process_id: str) -> str | None:
    kept = [
        {"a": charge.account, "h": process_id if charge.shared else "", "m": charge.amount, "w": 0} for charge in claim.charges
    ]
    return _ENCODER.encode(kept).decode() if kept else None


def _items(settles: Sequence[SettleRequest]) -> tuple[Sequence[Sequence[Any]], list[bytes]]:
    """What enters contexts, in columns, and the hashes of its tokens. Item k has those after `after[k]` up to `until[k]`."""
    rows: _Rows = []
    standings: list[int] = []
    tokens: list[bytes] = []
    entered: dict[str, int] = {}
    for settle in settles:
        item = settle.enters
        if item is None:
            continue
        nth = entered[settle.lineage_id] = entered.get(settle.lineage_id, 0) + 1
        before = len(tokens)
        for standing, hashes in sorted(item.tokens.items()):
            standings.append(standing)
            tokens.append(hashes)
        about = settle.lineage_id, settle.session_id, nth, before, len(tokens)
        rows.append((*about, item.source, item.reference, item.is_complete))
    return (*_columns(rows, 8), standings), tokens


def _chains(requests: Sequence[Request]) -> tuple[Sequence[Sequence[Any]], list[str]]:
    """The chains with the places of their first and last events; the events chain by chain, in columns; and their bodies."""
    found: dict[str, list[Any]] = {}
    for request in requests:
        if request.events:
            found.setdefault(request.session_id, []).extend(request.events)
    places: _Rows = []
    events: list[Any] = []
    for chain, appended in found.items():
        places.append((chain, len(events) + 1, len(events) + len(appended)))
        events += appended
    told = [(e.kind, e.call_id, f"\\x{e.salt.hex()}", f"\\x{e.commitment.hex()}") for e in events]
    return (*_columns(places, 3), *_columns(told, 4)), [event.body for event in events]
