"""Log a person in at an issuer elsewhere, as a program on their own machine does.

By a device code (RFC 8628) where the issuer offers that, else by a browser that comes back to this very machine (RFC 8252). The
server has no part in it but to name the issuers.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.server
import secrets
import threading
import webbrowser
from collections.abc import Callable, Mapping
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec

from interlock.cli.common import ask
from interlock.cli.output import NO, USAGE, Failure

METADATA: Final = "/.well-known/oauth-protected-resource"
DEVICE: Final = "urn:ietf:params:oauth:grant-type:device_code"
WAIT_FOR_BROWSER_S: Final = 300.0
_SLOWER_S: Final = 5
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_DONE: Final = b"<!doctype html><title>Interlock</title><p>You can close this window; the command line goes on."
_NOT: Final = b"<!doctype html><title>Interlock</title><p>This is no answer to the login that waits here."


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server says that its people log in."""

    name: str
    issuer: str
    discovery: str
    client_id: str
    scopes: tuple[str, ...]
    title: str = ""
    resource: str = ""


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """What the issuer's own document says."""

    issuer: str
    token_endpoint: str
    authorization_endpoint: str = ""
    device_authorization_endpoint: str = ""
    revocation_endpoint: str = ""
    authorization_response_iss_parameter_supported: bool = False


class _Offers(msgspec.Struct):
    interlock_logins: tuple[Offer, ...] = ()


def offers_of(server: str) -> tuple[Offer, ...]:
    """Where the people of a server log in. Raises `Failure`."""
    try:
        return msgspec.convert(ask(server, METADATA), _Offers).interlock_logins
    except msgspec.ValidationError as error:
        raise Failure(f"{server} says nothing of issuers that can be read") from error


def offer_of(server: str, name: str) -> Offer:
    """What a server says of an issuer. Raises `Failure` naming those that there are."""
    offers = offers_of(server)
    for offer in offers:
        if offer.name == name:
            return offer
    known = ", ".join(offer.name for offer in offers)
    hint = f"there are: {known}" if known else "issuers.yaml says where with `login: {cli: ...}`"
    raise Failure(f"people do not log in at {name!r} from the command line here", hint=hint, code=USAGE)


def provider_of(offer: Offer) -> Provider:
    """Where an issuer gives tokens, by its own document. Raises `Failure`."""
    try:
        found = msgspec.convert(ask_at(offer.discovery), Provider)
    except msgspec.ValidationError as error:
        raise Failure(f"{offer.discovery} is no discovery document: {error}") from error
    # INVARIANT: the codes of one issuer are shown to that issuer alone.
    if found.issuer != offer.issuer:
        raise Failure(f"{offer.discovery} speaks for {found.issuer!r}, and not for {offer.issuer!r}")
    return found


def log_in(
    offer: Offer, provider: Provider, tell: Callable[[Mapping[str, str]], None], *, pause: Callable[[float], None]
) -> Any:
    """Log the person in; gives what the token endpoint answered. `tell` shows them where to go. Raises `Failure`."""
    by_device = provider.device_authorization_endpoint
    answer = _by_device(offer, provider, tell, pause) if by_device else _by_browser(offer, provider, tell)
    if not isinstance(answer, dict) or not isinstance(answer.get("access_token"), str):
        raise Failure(f"{offer.name} gave no access token")
    return answer


def ask_at(url: str, form: Mapping[str, str] | None = None) -> Any:
    """A request to an issuer, which must be https or on this machine. Raises `Failure`."""
    parts = urlsplit(url)
    if parts.username is not None or not (
        (parts.scheme == "https" and parts.hostname) or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    ):
        raise Failure(f"{url[:200]!r} is another computer and not https")
    return ask(f"{parts.scheme}://{parts.netloc}", parts.path + (f"?{parts.query}" if parts.query else ""), form=form)


def ask_text(url: str, form: Mapping[str, str]) -> None:
    """A request to an issuer whose answer says nothing (RFC 7009). Raises `Failure` when it says no."""
    with contextlib.suppress(ValueError):  # an empty answer is no JSON
        ask_at(url, form)


