"""A real Chromium, driven by a library that downloads none of its own. A machine without one fails here and says what to do."""

import contextlib
import os
import shutil
import subprocess

from playwright.async_api import async_playwright

from tests.support.patience import PATIENCE_S, wait_until

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-component-extensions-with-background-pages",
    "--disable-default-apps",
    "--disable-breakpad",
    "--disable-client-side-phishing-detection",
    "--disable-dev-shm-usage",
    "--disable-features=Translate,MediaRouter,OptimizationHints,AutofillServerCommunication,InterestFeedContentSuggestions",
    "--metrics-recording-only",
    "--mute-audio",
    "--no-default-browser-check",
    "--no-service-autorun",
    "--password-store=basic",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
)
DEADLINE_MS = PATIENCE_S * 1000


def chromium():
    """Where the browser is. INTERLOCK_CHROMIUM names one; `make browser` installs it where apt can."""
    named = os.environ.get("INTERLOCK_CHROMIUM", "")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), "")
    assert found, "no Chromium on this machine: run `make browser`, or set INTERLOCK_CHROMIUM to one"
    return found


@contextlib.contextmanager
def started(folder):
    """One Chromium, started once for many tests: where to reach it. Each window of a test has a context of its own."""
    command = [chromium(), *FLAGS, "--headless", "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    place = folder / "DevToolsActivePort"
    try:
        wait_until(lambda: process.poll() is not None or (place.exists() and place.read_text().count("\n") == 1))
        assert process.poll() is None, "Chromium does not start"
        port, path = place.read_text().split()
        yield f"ws://127.0.0.1:{port}{path}"
    finally:
        process.terminate()
        process.wait()


@contextlib.asynccontextmanager
async def browser(place):
    async with async_playwright() as library:
        opened = await library.chromium.connect_over_cdp(place)
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
