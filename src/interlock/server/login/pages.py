"""What the pages of logging in share: who looks, where they go when nobody does, and what a person is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from litestar import Request, Response

from interlock.app.logins import Choice, LoginDesk, LoginRefusedError
from interlock.app.plane import Plane
from interlock.core.who import Person
from interlock.identity.errors import ExchangeRefusedError, TokenRefusedError
from interlock.server.page.cookie import login_secret, person_of_cookie, token_of_cookie
from interlock.server.page.html import page
from interlock.server.page.login import goes_to, login_url, no_such_page, onward


class NotLoggedInError(Exception):
    """Nobody is logged in; `answer` leads to where they can."""

    def __init__(self, answer: Response[Any]) -> None:
        super().__init__()
        self.answer = answer


def desk_of(plane: Plane) -> LoginDesk:
    """The built-in issuer's desk. Raises `HTTPException` 404 when it logs in nobody here."""
    if plane.logins is None:
        raise no_such_page()
    return plane.logins


async def who_looks(plane: Plane, request: Request[Any, Any, Any]) -> tuple[Person, str]:
    """The person in front of the browser, and the secret of their login, for forms.

    Raises:
        NotLoggedInError: with the way to log in and come back to this very address.
        LoginRefusedError: somebody, but nobody of the built-in issuer's directory.
    """
    path = request.scope["path"]
    query = request.scope["query_string"].decode("ascii", "replace")
    here = path + (f"?{query}" if query else "")
    try:
        await person_of_cookie(plane, request)
    except TokenRefusedError as error:
        if request.method == "GET" and request.headers.get("sec-fetch-site") == "cross-site":
            # The link stood on another site, so the browser kept the Strict cookie back; it sends it with the next step.
            raise NotLoggedInError(onward(here)) from error
        raise NotLoggedInError(goes_to(login_url(here if request.method == "GET" else "/"))) from error
    return await desk_of(plane).person(token_of_cookie(request)), login_secret(request)


def told(error: LoginRefusedError | ExchangeRefusedError, status: int = 400) -> Response[str]:
    """Say to the person why it does not go on. Nobody is sent anywhere."""
    detail = error.description if isinstance(error, ExchangeRefusedError) else str(error)
    return page("problem.html", status=status, title="That does not work", detail=f"Nothing was let in: {detail}.")


def chosen(form: dict[str, str], choices: Sequence[Choice]) -> Choice:
    """The choice that a form names. Raises `LoginRefusedError` for one that was not offered."""
    for choice in choices:
        if form.get("choice", "") == f"{choice.agent} {choice.task}":
            return choice
    raise LoginRefusedError("choose what the client may be")
