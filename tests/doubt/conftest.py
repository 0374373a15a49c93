import pytest

from tests.doubt.world import RELEASE, Payments, one_round_at_a_time
from tests.support.shop import counter


@pytest.fixture
async def payments(database_urls, tmp_path):
    """A process before a payments tool that loses answers when told to."""
    tool = Payments()
    async with counter(database_urls.app, tmp_path, shop=tool, files=RELEASE) as made:
        made.tool = tool
        one_round_at_a_time(made)
        yield made
