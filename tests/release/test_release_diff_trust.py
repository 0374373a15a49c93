"""The diff of who is believed and how much may be used; and that no part of a release is without a rule."""

import typing

import msgspec
import pytest

from interlock.core.budget import CEILINGS, Budget
from interlock.core.contract import Contract, EntitiesOf, Evidence, ResourceRule, Shape, Sign
from interlock.core.history import HistoryFact
from interlock.core.risk import Canary, DetectorRule, RiskRules
from interlock.core.stability import Breaker, Bulkhead, Degrade, Retry
from interlock.release.diff import compare, contracts, limits, parts, past, policies, risk, trust
from interlock.release.diff.compare import diff, render
from interlock.release.issuers import AgentsRule, CliRule, Issuer, LoginRule, PeopleRule, RolesRule, TenantRule
from interlock.release.load import from_files
from interlock.release.model import (
    Administration,
    AgentIdentity,
    ApprovalRule,
    Limit,
    Policy,
    PolicyTest,
    Release,
    Task,
    Tool,
    ToolSource,
)
from tests.support.shop import FILES

W, N, S, U = "widens", "narrows", "neutral", "unknown"
BUDGETS = """
notes-per-day: {count: calls, on: shop.note, per: user, limit: 10, within: 1d}
paid-per-day: {sum: shop.refund.amount, per: tenant, limit: "500.00", within: 24h, ask: refunds}
calls-per-run: {count: calls, per: run, limit: 100}
"""
ISSUERS = """
login:
  kind: oidc
  issuer: https://id.example
  environments: {test: [interlock]}
  algorithms: [RS256, ES256]
  people:
    user: sub
    tenant: {claim: org, map: {o1: acme}}
    roles: {claim: groups, map: {g1: Staff}}
    clients: [desk]
    require: {amr: [mfa, hwk]}
  agents: {subject: azp, require: {env: [test]}}
"""
BEFORE = {
    **FILES,
    "release.yaml": FILES["release.yaml"] + "owners: {finance: [budgets.yaml], security: [issuers.yaml, policies]}\n",
    "budgets.yaml": BUDGETS,
    "issuers.yaml": ISSUERS,
}


def between(*edits, before=BEFORE, **more):
    after = {**before, **more}
    for file, old, new in edits:
        assert old in after[file], (file, old)
        after[file] = after[file].replace(old, new)
    return diff(from_files(before), from_files({name: text for name, text in after.items() if text is not None}))


def said(found):
    return [(change.direction.value, change.name, change.what) for change in found.changes]


LIMITS = [
    ("limit: 10,", "limit: 9,", [(N, "notes-per-day", "limit: 10 → 9")]),
    ("limit: 10,", "limit: 11,", [(W, "notes-per-day", "limit: 10 → 11")]),
    ('"500.00"', '"500.5"', [(W, "paid-per-day", "limit: 500 → 500.5")]),
    ("within: 1d", "within: 7d", [(N, "notes-per-day", "window: 86400 s → 604800 s")]),
    ("within: 1d", "within: 1h", [(W, "notes-per-day", "window: 86400 s → 3600 s")]),
    ("limit: 10, within: 1d", "limit: 5, within: 7d", [(N, "notes-per-day", "limit: 10 → 5, window: 86400 s → 604800 s")]),
    ("limit: 10, within: 1d", "limit: 50, within: 7d", [(U, "notes-per-day", "limit: 10 → 50, window: 86400 s → 604800 s")]),
    (", ask: refunds", "", [(N, "paid-per-day", "ask: refunds → nothing")]),
    ("within: 1d}", "within: 1d, ask: refunds}", [(W, "notes-per-day", "ask: nothing → refunds")]),
    ("per: user", "per: agent", [(U, "notes-per-day", "10 calls per user in 86400 s on shop.note → 10 calls per agent in 86400 s on shop.note")]),
    ("count: calls, on: shop.note", "count: writes, on: shop.note", [(U, "notes-per-day", "10 calls per user in 86400 s on shop.note → 10 writes per user in 86400 s on shop.note")]),
    ("on: shop.note", "on: [shop.note, shop.pay]", [(U, "notes-per-day", "10 calls per user in 86400 s on shop.note → 10 calls per user in 86400 s on shop.note, shop.pay")]),
    # What holds in a budget's place is the ceiling.
    ("calls-per-run: {count: calls, per: run, limit: 100}\n", "", [(W, "calls-per-run", "limit: 100 → 5000 (a ceiling)")]),
    ("calls-per-run: {count: calls, per: run, limit: 100}", "calls-per-run: {count: calls, per: run, limit: 6000}", [(W, "calls-per-run", "limit: 100 → 6000 (a ceiling)")]),
    ("calls-per-run: {count: calls, per: run, limit: 100}", "calls-per-run: {count: calls, per: run, limit: 100, within: 1h}", [(W, "calls-per-run", "window: none → 3600 s (a ceiling)")]),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), LIMITS, ids=lambda value: value[:40] if isinstance(value, str) else "")