def _asked(offer: Offer) -> dict[str, str]:
    said = {"client_id": offer.client_id, "scope": " ".join(offer.scopes)}
    return {**said, "resource": offer.resource} if offer.resource else said


def _by_device(
    offer: Offer, provider: Provider, tell: Callable[[Mapping[str, str]], None], pause: Callable[[float], None]
) -> Any:
    asked = ask_at(provider.device_authorization_endpoint, _asked(offer))
    tell({name: str(asked[name]) for name in ("verification_uri", "verification_uri_complete", "user_code") if name in asked})
    form = {"grant_type": DEVICE, "client_id": offer.client_id, "device_code": str(asked["device_code"])}
    wait_s, waited_s = float(asked.get("interval", _SLOWER_S)), 0.0
    while waited_s <= float(asked["expires_in"]):
        pause(wait_s)
        waited_s += wait_s
        try:
            return ask_at(provider.token_endpoint, form)
        except Failure as failure:
            said = (failure.details or {}).get("error", "")
            if said == "slow_down":
                wait_s += _SLOWER_S
            elif said != "authorization_pending":
                raise
    raise Failure("nobody answered in time", hint="run `interlock login` again")


def _by_browser(offer: Offer, provider: Provider, tell: Callable[[Mapping[str, str]], None]) -> Any:
    if not provider.authorization_endpoint:
        raise Failure(f"{offer.name} offers neither device codes nor a page to log in on")
    state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    with _Waiting(state) as waiting:
        asked = {
            "response_type": "code",
            **_asked(offer),
            "redirect_uri": waiting.redirect_uri,
            "state": state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        at = provider.authorization_endpoint
        url = f"{at}{'&' if '?' in at else '?'}{urlencode(asked)}"
        tell({"verification_uri": url})
        webbrowser.open(url)
        said = waiting.answer()
    iss = said.get("iss")
    if (iss is not None or provider.authorization_response_iss_parameter_supported) and iss != provider.issuer:
        raise Failure("the answer comes from another issuer than the one that was asked")
    if "code" not in said or "error" in said:
        raise Failure(f"{offer.name} let nobody in ({said.get('error', 'no code')[:40]})", code=NO)
    form = {
        "grant_type": "authorization_code",
        "client_id": offer.client_id,
        "code": said["code"],
        "redirect_uri": waiting.redirect_uri,
        "code_verifier": verifier,
    }
    return ask_at(provider.token_endpoint, {**form, "resource": offer.resource} if offer.resource else form)


class _Waiting:
    """A port of this machine, of one login, that takes one answer: the one with its state. Everything else is told no."""

    def __init__(self, state: str) -> None:
        self._state = state
        self._said: dict[str, str] | None = None
        self._came = threading.Event()
        waiting = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                """Take the answer."""
                mine = waiting.take(self.path)
                self.send_response(200 if mine else 404)
                self.send_header("content-type", "text/html; charset=utf-8")
                self.send_header("referrer-policy", "no-referrer")
                self.end_headers()
                self.wfile.write(_DONE if mine else _NOT)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # as the base class has it
                """Say nothing: the address has a code in it."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.redirect_uri = f"http://127.0.0.1:{self._server.server_address[1]}/callback"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, path: str) -> bool:
        """Whether this is the answer that is waited for; the first one is."""
        parts = urlsplit(path)
        fields = parse_qsl(parts.query, keep_blank_values=True)
        said = dict(fields)
        mine = hmac.compare_digest(said.get("state", "").encode(), self._state.encode())
        if parts.path != "/callback" or not mine or len(said) != len(fields) or self._came.is_set():
            return False
        self._said = said
        self._came.set()
        return True

    def answer(self) -> dict[str, str]:
        """What the browser brought. Raises `Failure` when it brings nothing."""
        if not self._came.wait(WAIT_FOR_BROWSER_S) or self._said is None:
            raise Failure("nobody came back in time", hint="run `interlock login` again")
        return self._said
