"""How the commands that touch the database come by its password."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from interlock.cli.output import USAGE, Failure

if TYPE_CHECKING:
    from interlock.store.passwords import Password


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Secret:
    """Where the database's password comes from when it is not in the URL. Commands take it as `secret: Secret = IN_THE_URL`."""

    command: Annotated[
        str,
        Parameter(
            name="--database-password-command",
            help="Command that prints the password, run anew for each connection, without a shell.",
            env_var="INTERLOCK_DATABASE_PASSWORD_COMMAND",
        ),
    ] = ""
    function: Annotated[
        str,
        Parameter(
            name="--database-password-from",
            help="module:function that gives the password, called anew for each connection.",
            env_var="INTERLOCK_DATABASE_PASSWORD_FROM",
        ),
    ] = ""

    def for_url(self, url: str) -> Password | None:
        """What gives the password for a URL; None when nothing was said. Raises `Failure`."""
        if not self.command and not self.function:
            return None
        from urllib.parse import urlsplit  # noqa: PLC0415  # not needed for --help

        from interlock.store.errors import PasswordError  # noqa: PLC0415
        from interlock.store.passwords import from_command, from_function  # noqa: PLC0415

        if self.command and self.function:
            raise Failure("the password comes from a command or from a function, not from both", code=USAGE)
        try:
            has_one = bool(urlsplit(url).password)
        except ValueError:
            has_one = False
        if has_one:
            raise Failure("the URL has a password already; take it out, or say no other", code=USAGE)
        try:
            return from_command(self.command) if self.command else from_function(self.function)
        except PasswordError as error:
            raise Failure(str(error), code=USAGE) from error


IN_THE_URL: Final = Secret()
