import pytest

from tests.breakers.world import process


@pytest.fixture
async def weak(database_urls, tmp_path):
    async with process(database_urls.app, tmp_path) as made:
        yield made
