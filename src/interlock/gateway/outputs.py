"""From a raw output to what the caller gets: obligations, the schema as this session sees it, labels, replay marks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any, Final

import jsonschema_rs
import msgspec

from interlock.core.claim import Duplicate, Labels
from interlock.core.contract import Contract, Kind, Passes
from interlock.core.decision import Allow
from interlock.core.texts import MOMENTS, taints
from interlock.gateway import filters, media
from interlock.gateway.asking import released_asks
from interlock.gateway.limits import MAX_COMPILED_SCHEMAS
from interlock.gateway.messages import Asked, CallResult, Effected, Returned
from interlock.gateway.refusals import refusal
from interlock.gateway.released import WITHHELD_ERROR, RawOutput, Released
from interlock.tools.port import Asks


def _anything(value: str) -> bool:  # noqa: ARG001  # what a format holds is told by name
    return True


def _fits(pattern: re.Pattern[str], value: str) -> bool:
    return pattern.fullmatch(value) is not None


_FORMAT: Final = re.compile(r'"format":"([^"]{1,40})"')
_MOMENTS: Final = {name: partial(_fits, re.compile(pattern)) for name, pattern in MOMENTS.items()}


class Stale(msgspec.Struct, frozen=True, kw_only=True):
    """That an answer is an earlier one: of which call, from when, and how old."""

    of_call: str
    at_us: int
    age_ms: int


def worst_labels(contract: Contract) -> Labels:
    """The labels that a call of this contract may bring into the lineage: set at the claim, before anything is read."""
    return Labels(confidentiality=contract.classification.rank, tainted=taints(contract))


def release_output(contract: Contract, decision: Allow, raw: RawOutput, offers: frozenset[str] = frozenset()) -> Released:
    """Apply the decision's obligations. What cannot be filtered, or no longer fits the schema, is withheld.

    `offers` is what a tool may ask of this caller.
    """
    obligations = decision.obligations
    filtering = filters.must_filter(contract, obligations) or bool(obligations.redact)
    logs = raw.logs if Passes.LOG in contract.passes and not filtering else ()
    if raw.asks is not None:
        return _asking(contract, raw.asks, offers, logs, filtering=filtering)
    if raw.is_error:
        content = (WITHHELD_ERROR,) if filtering else media.passing(contract, raw.content)
        needs = tuple(name for name in raw.needs if name in contract.passes)
        return Released(content=content, is_error=True, logs=logs, error_code=raw.error_code, needs=needs)
    filtered = filters.apply(contract, obligations, raw.structured)
    if filtered.withheld:
        return Released(withheld=filtered.withheld)
    schema = filters.schema_as_seen(contract, obligations)
    if schema is not None and (filtered.structured is None or not _validator(schema).is_valid(dict(filtered.structured))):
        return Released(withheld="the result does not fit the contract's output schema")
    structured = filtered.structured
    if structured is None:
        content = media.passing(contract, raw.content)
    elif contract.kind is Kind.TOOL:
        # Structured results are rendered again as text, so that no text says what the structure no longer says.
        content = (*filters.text_of(structured), *(() if filtering else media.beside_structure(contract, raw.content)))
    else:
        structured = media.passing_result(contract, structured, filtering=filtering)
        content = filters.text_of(structured)
    return Released(content=content, structured=structured, redacted=filtered.redacted, logs=logs)


def _asking(
    contract: Contract, asks: Asks, offers: frozenset[str], logs: tuple[Mapping[str, Any], ...], *, filtering: bool
) -> Released:
    if filtering:
        # What a tool asks is text that no obligation can look into.
        return Released(refused_ask="what the tool asks cannot be filtered")
    passed = released_asks(contract, Asked(requests=asks.requests, state=asks.state), offers)
    return Released(refused_ask=passed) if isinstance(passed, str) else Released(asks=passed, logs=logs)


@lru_cache(MAX_COMPILED_SCHEMAS)
def _validator(schema: str) -> jsonschema_rs.Validator:
    formats = frozenset(_FORMAT.findall(schema))
    if not formats & MOMENTS.keys():
        return jsonschema_rs.validator_for(schema)
    # What `core.texts` counts on is held, leniently; of the other formats no more than before, which is nothing since 2019.
    others = {} if "draft-07" in schema else dict.fromkeys(formats, _anything)
    return jsonschema_rs.validator_for(schema, validate_formats=True, formats={**others, **_MOMENTS})


def to_caller(
    call_id: str,
    contract: Contract,
    decision: Allow,
    released: Released,
    *,
    replayed: Duplicate | None = None,
    stale: Stale | None = None,
) -> CallResult:
    """The answer for the caller, with labels; a withheld result becomes a refusal that says the call was done."""
    if released.withheld:
        return refusal(call_id, "result_not_kept" if released.not_kept else "result_withheld")
    labels: dict[str, Any] = {
        "source": contract.operation,
        "classification": contract.classification.value,
        "integrity": "trusted" if "*" in contract.trusted and not released.is_error else "untrusted",
        "redacted": list(released.redacted),
    }
    meta: dict[str, Any] = {
        "interlock/labels": labels,
        "interlock/decision": {
            "id": call_id,
            "outcome": "allowed",
            "release": decision.release_digest,
            "effect": _effect(contract, released).value,
        },
    }
    if replayed is not None:
        meta["interlock/replayed"] = _replay_mark(replayed)
    if stale is not None:
        meta["interlock/stale"] = {"age_ms": stale.age_ms, "at_us": stale.at_us, "of": stale.of_call}
    return Returned(
        call_id=call_id,
        content=_marked(released.content, replayed) if stale is None else _dated(released.content, stale),
        structured=released.structured,
        is_error=released.is_error,
        meta=meta,
        asks=released.asks,
        logs=released.logs,
        error_code=released.error_code,
        needs=released.needs,
    )


def _effect(contract: Contract, released: Released) -> Effected:
    if released.asks is not None:
        return Effected.NONE if contract.is_undone_when_it_asks else Effected.UNKNOWN
    return Effected.NONE if contract.is_read_only else Effected.DONE


def stored_output(outcome: str) -> RawOutput:
    """The raw output kept with a settled claim."""
    return msgspec.json.decode(outcome, type=RawOutput)


def _dated(content: tuple[Mapping[str, Any], ...], stale: Stale) -> tuple[Mapping[str, Any], ...]:
    note = (
        f"The tool is unstable at the moment. This is what it answered {-(-stale.age_ms // 1000)} s ago "
        f"(reference {stale.of_call}); it may be different by now."
    )
    return (*content, {"type": "text", "text": note})


def _replay_mark(earlier: Duplicate) -> Mapping[str, Any]:
    return {
        "of": earlier.call_id,
        "at_us": earlier.settled_at_us or earlier.claimed_at_us,
        "again": f'to do it once more on purpose, send _meta["interlock/repeat-of"] = "{earlier.call_id}"',
    }


def _marked(content: tuple[Mapping[str, Any], ...], replayed: Duplicate | None) -> tuple[Mapping[str, Any], ...]:
    if replayed is None:
        return content
    note = (
        f"This call was made before (reference {replayed.call_id}); nothing was done again. The first outcome stands above. "
        f'To repeat it on purpose, send it with _meta["interlock/repeat-of"] = "{replayed.call_id}".'
    )
    return (*content, {"type": "text", "text": note})
