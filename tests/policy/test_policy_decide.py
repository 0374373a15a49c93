from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.core.contract import RecordShape
from interlock.core.decision import Allow, Deny, Obligations, Rate, RequireApproval, ResourceFacts, RowFilter, Traced
from interlock.core.terms import Classification, Effect, Origin, Posture, Question
from interlock.policy.codes import Code
from interlock.policy.engine import ENGINE, Engine, deny_without_release, digest_of
from interlock.policy.errors import UnusableReleaseError
from interlock.policy.obligations import meet
from tests.policy import world
from tests.policy.world import engine, forbid, policy, refund, search


def denied(decision: object) -> tuple[Question, str]:
    assert isinstance(decision, Deny), decision
    return decision.question, decision.reasons[0].code


def test_a_call_that_every_layer_permits_is_allowed_and_names_who_said_so() -> None:
    decision = engine().decide(refund())
    assert isinstance(decision, Allow)
    assert [ref.id for ref in decision.policies] == ["identity", "delegation", "capability", "data"]
    assert (decision.release_digest, decision.engine) == ("sha256:world", ENGINE)
    assert decision.facts_digest == digest_of(refund())
    assert decision.obligations == Obligations()


@pytest.mark.parametrize(
    ("missing", "question", "code"),
    [
        ("identity", Question.MAY_THE_AGENT, Code.AGENT_NOT_PERMITTED),
        ("delegation", Question.FOR_THIS_USER, Code.USER_NOT_PERMITTED),
        ("capability", Question.WHICH_OPERATION, Code.ARGUMENTS_NOT_PERMITTED),
        ("data", Question.WHICH_DATA, Code.DATA_NOT_PERMITTED),
    ],
)
def test_no_single_permit_opens_the_gate(missing: str, question: Question, code: str) -> None:
    others = [item for item in world.permits() if item.id != missing]
    assert denied(Engine(world.release(*others)).decide(refund())) == (question, code)


@pytest.mark.parametrize("layer", ["identity", "delegation", "capability", "data", "guard"])
def test_a_forbid_with_neither_annotation_is_final_in_every_layer(layer: str) -> None:
    decision = engine(forbid(layer, say="Not on a Monday.")).decide(refund())
    assert isinstance(decision, Deny)
    assert decision.policies[-1].id == "no"
    said = decision.reasons[0].say
    assert said == ("" if layer in {"identity", "delegation"} else "Not on a Monday.")


@pytest.mark.parametrize("layer", ["identity", "delegation", "capability", "data", "guard"])
def test_a_forbid_that_errors_is_a_no_even_beside_an_allow(layer: str) -> None:
    question, code = denied(engine(forbid(layer, "context.session.nothing == 1")).decide(refund()))
    assert code == Code.EVALUATION_ERROR
    expected = {"identity": 2, "delegation": 3, "capability": 4, "data": 5, "guard": 7}
    assert question.value == expected[layer]


@pytest.mark.parametrize("layer", ["identity", "delegation", "capability", "data"])
def test_a_permit_that_errors_is_a_no_although_another_permit_holds(layer: str) -> None:
    broken = policy(layer, "permit (principal, action, resource) when { context.args.urgent };", "broken")
    assert denied(engine(broken).decide(refund()))[1] == Code.EVALUATION_ERROR


def test_a_lifted_forbid_does_not_hide_an_error_of_the_permits() -> None:
    broken = policy("capability", "permit (principal, action, resource) when { context.args.urgent };", "broken")
    asks = forbid("guard", name="asks", approval="refunds")
    assert denied(engine(broken, asks).decide(refund()))[1] == Code.EVALUATION_ERROR


def test_a_lifted_forbid_is_no_permit() -> None:
    others = [item for item in world.permits() if item.id != "capability"]
    only_over = policy("capability", 'permit (principal, action == Action::"other.thing", resource);', "elsewhere")
    asks = forbid("guard", name="asks", approval="refunds")
    decided = Engine(world.release(*others, only_over, asks)).decide(refund())
    assert denied(decided) == (Question.WHICH_OPERATION, Code.ARGUMENTS_NOT_PERMITTED)


