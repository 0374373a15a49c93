import pytest

from tests.restore.world import Bank


@pytest.fixture
async def bank(postgres, database_urls, tmp_path):
    """A bank that keeps a book of its own, and gateways before it on a database that can be set back to an earlier point."""
    made = Bank(postgres, database_urls, tmp_path)
    yield made
    await made.close()
