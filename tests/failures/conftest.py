import pytest

from tests.failures.world import world


@pytest.fixture
async def made(database_urls, postgres, tmp_path):
    async with world(database_urls, postgres, tmp_path) as found:
        yield found


@pytest.fixture
async def session(made):
    """A session whose standing the gateway knows already, as on any ordinary day."""
    found = await made.session()
    await made.call(found, "stock", item="tea")
    return found
