"""A restore rehearsed: `python -m examples.acme.restore`.

Ten refunds, a backup, a hundred refunds more through two gateways, one of which is killed in the middle; then the database is
set back to the backup, and every caller repeats every refund until it is told what became of it. The payments' own table is the judge.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

import httpx2

from examples.acme.interlocked import Interlocked
from examples.acme.world import World
from interlock.store.embedded import server as embedded

BEFORE, AFTER = 10, 100
AT_ONCE = 8
WITHIN_S = 120
PAUSE_S = 0.5


class Callers:
    """Callers that repeat their refund, with its key, until they know what became of it."""

    def __init__(self, gateways, token):
        self._gateways, self._token = gateways, token
        self._places = asyncio.Semaphore(AT_ONCE)

    async def once(self, http, n):
        """One try of one refund; gives the code it was told, `done`, or `broken off`."""
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
            "interlock/idempotency-key": f"refund-{n}",
        }
        arguments = {"order_id": f"A{n + 20}", "amount": "5.00", "currency": "EUR"}
        params = {"name": "payments.refund", "arguments": arguments, "_meta": meta}
        headers = {
            "authorization": f"Bearer {self._token}",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2026-07-28",
            "mcp-method": "tools/call",
            "mcp-name": "payments.refund",
        }
        gateway = self._gateways[n % len(self._gateways)]
        body = {"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": params}
        async with self._places:
            try:
                answer = await http.post(gateway.url + "/mcp", json=body, headers=headers)
            except httpx2.HTTPError:
                return "broken off"
        told = answer.json()
        if "result" not in told:
            return f"error {told.get('error', {}).get('message')}"
        result = told["result"]
        return result["_meta"]["interlock/decision"]["code"] if result.get("isError") else "done"

    async def all(self, numbers):
        async with httpx2.AsyncClient(timeout=30, trust_env=False) as http:
            return dict(zip(numbers, await asyncio.gather(*(self.once(http, n) for n in numbers)), strict=True))

    async def until_known(self, numbers):
        """Repeat whatever may be repeated until nothing is left; gives how each ended."""
        ended, left = {}, list(numbers)
        async with asyncio.timeout(WITHIN_S):
            while left:
                told = await self.all(left)
                ended |= told
                left = [n for n, code in told.items() if code not in {"done", "done_unseen"}]
                if left:
                    await asyncio.sleep(PAUSE_S)
        return ended


def killed(gateway):
    """Kill -9: nothing is settled, closed or said goodbye to."""
    gateway.process.send_signal(signal.SIGKILL)
    gateway.process.wait()
    gateway.process.stdout.close()


def token(gateway):
    return gateway.token("support-bot", "ana", "customer-support")["access_token"]


def set_back(state, backup, run):
    """The database is lost, and a backup of it is loaded into an empty one."""
    cluster = embedded.layout_of(state).cluster
    run("db", "stop", check=False)  # with nobody left who uses it, it may have stopped by itself
    cluster.rename(cluster.with_name(f"{cluster.name}.lost"))
    return json.loads(run("db", "restore", backup, "--json")[0])


async def rehearse(folder):
    """Gives what the payments' table holds, and what callers were told."""
    state, backup = folder / "state", folder / "backup"
    world = World(folder / "world")
    await world.start()
    gateways = []
    try:
        gateways += [Interlocked(state, world), Interlocked(state, world)]
        run = gateways[0].run
        callers = Callers(gateways, token(gateways[0]))
        print(f"{BEFORE} refunds, then a backup")
        await callers.until_known(range(BEFORE))
        print(f"  {run('db', 'backup', backup)[0].strip()}")

        print(f"{AFTER} refunds more; one of the two gateways is killed in the middle, then the other one")
        paying = asyncio.create_task(callers.all(range(BEFORE, BEFORE + AFTER)))
        await paid_at_least(world, BEFORE + AFTER // 4)
        killed(gateways[0])
        first = Counter((await paying).values())
        killed(gateways.pop())
        gateways.clear()
        paid_before = await refunds(world)
        print(f"  the callers were told: {dict(first)}; the payments' table has {paid_before}")

        print("the database is set back to the backup, and two gateways start on it")
        restored = set_back(state, backup, run)
        print(f"  restored {restored['rows']} rows, the ledger is intact: {restored['ledger']['intact']}")
        gateways += [Interlocked(state, world), Interlocked(state, world)]
        callers = Callers(gateways, token(gateways[0]))
        told = Counter((await callers.all(range(BEFORE + AFTER))).values())
        print(f"  every caller repeats every refund, and is told: {dict(told)}")
        expect(told == {"restored": BEFORE + AFTER}, "until people have looked, nothing is written")
        expect(await refunds(world) == paid_before, "and nothing was paid")

        made = json.loads(run("db", "reconcile", "--all-marks", "--json")[0])["report"]
        print(f"  reconciled from {made['parts']} marks: {made['counts']}, faults: {made['faults']}")
        out, code = gateways[0].person("resume", "restored", "--reason", "the books agree", user="sam", check=False)
        expect(code == 0, f"a person of the role resumes: {out.strip()}")
        ended = Counter((await callers.until_known(range(BEFORE + AFTER))).values())
        print(f"  they repeat until they know: {dict(ended)}")

        twice = await world.count("SELECT count(*) FROM (SELECT order_id FROM refund GROUP BY order_id HAVING count(*) > 1) d")
        paid = await refunds(world)
        expect(twice == 0, f"paid twice: {twice}")
        expect(paid == BEFORE + AFTER, f"paid: {paid} of {BEFORE + AFTER}")
        report, code = run("audit", "verify", "--json", check=False)
        expect(code == 0, f"the ledger is intact: {json.loads(report)['findings'] or 'nothing is wrong'}")
        return {"paid": paid, "paid_twice": twice, "lost_with_the_database": paid_before - BEFORE, "put_back": made["counts"]}
    finally:
        for gateway in gateways:
            gateway.stop()
        world.stop()
        with contextlib.suppress(Exception):
            embedded.stop(state)


async def paid_at_least(world, many):
    async with asyncio.timeout(WITHIN_S):
        for _ in iter(int, 1):
            if await refunds(world) >= many:
                return
            await asyncio.sleep(0.01)


async def refunds(world):
    return await world.count("SELECT count(*) FROM refund WHERE amount = 5")


def expect(holds, words):
    print(f"  {'ok   ' if holds else 'WRONG'} {words}", flush=True)
    if not holds:
        sys.exit(1)


def main():
    with tempfile.TemporaryDirectory(prefix="restore-") as folder:
        Path(folder).chmod(0o700)
        print(json.dumps(asyncio.run(rehearse(Path(folder)))))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
