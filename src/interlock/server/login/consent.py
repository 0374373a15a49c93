"""`/oauth/authorize`: a client wants to act for the person who looks (OAuth 2.1, RFC 9207, RFC 9700).

What is wrong with a request is told to the person, and nobody is sent anywhere: clients register by themselves, so an error
that went back by itself would make this an open redirect (RFC 9700, 4.11). What a person answers goes back to the client, with
its `state` as it came and our `iss`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import MediaType, Request, Response, get, post

from interlock.app.logins import LoginRefusedError
from interlock.app.plane import Plane
from interlock.identity.errors import ExchangeRefusedError
from interlock.identity.login.codes import is_challenge
from interlock.identity.login.redirects import goes_to_this_machine, origin_of, with_answer
from interlock.server.api.oauth import base_of
from interlock.server.login.pages import NotLoggedInError, chosen, desk_of, told, who_looks
from interlock.server.page.forms import form_token, read_meant
from interlock.server.page.html import HEADERS, page
from interlock.store.logins import Client

MAX_STATE_CHARS: Final = 600
_PARAMETERS: Final = (
    "response_type",
    "client_id",
    "redirect_uri",
    "code_challenge",
    "code_challenge_method",
    "state",
    "resource",
    "response_mode",
)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """An authorization request that holds: what a client wants, and where it is answered."""

    client: Client
    redirect_uri: str
    challenge: str
    state: str | None


def routes(plane: Plane) -> list[Any]:
    """The routes of this page."""

    @get("/oauth/authorize", include_in_schema=False)
    async def ask(request: Request[Any, Any, Any]) -> Response[Any]:
        # Each parameter stands at most once (RFC 6749, 3.1): of two, one reader takes the first and another the last.
        sent = request.query_params
        if any(len(sent.getall(name)) > 1 for name in sent):
            return told(LoginRefusedError("a parameter stands more than once"))
        return await _asked(plane, request, {name: sent[name] for name in _PARAMETERS if name in sent})

    @post("/oauth/authorize", include_in_schema=False, status_code=200)
    async def answer(request: Request[Any, Any, Any]) -> Response[Any]:
        return await _answered(plane, request)

    return [ask, answer]


async def _asked(plane: Plane, request: Request[Any, Any, Any], sent: dict[str, str]) -> Response[Any]:
    base = base_of(request)
    try:
        wanted = await _wanted(plane, sent, base)
        person, secret = await who_looks(plane, request)
        choices = await desk_of(plane).choices(person, wanted.client)
    except NotLoggedInError as error:
        return error.answer
    except (LoginRefusedError, ExchangeRefusedError) as error:
        return told(error)
    policy = HEADERS["content-security-policy"].replace(
        "form-action 'self'", f"form-action 'self' {origin_of(wanted.redirect_uri)}"
    )
    return page(
        "consent.html",
        headers={"content-security-policy": policy},
        client=wanted.client,
        redirect_uri=wanted.redirect_uri,
        stays_here=goes_to_this_machine(wanted.redirect_uri),
        person=person,
        choices=choices,
        sent=sent,
        form_token=form_token(secret),
    )


async def _answered(plane: Plane, request: Request[Any, Any, Any]) -> Response[Any]:
    base = base_of(request)
    try:
        person, secret = await who_looks(plane, request)
        form = await read_meant(request, secret)
        wanted = await _wanted(plane, {name: form[name] for name in _PARAMETERS if name in form}, base)
        if form.get("answer") != "approve":
            return _back(wanted, base, error="access_denied", error_description="the person said no")
        desk = desk_of(plane)
        choice = chosen(form, await desk.choices(person, wanted.client))
        code = await desk.consent(
            person,
            wanted.client,
            choice,
            redirect_uri=wanted.redirect_uri,
            challenge=wanted.challenge,
            resource=f"{base}/mcp",
        )
    except NotLoggedInError as error:
        return error.answer
    except (LoginRefusedError, ExchangeRefusedError) as error:
        return told(error)
    return _back(wanted, base, code=code)


async def _wanted(plane: Plane, sent: dict[str, str], base: str) -> Wanted:
    """The request as it holds. Raises `LoginRefusedError`."""
    redirect_uri, state = sent.get("redirect_uri", ""), sent.get("state")
    client = await desk_of(plane).client_to_return_to(sent.get("client_id", ""), redirect_uri)
    challenge = sent.get("code_challenge", "")
    if state is not None and len(state) > MAX_STATE_CHARS:
        raise LoginRefusedError(f"the client's state is longer than {MAX_STATE_CHARS} characters")
    if sent.get("response_type") != "code" or sent.get("response_mode", "query") != "query":
        raise LoginRefusedError("the client must ask for a code, in the query")
    # INVARIANT: no code without PKCE, and none by the method plain, which protects nothing.
    if sent.get("code_challenge_method") != "S256" or not is_challenge(challenge):
        raise LoginRefusedError("the client must use PKCE: a code_challenge, and code_challenge_method=S256")
    if sent.get("resource", f"{base}/mcp").rstrip("/") not in (f"{base}/mcp", base):
        raise LoginRefusedError(f"the client asks for something else than {base}/mcp")
    return Wanted(client=client, redirect_uri=redirect_uri, challenge=challenge, state=state)


def _back(wanted: Wanted, base: str, **answer: str) -> Response[Any]:
    """Send the browser back to the client, with who answers (RFC 9207)."""
    state = {} if wanted.state is None else {"state": wanted.state}
    # 303: the form that was sent here is not sent on (RFC 9700, 4.12).
    headers = {
        **HEADERS,
        "referrer-policy": "no-referrer",
        "location": with_answer(wanted.redirect_uri, **answer, **state, iss=base),
    }
    return Response(b"", status_code=303, media_type=MediaType.TEXT, headers=headers)
