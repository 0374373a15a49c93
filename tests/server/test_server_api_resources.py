"""Sessions, inputs, calls, decisions, traces and agents, as people and agents meet them over HTTP."""

import csv
import io
import json

import msgspec
import pytest

from interlock.ledger.reader import verify_database
from interlock.release.load import from_files
from interlock.server.api.traces import csv_lines
from interlock.store.sessions import Sessions
from interlock.store.traces import CallRow
from tests.support.office import GOVERNED


async def test_people_see_their_own_sessions_the_role_those_of_the_tenant_and_nobody_anothers(office):
    _, mine = await office.session("ana")
    _, other = await office.session("ben")
    _, foreign = await office.session("gil", tenant="globex")

    async def seen(token, query=""):
        answer = await office.get(f"/v1/sessions?{query}", token)
        return {item["session_id"] for item in answer.json()["sessions"]}

    assert await seen(office.person("ana", "Staff")) == {mine}
    assert await seen(office.person("ana", "Staff"), "user=ben") == set()
    assert await seen(office.person("aud", "Auditor")) == {mine, other, foreign}
    assert await seen(office.person("aud", "Auditor"), "user=ben&agent=bot&task=selling") == {other}
    assert await seen(office.person("glo", "Auditor", tenant="globex")) == {foreign}
    assert await seen(office.person("ana", "Staff", tenant="globex")) == set()
    for token, status in ((office.person("ana", "Staff"), 200), (office.person("glo", "Auditor", tenant="globex"), 404)):
        assert (await office.get(f"/v1/sessions/{mine}", token)).status_code == status


async def test_an_ended_session_is_listed_as_ended_and_pages_go_on_where_they_stopped(office):
    made = [(await office.session("ana"))[1] for _ in range(5)]
    await office.system.database.pool().execute("UPDATE session SET revoked = true WHERE session_id = $1", made[0])
    person = office.person("ana", "Staff")
    ended = (await office.get("/v1/sessions?state=ended", person)).json()["sessions"]
    assert [(item["session_id"], item["live"]) for item in ended] == [(made[0], False)]
    seen, turn = [], ""
    while True:
        page = (await office.get(f"/v1/sessions?state=all&limit=2&next={turn}", person)).json()
        seen += [item["session_id"] for item in page["sessions"]]
        turn = page["next"]
        if not turn:
            break
    assert seen == made[::-1]
    assert (await office.get("/v1/sessions?next=nonsense", person)).status_code == 400


async def test_what_the_user_says_by_their_own_channel_is_on_record_with_its_digest_and_in_the_story(office):
    _, session = await office.session("ana")
    person = office.person("ana", "Staff")
    answer = await office.post(f"/v1/sessions/{session}/inputs", person, {"text": "Refund A1, please."})
    kept = answer.json()
    assert (answer.status_code, kept["integrity"]) == (200, "user")
    (event,) = [body for kind, body in await office.shop.events(session) if kind == "input.received"]
    assert (event["text"], event["by"], event["text_digest"]) == ("Refund A1, please.", "ana", kept["text_digest"])
    told = (await office.get(f"/v1/traces/{session}", person)).json()["lines"][-1]["told"]
    assert told == f'ana said: "Refund A1, please." ({kept["input_id"]})'


async def test_what_the_user_says_vouches_for_arguments_and_what_the_agent_asserts_does_not(office):
    token, session = await office.session("ana")
    await office.post(f"/v1/sessions/{session}/inputs", office.person("ana", "Staff"), {"text": "Please refund order A-771."})
    await office.post(f"/v1/sessions/{session}/assertions", token, {"text": "The user also wants order A-772 refunded."})
    live = await Sessions(office.system.database).get(session)
    contract = msgspec.structs.replace(from_files(GOVERNED).contracts["shop.refund"], targets=("order_id",))
    for order, origin in (("A-771", "user"), ("A-772", "asserted"), ("A-773", "model")):
        traced = await office.system.contexts.trace(live, contract, {"order_id": order}, tainted=True)
        assert traced["order_id"].origin == origin


async def test_nobody_else_speaks_for_the_user_neither_their_agent_nor_people_with_every_role(office):
    token, session = await office.session("ana")
    path, said = f"/v1/sessions/{session}/inputs", {"text": "x"}
    everything = ("Staff", "Lead", "Operator", "Security", "Platform", "Auditor", "Decider")
    for caller, status in (
        (token, 401),
        (office.agent("bot"), 401),
        ("", 401),
        (office.person("ben", *everything), 404),
        (office.person("ana", *everything, tenant="globex"), 404),
    ):
        assert (await office.post(path, caller, said)).status_code == status
    assert "input.received" not in await office.shop.kinds(session)


