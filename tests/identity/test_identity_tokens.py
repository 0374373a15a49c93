"""Tokens forged, swapped, stretched and flooded; and the exchange that binds an agent to a user."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey

from interlock.app.sources import SystemIds
from interlock.identity.dev_issuer import ISSUER, KEY, DevIssuer, Directory, DirectoryAgent, DirectoryUser, load_directory
from interlock.identity.errors import DirectoryError, ExchangeRefusedError, KeyFolderError, TokenCode, TokenRefusedError
from interlock.identity.exchange import (
    GRANT_TYPE,
    MAX_PROOF_LIFETIME_S,
    SESSION_TOKEN_LIFETIME_S,
    ExchangeRequest,
    People,
    SessionTokens,
    TokenExchange,
)
from interlock.identity.keys import KeyRing
from interlock.identity.refusals import MAX_KEPT_COUNTS, RefusalCounter
from interlock.identity.tokens import Verifier, sign
from interlock.release.load import from_files
from tests.support.shop import FILES

DIRECTORY = Directory(
    users={
        "ana": DirectoryUser(tenant="acme", roles=("Staff",), attributes={"teams": ("north",), "secret": "x"}),
        "gus": DirectoryUser(tenant="acme", roles=("Guest",)),
    },
    agents={"bot": DirectoryAgent(subjects={"test": "bot"}), "rogue": DirectoryAgent(subjects={"test": "rogue"})},
)
RELEASE = from_files(FILES)


class Clock:
    def __init__(self):
        self.now_s = 1_800_000_000.0

    def wall_us(self):
        return int(self.now_s * 1e6)

    def monotonic_s(self):
        return self.now_s


class Sessions:
    """Where sessions go in these tests; the real one is attacked in tests/gateway."""

    def __init__(self):
        self.kept = {}

    async def open(self, session, release_digest):
        self.kept[session.session_id] = session

    async def get(self, session_id):
        return self.kept.get(session_id)

    async def refresh(self, session):
        return session.session_id in self.kept


class Office:
    def __init__(self, folder, environment="test"):
        self.clock, self.ids, self.keys = Clock(), SystemIds(), KeyRing(folder / "keys")
        common = {"environment": environment, "clock": self.clock, "ids": self.ids}
        self.issuer = DevIssuer(directory=DIRECTORY, keys=self.keys, **common)
        audience = f"interlock:{environment}"
        keys = {ISSUER: self.keys.verifying(KEY)}
        self.proofs = Verifier(keys=keys, audience=audience, clock=self.clock, max_lifetime_s=MAX_PROOF_LIFETIME_S)
        self.tokens = SessionTokens(keys=self.keys, **common)
        self.sessions = Sessions()
        self.desk = TokenExchange(proofs=self.proofs, tokens=self.tokens, sessions=self.sessions, **common)

    async def exchange(self, user="ana", agent="bot", **more):
        fields = {
            "grant_type": GRANT_TYPE,
            "subject_token": self.issuer.user_token(user),
            "actor_token": self.issuer.agent_token(agent),
            "task": "selling",
        }
        return await self.desk.exchange(ExchangeRequest(**{**fields, **more}), RELEASE)

    def claims(self, **more):
        now = int(self.clock.now_s)
        claims = {
            "iss": ISSUER,
            "sub": "ana",
            "aud": "interlock:test",
            "iat": now,
            "exp": now + 60,
            "interlock_use": "user",
            "tenant": "acme",
            "roles": ["Staff"],
        }
        return {name: value for name, value in {**claims, **more}.items() if value is not None}

    def signed(self, **more):
        return sign(self.claims(**more), self.keys.signing(KEY))


@pytest.fixture
def office(tmp_path):
    return Office(tmp_path)


def refused(office, token, use="user"):
    with pytest.raises(TokenRefusedError) as caught:
        office.proofs.check(token, use=use)
    return caught.value.code


def b64(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def test_an_exchange_binds_user_agent_tenant_environment_and_task(office):
    answer = await office.exchange()
    session = office.tokens.verify(answer.access_token)
    lineage = session.lineage
    assert (lineage.user, lineage.agent, lineage.tenant, lineage.environment) == ("ana", "bot", "acme", "test")
    assert (session.task, session.roles) == ("selling", ("Staff",))
    assert dict(session.attributes) == {"teams": ("north",)}
    claims = json.loads(base64.urlsafe_b64decode(answer.access_token.split(".")[1] + "=="))
    assert (claims["sub"], claims["act"]) == ("ana", {"sub": "bot"})


async def test_a_refresh_keeps_the_session_and_belongs_to_the_same_lineage_and_task(office):
    first = await office.exchange()
    again = await office.exchange(session_id=first.session_id)
    assert again.session_id == first.session_id
    with pytest.raises(ExchangeRefusedError):
        await office.exchange(session_id="ses_none")
    other = msgspec.structs.replace(office.sessions.kept[first.session_id], task="other")
    office.sessions.kept[first.session_id] = other
    with pytest.raises(ExchangeRefusedError):
        await office.exchange(session_id=first.session_id)


@pytest.mark.parametrize(
    "more",
    [{"user": "gus"}, {"task": "nothing"}, {"agent": "rogue"}, {"grant_type": "password"}, {"actor_token": ""}, {"task": ""}],
)
async def test_what_the_user_may_not_grant_is_refused(office, more):
    with pytest.raises(ExchangeRefusedError):
        await office.exchange(**more)
    assert office.sessions.kept == {}


async def test_swapped_tokens_and_session_tokens_as_proofs_are_refused(office):
    user, agent = office.issuer.user_token("ana"), office.issuer.agent_token("bot")
    session = (await office.exchange()).access_token
    for subject, actor in ((agent, user), (user, user), (agent, agent), (session, agent), (user, session)):
        with pytest.raises(TokenRefusedError):
            await office.exchange(subject_token=subject, actor_token=actor)


async def test_only_a_persons_own_token_speaks_to_the_control_plane(office):
    people = People(office.proofs)
    assert people.verify(office.issuer.user_token("ana")).roles == ("Staff",)
    for token in (office.issuer.agent_token("bot"), (await office.exchange()).access_token, ""):
        with pytest.raises(TokenRefusedError):
            people.verify(token)


async def test_tokens_of_another_environment_are_refused(office, tmp_path):
    elsewhere = Office(tmp_path, environment="prod")
    assert refused(elsewhere, office.issuer.user_token("ana")) is TokenCode.AUDIENCE
    token = (await office.exchange()).access_token
    with pytest.raises(TokenRefusedError):
        elsewhere.tokens.verify(token)


async def test_an_expired_token_is_refused_even_when_it_was_seen_before(office):
    token = (await office.exchange()).access_token
    office.tokens.verify(token)
    office.clock.now_s += SESSION_TOKEN_LIFETIME_S + 1
    with pytest.raises(TokenRefusedError) as caught:
        office.tokens.verify(token)
    assert caught.value.code is TokenCode.EXPIRED


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"aud": "interlock:prod"}, TokenCode.AUDIENCE),
        ({"aud": ["interlock:test"]}, TokenCode.AUDIENCE),
        ({"aud": None}, TokenCode.AUDIENCE),
        ({"iss": "evil"}, TokenCode.ISSUER),
        ({"exp": 1}, TokenCode.EXPIRED),
        ({"exp": None}, TokenCode.CLAIMS),
        ({"iat": None}, TokenCode.CLAIMS),
        ({"iat": 1_900_000_000, "exp": 1_900_000_060}, TokenCode.NOT_YET),
        ({"nbf": 1_900_000_000}, TokenCode.NOT_YET),
        ({"exp": 1_900_000_000}, TokenCode.LIFETIME),
        ({"sub": None}, TokenCode.CLAIMS),
        ({"interlock_use": None}, TokenCode.CLAIMS),
        ({"interlock_use": "agent"}, TokenCode.WRONG_USE),
    ],
)
def test_each_claim_that_is_wrong_is_refused_for_what_it_is(office, more, code):
    assert refused(office, office.signed(**more)) is code


def test_forged_signatures_and_algorithms_are_refused(office):
    good = office.signed()
    head, body, signature = good.split(".")
    kid = str(office.keys.signing(KEY).kid)
    stranger = OKPKey.generate_key("Ed25519", auto_kid=True)
    public = office.keys.signing(KEY).as_dict(private=False)["x"]
    hmac_with_public = jwt.encode(
        {"alg": "HS256", "kid": kid}, office.claims(), OctKey.import_key(base64.urlsafe_b64decode(public + "=") * 2)
    )
    assert refused(office, f"{b64({'alg': 'none', 'kid': kid})}.{body}.") is TokenCode.ALGORITHM
    assert refused(office, hmac_with_public) is TokenCode.ALGORITHM
    assert refused(office, f"{head}.{b64(office.claims(sub='root'))}.{signature}") is TokenCode.SIGNATURE
    assert refused(office, f"{head}.{body}.") in {TokenCode.SIGNATURE, TokenCode.MALFORMED}
    assert refused(office, sign(office.claims(), stranger)) is TokenCode.UNKNOWN_KEY
    with_key = {"alg": "Ed25519", "kid": kid, "jwk": stranger.as_dict(private=False)}
    assert refused(office, f"{b64(with_key)}.{body}.{signature}") is TokenCode.MALFORMED
    assert refused(office, f"{b64({'alg': 'Ed25519', 'kid': kid, 'crit': ['x']})}.{body}.{signature}") is TokenCode.MALFORMED
    assert refused(office, "x" * 10_000) is TokenCode.MALFORMED
    assert refused(office, "") is TokenCode.MISSING


_FUZZED = {}


@given(st.text(max_size=200) | st.lists(st.binary(max_size=40), min_size=3, max_size=3))
def test_any_text_at_all_is_refused_and_nothing_else_happens(tmp_path_factory, garbage):
    if "office" not in _FUZZED:
        _FUZZED["office"] = Office(tmp_path_factory.mktemp("fuzz"))
    text = garbage if isinstance(garbage, str) else ".".join(base64.urlsafe_b64encode(part).decode() for part in garbage)
    with pytest.raises(TokenRefusedError):
        _FUZZED["office"].proofs.check(text, use="user")


def test_keys_are_private_files_outside_the_database_and_loose_ones_are_refused(tmp_path):
    ring = KeyRing(tmp_path / "keys")
    ring.signing("session")
    (file,) = (tmp_path / "keys").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    with pytest.raises(KeyFolderError, match="chmod"):
        KeyRing(tmp_path / "keys").signing("session")
    (tmp_path / "keys").chmod(0o755)
    with pytest.raises(KeyFolderError, match="chmod"):
        KeyRing(tmp_path / "keys")


def test_a_key_that_is_a_link_is_refused(tmp_path):
    KeyRing(tmp_path / "keys").signing("session")
    (file,) = (tmp_path / "keys").iterdir()
    file.rename(tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", file)
    with pytest.raises(KeyFolderError, match="link"):
        KeyRing(tmp_path / "keys").signing("session")


def test_several_starters_get_the_same_key(tmp_path):
    script = "import sys; from pathlib import Path; from interlock.identity.keys import KeyRing; "
    script += "print(KeyRing(Path(sys.argv[1])).signing('session').kid)"
    command = [sys.executable, "-c", script, str(tmp_path / "keys")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({process.communicate()[0] for process in started}) == 1


def test_after_a_rotation_older_tokens_still_verify(office):
    old = office.signed()
    office.keys.rotate(KEY)
    keys = {ISSUER: office.keys.verifying(KEY)}
    verifier = Verifier(keys=keys, audience="interlock:test", clock=office.clock, max_lifetime_s=100)
    assert verifier.check(old, use="user").subject == "ana"
    assert verifier.check(office.signed(), use="user").subject == "ana"


def test_a_flood_of_refused_tokens_becomes_a_few_rows():
    counter = RefusalCounter(Clock())
    for n in range(100_000):
        counter.add("signature", f"issuer-{n}\n<script>")
    counts = counter.take()
    assert len(counts) <= 21
    assert sum(count.count for count in counts) == 100_000
    assert all(len(count.hint) <= 64 and "<" not in count.hint for count in counts)
    assert counter.take() == ()


def test_a_directory_with_a_mistake_is_refused_with_its_place(tmp_path):
    file = Path(tmp_path / "directory.yaml")
    file.write_text("users:\n  ana: {tenant: acme, rolls: [Staff]}\n")
    with pytest.raises(DirectoryError, match="rolls"):
        load_directory(file)
    with pytest.raises(DirectoryError, match="cannot be read"):
        load_directory(tmp_path / "nothing.yaml")


def test_refusals_that_cannot_be_stored_for_a_long_time_take_no_more_memory_than_they_may():
    clock = Clock()
    counter = RefusalCounter(clock)
    for _ in range(2_000):
        counter.add("expired", "corp")
        counter.add("signature", "corp")
        counter.give_back(counter.take())
        clock.now_s += 60
    kept = counter.take()
    assert len(kept) <= MAX_KEPT_COUNTS + 2
    assert sum(refused.count for refused in kept) == 4_000
