"""The company with real processes: many callers, four gateways, one payment each; and the story from end to end."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from examples.acme.interlocked import Interlocked
from examples.acme.world import World
from tests.support.postgres import forget_all

MANY_ROUNDS = 50
ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.xdist_group("acme")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("world"))
    asyncio.run(made.start())
    yield made
    made.stop()
    forget_all(made.folder)


def is_free_to_repeat(result):
    """Nothing was changed, or the first of its key still runs: a slow machine has busy tools. It may be repeated with its key."""
    told = result["_meta"]["interlock/decision"]
    nothing_or_running = told.get("effect") == "none" or told.get("code") == "still_running"
    return result.get("isError") and nothing_or_running and told.get("retry") == "after_ms"


def story_of(gateway, result):
    """What the ledger says about a call that should have been answered."""
    return result, gateway.person("trace", "show", result["_meta"]["interlock/decision"]["id"], user="aud", check=False)


async def test_a_thousand_refund_calls_with_a_hundred_keys_through_four_processes_pay_a_hundred_times(world, tmp_path):
    gateways = [Interlocked(tmp_path / "state", world) for _ in range(4)]
    try:
        tokens = [gateways[0].token("support-bot", "ana", "customer-support")["access_token"] for _ in range(3)]
        import httpx2  # noqa: PLC0415

        async def refund(http, n):
            key, gateway = n // 10, gateways[n % 4]  # the ten of a key arrive together, everywhere
            meta = {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
                "interlock/idempotency-key": f"key-{key}",
            }
            arguments = {"order_id": f"A{key + 50}", "amount": "7.00", "currency": "EUR"}
            params = {"name": "payments.refund", "arguments": arguments, "_meta": meta}
            body = {"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": params}
            headers = {
                "authorization": f"Bearer {tokens[n % 3]}",
                "content-type": "application/json",
                "accept": "application/json, text/event-stream",
                "mcp-protocol-version": "2026-07-28",
                "mcp-method": "tools/call",
                "mcp-name": "payments.refund",
            }
            answer = await http.post(gateway.url + "/mcp", content=msgspec.json.encode(body), headers=headers)
            return n, answer.json()["result"]

        limits = httpx2.Limits(max_connections=100)
        async with httpx2.AsyncClient(timeout=120, trust_env=False, limits=limits) as http:
            answers, again = [], range(1000)
            for _ in range(MANY_ROUNDS):
                told = await asyncio.gather(*[refund(http, n) for n in again])
                answers += [(n // 10, result) for n, result in told if not is_free_to_repeat(result)]
                again = [n for n, result in told if is_free_to_repeat(result)]
                if not again:
                    break
        assert not again, story_of(gateways[0], next(result for n, result in told if is_free_to_repeat(result)))
        refused = [result for _, result in answers if result.get("isError")]
        assert not refused, (len(refused), story_of(gateways[0], refused[0]))
        paid = await world.count("SELECT count(*) FROM refund WHERE amount = 7")
        per_order = await world.count("SELECT count(DISTINCT order_id) FROM refund WHERE amount = 7")
        assert (paid, per_order) == (100, 100)
        paid_by = {}
        for key, result in answers:
            paid_by.setdefault(key, set()).add(result["structuredContent"]["refund_id"])
        assert all(len(refunds) == 1 for refunds in paid_by.values())
        first = [result for _, result in answers if "interlock/replayed" not in result["_meta"]]
        assert len(first) == 100
        report, code = gateways[0].run("audit", "verify", "--json")
        assert code == 0, report
    finally:
        for gateway in gateways:
            gateway.stop()
        forget_all(tmp_path)


def test_the_story_of_the_demo_holds(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "examples.acme.demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "INTERLOCK_DEMO_FOLDER": str(tmp_path)},
    )
    forget_all(tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "All 82 expectations held" in done.stdout


async def test_the_services_want_their_own_credential(world):
    import httpx2  # noqa: PLC0415

    async with httpx2.AsyncClient(trust_env=False) as http:
        assert (await http.post(world.url("payments"), json={})).status_code == 401
