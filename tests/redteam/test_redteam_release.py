"""Attacks on a release, through the real gate on a real database, with recorders for tools: what is stopped, and what is open."""

import asyncio
from pathlib import Path

import pytest

from interlock.app.redteam.dry import DryConnectors, Recorder, World
from interlock.app.redteam.run import UnknownEnvironmentError, UnknownOperationError, red_team
from interlock.app.sources import SystemClock
from interlock.redteam.model import Outcome, StoppedBy
from interlock.redteam.owasp import TOP_TEN
from interlock.redteam.report import advice, markdown, page, rows, summary, what_stopped
from interlock.release.load import from_files, read_files
from tests.conftest import urls

ROOT = Path(__file__).resolve().parents[2]
ACME = read_files(ROOT / "examples" / "acme" / "release")
pytestmark = pytest.mark.xdist_group("redteam")


def edited(files, **places):
    """A copy of a release in which texts are replaced: `{file: {old: new}}`."""
    made = dict(files)
    for name, changes in places.items():
        for old, new in changes.items():
            assert old in made[name], (name, old)
            made[name] = made[name].replace(old, new)
    return made


ORIGINS = "policies/guard/origins.cedar"
# Five mistakes that people make. Each must be named.
WEAKENED = edited(
    ACME,
    **{
        "tools/mail.yaml": {"targets: [to]": "targets: []"},
        "tools/tickets.yaml": {"comment to a ticket.\n    effects: [write]": "comment to a ticket.\n    effects: [read]"},
        "agents.yaml": {
            "      for: *support\n      where: {amount:": "      for: {roles: [Support], tenant: any, task: customer-support}\n      where: {amount:"
        },
        "policies/guard/chains.cedar": {"context.session.confidentiality >= 3": "context.session.confidentiality > 3"},
        ORIGINS: {
            '@id("no-links-and-commands-of-others")': '@id("no-links-and-commands-of-others") @obligation("log")',
            '@approval("doubtful")\n@say("A link': '@say("A link',
        },
    },
)


@pytest.fixture(scope="module")
def attacked(postgres, tmp_path_factory):
    """A function that attacks a release; each release once."""
    done = {}

    def attack(files, *only):
        key = (tuple(sorted(files.items())), only)
        if key not in done:
            done[key] = asyncio.run(_run(postgres, tmp_path_factory.mktemp("redteam"), files, only))
        return done[key]

    return attack


async def _run(postgres, folder, files, only):
    name = await postgres.clone()
    try:
        url = urls(postgres, name).app
        return await red_team(files, state=folder, database_url=url, environments=("prod",), only=only)
    finally:
        await postgres.drop(name)


@pytest.fixture(scope="module")
def demo(attacked):
    return attacked(ACME)


@pytest.fixture(scope="module")
def weakened(attacked):
    return attacked(WEAKENED, "mail.send", "tickets.comment", "payments.refund")


def of(report, identifier):
    return next(finding for finding in report.findings if finding.id == identifier)


def test_on_the_demo_release_no_text_that_the_agent_reads_makes_anything_happen(demo):
    """Each hijack was tried, in several ways, and came no further than a person."""
    for operation in ("mail.send", "payments.refund", "tickets.comment"):
        for family in ("hijack", "memory", "content"):
            found = of(demo, f"{family}:prod:support-bot:{operation}")
            assert found.outcome is Outcome.HUMAN, what_stopped(found)
            assert any(attempt.by is StoppedBy.PROVENANCE for attempt in found.attempts)
    assert "targets-are-the-users-own" in of(demo, "hijack:prod:support-bot:mail.send").attempts[1].rules
    assert "refunds-are-for-the-users-order" in of(demo, "hijack:prod:support-bot:payments.refund").attempts[1].rules


def test_on_the_demo_release_nothing_is_open(demo):
    assert not demo.count(Outcome.BROKEN), summary(demo)
    assert [finding.id for finding in demo.findings if finding.outcome is Outcome.OPEN] == []
    assert demo.is_closed


