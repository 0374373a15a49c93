import pytest

from tests.doubt.world import RELEASE, Payments
from tests.support.shop import counter


@pytest.fixture
async def payments(database_urls, tmp_path):
    """A process before a payments tool that loses answers when told to."""
    tool = Payments()
    async with counter(database_urls.app, tmp_path, shop=tool, files=RELEASE) as made:
        made.tool = tool
        yield made
