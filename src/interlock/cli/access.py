"""How commands open the database: as whom, where it is, where its password comes from. A group of options for each role."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

from cyclopts import Parameter

from interlock.cli.output import NO, UNREACHABLE, USAGE, Failure

if TYPE_CHECKING:
    from interlock.store.embedded.server import Running
    from interlock.store.passwords import Password

_Value = TypeVar("_Value")


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


class _Opened(Secret, ABC):
    """A database of one's own, or the embedded one of the state folder."""

    database_url: str

    def answer(self, state: Path, work: Callable[[str, Password | None], Awaitable[_Value]]) -> _Value:
        """What `work` gives, done with a URL and what gives its password. Raises `Failure`, whatever the database says."""
        password = self.for_url(self.database_url)
        with self._url(state) as url:
            return answered(work(url, password))

    @contextlib.contextmanager
    def _url(self, state: Path) -> Iterator[str]:
        if self.database_url:
            yield self.database_url
            return
        from interlock.store.embedded import server  # noqa: PLC0415  # not needed for --help
        from interlock.store.errors import StoreError  # noqa: PLC0415

        if not state.exists():
            raise Failure(f"there is no state folder {state}", hint="give --state or --database-url", code=USAGE)
        try:
            lease = server.acquire(state)
        except StoreError as error:
            raise Failure(str(error), code=UNREACHABLE) from error
        try:
            yield self._of(lease.running)
        finally:
            lease.release()

    @abstractmethod
    def _of(self, running: Running) -> str:
        """The URL of the embedded database for who this is."""


def _url_of_one(who: str, env_var: str) -> Parameter:
    return Parameter(help=f"URL of the database {who}; the embedded one when not given.", env_var=env_var)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AsOwner(_Opened):
    """Commands take it as `database: AsOwner = OWNER`."""

    database_url: Annotated[str, _url_of_one("as its owner", "INTERLOCK_OWNER_URL")] = ""

    def _of(self, running: Running) -> str:
        return running.owner_url


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AsApp(_Opened):
    """Commands take it as `database: AsApp = APP`."""

    database_url: Annotated[str, _url_of_one("as the app", "INTERLOCK_DATABASE_URL")] = ""

    def _of(self, running: Running) -> str:
        return running.app_url


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AsAuditor(_Opened):
    """Commands take it as `database: AsAuditor = AUDITOR`."""

    database_url: Annotated[str, _url_of_one("as auditor", "INTERLOCK_AUDITOR_URL")] = ""

    def _of(self, running: Running) -> str:
        return running.auditor_url


OWNER: Final = AsOwner()
APP: Final = AsApp()
AUDITOR: Final = AsAuditor()


def answered(work: Awaitable[_Value]) -> _Value:
    """Run what speaks to the database. Raises `Failure` for all that it may say no with."""
    import asyncpg  # noqa: PLC0415  # not needed for --help

    from interlock.store.errors import StoreError, StoreUnavailableError  # noqa: PLC0415

    async def run() -> _Value:
        return await work

    try:
        return asyncio.run(run())
    except StoreError as error:
        raise Failure(str(error), code=UNREACHABLE if isinstance(error, StoreUnavailableError) else NO) from error
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise Failure(f"the database cannot be used: {error}", hint="check the URL", code=UNREACHABLE) from error
