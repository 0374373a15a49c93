"""What one session sees in `tools/list`."""

from __future__ import annotations

from interlock.core.contract import Contract, Repeat
from interlock.core.decision import Obligations
from interlock.core.terms import Effect
from interlock.gateway import filters
from interlock.gateway.messages import VisibleOperation


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
    )
