import pytest

from tests.page.house import served
from tests.support.shop import counter


@pytest.fixture
async def house(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path) as made, served(made) as opened:
        yield opened
