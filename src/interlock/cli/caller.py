"""Who asks which server: the parameters and the one request that every command shares which speaks as a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from cyclopts import Parameter

from interlock.cli.common import (
    DEFAULT_DIRECTORY,
    DEFAULT_SERVER,
    DEFAULT_STATE,
    Directory,
    Environment,
    Server,
    State,
    ask,
    dev_token,
)

Reason = Annotated[str, Parameter(help="Why; it goes on record.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Caller:
    """A person in front of a server. Commands take it as `caller: Caller = ANYBODY`; its fields become their options."""

    as_: Annotated[
        str, Parameter(name="--as", help="Ask as this user of the development directory.", env_var="INTERLOCK_USER")
    ] = ""
    environment: Environment = "prod"
    server: Server = DEFAULT_SERVER
    state: State = DEFAULT_STATE
    directory: Directory = DEFAULT_DIRECTORY

    def token(self) -> str:
        """The person's own token. Raises `Failure` saying how to get one."""
        if self.as_:
            return self.of_user(self.as_)
        from interlock.cli.stored import token_of  # noqa: PLC0415  # not needed for --help

        return token_of(self.server)

    def of_user(self, user: str) -> str:
        """A token of the development issuer for a user of its directory. Raises `Failure`."""
        return dev_token(self.state, self.directory, self.environment, user=user)

    def login_code(self) -> str:
        """A code of the development issuer that logs this user of its directory in, once. Raises `Failure`."""
        return dev_token(self.state, self.directory, self.environment, login=self.as_)

    def of_agent(self, agent: str) -> str:
        """A token of the development issuer for an agent of its directory. Raises `Failure`."""
        return dev_token(self.state, self.directory, self.environment, agent=agent)

    def ask(self, path: str, *, body: Mapping[str, Any] | None = None) -> Any:
        """One request as this person: GET, or POST with a body; gives its JSON. Raises `Failure` with what the server said."""
        return ask(self.server, path, token=self.token(), body=body)


ANYBODY: Final = Caller()
