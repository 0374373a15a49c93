"""Small JSON documents from issuers, over the network: bounded in size and time, from where we asked and nowhere else."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import msgspec

from interlock.core.canonical import AmbiguousJsonError, parse_strict
from interlock.identity.errors import IssuerUnreachableError
from interlock.release.issuers import is_loopback

MAX_DOCUMENT_BYTES: Final = 256 * 1024
FETCH_S: Final = 5.0
MAX_CREDENTIAL_BYTES: Final = 16 * 1024
_OK: Final = 200
# Trusts nobody, and costs nothing to make: for plain http to this very machine.
_NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where documents of an issuer come from: its own origin gets the credential, nobody else does."""

    url: str
    ca: str = ""
    credential: str = ""


async def fetch_json(source: Source, url: str, *, bearer: str = "") -> dict[str, Any]:
    """One JSON object. Raises `IssuerUnreachableError` for everything that is not one, in time and of a reasonable size."""
    return await _asked(source, url, None, f"Bearer {bearer}" if bearer else "")


async def post_form(source: Source, url: str, form: Mapping[str, str], *, authorization: str = "") -> dict[str, Any]:
    """What a token endpoint answers to a form. Raises as `fetch_json`; an OAuth error is no answer either."""
    return await _asked(source, url, urlencode(form).encode(), authorization)


async def _asked(source: Source, url: str, form: bytes | None, authorization: str) -> dict[str, Any]:
    if not is_safe(url) or (urlsplit(source.url).scheme == "https" and not url.startswith("https://")):
        raise IssuerUnreachableError(f"{url[:200]!r} is not https")
    try:
        async with asyncio.timeout(FETCH_S):
            body = await _exchanged(source, url, form, authorization)
    except TimeoutError as error:
        raise IssuerUnreachableError(f"{url} did not answer within {FETCH_S:.0f} s") from error
    try:
        document = parse_strict(body, max_bytes=MAX_DOCUMENT_BYTES)
    except AmbiguousJsonError as error:
        raise IssuerUnreachableError(f"{url} answered something that is not plain JSON: {error}") from error
    if not isinstance(document, dict):
        raise IssuerUnreachableError(f"{url} answered JSON that is no object")
    return document


def is_safe(url: str) -> bool:
    """Whether a URL is https, or http to this very machine; without a name or a password in it."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or not url.isascii():
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))


async def _exchanged(source: Source, url: str, form: bytes | None, authorization: str) -> bytes:
    import httpx2  # noqa: PLC0415  # half a second that only processes with outside issuers pay for

    headers = {"accept": "application/json", "accept-encoding": "identity"}
    if form is not None:
        headers["content-type"] = "application/x-www-form-urlencoded"
    if authorization:
        headers["authorization"] = authorization
    elif source.credential and _origin(url) == _origin(source.url):
        headers["authorization"] = f"Bearer {await asyncio.to_thread(secret_of, source.credential)}"
    try:
        verify = await asyncio.to_thread(_trust, source.ca) if url.startswith("https:") else _NO_TLS
        async with (
            httpx2.AsyncClient(timeout=FETCH_S, follow_redirects=False, trust_env=False, verify=verify) as client,
            client.stream("GET" if form is None else "POST", url, headers=headers, content=form) as answer,
        ):
            if answer.status_code != _OK:
                # A redirect is not followed: the issuer's keys come from where the release says they do.
                raise IssuerUnreachableError(f"{url} answered {answer.status_code}")
            chunks, size = [], 0
            # Raw: a small body that unpacks into a large one would pass the limit otherwise.
            async for chunk in answer.aiter_raw():
                size += len(chunk)
                if size > MAX_DOCUMENT_BYTES:
                    raise IssuerUnreachableError(f"{url} answered more than {MAX_DOCUMENT_BYTES} bytes")
                chunks.append(chunk)
            return b"".join(chunks)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        raise IssuerUnreachableError(f"{url} cannot be read ({type(error).__name__})") from error


def _trust(ca: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca.removeprefix("file:") or None)


def secret_of(credential: str) -> str:
    """What `env:NAME` or `file:PATH` holds. Raises `OSError` or `ValueError`."""
    kind, _, name = credential.partition(":")
    if kind == "env":
        text = os.environ.get(name, "")
    else:
        with Path(name).open("rb") as file:
            text = file.read(MAX_CREDENTIAL_BYTES).decode("ascii").strip()
    if not text or not text.isprintable() or " " in text:
        raise ValueError(f"the credential {kind}:{name} is empty or not one line")
    return text


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    default = {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, parts.hostname, parts.port or default
