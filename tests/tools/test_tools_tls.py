"""Over TLS: who is trusted, and that the first byte of a call comes after the handshake."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from interlock.tools.directory import Connectors
from interlock.tools.port import Invocation, ToolAnswer, ToolFailure, ToolResult
from tests.tools.worlds import RawServer, Request, StillClock, Wire, invocation, release, shop


async def answers(wire: Wire, request: Request) -> None:
    await wire.answer(request)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of its own for 127.0.0.1, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop")])
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=3650))
        .not_valid_after(now + dt.timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    found = tmp_path / "certificate.pem"
    found.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return found


async def call(url: str, trusted: ssl.SSLContext | None, told: Invocation) -> ToolResult:
    connectors = Connectors(environment="test", clock=StillClock(), tls=trusted)
    connectors.replace(release(shop(url=url.replace("http:", "https:"))))
    connector = connectors.get("shop")
    assert connector is not None
    try:
        return await connector.invoke(told)
    finally:
        await connectors.aclose()


def server_side(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def test_a_certificate_that_nobody_vouches_for_ends_the_call_before_it_is_sent(certificate: Path) -> None:
    asked: list[bool] = []
    async with RawServer(answers, tls=server_side(certificate)) as server:
        result = await call(server.url, None, invocation(before_first_byte=lambda: asked.append(True)))
        assert server.requests == []
    assert isinstance(result, ToolFailure)
    assert (result.code, result.sent, asked) == ("unreachable", False, [])


async def test_a_certificate_for_another_host_is_refused(certificate: Path) -> None:
    async with RawServer(answers, tls=server_side(certificate)) as server:
        trusted = ssl.create_default_context(cafile=str(certificate))
        result = await call(server.url.replace("127.0.0.1", "localhost"), trusted, invocation())
    assert isinstance(result, ToolFailure)
    assert (result.code, result.sent) == ("unreachable", False)


async def test_a_trusted_server_is_called_and_the_permit_asked_after_the_handshake(certificate: Path) -> None:
    negotiated: list[list[str]] = []
    async with RawServer(answers, tls=server_side(certificate)) as server:
        trusted = ssl.create_default_context(cafile=str(certificate))
        told = invocation(before_first_byte=lambda: negotiated.append(list(server.methods)))
        assert isinstance(await call(server.url, trusted, told), ToolAnswer)
    # The server had already been spoken to, over this same TLS connection, and had not seen the call.
    assert negotiated == [["server/discover"]]


async def test_many_calls_over_tls_keep_their_connections(certificate: Path) -> None:
    async with RawServer(answers, tls=server_side(certificate)) as server:
        connectors = Connectors(environment="test", clock=StillClock(), tls=ssl.create_default_context(cafile=str(certificate)))
        connectors.replace(release(shop(url=server.url.replace("http:", "https:"))))
        connector = connectors.get("shop")
        assert connector is not None
        for _ in range(3):
            done = await asyncio.gather(*(connector.invoke(invocation()) for _ in range(4)))
            assert all(isinstance(result, ToolAnswer) for result in done)
        assert server.connections <= 5
        await connectors.aclose()
