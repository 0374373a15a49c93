"""The lease has a thread of its own: what that must not change, and what happens when it is gone."""

import asyncio
import sys
import threading

import asyncpg
import pytest

from interlock.app.leases import THREAD
from interlock.app.sources import SystemClock
from interlock.core.decision import Allow
from interlock.gateway.lease import Granted, Lease, NotStartedError
from interlock.policy.errors import PermitError
from interlock.policy.permit import mint
from interlock.store.errors import StoreUnavailableError
from tests.support.patience import PATIENCE_S, until
from tests.support.shop import OPERATOR, counter

HAMMERED = 3_000
ALLOW = Allow(release_digest="sha256:r", facts_digest="sha256:f", engine="test")


def lease_threads():
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


class StillClock:
    """No lease runs out by it, however slow the machine is."""

    def monotonic_s(self):
        return 1_000.0


def permit_of(number, epoch):
    return mint(
        ALLOW,
        call_hash="call",
        claim_id=f"clm_{number}",
        expires_monotonic_s=float("inf"),
        control_epoch=epoch,
        scopes=("fleet",),
    )


@pytest.fixture
def impatient():
    """Threads take turns after every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


async def test_no_first_byte_is_written_on_a_permit_older_than_what_was_acknowledged(impatient):
    # INVARIANT of gateway/lease.py: two threads do their worst, one to write and one to stop.
    clock = StillClock()
    lease = Lease(clock)
    lease.granted(Granted(epoch=0, incarnation="one", settled=True), sent_at_s=clock.monotonic_s())
    over, acknowledged, late = threading.Event(), [0], []

    async def stop_again_and_again():
        epoch = 0
        while not over.is_set():
            epoch += 1
            lease.granted(
                Granted(epoch=epoch, incarnation="one", settled=True, stops={"fleet": epoch}), sent_at_s=clock.monotonic_s()
            )
            await lease.swept()
            acknowledged[0] = epoch
            await asyncio.sleep(0)

    thread = threading.Thread(target=asyncio.run, args=(stop_again_and_again(),))
    thread.start()
    written = refused = 0
    try:
        while written < HAMMERED or refused < HAMMERED // 10:
            permit = permit_of(written + refused, lease.epoch)
            section = lease.section(None)
            try:
                lease.hold(permit, lambda: None)
                section.arm()
                try:
                    lease.check(permit)
                    permit.spend(call_hash="call", now_monotonic_s=clock.monotonic_s())
                    for _ in range(written % 7):
                        pass  # the write is never just as far from the check as the last time
                    if acknowledged[0] > permit.control_epoch:
                        late.append((permit.control_epoch, acknowledged[0]))
                    written += 1
                finally:
                    section.disarm()
            except (NotStartedError, PermitError):
                refused += 1
            finally:
                lease.drop(permit)
            if written % 64 == 0:
                await asyncio.sleep(0)  # the loop hears what was stopped
    finally:
        over.set()
        await asyncio.to_thread(thread.join)
    assert late == []
    assert acknowledged[0] > 0


async def test_what_is_stopped_was_never_written_and_what_was_written_is_not_called_stopped(impatient):
    clock = StillClock()
    lease = Lease(clock)
    lease.granted(Granted(epoch=0, incarnation="one", settled=True), sent_at_s=clock.monotonic_s())
    permits = [permit_of(number, 0) for number in range(HAMMERED)]
    for permit in permits:
        lease.hold(permit, lambda: None)
    thread = threading.Thread(target=lease.learn, args=(1, {"fleet": 1}))
    thread.start()
    written = set()
    for permit in permits:
        try:
            lease.check(permit)
            permit.spend(call_hash="call", now_monotonic_s=clock.monotonic_s())
            written.add(permit.claim_id)
        except (NotStartedError, PermitError):
            pass
    await asyncio.to_thread(thread.join)
    stopped = set(lease.take_stopped())
    assert stopped | written == {permit.claim_id for permit in permits}
    assert not stopped & written


async def test_an_acknowledgement_waits_for_the_first_byte_that_is_being_written():
    lease = Lease(SystemClock())
    section = lease.section(None)
    section.arm()
    sweeping = asyncio.create_task(lease.swept())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not sweeping.done()
    another = lease.section(None)
    another.arm()  # begun after what is to be acknowledged was learnt: not waited for
    section.disarm()
    await asyncio.wait_for(sweeping, PATIENCE_S)


async def acknowledged_after_the_statement_of_last_resort(owner):
    connection = await asyncpg.connect(owner)
    await connection.execute("INSERT INTO control (scope, halted, reason) VALUES ('fleet', true, 'test')")
    acknowledged = "SELECT bool_and(p.acked_control >= e.control) FROM process p, epoch e WHERE p.lease_open"
    await until(lambda: connection.fetchval(acknowledged))
    await connection.close()


async def test_a_kill_is_acknowledged_by_a_gateway_whose_own_loop_hangs(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path) as made:
        session = await made.session()
        elsewhere = threading.Thread(
            target=asyncio.run, args=(acknowledged_after_the_statement_of_last_resort(database_urls.owner),), daemon=True
        )
        elsewhere.start()
        elsewhere.join(20)  # our loop has no turn meanwhile
        assert not elsewhere.is_alive()
        # When it goes on it knows.
        assert made.system.lease.is_valid()
        assert (await made.call(session, "stock", item="tea")).code == "halted"
        assert made.shop.calls == []


async def test_when_the_thread_dies_nothing_starts_and_the_process_says_so(database_urls, tmp_path, caplog):
    async with counter(database_urls.app, tmp_path) as made:
        session, system = await made.session(), made.system

        def die(told):
            raise SystemExit("as if memory had run out")

        system.keeper.told = die
        await system.plane.kill(OPERATOR, "user:acme/bob", "whatever")
        await until(lambda: not system.keeper.is_alive())
        assert "the thread that keeps the lease has died" in caplog.text
        await until(lambda: not system.lease.is_valid())
        assert (await made.call(session, "stock", item="tea")).code == "control_plane_unavailable"
        assert made.shop.calls == []
        with pytest.raises(StoreUnavailableError, match="no lease"):
            await system.plane.ready()
        with pytest.raises(StoreUnavailableError):
            await system.keeper.renew()


async def test_a_thread_that_was_ended_by_nobody_of_us_says_so_as_well(database_urls, tmp_path, caplog):
    async with counter(database_urls.app, tmp_path) as made:
        keeper = made.system.keeper
        keeper._loop.call_soon_threadsafe(keeper._task.cancel)
        await until(lambda: not keeper.is_alive())
        assert "the thread that keeps the lease has died" in caplog.text


async def test_no_thread_is_left_when_a_process_has_ended_or_could_not_start(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path):
        assert len(lease_threads()) == 1
    assert lease_threads() == []
    with pytest.raises(Exception, match="no such"):
        async with counter(database_urls.app, tmp_path / "b"):
            raise RuntimeError("no such luck")
    assert lease_threads() == []


async def test_the_thread_ends_after_the_last_call_has_settled(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path) as made:
        calling = asyncio.create_task(made.call(await made.session(), "slow", order_id="A1"))
        await made.shop.entered.wait()
        alive = []
        drain = made.system.gate.calls.drain

        async def drained():
            made.shop.go_on.set()
            await drain()
            alive.append((made.system.keeper.is_alive(), len(made.system.gate.calls) == 0))

        made.system.gate.calls.drain = drained
    assert alive == [(True, True)]
    assert lease_threads() == []
    assert (await calling).call_id
