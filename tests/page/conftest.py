"""One driver of the browser for all tests of the page, for each costs more to start than most tests; so they share a loop, too."""

from pathlib import Path

import pytest
import pytest_asyncio

from tests.page.browser import browser
from tests.page.house import FILES, served
from tests.support.shop import counter

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == HERE and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(loop_scope="session")
async def house(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path, files=FILES) as made, served(made) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def chromium(running_chromium):
    async with browser(running_chromium) as opened:
        yield opened
