import pytest

from tests.support.office import office as served


@pytest.fixture
async def office(database_urls, tmp_path):
    async with served(database_urls.app, tmp_path) as made:
        yield made