def test_forbid_unless_approved_asks_the_people_its_rule_names() -> None:
    over = 'context.args.amount.greaterThan(decimal("50.0"))'
    decision = engine(forbid("guard", over, "asks", approval="refunds", say="A colleague must see this.")).decide(refund())
    assert isinstance(decision, RequireApproval)
    need = decision.requirements[0]
    assert (need.rule, need.policy_id, need.role, need.show) == ("refunds", "asks", "RefundApprover", ("order_id",))
    assert decision.reasons[0].say == "A colleague must see this."
    small = engine(forbid("guard", over, "asks", approval="refunds")).decide(refund('{"amount":50,"order_id":"A1"}'))
    assert isinstance(small, Allow)


def test_two_asks_that_fire_are_both_needed_across_layers() -> None:
    decision = engine(forbid("guard", name="one", approval="refunds"), forbid("data", name="two", approval="mail")).decide(
        refund()
    )
    assert isinstance(decision, RequireApproval)
    assert {need.rule for need in decision.requirements} == {"refunds", "mail"}


def test_a_final_forbid_of_the_guard_wins_over_an_ask() -> None:
    decision = engine(forbid("data", name="asks", approval="mail"), forbid("guard", name="final")).decide(refund())
    assert denied(decision) == (Question.WHAT_IS_FORBIDDEN, Code.FORBIDDEN)


def test_an_approval_rule_that_does_not_exist_is_a_deny() -> None:
    assert denied(engine(forbid("guard", approval="nobody")).decide(refund()))[1] == Code.UNKNOWN_APPROVAL_RULE


def test_obligations_of_all_layers_unite() -> None:
    decision = engine(
        forbid("data", name="a", obligations=("redact:email", "rows:rows[]:team=user.team")),
        forbid("guard", name="b", obligations=("redact:iban", "rate:10/60s", "log")),
        forbid("capability", name="c", obligations=("rate:5/60s",)),
    ).decide(search())
    assert isinstance(decision, Allow)
    assert decision.obligations == Obligations(
        redact=frozenset({"email", "iban"}),
        rows=(RowFilter(path="rows[]", field="team", value="north"),),
        rates=(Rate(limit=5, window_s=60),),
        extra_log=True,
    )


def test_an_ask_carries_the_obligations_as_well() -> None:
    decision = engine(
        forbid("guard", name="a", approval="refunds", obligations=("log",)),
        forbid("data", name="b", obligations=("redact:pii",)),
    ).decide(refund())
    assert isinstance(decision, RequireApproval)
    assert decision.obligations == Obligations(redact=frozenset({"pii"}), extra_log=True)


@pytest.mark.parametrize(
    "text", ["encrypt", "redact:", "rate:0/60s", "rate:many", "columns:rows[]", "rows:rows[]:x", "READ-ONLY"]
)
def test_an_unknown_obligation_is_a_deny(text: str) -> None:
    assert denied(engine(forbid("data", obligations=(text,))).decide(search()))[1] == Code.UNKNOWN_OBLIGATION


@pytest.mark.parametrize("source", ["user.department", "user.senior", "session.user", "user."])
def test_a_row_filter_that_cannot_be_filled_in_is_a_deny(source: str) -> None:
    decision = engine(forbid("data", obligations=(f"rows:rows[]:owner={source}",))).decide(search())
    assert denied(decision)[1] == Code.UNKNOWN_OBLIGATION


def test_read_only_denies_an_operation_that_does_anything_else() -> None:
    narrowed = engine(forbid("guard", obligations=("read-only",), say="Only reading now."))
    decision = narrowed.decide(refund())
    assert denied(decision) == (Question.WHAT_IS_FORBIDDEN, Code.READ_ONLY)
    allowed = narrowed.decide(search())
    assert isinstance(allowed, Allow)
    assert allowed.obligations.read_only


def test_a_halted_or_read_only_posture_stops_calls_whatever_the_policies_say() -> None:
    generous = engine()
    assert denied(generous.decide(search(posture=Posture.HALTED))) == (Question.WHAT_IS_FORBIDDEN, Code.HALTED)
    assert denied(generous.decide(refund(posture=Posture.READ_ONLY))) == (Question.WHAT_IS_FORBIDDEN, Code.READ_ONLY)
    assert isinstance(generous.decide(search(posture=Posture.READ_ONLY)), Allow)


