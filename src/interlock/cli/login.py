"""Commands that log a person in and out, and say who they are."""

from __future__ import annotations

import socket
import time
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from cyclopts import Parameter

from interlock.cli import stored
from interlock.cli.caller import ANYBODY, Caller
from interlock.cli.common import Json, ask
from interlock.cli.output import OK, USAGE, Failure, print_json

_DEVICE: Final = "urn:ietf:params:oauth:grant-type:device_code"
_PROOF: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_SLOWER_S: Final = 5


def login(
    *,
    code: Annotated[bool, Parameter(negative="", help="Print a one-time code for the page's login form (with --as).")] = False,
    open_: Annotated[bool, Parameter(name="--open", negative="", help="Open the page in a browser.")] = False,
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """Log in at a server as yourself: on its page, by a code that this command shows.

    With --as, by the key folder of a development server on this machine: whoever can read it can be anybody.
    """
    if code:
        if not caller.as_:
            raise Failure("whose code?", hint="say --as NAME, a user of the development directory", code=USAGE)
        made = caller.login_code()
        if as_json:
            print_json({"code": made})
        else:
            print(made)
        return OK
    stored.refuse_in_the_open(caller.server)
    if caller.as_:
        answer = ask(caller.server, "/oauth/token", form={"grant_type": _PROOF, "assertion": caller.login_code()})
    else:
        answer = _by_device(caller.server, open_page=open_, as_json=as_json)
    kept = stored.keep(caller.server, answer)
    return _tell(caller.server, stored.claims_of(kept.access_token), as_json=as_json)


def logout(*, caller: Caller = ANYBODY, as_json: Json = False) -> int:
    """End the login at a server, there and here."""
    key = stored.forget(caller.server)
    if key:
        ask(caller.server, "/oauth/revoke", form={"token": key})
    if as_json:
        print_json({"server": caller.server, "ended": bool(key)})
    else:
        print(f"logged out at {caller.server}" if key else f"nobody was logged in at {caller.server}")
    return OK


def whoami(*, caller: Caller = ANYBODY, as_json: Json = False) -> int:
    """Who you are to a server, as it says now."""
    token = caller.token() if caller.as_ else stored.token_of(caller.server, renew=True)
    return _tell(caller.server, stored.claims_of(token), as_json=as_json)


def _by_device(server: str, *, open_page: bool, as_json: bool) -> dict[str, Any]:
    asked = ask(server, "/oauth/device_authorization", form={"client_id": stored.CLIENT, "device_name": socket.gethostname()})
    if as_json:
        print_json({name: asked[name] for name in ("verification_uri", "verification_uri_complete", "user_code")})
    else:
        print(f"open {asked['verification_uri']} and type {asked['user_code']}", flush=True)
    if open_page:
        import webbrowser  # noqa: PLC0415  # only when asked for

        webbrowser.open(asked["verification_uri_complete"])
    form = {"grant_type": _DEVICE, "client_id": stored.CLIENT, "device_code": asked["device_code"]}
    wait_s, waited_s = float(asked["interval"]), 0.0
    while waited_s <= asked["expires_in"]:
        pause(wait_s)
        waited_s += wait_s
        try:
            answer: dict[str, Any] = ask(server, "/oauth/token", form=form)
        except Failure as failure:
            said = (failure.details or {}).get("error", "")
            if said == "slow_down":
                wait_s += _SLOWER_S
            elif said != "authorization_pending":
                raise
        else:
            return answer
    raise Failure("nobody answered in time", hint="run `interlock login` again")


def pause(seconds: float) -> None:
    """Wait before asking again."""
    time.sleep(seconds)


def _tell(server: str, claims: dict[str, Any], *, as_json: bool) -> int:
    said = {
        "server": server,
        "user": claims.get("sub", ""),
        "tenant": claims.get("tenant", ""),
        "roles": claims.get("roles", []),
        "token_ends": datetime.fromtimestamp(claims.get("exp", 0), UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    }
    if as_json:
        print_json(said)
    else:
        print(f"{said['user']} of {said['tenant']} at {server}; roles: {', '.join(said['roles']) or 'none'}")
    return OK
