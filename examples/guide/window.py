"""A reader's browser: one window, in which steps are done that are written in words."""

import re
from pathlib import Path

from examples.guide.blocks import Broken
from tests.page.browser import DEADLINE_MS, FLAGS, chromium

STEP = re.compile(r'^(open|type|press|see|picture)\s+(?:"([^"]*)"|(\S+))(?:\s+into\s+"([^"]*)")?$')


class Window:
    """Opened when it is first needed. `pictures` is where pictures go; None takes them and keeps none."""

    def __init__(self, address, pictures=None):
        self._address, self._pictures = address, pictures
        self._library = self._browser = self._page = None
        self._wrong = []

    def do(self, block, kept):
        """The steps of a block, in order. Raises `Broken` naming the one that did not go."""
        from playwright.sync_api import Error  # noqa: PLC0415  # heavy

        start, number = block.place.rpartition(":")[::2]
        for offset, line in enumerate(block.text.splitlines(), start=1):
            match = STEP.match(line.strip())
            if match is None:
                raise Broken(f"{start}:{int(number) + offset}", f"nobody knows how to do {line!r}")
            verb, said, bare, into = match.groups()
            try:
                self._step(verb, self._meant(said if said is not None else bare, kept), into)
            except Error as error:
                seen = self._page.locator("body").inner_text() if self._page else ""
                raise Broken(
                    f"{start}:{int(number) + offset}", f"{line.strip()}: {error.message}\nthe page says\n{seen}"
                ) from error
            if self._wrong:
                raise Broken(f"{start}:{int(number) + offset}", f"the page went wrong: {self._wrong}")

    def close(self):
        if self._browser is not None:
            self._browser.close()
            self._library.stop()

    def _meant(self, text, kept):
        return kept[text[1:]] if text.startswith("$") else text

    def _step(self, verb, what, into):
        page = self._opened()
        match verb:
            case "open":
                page.goto(self._address(what))
            case "type":
                page.get_by_label(into, exact=True).locator("visible=true").first.fill(what)
            case "press":
                summary = page.locator("summary", has_text=what)
                button = page.get_by_role("button", name=what, exact=True)
                button.or_(summary).or_(page.get_by_role("link", name=what, exact=True)).locator("visible=true").first.click()
            case "see":
                page.get_by_text(what).locator("visible=true").first.wait_for()
            case "picture":
                shot = page.screenshot()
                if self._pictures is not None:
                    Path(self._pictures, what).write_bytes(shot)

    def _opened(self):
        if self._page is None:
            from playwright.sync_api import sync_playwright  # noqa: PLC0415  # heavy

            self._library = sync_playwright().start()
            self._browser = self._library.chromium.launch(executable_path=chromium(), args=list(FLAGS), headless=True)
            context = self._browser.new_context(viewport={"width": 1280, "height": 800}, device_scale_factor=1)
            context.set_default_timeout(DEADLINE_MS)
            self._page = context.new_page()
            self._page.on("pageerror", lambda error: self._wrong.append(str(error)))
        return self._page
