import pytest

from tests.support.shop import counter


@pytest.fixture
async def shop(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path) as made:
        yield made
