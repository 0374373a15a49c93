"""What one session sees in `tools/list`."""

from __future__ import annotations

from interlock.core.claim import LineageState
from interlock.core.contract import Contract, Repeat
from interlock.core.decision import Obligations
from interlock.core.terms import Effect
from interlock.core.who import Session
from interlock.gateway import filters
from interlock.gateway.governed import Governed
from interlock.gateway.messages import VisibleOperation


def listed(
    governed: Governed, session: Session, state: LineageState, quarantined: frozenset[str], now_us: int
) -> tuple[VisibleOperation, ...]:
    """The operations this session may use, as it will see them, but for those that are `quarantined`."""
    names = governed.visible(session, state, now_us)
    shown = (governed.contract(name) for name in names if name not in quarantined and session.may_use(name))
    return tuple(visible_operation(contract, governed.may_apply(contract)) for contract in shown if contract is not None)


def visible_operation(contract: Contract, may_apply: Obligations) -> VisibleOperation:
    """The operation as listed. `may_apply` are the obligations that could hold: fields they may take out become optional."""
    return VisibleOperation(
        operation=contract.operation,
        title=contract.title,
        description=contract.description,
        input_schema=contract.input_schema,
        output_schema=filters.schema_as_seen(contract, may_apply),
        read_only=contract.is_read_only,
        destructive=Effect.DESTRUCTIVE in contract.effects,
        # With Interlock in front, a repeated write is answered with the first outcome unless the contract lets it repeat.
        idempotent=contract.is_read_only or contract.repeat is Repeat.ONCE,
        open_world=Effect.EGRESS in contract.effects,
        kind=contract.kind,
        tool=contract.tool,
        upstream_name=contract.upstream_name,
        mime_type=contract.mime_type,
        completes=contract.completes,
    )
