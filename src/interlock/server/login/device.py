"""`/device`: a person lets in what shows them a code (RFC 8628)."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get, post

from interlock.app.logins import BUILT_IN, LoginRefusedError
from interlock.app.plane import Plane
from interlock.core.who import Person
from interlock.identity.errors import ExchangeRefusedError
from interlock.server.login.pages import NotLoggedInError, chosen, desk_of, told, who_looks
from interlock.server.page.forms import form_token, read_meant
from interlock.server.page.html import page

_NOTHING = "nothing waits under this code. Codes hold ten minutes, and once"


def routes(plane: Plane) -> list[Any]:
    """The routes of this page."""

    @get("/device", include_in_schema=False)
    async def ask(request: Request[Any, Any, Any]) -> Response[Any]:
        try:
            _, secret = await who_looks(plane, request)
        except NotLoggedInError as error:
            return error.answer
        except (LoginRefusedError, ExchangeRefusedError) as error:
            return told(error)
        # A code in the address is only written into the field: who follows a link must still look at what it is for.
        typed = request.query_params.get("user_code", "")[:16]
        return page("device.html", typed=typed, form_token=form_token(secret))

    @post("/device", include_in_schema=False, status_code=200)
    async def answer(request: Request[Any, Any, Any]) -> Response[Any]:
        try:
            person, secret = await who_looks(plane, request)
            form = await read_meant(request, secret)
            return await _looked(plane, person, secret, form)
        except NotLoggedInError as error:
            return error.answer
        except (LoginRefusedError, ExchangeRefusedError) as error:
            return told(error)

    return [ask, answer]


async def _looked(plane: Plane, person: Person, secret: str, form: dict[str, str]) -> Response[Any]:
    desk, typed, said = desk_of(plane), form.get("user_code", ""), form.get("answer", "")
    found = await desk.asked(person, typed)
    if found is None:
        raise LoginRefusedError(_NOTHING)
    asked, client = found
    as_oneself = client.client_id in BUILT_IN
    choices = () if as_oneself else await desk.choices(person, client)
    if said not in ("approve", "deny"):
        return page(
            "device_confirm.html",
            asked=asked,
            client=client,
            person=person,
            as_oneself=as_oneself,
            choices=choices,
            typed=typed,
            form_token=form_token(secret),
        )
    approve = said == "approve"
    choice = chosen(form, choices) if approve and not as_oneself else None
    if not await desk.answer_device(person, typed, client, choice, approve=approve):
        raise LoginRefusedError(_NOTHING)
    return page("device_done.html", approved=approve, client=client)
