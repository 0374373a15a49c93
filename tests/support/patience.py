"""How long tests wait. Nothing is proved by time: a bound only says when a test that hangs is called failed, on the slowest machine."""

import asyncio
import inspect
import ssl
import time

import httpx2

PATIENCE_S = 60
# Trusts nobody, and costs nothing to make, unlike the certificates of the world: tests speak plain http to this very machine.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def patient_http(**more):
    """A client for servers of the test's own."""
    return httpx2.AsyncClient(**{"trust_env": False, "timeout": PATIENCE_S, "verify": _NO_TLS, **more})


async def until(true):
    """Wait for a condition that announces itself by nothing."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = true()
            if await found if inspect.isawaitable(found) else found:
                return
            await asyncio.sleep(0.005)


def wait_until(true):
    """The same where no loop runs."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline_s, "it did not come about"
        time.sleep(0.02)
