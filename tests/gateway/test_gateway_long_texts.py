"""Long texts are taken up in a thread: the event loop goes on meanwhile, and whoever leaves leaves nothing half done."""

import asyncio
import threading

import pytest

from interlock.core.terms import Origin
from interlock.gateway import contexts as gateway_contexts
from interlock.gateway.released import Released
from interlock.provenance.index import Index
from tests.provenance.test_provenance_trace import CONTRACT
from tests.support.shop import counter

LONG = " ".join(f"word{number} kim{number}@corp.example {number}.25" for number in range(1_500))


@pytest.fixture
async def shop(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path) as made:
        yield made


@pytest.fixture
def at_work(monkeypatch):
    """Which threads cut texts, took items up and traced arguments."""
    seen = {}
    for name in ("of_result", "of_input", "of_assertion", "trace"):
        plain = getattr(gateway_contexts, name)

        def noting(*args, plain=plain, name=name, **kwargs):
            seen.setdefault(name, set()).add(threading.current_thread())
            return plain(*args, **kwargs)

        monkeypatch.setattr(gateway_contexts, name, noting)
    add = Index.add

    def adding(self, item, **kwargs):
        seen.setdefault("add", set()).add(threading.current_thread())
        return add(self, item, **kwargs)

    monkeypatch.setattr(Index, "add", adding)
    return seen


@pytest.mark.parametrize("released", [Released(content=({"type": "text", "text": LONG},)), Released(structured={"note": LONG})])
async def test_nothing_that_is_long_is_done_where_everybody_waits(shop, at_work, released):
    session, made = await shop.session(), shop.system.contexts
    await made.said(session, "inp_1", LONG)
    await made.asserted(session, "inp_2", LONG)
    item = await made.entering(session, CONTRACT, "call_1", released)
    await made._shelf.add(session.lineage.id, session.session_id, item)
    await made.trace(session, CONTRACT, {"to": "kim7@corp.example", "text": LONG}, tainted=True)
    assert set(at_work) == {"of_input", "of_assertion", "of_result", "add", "trace"}
    assert threading.main_thread() not in set().union(*at_work.values())


async def test_what_is_short_is_not_handed_to_a_thread(shop, at_work):
    session, made = await shop.session(), shop.system.contexts
    await made.said(session, "inp_1", "write to kim@corp.example")
    await made.entering(session, CONTRACT, "call_1", Released(structured={"note": "a short one"}))
    await made.trace(session, CONTRACT, {"to": "kim@corp.example"}, tainted=True)
    assert set().union(*at_work.values()) == {threading.main_thread()}


async def test_a_caller_who_leaves_while_it_is_taken_up_leaves_it_whole(shop, monkeypatch):
    session, made = await shop.session(), shop.system.contexts
    await made.said(session, "inp_1", LONG)
    going, entered = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    add = Index.add

    def held(self, item, **kwargs):
        loop.call_soon_threadsafe(entered.set)
        going.wait()
        return add(self, item, **kwargs)

    monkeypatch.setattr(Index, "add", held)
    leaving = asyncio.create_task(made.trace(session, CONTRACT, {"to": "kim7@corp.example"}, tainted=True))
    await entered.wait()
    leaving.cancel()
    other = asyncio.create_task(made.trace(session, CONTRACT, {"to": "kim8@corp.example"}, tainted=True))
    going.set()
    assert (await other)["to"].origin is Origin.USER
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert len(made._known._recent.get(session.session_id).index) == 1
