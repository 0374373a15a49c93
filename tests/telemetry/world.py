"""The shop, with a server behind it that keeps what it is sent, and whoever watches."""

import contextlib
import os

from interlock.telemetry.sender import Sender
from interlock.telemetry.settings import otlp_settings
from tests.support.shop import FILES, counter
from tests.tools.worlds import RawServer

FAR = """
url: %s
operations:
  echo: {effects: [read], input: {text: string}, output: {text: string}, reviewed: {by: a}}
"""


def files(url):
    agents = FILES["agents.yaml"].replace("shop.stock,", "shop.stock, far.echo,")
    return {**FILES, "agents.yaml": agents, "tools/far.yaml": FAR % url}


async def answers(wire, request):
    text = request.message["params"]["arguments"]["text"]
    await wire.result(request, {"content": [], "structuredContent": {"text": text}, "resultType": "complete"})


@contextlib.asynccontextmanager
async def far_shop(database_url, state, script=answers):
    """The shop and, behind the operation `far.echo`, a server of the test's own."""
    async with RawServer(script) as server, counter(database_url, state, files=files(server.url)) as made:
        yield made, server


@contextlib.contextmanager
def sending(system, variables, monkeypatch):
    """Whatever ends in this process goes to the collector that the variables name."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    sender = Sender(otlp_settings(variables), process_id=system.process_id, entropy=os.urandom, variables=variables)
    system.telemetry.spans = sender
    try:
        yield sender
    finally:
        system.telemetry.spans = None
        sender.close()
