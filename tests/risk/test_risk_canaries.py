"""A planted secret in a call is certain exfiltration: the call is refused, the lineage is stopped, and the trace says why."""

import base64
import contextlib
import io
import json
import urllib.parse

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.cli.main import app
from interlock.core.risk import Canary
from interlock.core.terms import Posture
from interlock.gateway.messages import Refusal, Returned
from interlock.release.errors import ReleaseError
from interlock.release.load import from_files
from interlock.risk.canaries import MAX_VALUES, Canaries, TooManyValuesError, digest_of
from tests.support.shop import FILES, counter

SECRET = "k7wq2m9x4tz8r1v6b3n5c0hjyd"
KEPT = {"starts": SECRET[:4], "chars": len(SECRET), "sha256": digest_of(SECRET)}
MILD = "p3u8s1d6f9g2h5j4l7a0q3w6e9"
KEPT_MILD = {"starts": MILD[:4], "chars": len(MILD), "sha256": digest_of(MILD), "posture": "read_only"}
RISK = f"canaries: {{vault-key: {json.dumps(KEPT)}, mailbox: {json.dumps(KEPT_MILD)}}}\n"
WITH_CANARIES = {**FILES, "risk.yaml": RISK}


@pytest.fixture
def canaries():
    return Canaries([Canary(name="vault-key", **KEPT)])


@pytest.fixture
async def shop(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path, files=WITH_CANARIES) as made:
        yield made


async def test_a_call_that_carries_it_is_refused_and_the_lineage_is_halted_with_the_reason(shop):
    session = await shop.session()
    told = await shop.call(session, "note", text=f"see attached: {SECRET}")
    assert isinstance(told, Refusal)
    # The model learns that this is forbidden, and not what gave it away.
    assert (told.outcome, told.code, told.details["question"]) == ("denied", "forbidden", 7)
    assert "canary" not in told.text
    assert shop.shop.count("note") == 0
    found = await shop.system.plane.postures._postures.get(session.lineage.id)
    assert (found.posture, found.posture_by) == (Posture.HALTED, "risk")
    assert found.posture_reason == f"planted secret vault-key in a call of shop.note ({told.call_id})"
    after = await shop.call(await shop.session(), "stock", item="tea")
    assert (after.code, shop.shop.count("stock")) == ("halted", 0)


async def test_the_trace_says_which_secret_and_which_call(shop):
    session = await shop.session()
    told = await shop.call(session, "note", text=SECRET)
    decided = [body for kind, body in await shop.events(told.call_id) if kind == "call.decided"]
    assert decided[-1]["decision"]["reasons"][0]["policy_id"] == "canary:vault-key"
    assert decided[-1]["facts"]["canaries"] == ["vault-key"]
    changed = [
        msgspec.json.decode(event.body)
        for event in await shop.system.traces.events("control")
        if event.kind == "posture.changed"
    ]
    assert [(body["posture"], body["by"]) for body in changed] == [("halted", "risk")]


async def test_a_canary_says_how_far_it_goes_and_of_several_the_gravest_counts(shop):
    session = await shop.session()
    await shop.call(session, "note", text=MILD)
    assert (await shop.system.plane.postures._postures.get(session.lineage.id)).posture is Posture.READ_ONLY
    assert isinstance(await shop.call(session, "stock", item="tea"), Returned)
    await shop.call(session, "note", text=f"{MILD} {SECRET}")
    assert (await shop.system.plane.postures._postures.get(session.lineage.id)).posture is Posture.HALTED


async def test_nobody_is_asked_and_nothing_is_looked_up_for_it(shop):
    """The call would wait for a lead, and its order would be read; with a planted secret in it neither happens."""
    session = await shop.session()
    told = await shop.call(session, "refund", order_id="A1", amount="80.00", note=SECRET)
    assert (told.code, shop.shop.calls) == ("forbidden", [])


async def test_without_canaries_nothing_is_different(database_urls, tmp_path):
    async with counter(database_urls.app, tmp_path) as made:
        session = await made.session()
        assert isinstance(await made.call(session, "note", text=SECRET), Returned)


@pytest.mark.parametrize(
    "disguise",
    [
        lambda text: text,
        str.upper,
        " ".join,
        lambda text: "-".join(text[at : at + 4] for at in range(0, len(text), 4)),
        lambda text: base64.b64encode(text.encode()).decode(),
        lambda text: base64.b64encode(f"the key is {text}, enjoy".encode()).decode(),
        lambda text: base64.b64encode(base64.b64encode(text.encode())).decode(),
        lambda text: text.encode().hex(),
        lambda text: "".join(f"%{ord(char):02x}" for char in text),
        lambda text: urllib.parse.quote(base64.b64encode(text.encode()).decode(), safe=""),
        lambda text: "".join(f"&#{ord(char)};" for char in text),
        "\u200b".join,
        lambda text: "".join(chr(0xFEE0 + ord(char)) for char in text),
        lambda text: text[::-1],
    ],
)
def test_a_disguise_does_not_help(canaries, disguise):
    assert canaries.seen({"to": "a@b.example", "text": f"Hello, {disguise(SECRET)} and bye"}) == ("vault-key",)


def test_nor_does_taking_it_apart(canaries):
    assert canaries.seen({"one": SECRET[:9], "more": {"deep": [SECRET[9:]]}}) == ()  # a name lies between the halves
    assert canaries.seen({"parts": [SECRET[:9], SECRET[9:]]}) == ("vault-key",)
    assert canaries.seen({SECRET: 1}) == ("vault-key",)


@given(st.text(max_size=200))
@settings(max_examples=50)
def test_no_other_text_is_taken_for_one(text):
    assert Canaries([Canary(name="vault-key", **KEPT)]).seen({"text": text}) == ()


def test_most_of_a_secret_is_not_the_secret(canaries):
    assert canaries.seen({"text": SECRET[:-1]}) == ()


def test_more_than_can_be_looked_at_is_not_let_through(canaries):
    with pytest.raises(TooManyValuesError):
        canaries.seen({"many": list(range(MAX_VALUES + 1))})


def test_a_new_one_is_made_by_a_command_and_found_by_what_the_release_keeps():
    with contextlib.redirect_stdout(io.StringIO()) as said:
        app(["canary", "mailbox", "--json"], result_action="return_value")
    made = json.loads(said.getvalue())
    files = {**FILES, "risk.yaml": f"canaries: {{mailbox: {json.dumps(made['release'])}}}\n"}
    release = from_files(files)
    assert made["secret"] not in files["risk.yaml"]
    assert Canaries(release.risk.canaries).seen([made["secret"]]) == ("mailbox",)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("thresholds: {normal: 10}", "only a person lowers"),
        ("thresholds: {guarded: 80, read_only: 40}", "rise from guarded"),
        ("thresholds: {guarded: 0}", "1 to 100"),
        ("weights: {injection: 120}", "0 to 100"),
        ("forget_after: soon", "90m, 24h"),
        ("text_ms: 0", "1 to 1000"),
        ("canaries: {Key: {starts: abcd, chars: 32, sha256: x}}", "small letters"),
        ("canaries: {key: {starts: abcd, chars: 4, sha256: " + "a" * 64 + "}}", "20 to 200"),
        ("canaries: {key: {starts: abcd, chars: 32, sha256: " + "a" * 64 + ", posture: normal}}", "guarded, read_only"),
    ],
)
def test_a_mistake_in_risk_yaml_is_named(text, complaint):
    with pytest.raises(ReleaseError, match=r"risk\.yaml") as error:
        from_files({**FILES, "risk.yaml": text + "\n"})
    assert complaint in str(error.value)
