"""`interlock mcp`: a local MCP client speaks to this over standard input and output, and so to a running Interlock."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from interlock.cli.bridge import Bridge, ExchangedToken
from interlock.cli.caller import ANYBODY, Caller
from interlock.cli.common import ask
from interlock.cli.output import NO, OK, USAGE, Failure
from interlock.cli.wire import Wire

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_TYPE: Final = "urn:ietf:params:oauth:token-type:jwt"


def serve(
    *,
    agent: Annotated[str, Parameter(help="The agent that the client is.", env_var="INTERLOCK_AGENT")],
    task: Annotated[str, Parameter(help="The task of the release that the session is for.", env_var="INTERLOCK_TASK")],
    user: Annotated[str, Parameter(help="The user it acts for; whoever is logged in when not given.")] = "",
    agent_token_file: Annotated[
        Path | None, Parameter(help="File with the agent's own token, read each time; the development issuer when not given.")
    ] = None,
    caller: Caller = ANYBODY,
) -> int:
    """Serve MCP on standard input and output for a local client, as a client of a running Interlock."""

    def exchange(session: str) -> Any:
        form = {
            "grant_type": GRANT_TYPE,
            "subject_token": caller.of_user(user) if user else caller.token(),
            "subject_token_type": JWT_TYPE,
            "actor_token": caller.of_agent(agent) if agent_token_file is None else _read(agent_token_file),
            "actor_token_type": JWT_TYPE,
            "task": task,
            "session_id": session,
        }
        return ask(caller.server, "/oauth/token", form=form)

    wire = Wire(caller.server.rstrip("/") + "/mcp")
    if wire.is_exposed:
        _log(f"{caller.server} is not https: whoever is in between can read the session's token")
    token = ExchangedToken(exchange, refusal=NO)
    token.text()  # whoever may not is told before the client begins
    Bridge(wire, token, sys.stdout.buffer, _log).run(sys.stdin.buffer)
    return OK


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{path} cannot be read: {error}", hint="it holds the agent's own token", code=USAGE) from error


def _log(text: str) -> None:
    print(f"interlock mcp: {text}", file=sys.stderr, flush=True)
