"""What the figures are measured with goes on working while what they measure changes."""

import asyncio

from bench.bare_handler import bare_app
from bench.load import load, tools_call
from tests.support.listening import listening


def test_the_bare_handler_answers_as_the_gateway_would_with_nothing_behind_it():
    async def asked():
        async with listening(bare_app()) as port:
            request = tools_call("127.0.0.1", port, "t", "shop.pay", b"{}")
            return await load(
                "127.0.0.1",
                port,
                lambda _, __: request,
                clients=1,
                seconds=1.0,  # one call is enough; a busy machine may need that long for it
                warm_up_s=0,
                is_right=lambda body: b'"ok":true' in body,
            )

    result = asyncio.run(asked())
    assert result.calls > 0
    assert result.wrong == 0
    assert set(result.statuses) == {"200"}
