"""Applications on real sockets, served by uvicorn's protocol without its server, whose stopping takes half a second that every test would pay for."""

import asyncio
import contextlib
import socket
import threading

import uvicorn
from uvicorn.server import ServerState

from interlock.server.http import BoundedHttp


def bound(port=0):
    """A socket of one's own, so that its port is known before there is anything to serve."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    return listening


@contextlib.asynccontextmanager
async def listening(app, at=None, *, politely=False, **more):
    """The port of an application, on a socket `at` if there is one.

    What is under way at the end is broken off, or, politely, waited for, as uvicorn's server does.
    """
    at = at or bound()
    config = uvicorn.Config(app, log_config=None, access_log=False, **{"http": BoundedHttp, "proxy_headers": False, **more})
    config.load()
    lifespan, state = config.lifespan_class(config), ServerState()
    await lifespan.startup()
    assert not lifespan.should_exit, "the application does not start"

    def protocol():
        return config.http_protocol_class(config=config, server_state=state, app_state=lifespan.state)

    server = await asyncio.get_running_loop().create_server(protocol, sock=at)
    try:
        yield at.getsockname()[1]
    finally:
        server.close()
        for connection in list(state.connections):
            connection.shutdown() if politely else connection.transport.abort()
        await asyncio.gather(*state.tasks, return_exceptions=True)
        await lifespan.shutdown()


@contextlib.contextmanager
def listening_aside(app, **more):
    """The same in a thread with a loop of its own, for tests that have none."""
    told, loop = threading.Event(), asyncio.new_event_loop()
    over = asyncio.Event()
    port = 0

    async def serve():
        nonlocal port
        async with listening(app, **more) as port:
            told.set()
            await over.wait()

    def run():
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            try:
                runner.run(serve())
            finally:
                told.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    told.wait()
    assert port, "it does not serve"
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