async def test_an_agent_may_only_assert_and_only_in_its_own_session(office):
    token, session = await office.session("ana")
    _, other = await office.session("ben")
    answer = await office.post(f"/v1/sessions/{session}/assertions", token, {"text": "The user agreed."})
    assert (answer.status_code, answer.json()["integrity"]) == (200, "asserted")
    assert (await office.post(f"/v1/sessions/{other}/assertions", token, {"text": "x"})).status_code == 404
    assert (await office.post(f"/v1/sessions/{session}/assertions", office.person("ana"), {"text": "x"})).status_code == 401
    kinds = await office.shop.kinds(session)
    assert (kinds.count("input.asserted"), kinds.count("input.received")) == (1, 0)
    lines = (await office.get(f"/v1/traces/{session}", office.person("ana"))).json()["lines"]
    assert "not verified" in lines[-1]["told"]


async def test_an_input_has_a_size_and_is_not_taken_when_the_session_is_over(office):
    token, session = await office.session("ana")
    person, path = office.person("ana", "Staff"), f"/v1/sessions/{session}/inputs"
    for text in ("", "  ", "ü" * 16_385):
        assert (await office.post(path, person, {"text": text})).status_code == 400
    await office.system.database.pool().execute("UPDATE session SET revoked = true")
    assert (await office.post(path, person, {"text": "late"})).status_code == 409
    assert (await office.post(f"/v1/sessions/{session}/assertions", token, {"text": "late"})).status_code == 409
    assert not [kind for kind in await office.shop.kinds(session) if kind.startswith("input")]


async def test_a_call_by_http_passes_the_gate_and_tells_the_same_as_mcp(office):
    token, _ = await office.session("ana")
    good = await office.call(token, "stock", item="tea")
    assert (good.status_code, good.json()["structured"]) == (200, {"item": "tea", "left": 3})
    assert (await office.call(token, "person", person_id=1)).json()["structured"] == {"name": "Jane"}
    waits = await office.call(token, "refund", order_id="A1", amount="80.00")
    assert (waits.status_code, waits.headers["content-type"]) == (202, "application/json")
    assert waits.json()["interlock/decision"]["outcome"] == "needs_approval"
    for status, code, answer in (
        (403, "user_not_permitted", await office.call(token, "order", order_id="B1")),
        (422, "unknown_operation", await office.call(token, "lookup", order_id="A1")),
        (422, "invalid_arguments", await office.call(token, "stock", item=7)),
    ):
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert (answer.json()["interlock/decision"]["code"], answer.json()["status"]) == (code, status)
    assert office.shop.shop.count("order") == 0


async def test_the_gate_gets_the_argument_bytes_that_came(office):
    token, _ = await office.session("ana")
    twice = b'{"operation": "shop.stock", "arguments": {"item": "a", "item": "b"}}'
    assert (await office.post("/v1/calls", token, twice)).status_code == 400
    raw = b'{"operation": "shop.pay", "arguments": {"order_id": "A1", "amount": "1.50"}}'
    answer = await office.post("/v1/calls", token, raw)
    assert answer.status_code == 200, answer.text
    assert office.shop.shop.calls[-1] == ("pay", {"order_id": "A1", "amount": "1.50"})


async def test_the_header_is_the_calls_own_idempotency_key(office):
    token, _ = await office.session("ana")
    body = {"operation": "shop.note", "arguments": {"text": "a"}}
    first = await office.post("/v1/calls", token, body, idempotency_key="k1")
    again = await office.post("/v1/calls", token, body, idempotency_key="k1")
    assert first.json()["structured"] == again.json()["structured"]
    assert "interlock/replayed" in again.json()["meta"]
    other = await office.post("/v1/calls", token, {**body, "arguments": {"text": "b"}}, idempotency_key="k1")
    assert (other.status_code, other.json()["interlock/decision"]["code"]) == (422, "idempotency_key_reused")
    assert office.shop.shop.count("note") == 1


async def test_only_a_session_token_calls(office):
    for token in ("", office.person("ana", "Staff"), office.agent("bot")):
        assert (await office.call(token, "stock", item="tea")).status_code == 401
    assert office.shop.shop.calls == []


