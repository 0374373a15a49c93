"""The scenes of `make demo` about bad days: a tool that is unstable, answers that get lost, and everything has to stop."""

import asyncio

from examples.acme.interlocked import client
from examples.acme.telling import console, decision, expect, said, scene, shown, tell, until

STORM_CALLS = 10
LOAD_WORKERS = 6


async def storm_without(world):
    """An agent that tries again and again, and nothing between it and a service that is down."""
    async with client(world.url("tickets"), world.tokens["ACME_TICKETS_TOKEN"], "legacy") as tickets:
        await world.execute("UPDATE trouble SET sick = true, knocks = 0 WHERE service = 'tickets'")
        for _ in range(STORM_CALLS):
            try:
                await tickets.call_tool("search", {"words": "parcel"})
            except Exception:  # noqa: BLE001  # the broken line, in whatever shape the SDK reports it
                continue
        knocks = await world.count("SELECT knocks FROM trouble WHERE service = 'tickets'")
        expect.that(
            knocks >= STORM_CALLS, f"O8: {STORM_CALLS} tries hit a service that was down {knocks} times, and got nothing"
        )
        await world.execute("UPDATE trouble SET sick = false WHERE service = 'tickets'")


async def breaker(bot, interlock, world):
    scene("A tool is unstable: writes stop, a read makes do, it heals by itself (O9)")
    fresh = await tell(bot, "tickets.search", words="parcel")
    await world.execute("UPDATE trouble SET sick = true, knocks = 0 WHERE service = 'tickets'")
    console.print("   the tickets service now breaks off every call")
    answers = [await bot.call_tool("tickets.search", {"words": "parcel"}) for _ in range(STORM_CALLS)]
    console.print(f"   [cyan]agent →[/] tickets.search, {len(answers)} times\n   [white]      ← {said(answers[-1])[:400]}[/]")
    knocks = await world.count("SELECT knocks FROM trouble WHERE service = 'tickets'")
    expect.that(
        knocks < STORM_CALLS, f"{knocks} of {STORM_CALLS} reach the service: then the breaker is open, and it is left alone"
    )
    labelled = all("interlock/stale" in (answer.meta or {}) for answer in answers)
    same = all(answer.structured_content == fresh.structured_content for answer in answers)
    expect.that(labelled and same, "a read answers with what it answered before, and is labelled as that")
    comments = await world.count("SELECT count(*) FROM comment")
    for _ in range(STORM_CALLS):
        refused = await bot.call_tool("tickets.comment", {"ticket_id": 1, "text": "It is on its way."})
        if "unstable" in said(refused):
            break
    console.print(f"   [cyan]agent →[/] tickets.comment\n   [red]      ← {said(refused)[:300]}[/]")
    code, effect, after = (decision(refused).get(name) for name in ("code", "effect", "retry"))
    held = "unstable" in said(refused) and (code, effect, after) == ("tool_unavailable", "none", "after_ms")
    expect.that(held, "a write is refused, with the reason, that nothing was changed, and when to come back")
    expect.that(await world.count("SELECT count(*) FROM comment") == comments, "and nothing was written")

    async def look():
        (told,) = await interlock.people(("oki", "breakers"))
        return told

    out, _ = await until(look, lambda told: _is_shut("tickets.search", told[0]))
    shown("breakers", "oki", out)
    expect.that(_is_shut("tickets.search", out), "operators see which tool it is")
    await world.execute("UPDATE trouble SET sick = false WHERE service = 'tickets'")
    console.print("   the service is back; nobody tells Interlock")
    healed = await until(
        lambda: bot.call_tool("tickets.search", {"words": "parcel"}),
        lambda told: not told.is_error and "interlock/stale" not in told.meta,
    )
    expect.that(
        not healed.is_error and "interlock/stale" not in healed.meta, "a trial succeeds, and the breaker closes by itself"
    )
    back = await until(
        lambda: bot.call_tool("tickets.comment", {"ticket_id": 1, "text": "It is on its way."}), lambda told: not told.is_error
    )
    once = await world.count("SELECT count(*) FROM comment WHERE text = 'It is on its way.'") == 1
    expect.that(not back.is_error and once, "the refused comment is written now, once")


def _is_shut(operation, out):
    return any(operation in line and ("shut for" in line or "being tried" in line) for line in out.splitlines())


async def lost_answers(bot, world):
    scene("A lost answer, a retry, one payment (F6)")
    await world.execute("UPDATE trouble SET lost_answers = 1 WHERE service IN ('payments', 'mail')")
    first = await tell(bot, "payments.refund", order_id="A1", amount="20.00", currency="EUR")
    expect.that(decision(first).get("effect") == "unknown", "the answer got lost, and the agent is told that nobody knows")
    again = await tell(bot, "payments.refund", order_id="A1", amount="20.00", currency="EUR")
    expect.that(decision(again).get("outcome") == "in_doubt", "it tries again: the call is in doubt, so it is not sent again")
    paid = await world.count("SELECT count(*) FROM refund WHERE order_id = 'A1'")
    expect.that(paid == 1, f"the refund was paid {paid} time")
    await tell(bot, "payments.refund", order_id="A3", amount="10.00", currency="EUR")
    replay = await tell(bot, "payments.refund", order_id="A3", amount="10.00", currency="EUR")
    expect.that("interlock/replayed" in (replay.meta or {}), "a repeated refund is answered from the record, and says so")
    expect.that(await world.count("SELECT count(*) FROM refund WHERE order_id = 'A3'") == 1, "and was paid once")
    lost = await tell(bot, "mail.send", to="nora@customers.example", subject="Refund", text="20 EUR are on their way.")
    expect.that(decision(lost).get("outcome") == "in_doubt", "a mail server's answer gets lost too")
    return decision(lost)["id"]