def test_what_is_not_a_reviewed_operation_of_the_release_is_denied_at_the_first_question() -> None:
    draft = world.SEARCH.__class__(
        operation="a.draft",
        tool="a",
        upstream_name="draft",
        effects=frozenset({Effect.READ}),
        input_schema="{}",
        arguments=RecordShape({}),
    )
    inner = world.SEARCH.__class__(
        operation="a.inner",
        tool="a",
        upstream_name="inner",
        effects=frozenset({Effect.READ}),
        input_schema="{}",
        arguments=RecordShape({}),
        reviewed_by="ana",
        internal=True,
    )
    deciding = engine(contracts={"a.draft": draft, "a.inner": inner})
    for operation, code in [
        ("a.other", Code.UNKNOWN_OPERATION),
        ("a.draft", Code.OPERATION_NOT_REVIEWED),
        ("a.inner", Code.OPERATION_INTERNAL),
    ]:
        assert denied(deciding.decide(search(operation=operation))) == (Question.WHICH_TOOL, code)


def test_without_a_release_nothing_runs() -> None:
    assert denied(deny_without_release(search())) == (Question.WHICH_TOOL, Code.NO_RELEASE)


@pytest.mark.parametrize("changes", [{"task": "other"}, {"purpose": "marketing"}, {"purpose": ""}])
def test_a_task_or_purpose_that_the_release_does_not_know_is_denied(changes: dict[str, str]) -> None:
    assert denied(engine().decide(search(**changes))) == (Question.FOR_THIS_USER, Code.TASK_UNKNOWN)


def test_the_user_is_asked_for_by_role_environment_and_task_and_the_data_by_rank() -> None:
    deciding = engine()
    assert denied(deciding.decide(search(roles=("Sales",))))[0] == Question.FOR_THIS_USER
    assert denied(deciding.decide(search(environment="staging")))[0] == Question.FOR_THIS_USER
    assert denied(deciding.decide(search(agent="other")))[0] == Question.MAY_THE_AGENT
    assert denied(deciding.decide(search(classification=Classification.PII)))[0] == Question.WHICH_DATA


def test_arguments_that_cannot_be_encoded_are_refused_even_if_no_policy_reads_them() -> None:
    decision = engine().decide(refund('{"amount":1.23456,"order_id":"A1"}'))
    assert denied(decision) == (Question.WHICH_OPERATION, Code.INVALID_ARGUMENTS)
    assert isinstance(decision, Deny)
    assert decision.reasons[0].field == "amount"


def test_an_agent_that_may_not_run_the_operation_learns_nothing_about_its_arguments() -> None:
    decision = engine().decide(refund('{"amount":1.23456,"order_id":"A1"}', agent="other"))
    assert denied(decision) == (Question.MAY_THE_AGENT, Code.AGENT_NOT_PERMITTED)


def test_effects_less_than_the_contract_or_a_foreign_resource_are_refused() -> None:
    deciding = engine()
    assert denied(deciding.decide(refund(effects=frozenset({Effect.READ}))))[1] == Code.INVALID_FACTS
    assert denied(deciding.decide(refund(resource=ResourceFacts(type="Customer", id="7"))))[1] == Code.INVALID_FACTS
    assert denied(deciding.decide(search(resource=world.ORDER)))[1] == Code.INVALID_FACTS
    assert denied(deciding.decide(search(attributes={"limit": "high"})))[1] == Code.INVALID_FACTS


def test_a_stricter_effect_brings_its_forbids_and_no_permits() -> None:
    no_egress = policy("guard", 'forbid (principal, action in Action::"egress", resource);', "no-egress")
    others = [item for item in world.permits() if item.id != "capability"]
    reads = policy("capability", 'permit (principal, action in Action::"reads", resource);', "reads")
    deciding = Engine(world.release(*others, reads, no_egress))
    assert isinstance(deciding.decide(search()), Allow)
    wider = search(effects=frozenset({Effect.READ, Effect.EGRESS}))
    assert denied(deciding.decide(wider)) == (Question.WHAT_IS_FORBIDDEN, Code.FORBIDDEN)
    assert denied(deciding.decide(refund(effects=frozenset({Effect.WRITE, Effect.READ}))))[0] == Question.WHICH_OPERATION


def test_policies_for_a_group_or_a_tool_apply_to_its_operations_only() -> None:
    no_writes = policy("guard", 'forbid (principal, action in [Action::"writes"], resource);', "no-writes")
    no_docs = policy("guard", 'forbid (principal, action in Action::"tool:docs", resource);', "no-docs")
    assert isinstance(engine(no_writes).decide(search()), Allow)
    assert denied(engine(no_writes).decide(refund()))[0] == Question.WHAT_IS_FORBIDDEN
    assert denied(engine(no_docs).decide(search()))[0] == Question.WHAT_IS_FORBIDDEN
    assert isinstance(engine(no_docs).decide(refund()), Allow)


