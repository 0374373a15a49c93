"""Which scope a command is about: written out, `tool:payments`, or as an option, `--tool payments`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Final

from cyclopts import Parameter

from interlock.cli.output import USAGE, Failure

_HINT: Final = "write the scope, such as tool:payments or fleet, or one option, such as --tool payments"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Scoped:
    """One of these in the place of a scope. Commands take it as `scoped: Scoped = WRITTEN`; its fields become their options."""

    fleet: Annotated[bool, Parameter(negative="", help="Everything: as the scope fleet.")] = False
    tenant: Annotated[str, Parameter(help="As the scope tenant:T.")] = ""
    agent: Annotated[str, Parameter(help="As the scope agent:A.")] = ""
    user: Annotated[str, Parameter(help="As the scope user:T/U: the tenant, a slash, the user.")] = ""
    tool: Annotated[str, Parameter(help="As the scope tool:T.")] = ""
    operation: Annotated[str, Parameter(help="As the scope operation:T.O.")] = ""
    source: Annotated[str, Parameter(help="As the scope source:S, which is kept and stops nothing yet.")] = ""
    session: Annotated[str, Parameter(help="As the scope session:S.")] = ""

    def or_written(self, scope: str) -> str:
        """The one scope that was said. Raises `Failure` when it was none, or more than one."""
        said = [scope] if scope else []
        for field in fields(self):
            value = getattr(self, field.name)
            if value:
                said.append(field.name if value is True else f"{field.name}:{value}")
        if len(said) != 1:
            what = f"more than one scope: {', '.join(said)}" if said else "no scope"
            raise Failure(what, hint=_HINT, code=USAGE)
        return said[0]


WRITTEN: Final = Scoped()