def test_each_change_of_a_budget_is_told_with_its_direction(old, new, expected):
    found = between(("budgets.yaml", old, new))
    assert said(found) == expected
    assert {change.owners for change in found.changes} == {("finance",)}


def test_a_budget_that_comes_narrows_and_one_that_goes_widens():
    text = "notes-per-hour: {count: calls, on: shop.note, per: user, limit: 3, within: 1h, ask: refunds}\n"
    more = {**BEFORE, "budgets.yaml": BUDGETS + text}
    told = "3 calls per user in 3600 s on shop.note; beyond it refunds are asked"
    assert said(between(**{"budgets.yaml": BUDGETS + text})) == [(N, "notes-per-hour", f"new: {told}")]
    assert said(between(before=more, **{"budgets.yaml": BUDGETS})) == [(W, "notes-per-hour", f"gone: {told}")]


def test_a_file_that_goes_widens_what_it_said_and_is_not_called_the_same():
    found = between(**{"budgets.yaml": None})
    assert {(change.direction.value, change.name) for change in found.changes} == {
        (W, "notes-per-day"),
        (W, "paid-per-day"),
        (W, "calls-per-run"),
    }
    assert all(change.place.startswith("budgets.yaml:") for change in found.changes)
    gone = between(**{"issuers.yaml": None})
    assert said(gone) == [(N, "login", "gone: https://id.example for people and agents in test")]


LOGIN = 'login: nothing → {"claims": "id_token", "cli": null, "client_id": "page", "directory": "", "scopes": ["openid"], "secret": "", "title": ""}'
TRUST = [
    ("[interlock]", "[interlock, other]", [(W, "audiences in test: +other")]),
    ("{test: [interlock]}", "{test: [interlock], prod: [p]}", [(W, "audiences in prod: +p")]),
    ("[interlock]", "[other]", [(U, "audiences in test: +other, -interlock")]),
    ("[RS256, ES256]", "[RS256]", [(N, "algorithms: -ES256")]),
    ("[RS256, ES256]", "[RS256, ES256, PS256]", [(W, "algorithms: +PS256")]),
    ("  people:", "  leeway_s: 30\n  people:", [(W, "leeway_s: 5 → 30")]),
    ("  people:", "  max_lifetime_s: 60\n  people:", [(N, "max_lifetime_s: 3600 → 60")]),
    ("  people:", "  token_type: any\n  people:", [(W, "token_type: at+jwt → any")]),
    ("  people:", "  jwks: https://id.example/keys\n  people:", [(U, "jwks: nothing → https://id.example/keys")]),
    ("  people:", "  advertise: false\n  people:", [(S, "advertise: true → false")]),
    ("https://id.example", "https://id2.example", [(U, "issuer: https://id.example → https://id2.example")]),
    ("[desk]", "[desk, other]", [(W, "people clients: +other")]),
    ("[desk]", "[]", [(N, "people clients: -desk")]),
    ("user: sub", "user: email", [(U, "people user: sub → email")]),
    ("{o1: acme}", "{o1: acme, o2: acme}", [(W, "people tenant map o2: nothing → acme")]),
    ("{o1: acme}", "{o1: globex}", [(U, "people tenant map o1: acme → globex")]),
    ("{g1: Staff}", "{g1: Staff, g2: Lead}", [(W, "people roles map g2: nothing → Lead")]),
    ("{g1: Staff}", "{}", [(N, "people roles map g1: Staff → nothing")]),
    (", map: {g1: Staff}", "", [(W, 'people roles map: {"g1": "Staff"} → nothing')]),
    ("{amr: [mfa, hwk]}", "{amr: [mfa]}", [(N, "people require amr: -hwk")]),
    ("{amr: [mfa, hwk]}", "{}", [(W, "people require amr: -hwk, -mfa")]),
    ("{amr: [mfa, hwk]}", "{amr: [mfa, hwk], acr: [high]}", [(N, "people require acr: +high")]),
    ("  people:", "  login: {client_id: page}\n  people:", [(W, LOGIN)]),
    ("subject: azp, ", "subject: azp, delegated: true, ", [(W, "agents delegated: false → true")]),
    ("subject: azp, ", "subject: sub, ", [(U, "agents subject: azp → sub")]),
    ("  agents: {subject: azp, require: {env: [test]}}\n", "", [(N, 'agents: {"delegated": false, "require": {"env": ["test"]}, "subject": "azp"} → nothing')]),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), TRUST, ids=lambda value: value[:40] if isinstance(value, str) else "")
def test_each_change_of_an_issuer_is_told_with_its_direction(old, new, expected):
    found = between(("issuers.yaml", old, new))
    assert [(change.direction.value, change.what) for change in found.changes] == expected
    assert {(change.kind, change.name, change.owners) for change in found.changes} == {("issuer", "login", ("security",))}