OWN = "forbid (principal, action, resource) when { resource has refunded && resource.refunded };"


def test_a_forbid_about_the_resource_is_never_silent_because_the_resource_is_unknown() -> None:
    deciding = engine(policy("guard", OWN, "refunded"))
    assert isinstance(deciding.decide(refund()), Allow)
    done = ResourceFacts(type="Order", id="A1", attributes={"refunded": True})
    assert denied(deciding.decide(refund(resource=done)))[1] == Code.FORBIDDEN
    for unknown in (
        None,
        ResourceFacts(type="Order", id=""),
        ResourceFacts(type="Order", id="A1"),
        ResourceFacts(type="Order", id="A1", attributes={}),
        ResourceFacts(type="Order", id="A1", attributes={"refunded": "no"}),
    ):
        assert denied(deciding.decide(refund(resource=unknown))) == (Question.WHAT_IS_FORBIDDEN, Code.RESOURCE_UNKNOWN)


def test_a_permit_about_the_resource_needs_to_know_it() -> None:
    mine = "permit (principal, action, resource) when { resource has tenant && resource.tenant == context.user.tenant };"
    others = [item for item in world.permits() if item.id != "delegation"]
    deciding = Engine(world.release(*others, policy("delegation", mine, "mine")))
    assert isinstance(deciding.decide(refund()), Allow)
    theirs = ResourceFacts(type="Order", id="A1", attributes={"tenant": "globex"})
    for resource in (theirs, ResourceFacts(type="Order", id="A1"), None):
        assert denied(deciding.decide(refund(resource=resource)))[0] == Question.FOR_THIS_USER


@pytest.mark.parametrize(
    "policies",
    [
        (forbid("guard", name="same"), forbid("data", name="same")),
        (policy("guard", "permit (principal, action, resource);", "open-gate"),),
        (policy("guard", "forbid (principal, action, resource);", "interlock:guard"),),
    ],
)
def test_a_release_that_could_open_the_gate_by_accident_does_not_start(policies: tuple[world.Policy, ...]) -> None:
    with pytest.raises(UnusableReleaseError):
        engine(*policies)


def test_a_policy_that_cedar_does_not_accept_denies_when_it_is_reached_and_is_found_when_warming() -> None:
    bad = world.Policy(
        id="bad", layer=world.Layer.GUARD, owner="x", effect="forbid", actions=None, cedar="", est='{"effect":"forbid"}'
    )
    deciding = engine(bad)
    assert denied(deciding.decide(search()))[1] == Code.EVALUATION_ERROR
    with pytest.raises(UnusableReleaseError):
        deciding.warm()


def test_the_same_facts_give_the_same_decision_and_different_users_never_share_one() -> None:
    deciding = engine(forbid("data", 'context.user.id == "eve"', "not-eve"))
    for _ in range(2):
        assert isinstance(deciding.decide(search()), Allow)
        assert denied(deciding.decide(search(user="eve")))[0] == Question.WHICH_DATA
        assert denied(deciding.decide(search(roles=())))[0] == Question.FOR_THIS_USER


CONDITIONS = [
    "true",
    "false",
    "context.session.tainted",
    'context.args.amount.greaterThan(decimal("50.0"))',
    "context.args has urgent && context.args.urgent",
    'context.user.roles.contains("Support")',
    "context.user has limit && context.user.limit < 50",
    'resource has tags && resource.tags.contains("vip")',
    'context.now < datetime("2026-01-05T13:00:00Z")',
    "context.session.nothing == 1",
    'context == {"a": 1}',
    'resource == Order::"A1"',
    'action in Action::"writes"',
]
SCOPES = [
    "principal, action, resource",
    'principal, action == Action::"payments.refund", resource',
    'principal, action in [Action::"writes", Action::"destructive"], resource',
    'principal == Agent::"bot", action in Action::"tool:payments", resource',
    'principal in Role::"Support", action, resource is Order',
    'principal == Agent::"other", action, resource',
]
EXTRAS = [
    {},
    {"approval": "refunds"},
    {"approval": "mail"},
    {"obligations": ("redact:email",)},
    {"obligations": ("rate:9/60s", "rate:100/60s")},
    {"obligations": ("rate:5/60s", "log")},
    {"obligations": ("columns:rows[]:a,b",)},
    {"obligations": ("columns:rows[]:b,c", "rows:rows[]:t=session.tenant")},
    {"obligations": ("read-only",)},
    {"obligations": ("nonsense",)},
]