async def reconciled(bot, interlock, world, mail):
    scene("What became of the lost answers (X2)")
    found = await until(
        lambda: bot.call_tool("payments.refund", {"order_id": "A1", "amount": "20.00", "currency": "EUR"}),
        lambda told: decision(told).get("outcome") != "in_doubt",
    )
    console.print(f"   [cyan]agent →[/] payments.refund A1 20.00, once more\n   [white]      ← {said(found)[:300]}[/]")
    expect.that(
        (decision(found).get("code"), decision(found).get("effect")) == ("done_unseen", "done"),
        "the refund was found in the service's own book, by the key it was sent with: it is settled as done",
    )
    paid = await world.count("SELECT count(*) FROM refund WHERE order_id = 'A1'")
    expect.that(paid == 1, f"and it is still paid {paid} time")

    settle = ("doubts", "settle", mail, "--done", "--reason", "it is in Nora's mailbox")
    (listed, _), (out, _), (_, refused) = await interlock.people(
        ("sam", "doubts", "list"), ("sam", "doubts", "show", mail), ("ana", *settle)
    )
    shown("doubts list", "sam", listed)
    shown(f"doubts show {mail}", "sam", out)
    expect.that("mail.send" in listed and "payments.refund" not in listed, "of the mail no reading can tell: a person is asked")
    expect.that("--done:" in out and "--not-done:" in out, "with what follows from either answer laid out")
    expect.that(refused == 1, "ana, in whose name it was sent, does not say what became of it")
    await interlock.people(("sam", *settle))
    repeated = await tell(bot, "mail.send", to="nora@customers.example", subject="Refund", text="20 EUR are on their way.")
    mails = await world.count("SELECT count(*) FROM mail WHERE content LIKE '%20 EUR are on their way.%'")
    held = decision(repeated).get("effect") == "done" and mails == 1
    expect.that(held, f"sam has looked, and says: done. Sent again, it is answered so; Nora has {mails} mail")


async def kill_switch(bot, interlock, world):
    scene("The kill switch, while a load runs (X6)")
    await world.execute("UPDATE trouble SET slow_ms = 2500 WHERE service = 'payments'")
    session = await asyncio.to_thread(interlock.token, "support-bot", "leo", "customer-support")
    async with interlock.client(session["access_token"]) as leos_bot:
        await _killed(leos_bot, interlock, world)
        await world.execute("UPDATE trouble SET slow_ms = 0 WHERE service = 'payments'")
        other = await tell(bot, "tickets.comment", ticket_id=1, text="Refunds are delayed.")
        expect.that(not other.is_error, "other tools go on")
        resume = ("resume", "--tool", "payments", "--reason")
        (status, _), (_, refused) = await interlock.people(("oki", "status"), ("oki", *resume, "fine"))
        shown("status", "oki", status)
        expect.that(_is_stopped("tool:payments", status), "`status` shows what is stopped, by whom, and why")
        expect.that(refused == 1, "the operator may stop, and may not resume: that is security's to do")
        still = await tell(leos_bot, "payments.refund", order_id="A7", amount="5.00", currency="EUR")
        expect.that(decision(still).get("outcome") == "halted", "so it is still stopped")
        await interlock.people(("sam", *resume, "looked into it"))
        after = await tell(leos_bot, "payments.refund", order_id="A7", amount="5.00", currency="EUR")
        expect.that(not after.is_error, "security has resumed it: refunds are paid again")


async def _killed(leos_bot, interlock, world):
    async with asyncio.TaskGroup() as load:
        workers = [load.create_task(_refund_on_and_on(leos_bot, worker)) for worker in range(LOAD_WORKERS)]
        await until(lambda: world.count(f"SELECT count(*) FROM refund WHERE {_OF_LOAD}"), lambda paid: paid > 0)
        console.print(f"   {LOAD_WORKERS} refunds are under way at any moment, each takes the service a while")
        ((out, _),) = await interlock.people(("oki", "kill", "--tool", "payments", "--reason", "refunds look odd"))
        answered_at = await world.count("SELECT clock_timestamp()")
        shown("kill --tool payments", "oki", out)
    ended = [worker.result() for worker in workers]
    expect.that("stopped: tool:payments" in out and "acknowledged: 1" in out, "one command, and every process has said yes")
    expect.that("payments.refund call_" in out, "the answer names what was under way, call by call")
    expect.that(all(code == "halted" for _, code in ended), "every worker of the load was stopped, and told so")
    late = await world.count(f"SELECT count(*) FROM refund WHERE {_OF_LOAD} AND began > $1", answered_at)
    expect.that(late == 0, f"{late} refunds began after the answer, by the service's own clock and book")
    paid = await world.count(f"SELECT count(*) FROM refund WHERE {_OF_LOAD}")
    told = sum(done for done, _ in ended)
    expect.that(paid == told, f"{told} refunds were reported done and {paid} were paid: none lost, none twice")


_OF_LOAD = "amount < 1"


async def _refund_on_and_on(connected, worker):
    """Refund cents until told not to; gives how many were done, and the code that ended it."""
    done = 0
    while True:
        order, cents = 100 + worker + LOAD_WORKERS * (done % 16), 1 + done // 16
        arguments = {"order_id": f"A{order}", "amount": f"0.{cents:02}", "currency": "EUR"}
        result = await connected.call_tool("payments.refund", arguments)
        if result.is_error:
            return done, decision(result).get("code")
        done += 1


def _is_stopped(scope, status):
    return any(scope in line and "stopped" in line for line in status.splitlines())