async def test_where_a_call_stands_is_told_to_its_agent_its_user_and_the_role_and_to_nobody_else(office):
    token, _ = await office.session("ana")
    others, _ = await office.session("ben")
    done = (await office.call(token, "stock", item="tea")).json()["call_id"]
    waits = (await office.call(token, "refund", order_id="A1", amount="80.00")).json()["interlock/decision"]["id"]
    for caller in (token, office.person("ana"), office.person("aud", "Auditor")):
        stands = (await office.get(f"/v1/calls/{done}", caller)).json()
        assert (stands["operation"], stands["outcome"], stands["decision"]) == ("shop.stock", "succeeded", "allow")
        assert (await office.get(f"/v1/calls/{waits}", caller)).json()["outcome"] == "needs_approval"
    for caller in (others, office.person("ben"), office.person("glo", "Auditor", tenant="globex")):
        assert (await office.get(f"/v1/calls/{done}", caller)).status_code == 404


async def test_a_dry_decision_says_which_policies_said_what_and_does_nothing(office):
    asked = {
        "operation": "shop.refund",
        "arguments": {"order_id": "A1", "amount": "80.00"},
        "agent": "bot",
        "user": "ana",
        "roles": ["Staff"],
        "attributes": {"teams": ["north"]},
        "resource": {"team": "north"},
    }
    person = office.person("dee", "Decider")
    answer = (await office.post("/v1/decisions", person, asked)).json()
    assert (answer["outcome"], answer["code"], answer["approvals"]) == ("require_approval", "needs_approval", ["refunds"])
    said = {voice["id"]: voice["said"] for layer in answer["layers"] for voice in layer["policies"]}
    assert "ask" in said.values()
    assert "permit" in said.values()
    less = (await office.post("/v1/decisions", person, {**asked, "arguments": {"order_id": "A1", "amount": "20.00"}})).json()
    assert (less["outcome"], less["obligations"]["rates"]) == ("allow", [])
    unknown = (await office.post("/v1/decisions", person, {**asked, "resource": None})).json()
    assert (unknown["outcome"], unknown["code"]) == ("deny", "user_not_permitted")
    redacted = {**asked, "operation": "shop.person", "arguments": {"person_id": 1}, "resource": None}
    assert (await office.post("/v1/decisions", person, redacted)).json()["obligations"]["redact"] == ["email"]
    assert office.shop.shop.calls == []
    assert await office.system.database.pool().fetchval("SELECT count(*) FROM claim") == 0
    assert await office.system.database.pool().fetchval("SELECT count(*) FROM approval") == 0
    kinds = await office.shop.events("decisions:acme")
    assert [(kind, body["asked_by"], body["via"]) for kind, body in kinds] == [("decision.asked", "dee", "api")] * 4
    assert kinds[0][1]["facts"]["user"] == "ana"


async def test_what_cannot_be_made_into_facts_is_a_deny_on_record(office):
    person = office.person("dee", "Decider")
    base = {"operation": "shop.stock", "arguments": {"item": "a"}, "agent": "bot", "roles": ["Staff"]}
    for change, code in (
        ({"operation": "shop.nothing"}, "unknown_operation"),
        ({"operation": "shop.lookup"}, "unknown_operation"),
        ({"arguments": {"item": 7}}, "invalid_arguments"),
        ({"arguments": {"item": "a", "more": 1}}, "invalid_arguments"),
        ({"agent": "nobody"}, "agent_not_permitted"),
        ({"roles": None}, "user_not_permitted"),
        ({"task": "stealing"}, "user_not_permitted"),
    ):
        answer = (await office.post("/v1/decisions", person, {**base, **change})).json()
        assert (answer["outcome"], answer["code"]) == ("deny", code), change
    assert len(await office.shop.events("decisions:acme")) == 7
    assert (await office.post("/v1/decisions", person, base)).json()["outcome"] == "allow"


async def test_people_without_the_role_or_of_another_tenant_are_not_told_what_would_be_decided(office):
    asked = {"operation": "shop.stock", "arguments": {"item": "a"}, "agent": "bot", "roles": ["Staff"], "tenant": "acme"}
    for person in (office.person("ana", "Staff"), office.person("glo", "Decider", tenant="globex")):
        assert (await office.post("/v1/decisions", person, asked)).status_code == 403
    own = await office.post("/v1/decisions", office.person("glo", "Decider", tenant="globex"), {**asked, "tenant": ""})
    assert own.status_code == 200
    assert await office.shop.events("decisions:acme") == []


