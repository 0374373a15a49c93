import pytest

from tests.login.world import world


@pytest.fixture
async def town(database_urls, tmp_path):
    async with world(database_urls, tmp_path) as made:
        yield made