def test_true_and_one_are_not_the_same_in_a_token():
    was = {**BEFORE, "issuers.yaml": ISSUERS.replace("[mfa, hwk]", "[true]")}
    found = between(("issuers.yaml", "[true]", "[1]"), before=was)
    assert [change.direction.value for change in found.changes] == [U]


def test_how_people_log_in_at_an_issuer_is_unknown_when_it_changes():
    with_login = {**BEFORE, "issuers.yaml": ISSUERS.replace("  people:", "  login: {client_id: page}\n  people:")}
    found = between(("issuers.yaml", "{client_id: page}", "{client_id: other, title: Ours}"), before=with_login)
    assert [(change.direction.value, change.what) for change in found.changes] == [
        (U, "login client_id: page → other"),
        (S, "login title: nothing → Ours"),
    ]


def test_a_new_issuer_widens():
    more = ISSUERS + "cluster: {kind: kubernetes, issuer: https://k8s.example, environments: {test: [k]}}\n"
    found = between(**{"issuers.yaml": more})
    assert said(found) == [(W, "cluster", "new: https://k8s.example for agents in test")]
    assert found.changes[0].place == "issuers.yaml:14"


def test_a_comment_in_these_files_decides_nothing():
    found = between(("budgets.yaml", "\nnotes", "\n# as agreed\nnotes"), ("issuers.yaml", "\nlogin", "\n# ours\nlogin"))
    assert {change.kind for change in found.changes} == {"file"}
    assert {change.direction.value for change in found.changes} == {S}


def test_nothing_is_called_the_same_beside_a_part_that_is_not_understood(monkeypatch):
    for name in ("issuer_changes", "budget_changes"):
        monkeypatch.setattr(compare, name, lambda *_: [])
    found = between(("budgets.yaml", "limit: 10,", "limit: 11,"), ("issuers.yaml", "[desk]", "[other]"))
    assert {(change.direction.value, change.kind, change.file) for change in found.changes} == {
        (U, "part", "budgets.yaml"),
        (U, "part", "issuers.yaml"),
    }
    assert "nothing that decides" not in render(found)


# A field added to anything of a release fails here until somebody has said which way a change of it goes.

RULED = {
    Contract: {*contracts.RULES, *contracts.CLOSER},
    Bulkhead: set(contracts.STABILITY_RULES["bulkhead"]),
    Breaker: set(contracts.STABILITY_RULES["breaker"]),
    Retry: set(contracts.STABILITY_RULES["retry"]),
    Degrade: set(contracts.STABILITY_RULES["degrade"]),
    Tool: set(contracts.TOOL_RULES),
    ToolSource: set(contracts.SOURCE_RULES),
    AgentIdentity: set(parts.IDENTITY_RULES),
    Task: set(parts.TASK_RULES),
    ApprovalRule: set(parts.APPROVAL_RULES),
    Policy: {*policies.PLACE, *policies.COMPARED, *policies.SAID, *policies.UNSURE},
    Issuer: set(trust.ISSUER_RULES),
    PeopleRule: set(trust.PEOPLE_RULES),
    TenantRule: set(trust.TENANT_RULES),
    RolesRule: set(trust.ROLES_RULES),
    AgentsRule: set(trust.AGENTS_RULES),
    LoginRule: set(trust.LOGIN_RULES),
    Budget: set(limits.BUDGET_RULES),
    RiskRules: set(risk.RISK_RULES),
    Canary: set(risk.CANARY_RULES),
    DetectorRule: set(risk.DETECTOR_RULES),
    HistoryFact: set(past.HISTORY_RULES),
}
# Compared as a whole: any difference of a part is a difference, and unknown or neutral as such.
WHOLE = {CliRule, Evidence, Limit, Sign, ResourceRule, EntitiesOf, PolicyTest, *typing.get_args(Shape)}


def structs_of(kind, found):
    for hint in typing.get_type_hints(kind).values():
        for inner in walk(hint):
            if isinstance(inner, type) and issubclass(inner, msgspec.Struct) and inner not in found:
                found.add(inner)
                structs_of(inner, found)
    return found


def walk(hint):
    yield hint
    for inner in typing.get_args(hint):
        yield from walk(inner)


def test_every_part_of_a_release_has_a_rule():
    assert {*compare.SEEN_AS, *compare.TEXT} == set(Release.__struct_fields__)


def test_every_field_of_every_part_of_a_release_has_a_rule():
    for kind in structs_of(Release, set()) - WHOLE - {Administration}:
        assert RULED[kind] == set(kind.__struct_fields__), kind


def test_every_field_of_the_administration_is_a_list_of_roles_or_lists_by_name():
    for name, hint in typing.get_type_hints(Administration).items():
        assert (typing.get_origin(hint) is tuple) != (name in parts.LISTS_BY_NAME), name


def test_the_ceilings_are_budgets_by_name():
    assert {budget.name for budget in CEILINGS} <= {budget.name for budget in from_files(BEFORE).budgets}