async def test_a_session_asks_about_its_own_calls_and_learns_no_more_than_the_gate_would_tell(office):
    token, session = await office.session("ana")
    answer = (await office.post("/v1/decisions", token, {"operation": "shop.stock", "arguments": {"item": "a"}})).json()
    assert (answer["outcome"], answer["decision"], answer["layers"]) == ("allow", None, [])
    foreign = {"operation": "shop.order", "arguments": {"order_id": "B1"}, "resource": {"team": "south"}}
    denied = (await office.post("/v1/decisions", token, foreign)).json()
    assert (denied["code"], denied["say"], denied["decision"]) == ("user_not_permitted", "", None)
    assert (await office.post("/v1/decisions", token, {**foreign, "roles": ["Lead"]})).status_code == 400
    assert (await office.post("/v1/decisions", token, {**foreign, "user": "ben"})).status_code == 400
    assert (await office.shop.kinds(session)).count("decision.asked") == 2
    assert office.shop.shop.calls == []
    await office.system.database.pool().execute("UPDATE session SET revoked = true")
    assert (await office.post("/v1/decisions", token, foreign)).status_code == 409


async def made_calls(office):
    token, _ = await office.session("ana")
    other, _ = await office.session("ben")
    foreign, _ = await office.session("gil", tenant="globex")
    answers = [
        await office.call(token, "stock", item="tea"),
        await office.call(token, "order", order_id="B1"),
        await office.call(other, "note", text="hello"),
        await office.call(foreign, "stock", item="tea"),
    ]
    return [answer.json().get("call_id") or answer.json()["interlock/decision"]["id"] for answer in answers]


async def test_calls_are_found_by_agent_user_operation_time_decision_and_outcome(office):
    one, two, three, four = await made_calls(office)
    person = office.person("aud", "Auditor")

    async def found(query):
        return [call["call_id"] for call in (await office.get(f"/v1/traces?{query}", person)).json()["calls"]]

    assert await found("") == [four, three, two, one]
    assert await found("user=ana") == [two, one]
    assert await found("agent=idle") == []
    assert await found("operation=shop.stock") == [four, one]
    assert await found("decision=deny") == [two]
    assert await found("outcome=denied&user=ana") == [two]
    assert await found("outcome=succeeded&operation=shop.note") == [three]
    assert await found("until=2020-01-01") == []
    assert await found("since=2020-01-01T00:00:00Z") == [four, three, two, one]
    pages = (await office.get("/v1/traces?limit=3", person)).json()
    assert await found(f"limit=3&next={pages['next']}") == [one]
    for wrong in ("decision=maybe", "since=yesterday", "next=zzz", "limit=0"):
        assert (await office.get(f"/v1/traces?{wrong}", person)).status_code == 400


async def test_a_user_sees_their_own_calls_a_tenant_its_own_and_reading_others_is_itself_on_record(office):
    one, two, three, four = await made_calls(office)

    async def found(token, query=""):
        return [call["call_id"] for call in (await office.get(f"/v1/traces?{query}", token)).json()["calls"]]

    assert await found(office.person("ana", "Staff")) == [two, one]
    assert await found(office.person("ana", "Staff"), "user=ben") == []
    assert await office.shop.events("reads:acme") == []
    assert await found(office.person("glo", "Auditor", tenant="globex")) == [four]
    assert await found(office.person("aud", "Auditor"), "user=ben") == [three]
    ((kind, read),) = await office.shop.events("reads:acme")
    assert (kind, read["by"], read["what"], json.loads(read["target"])) == ("record.read", "aud", "list", {"user": "ben"})
    assert len(await office.shop.events("reads:globex")) == 1


async def test_one_call_is_told_as_events_and_story_to_whom_it_concerns(office):
    one, two, *_ = await made_calls(office)
    story = (await office.get(f"/v1/traces/{two}", office.person("aud", "Auditor"))).json()
    assert story["lines"][0]["kind"] == "call.proposed"
    assert "denied at question 3" in " ".join(line["told"] for line in story["lines"])
    assert "shop.order" in [line["body"].get("operation") for line in story["lines"]]
    own = (await office.get(f"/v1/traces/{one}", office.person("ana"))).json()
    assert all(line["body"] is None for line in own["lines"])
    for nosy in (office.person("ben", "Staff"), office.person("glo", "Auditor", tenant="globex")):
        assert (await office.get(f"/v1/traces/{one}", nosy)).status_code == 404
    assert (await office.get("/v1/traces/call_unknown", office.person("aud", "Auditor"))).status_code == 404
    assert [body["target"] for _, body in await office.shop.events("reads:acme")] == [two]


async def test_the_control_planes_own_chains_are_for_the_audit_role(office):
    await made_calls(office)
    await office.get("/v1/traces", office.person("aud", "Auditor"))
    for chain in ("control", "reads:acme"):
        shown = await office.get(f"/v1/traces/{chain}", office.person("aud", "Auditor"))
        assert shown.status_code == 200
        assert shown.json()["lines"][0]["body"]
        for nosy in (office.person("oki", "Operator"), office.person("glo", "Auditor", tenant="globex")):
            assert (await office.get(f"/v1/traces/{chain}", nosy)).status_code == 403
    assert (await office.get("/v1/traces/reads:globex", office.person("glo", "Auditor", tenant="globex"))).status_code in {
        403,
        404,
    }


