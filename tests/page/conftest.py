import pytest

from tests.page.browser import browser
from tests.page.house import FILES, served
from tests.support.shop import counter


@pytest.fixture
async def house(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path, files=FILES) as made, served(made) as opened:
        yield opened


@pytest.fixture
async def chromium(running_chromium):
    async with browser(running_chromium) as opened:
        yield opened
