"""Commands that log a person in and out, and say who they are."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
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
_NOT_FOUND: Final = 404


def login(
    *,
    code: Annotated[bool, Parameter(negative="", help="Print a one-time code for the page's login form (with --as).")] = False,
    open_: Annotated[bool, Parameter(name="--open", negative="", help="Open the page in a browser.")] = False,
    issuer: Annotated[str, Parameter(help="Log in at this issuer of the release's issuers.yaml.")] = "",
    caller: Caller = ANYBODY,
    as_json: Json = False,
) -> int:
    """Log in at a server as yourself: on its page, by a code that this command shows; or at an issuer that it trusts.

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
    if issuer:
        return _elsewhere(caller.server, issuer, open_page=open_, as_json=as_json)
    if caller.as_:
        answer = ask(caller.server, "/oauth/token", form={"grant_type": _PROOF, "assertion": caller.login_code()})
    else:
        answer = _by_device(caller.server, open_page=open_, as_json=as_json)
    kept = stored.keep(caller.server, answer)
    return _tell(caller.server, kept.access_token, as_json=as_json)


def logout(*, caller: Caller = ANYBODY, as_json: Json = False) -> int:
    """End the login at a server, there and here."""
    kept = stored.forget(caller.server)
    if kept is not None and not kept.token_endpoint:
        ask(caller.server, "/oauth/revoke", form={"token": kept.refresh_token})
    elif kept is not None and kept.revocation_endpoint:
        from interlock.cli.outside import ask_text  # noqa: PLC0415  # not needed for --help

        ask_text(kept.revocation_endpoint, {"token": kept.refresh_token or kept.access_token, "client_id": kept.client_id})
    if as_json:
        print_json({"server": caller.server, "ended": kept is not None})
    else:
        print(f"nobody was logged in at {caller.server}" if kept is None else f"logged out at {caller.server}")
    return OK


def whoami(*, caller: Caller = ANYBODY, as_json: Json = False) -> int:
    """Who you are to a server, as it says now."""
    token = caller.token() if caller.as_ else stored.token_of(caller.server, renew=True)
    return _tell(caller.server, token, as_json=as_json)


def _elsewhere(server: str, name: str, *, open_page: bool, as_json: bool) -> int:
    import webbrowser  # noqa: PLC0415  # not needed for --help

    from interlock.cli import outside  # noqa: PLC0415  # not needed for --help

    offer = outside.offer_of(server, name)
    provider = outside.provider_of(offer)

    def tell(said: Mapping[str, str]) -> None:
        if as_json:
            print_json(dict(said))
        elif "user_code" in said:
            print(f"open {said['verification_uri']} and type {said['user_code']}", flush=True)
        else:
            print(f"log in here, in a browser on this machine:\n{said['verification_uri']}", flush=True)
        if open_page and "user_code" in said:
            webbrowser.open(said.get("verification_uri_complete", said["verification_uri"]))

    answer = outside.log_in(offer, provider, tell, pause=pause)
    # Asked before it is kept: a login that this server does not take is none.
    code = _tell(server, answer["access_token"], as_json=as_json)
    stored.keep(
        server,
        answer,
        token_endpoint=provider.token_endpoint,
        client_id=offer.client_id,
        revocation_endpoint=provider.revocation_endpoint,
    )
    return code


def _by_device(server: str, *, open_page: bool, as_json: bool) -> dict[str, Any]:
    try:
        asked = ask(
            server, "/oauth/device_authorization", form={"client_id": stored.CLIENT, "device_name": socket.gethostname()}
        )
    except Failure as failure:
        if (failure.details or {}).get("status") != _NOT_FOUND:
            raise
        from interlock.cli.outside import offers_of  # noqa: PLC0415  # not needed for --help

        names = " or ".join(f"`interlock login --issuer {offer.name}`" for offer in offers_of(server))
        hint = f"run {names}" if names else "start it with `interlock up --directory`, or say `login` in issuers.yaml"
        raise Failure(f"the built-in issuer logs in nobody at {server}", hint=hint, code=USAGE) from failure
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


def _tell(server: str, token: str, *, as_json: bool) -> int:
    me = ask(server, "/v1/me", token=token)
    said = {
        "server": server,
        "user": me["user"],
        "tenant": me["tenant"],
        "roles": me["roles"],
        "token_ends": datetime.fromtimestamp(stored.claims_of(token).get("exp", 0), UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    }
    if as_json:
        print_json(said)
    else:
        print(f"{said['user']} of {said['tenant']} at {server}; roles: {', '.join(said['roles']) or 'none'}")
    return OK