async def test_the_audit_team_takes_everything_of_its_tenant_away_as_json_lines_and_csv(office):
    calls = await made_calls(office)
    person = office.person("aud", "Auditor")
    lines = await office.get("/v1/traces/export", person)
    assert lines.headers["content-type"] == "application/jsonl"
    rows = [msgspec.json.decode(line, type=CallRow) for line in lines.content.splitlines()]
    assert [row.call_id for row in rows] == calls[::-1]
    table = await office.get("/v1/traces/export?format=csv&operation=shop.stock", person)
    assert table.headers["content-type"].startswith("text/csv")
    parsed = list(csv.DictReader(io.StringIO(table.text)))
    assert [(row["call_id"], row["user"]) for row in parsed] == [(calls[3], "gil"), (calls[0], "ana")]
    assert parsed[0]["at"].startswith("20")
    foreign = await office.get("/v1/traces/export", office.person("glo", "Auditor", tenant="globex"))
    assert [json.loads(line)["call_id"] for line in foreign.text.splitlines()] == [calls[3]]
    for nosy in (office.person("ana", "Staff"), office.person("oki", "Operator"), office.person("dee", "Decider")):
        assert (await office.get("/v1/traces/export", nosy)).status_code == 403
    reads = [body["what"] for _, body in await office.shop.events("reads:acme")]
    assert reads == ["export", "export"]


async def test_an_export_of_many_pages_is_whole(office, monkeypatch):
    monkeypatch.setattr("interlock.app.traces.EXPORT_PAGE_CALLS", 2)
    token, _ = await office.session("ana")
    made = [(await office.call(token, "stock", item=f"i{number}")).json()["call_id"] for number in range(5)]
    lines = (await office.get("/v1/traces/export", office.person("aud", "Auditor"))).text.splitlines()
    assert [json.loads(line)["call_id"] for line in lines] == made[::-1]


@pytest.mark.parametrize("name", ["=1+1", "+cmd", "-2", "@SUM(A1)", "\t=1", "\r=1", "＝1", 'x","=1'])
async def test_no_cell_of_an_export_is_a_formula(name):
    async def calls():
        known = {field: name for field in CallRow.__struct_fields__ if field != "at_us"}
        yield CallRow(**known, at_us=1)

    text = b"".join([line async for line in csv_lines(calls())]).decode()
    (row,) = list(csv.DictReader(io.StringIO(text, newline="")))
    for field, cell in row.items():
        if field not in {"at", "at_us"}:
            assert cell in {name, f"'{name}"}
            assert cell[0] not in "=+-@\t\r＝"


async def test_agents_are_shown_with_identities_grants_and_use_to_people_with_the_role(office):
    await office.session("ana")
    agents = (await office.get("/v1/agents", office.person("oki", "Operator"))).json()["agents"]
    bot = next(agent for agent in agents if agent["agent"] == "bot")
    assert bot["identities"] == [{"environment": "test", "issuer": "interlock-dev", "subject": "bot"}]
    granted = {grant["operation"]: grant for grant in bot["grants"]}
    assert granted["shop.pay"]["effects"] == ["write"]
    assert granted["shop.refund"]["asks"] == ["refunds"]
    assert (bot["live_sessions"], bot["tasks"]) == (1, ["selling"])
    idle = (await office.get("/v1/agents/idle", office.person("oki", "Operator"))).json()
    assert (idle["grants"], idle["live_sessions"]) == ([], 0)
    foreign = (await office.get("/v1/agents/bot", office.person("glo", "Operator", tenant="globex"))).json()
    assert foreign["live_sessions"] == 0
    assert (await office.get("/v1/agents", office.person("ana", "Staff"))).status_code == 403
    assert (await office.get("/v1/agents/nobody", office.person("oki", "Operator"))).status_code == 404


async def test_the_ledger_is_intact_with_chains_of_reads_and_decisions_and_a_tenant_of_any_name(office, database_urls):
    await made_calls(office)
    odd = "ac me\n1\ncontrol"
    asked = {"operation": "shop.stock", "arguments": {"item": "a"}, "agent": "bot", "roles": ["Staff"]}
    assert (await office.post("/v1/decisions", office.person("x", "Decider", tenant=odd), asked)).status_code == 200
    await office.get("/v1/traces", office.person("aud", "Auditor"))
    await office.system.sign_heads()
    report = await verify_database(database_urls.auditor, office.system.keys.public_bytes("heads"), None)
    assert report.intact, report.findings
