"""A real Chromium, driven by a library that downloads none of its own. A machine without one fails here and says what to do."""

import contextlib
import os
import shutil

from playwright.async_api import async_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DEADLINE_MS = 20_000


def chromium():
    """Where the browser is. INTERLOCK_CHROMIUM names one; `make browser` installs it where apt can."""
    named = os.environ.get("INTERLOCK_CHROMIUM", "")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), "")
    assert found, "no Chromium on this machine: run `make browser`, or set INTERLOCK_CHROMIUM to one"
    return found


@contextlib.asynccontextmanager
async def browser():
    async with async_playwright() as library:
        opened = await library.chromium.launch(executable_path=chromium(), args=list(FLAGS), headless=True)
        try:
            yield opened
        finally:
            await opened.close()


@contextlib.asynccontextmanager
async def looking(opened, house, token="", expected="", **more):
    """A window of one person's own, with nothing left over from anybody else's.

    What went wrong in it fails the test, unless the browser says so with the `expected` words.
    """
    context = await opened.new_context(**more)
    context.set_default_timeout(DEADLINE_MS)
    if token:
        cookie = {"name": "interlock_person", "value": token, "url": house.url, "httpOnly": True, "sameSite": "Strict"}
        await context.add_cookies([cookie])
    window = await context.new_page()
    wrong = []
    window.on("pageerror", lambda error: wrong.append(str(error)))
    window.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    fine = (lambda text: expected in text) if expected else (lambda _: False)
    outside = []
    window.on("request", lambda request: outside.append(request.url) if not request.url.startswith(house.url) else None)
    try:
        yield window
        assert not outside, outside
        assert not [text for text in wrong if not fine(text)], wrong
    finally:
        await context.close()