@st.composite
def forbids(draw: st.DrawFn) -> tuple[world.Policy, ...]:
    drawn = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["identity", "delegation", "capability", "data", "guard"]),
                st.sampled_from(SCOPES),
                st.sampled_from(CONDITIONS),
                st.sampled_from(EXTRAS),
            ),
            max_size=5,
        )
    )
    return tuple(
        policy(layer, f"forbid ({scope}) when {{ {condition} }};", f"p{index}", **extra)
        for index, (layer, scope, condition, extra) in enumerate(drawn)
    )


def is_no_wider(narrow: object, wide: object) -> bool:
    """Whether the first decision permits nothing that the second does not."""
    if isinstance(narrow, Deny):
        return True
    if isinstance(wide, Deny):
        return False
    asked = {need.rule for need in wide.requirements} if isinstance(wide, RequireApproval) else set()
    asks = {need.rule for need in narrow.requirements} if isinstance(narrow, RequireApproval) else set()
    return asked <= asks and meet(narrow.obligations, wide.obligations) == narrow.obligations


@given(forbids(), st.booleans())
@settings(max_examples=75, deadline=None)
def test_removing_a_forbid_can_only_widen(policies: tuple[world.Policy, ...], tainted: bool) -> None:
    facts = refund(tainted=tainted)
    everything = engine(*policies).decide(facts)
    for left_out in range(len(policies)):
        fewer = engine(*policies[:left_out], *policies[left_out + 1 :]).decide(facts)
        assert is_no_wider(everything, fewer)


@given(forbids(), st.booleans())
@settings(max_examples=50, deadline=None)
def test_slices_and_projections_decide_as_the_whole_release_shown_everything_would(
    policies: tuple[world.Policy, ...], tainted: bool
) -> None:
    from tests.policy.reference import decide_plainly  # noqa: PLC0415 the slow twin is only needed here

    facts = refund(tainted=tainted)
    release = world.release(*world.permits(), *policies)
    decision = Engine(release).decide(facts)
    assert decide_plainly(release, facts) == ("deny" if isinstance(decision, Deny) else decision.__class__.__name__)


@pytest.mark.parametrize(
    ("origin", "verdict"),
    [
        (Origin.USER, Allow), (Origin.WEAK, Allow), (Origin.FIELD, RequireApproval), (Origin.UNTRUSTED, RequireApproval),
        (Origin.MODEL, RequireApproval),
    ],
)  # fmt: skip
def test_where_an_argument_came_from_is_a_fact_that_policy_reads(origin: Origin, verdict: type) -> None:
    doubtful = '["field", "selected", "asserted", "model", "untrusted"].contains(context.origins.targets)'
    asking = engine(forbid("guard", doubtful, approval="refunds"))
    provenance = {"order_id": Traced(origin=Origin.USER), "amount": Traced(origin=origin)}
    assert isinstance(asking.decide(refund(provenance=provenance)), verdict)


def test_what_was_not_traced_is_told_to_policy_as_untrusted() -> None:
    asking = engine(forbid("guard", 'context.origins.targets == "untrusted"', approval="refunds"))
    assert isinstance(asking.decide(refund()), RequireApproval)
    assert isinstance(asking.decide(refund(provenance={})), Allow)


def shown(made: Engine) -> tuple[str, ...]:
    return made.visible(
        agent="bot", user="ana", tenant="acme", environment="prod", task="refund-case", purpose="support",
        roles=("Support",), attributes={}, posture=Posture.NORMAL, tainted=False, confidentiality=0, now_us=1,
    )  # fmt: skip


def test_what_is_listed_is_told_from_the_forbids_that_hold_whatever_permits_hold_beside_them() -> None:
    # The engine names both as reasons, in no order that is ever the same: many names, so that each order comes by.
    for number in range(24):
        final = policy("guard", 'forbid (principal, action == Action::"payments.refund", resource);', f"no-{number}")
        assert shown(engine(final)) == ("docs.search",)
        asking = policy(
            "identity",
            'forbid (principal, action == Action::"payments.refund", resource);',
            f"ask-{number}",
            approval="refunds",
        )
        assert shown(engine(asking)) == ("docs.search", "payments.refund")
