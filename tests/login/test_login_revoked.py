"""A revocation reaches logins: what began before it gives nothing after it."""

from interlock.ledger.drafts import draft
from interlock.ledger.events import RevocationMade
from interlock.store.revocations import Revocations
from tests.support.patience import until


async def test_what_began_before_a_revocation_gives_nothing_after_it(town):
    asked = await town.ask_device()
    late = await town.ask_device()
    async with town.browser("oki") as browser:
        await browser.answer(asked["user_code"])
        await browser.answer(late["user_code"])
    issued = (await town.poll(asked)).json()
    system = town.system
    event = draft(RevocationMade(target="user:oki", tenant="acme", reason="lost laptop", by="sam", roles=()), ids=system.ids)
    revocations = Revocations(system.database, "test", system.marking.note_now)
    await revocations.revoke(kind="user", name="oki", tenant="acme", by="sam", reason="lost laptop", event=event)
    assert (await town.refresh("interlock-cli", issued["refresh_token"], town.other)).json()["error"] == "invalid_grant"
    assert (await town.poll(late)).json()["error"] == "access_denied", "nor what was approved and not fetched"
    revoked_s = system.clock.wall_us() // 1_000_000
    # Tokens tell the second in which they were issued, and the second of a revocation counts as before it.
    await until(lambda: system.clock.wall_us() // 1_000_000 > revoked_s)
    async with town.browser("oki") as browser:
        assert (await browser.get("/device")).status_code == 200, "who logs in anew is let in"
