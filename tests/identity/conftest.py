"""A running issuer, and a process that trusts it."""

import pytest

from tests.identity.house import house
from tests.support.issuer import local_issuer


@pytest.fixture
async def issuer():
    async with local_issuer() as running:
        yield running


@pytest.fixture
async def shop(database_urls, tmp_path, issuer):
    async with house(database_urls.app, tmp_path, issuer) as running:
        yield running
