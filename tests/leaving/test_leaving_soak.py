"""The soak judges by what clients were told: so its own judgement is looked at here."""

import asyncio
import contextlib
import xml.etree.ElementTree as ET

import pytest

from bench.soak.balancer import Balancer
from bench.soak.plot import plotted
from bench.soak.tally import OddError, code_of_problem, code_of_result
from tests.support.patience import until


def test_an_answer_without_a_code_of_ours_is_odd():
    decided = {"_meta": {"interlock/decision": {"code": "forbidden"}}, "content": [{"text": "No."}]}
    assert code_of_result({"isError": True, **decided}) == "forbidden"
    assert code_of_result({"content": []}) == "done"
    assert code_of_result({"_meta": {"interlock/replayed": {}}}) == "replayed"
    for odd in ({}, {"_meta": {"interlock/decision": {"code": "surprise"}}}, {**decided, "content": []}):
        with pytest.raises(OddError):
            code_of_result({"isError": True, **odd})


def test_a_problem_without_the_form_of_one_is_odd():
    assert code_of_problem(403, "application/problem+json", {"title": "not for you"}) == "403 not for you"
    assert code_of_problem(400, "application/json", {"error": {"code": -32700, "message": "x"}}) == "JSON-RPC -32700"
    for media, body in (("text/html", None), ("application/json", {"title": "x"}), ("application/problem+json", {})):
        with pytest.raises(OddError):
            code_of_problem(500, media, body)


@contextlib.asynccontextmanager
async def gateway(name, status):
    """Answers one line to whoever says something: its readiness to those who ask for that, else its name."""

    async def serve(reader, writer):
        asked = await reader.readline()
        said = f"HTTP/1.1 {status['now']} x\r\n\r\n" if b"/readyz" in asked else name
        writer.write(said.encode())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_the_balancer_sends_nobody_where_it_is_not_ready_and_repeats_nothing():
    here, there = {"now": 200}, {"now": 503}
    async with gateway("here", here) as one, gateway("there", there) as two, Balancer().open() as balancer:
        first, second = balancer.add(one), balancer.add(two)

        async def asked():
            reader, writer = await asyncio.open_connection("127.0.0.1", balancer.port)
            writer.write(b"hello\r\n")
            said = b""
            with contextlib.suppress(ConnectionError):
                said = await reader.read()
            writer.close()
            return said

        await until(lambda: first.is_ready)
        assert {await asked() for _ in range(4)} == {b"here"}
        here["now"], there["now"] = 503, 200
        await until(lambda: second.is_ready and not first.is_ready)
        assert {await asked() for _ in range(4)} == {b"there"}
        there["now"] = 503
        await until(lambda: not second.is_ready)
        assert await asked() == b""
        assert balancer.troubles["no gateway was ready"] == 1


def test_the_plot_is_a_picture():
    one = {"place": 0, "number": 1, "rss_mb": 100.0, "fds": 40}
    more = {"postgres_private_mb": 30.0, "database_mb": 12.5}
    drawn = plotted([{"minutes": float(n), "gateways": [one], **more} for n in range(5)], [1.0, 2.0])
    lines = ET.fromstring(drawn).findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 4