def test_whose_object_it_is_and_who_calls_is_seen_whatever_the_user_asks_for(demo):
    deputies = [finding for finding in demo.findings if finding.family == "deputy"]
    assert {finding.operation for finding in deputies} >= {"customers.get", "payments.refund", "tickets.comment"}
    tokens = of(demo, "token:prod:support-bot")
    for finding in (*deputies, tokens, of(demo, "delegation:prod:support-bot"), of(demo, "rogue:prod:support-bot")):
        assert finding.outcome is Outcome.STOPPED, what_stopped(finding)
    assert [attempt.code for attempt in tokens.attempts] == [
        "expired", "audience", "unknown_key", "signature", "unknown_key",
        "unknown_session", "unknown_session", "session_ended", "session_ended",
    ]  # fmt: skip


def test_private_data_goes_out_only_past_a_person_and_it_is_the_chain_that_says_so(demo):
    found = of(demo, "chain-out:prod:support-bot:mail.send")
    assert found.outcome is Outcome.HUMAN
    assert {attempt.by for attempt in found.attempts} == {StoppedBy.CHAIN}
    assert all("private-data-does-not-leave-unseen" in attempt.rules for attempt in found.attempts)


def test_a_pinned_tool_that_describes_itself_anew_is_stopped_whoever_asks(demo):
    for tool in ("tickets", "customers", "payments", "mail"):
        found = of(demo, f"listing:prod:{tool}")
        assert {attempt.by for attempt in found.attempts} == {StoppedBy.PIN}, what_stopped(found)


def test_a_person_s_yes_is_for_that_call_and_from_who_may_give_it(demo):
    found = of(demo, "approval:prod:support-bot:payments.refund")
    assert [attempt.name for attempt in found.attempts] == [
        "yes by the requester",
        "yes by somebody without the role",
        "yes by somebody of another tenant",
        "a good yes, used for other arguments",
        "a good yes, used twice",
    ]
    assert found.outcome is Outcome.STOPPED


def test_every_risk_of_the_ten_is_told_of(demo):
    tried = {finding.risk for finding in demo.findings}
    assert tried == {risk.id for risk in TOP_TEN}
    text = markdown(demo)
    assert all(f"## {risk.id} {risk.name}" in text for risk in TOP_TEN)


def test_on_a_weakened_copy_it_names_what_is_open(weakened):
    """Effects said to be less, targets left out, a tenant not compared, a forbid that only logs, one that is off by one."""
    is_open = {finding.id for finding in weakened.findings if finding.outcome is Outcome.OPEN}
    assert is_open >= {
        "hijack:prod:support-bot:mail.send",
        "hijack:prod:support-bot:tickets.comment",
        "deputy:prod:support-bot:payments.refund",
        "content:prod:support-bot:tickets.comment",
        "chain-out:prod:support-bot:mail.send",
    }
    assert not weakened.is_closed
    said = "\n".join(advice(weakened))
    assert "tickets.comment: the contract declares read, but its name says that it does more (write)" in said
    # What was not weakened is as it was.
    assert of(weakened, "hijack:prod:support-bot:payments.refund").outcome is Outcome.HUMAN


def test_the_report_can_be_read_whatever_is_in_it(weakened):
    html = page(weakened)
    assert "<script" not in html
    assert "$(curl" in html  # the attacker's text is there, and is text
    first = next(iter(rows(weakened)))
    assert first[0] == "OPEN"


def test_nothing_real_is_ever_called():
    """Whatever a tool's source is, its connector in a dry world is a recorder; a credential is never looked at."""
    variables = {f"{name}_URL": "http://127.0.0.1:1/mcp" for name in ("TICKETS", "CUSTOMERS", "PAYMENTS", "MAIL", "ARTICLES")}
    variables |= {"CONFIG_PROD_URL": "http://127.0.0.1:1/mcp", "CONFIG_STAGING_URL": "http://127.0.0.1:1/mcp"}
    release = from_files(ACME, variables)

    async def made():
        connectors = DryConnectors(environment="prod", clock=SystemClock(), world=World(release))
        connectors.replace(release)
        return {name: connectors.get(name) for name in release.tools}

    assert all(type(connector) is Recorder for connector in asyncio.run(made()).values())


async def test_an_environment_or_an_operation_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UnknownEnvironmentError):
        await red_team(ACME, state=tmp_path, database_url="", environments=("moon",))
    with pytest.raises(UnknownOperationError):
        await red_team(ACME, state=tmp_path, database_url="", only=("mail.sent",))
