"""Tokens of a real issuer, on a real network: forged, confused, stretched; and its keys, as they change under us."""

import asyncio
import base64
import json

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwt
from joserfc.jwk import OctKey

from interlock.identity import fetch
from interlock.identity.errors import TokenCode, TokenRefusedError
from interlock.identity.fetch import Source, fetch_json
from interlock.identity.jwks import ASK_AGAIN_S, FRESH_S, KEEP_S, MAX_KEYS, fits, usable
from interlock.identity.outside import MAX_TOKEN_CHARS, Outside
from interlock.release.issuers import Issuer, PeopleRule, TenantRule
from tests.support.clock import LaterClock
from tests.support.issuer import keyed, local_issuer, secret_of

HERE, THERE = "https://interlock.example/mcp", "https://staging.interlock.example/mcp"


class Desk:
    """One process's trust in one issuer."""

    def __init__(self, issuer, environment="prod", **more):
        self.issuer, self.clock = issuer, LaterClock()
        self.trusted = self.trusts(issuer.url, **more)
        self.outside = Outside(environment=environment, clock=self.clock)

    def trusts(self, url, name="corp", **more):
        made = {
            "name": name,
            "kind": "oidc",
            "issuer": url,
            "environments": {"prod": (HERE,), "staging": (THERE,)},
            "max_lifetime_s": 3_600,
            "people": PeopleRule(tenant=TenantRule(fixed="acme")),
        }
        return {name: Issuer(**{**made, **more})}

    def token(self, **more):
        return self.issuer.token(**{"sub": "ana", "aud": HERE, "client_id": "app", **more})

    async def check(self, token=None, **more):
        return await self.outside.check(self.token(**more) if token is None else token, self.trusted)

    async def refused(self, token=None, **more):
        with pytest.raises(TokenRefusedError) as caught:
            await self.check(token, **more)
        return caught.value.code

    def later(self, seconds):
        self.clock.later_s += seconds


@pytest.fixture
async def desk():
    async with local_issuer() as issuer:
        yield Desk(issuer)


def b64(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def test_a_token_is_believed_by_the_keys_its_issuer_publishes(desk):
    vouched = await desk.check()
    assert (vouched.issuer.name, vouched.claims["sub"]) == ("corp", "ana")
    assert desk.issuer.asked == {"discovery": 1, "jwks": 1}
    for _ in range(50):
        await desk.check()
    assert desk.issuer.asked == {"discovery": 1, "jwks": 1}


@pytest.mark.parametrize("kind", ["RS256", "PS256", "ES256", "Ed25519"])
async def test_every_allowed_algorithm_works_with_a_key_made_for_it(desk, kind):
    desk.issuer.rotate(kind, f"key-{kind}")
    assert (await desk.check()).claims["sub"] == "ana"


async def test_forged_and_confused_algorithms_are_refused(desk):
    await desk.check()
    head, body, signature = desk.token().split(".")
    claims = desk.issuer.claims(sub="ana", aud=HERE)
    published = desk.issuer.published[0]
    for algorithm, key in (("HS256", secret_of(published)), ("HS256", OctKey.import_key(json.dumps(published).encode()))):
        forged = jwt.encode({"alg": algorithm, "kid": "k1", "typ": "at+jwt"}, claims, key, algorithms=["HS256"])
        assert await desk.refused(forged) is TokenCode.ALGORITHM
    for none in ("none", "None", "NONE", ""):
        assert await desk.refused(f"{b64({'alg': none, 'kid': 'k1', 'typ': 'at+jwt'})}.{body}.") is TokenCode.ALGORITHM
    assert await desk.refused(f"{head}.{b64({**claims, 'sub': 'root'})}.{signature}") is TokenCode.SIGNATURE
    assert await desk.refused(f"{head}.{body}.") in {TokenCode.SIGNATURE, TokenCode.MALFORMED}
    # The right key, and an algorithm that it was not published for.
    desk.issuer.rotate("RS256", "rsa")
    desk.later(ASK_AGAIN_S + 1)
    key = desk.issuer.keys["rsa"]
    assert await desk.refused(desk.token(header={"alg": "PS256"}, key=key)) is TokenCode.ALGORITHM
    assert await desk.refused(desk.token(header={"alg": "RS512"}, key=key)) is TokenCode.ALGORITHM


async def test_keys_that_travel_with_the_token_and_tricks_with_key_ids_are_refused(desk):
    await desk.check()
    stranger = keyed("ES256", "k1")
    _, body, signature = desk.token().split(".")
    plain = {"alg": "ES256", "kid": "k1", "typ": "at+jwt"}
    for more in (
        {"jwk": stranger.as_dict(private=False)},
        {"jku": "https://evil.example"},
        {"x5c": ["x"]},
        {"crit": ["b64"], "b64": False},
    ):
        assert await desk.refused(f"{b64({**plain, **more})}.{body}.{signature}") is TokenCode.MALFORMED
    assert await desk.refused(desk.token(key=stranger)) is TokenCode.SIGNATURE
    for kid in ("../../etc/passwd", "k1' OR 1=1", "K1", "k1\u0000", 1, ["k1"], "", None):
        assert await desk.refused(f"{b64({**plain, 'kid': kid})}.{body}.{signature}") in {
            TokenCode.UNKNOWN_KEY,
            TokenCode.MALFORMED,
        }


async def test_a_key_of_one_issuer_does_not_sign_for_another(desk):
    async with local_issuer() as other:
        desk.trusted |= desk.trusts(other.url, name="other")
        mine = desk.token()
        assert (await desk.check(mine)).issuer.name == "corp"
        # The other issuer's key under the same id, and our issuer's name in the claims.
        assert await desk.refused(other.token(iss=desk.issuer.url, sub="ana", aud=HERE)) is TokenCode.SIGNATURE
        other.rotate("ES256", "k9")
        assert await desk.refused(other.token(iss=desk.issuer.url, sub="ana", aud=HERE)) is TokenCode.UNKNOWN_KEY
    assert await desk.refused(iss="https://nobody.example") is TokenCode.ISSUER
    assert await desk.refused(iss=desk.issuer.url + "/") is TokenCode.ISSUER


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"aud": "https://other.example/mcp"}, TokenCode.AUDIENCE),
        ({"aud": THERE}, TokenCode.AUDIENCE),
        ({"aud": [HERE, THERE]}, TokenCode.AUDIENCE),
        ({"aud": None}, TokenCode.AUDIENCE),
        ({"aud": {"x": HERE}}, TokenCode.AUDIENCE),
        ({"aud": []}, TokenCode.AUDIENCE),
        ({"aud": HERE + "/"}, TokenCode.AUDIENCE),
        ({"exp": 1}, TokenCode.EXPIRED),
        ({"exp": None}, TokenCode.CLAIMS),
        ({"exp": "9999999999"}, TokenCode.CLAIMS),
        ({"exp": True}, TokenCode.CLAIMS),
        ({"iat": None}, TokenCode.CLAIMS),
        ({"nbf": 4_000_000_000}, TokenCode.NOT_YET),
        ({"iat": 4_000_000_000, "exp": 4_000_000_060}, TokenCode.NOT_YET),
        ({"exp": 4_000_000_000}, TokenCode.LIFETIME),
    ],
)
async def test_each_claim_that_is_wrong_is_refused_without_asking_the_issuer(desk, more, code):
    assert await desk.refused(**more) is code
    assert desk.issuer.asked == {}


async def test_an_audience_among_others_is_enough_when_none_is_ours_elsewhere(desk):
    assert (await desk.check(aud=["account", HERE])).claims["sub"] == "ana"


async def test_an_issuer_is_trusted_only_where_the_release_says_so(desk):
    desk.trusted = desk.trusts(desk.issuer.url, environments={"staging": (THERE,)})
    assert await desk.refused() is TokenCode.ISSUER
    assert await desk.refused(aud=THERE) is TokenCode.ISSUER
    assert desk.issuer.asked == {}


async def test_a_clock_that_is_a_little_behind_is_forgiven_and_no_more(desk):
    now = int(desk.clock.wall_us() / 1e6)
    assert await desk.check(iat=now + 4, exp=now + 60)
    assert await desk.refused(iat=now + 30, exp=now + 60) is TokenCode.NOT_YET


async def test_a_token_that_was_checked_before_ends_when_it_ends(desk):
    token = desk.token()
    await desk.check(token)
    desk.later(601)
    assert await desk.refused(token) is TokenCode.EXPIRED


async def test_duplicate_claims_and_what_is_no_plain_json_are_refused(desk):
    await desk.check()
    now = int(desk.clock.wall_us() / 1e6)
    rest = f'"iss":"{desk.issuer.url}","aud":"{HERE}","iat":{now},"exp":{now + 60}'
    for text in (
        f'{{"sub":"ana","sub":"root",{rest}}}',
        f'{{{rest},"exp":NaN}}',
        f"[{{{rest}}}]",
        "null",
        "{",
        f'{{{rest},"sub":"\\ud800"}}',
    ):
        assert await desk.refused(desk.issuer.raw(text.encode())) is TokenCode.MALFORMED, text
    assert await desk.refused(desk.issuer.raw(b'{"a":' * 5_000 + b"1" + b"}" * 5_000)) is TokenCode.MALFORMED


async def test_huge_tokens_are_refused_before_anything_is_read(desk):
    assert await desk.refused(desk.token(groups=["g" * 40] * 1_000)) is TokenCode.MALFORMED
    assert await desk.refused("x" * (MAX_TOKEN_CHARS + 1)) is TokenCode.MALFORMED
    assert await desk.refused("") is TokenCode.MISSING
    assert desk.issuer.asked == {}


async def test_a_new_key_is_found_and_strangers_cannot_make_us_hammer_the_issuer(desk):
    await desk.check()
    desk.issuer.rotate("ES256", "k2")
    desk.later(ASK_AGAIN_S + 1)
    assert (await desk.check()).kid == "k2"
    assert desk.issuer.asked["jwks"] == 2
    stranger = keyed("ES256", "x")
    for n in range(100):
        token = desk.token(header={"kid": f"stranger-{n}"}, key=stranger)
        assert await desk.refused(token) is TokenCode.UNKNOWN_KEY
    assert desk.issuer.asked["jwks"] == 2
    desk.later(ASK_AGAIN_S + 1)
    many = [desk.refused(desk.token(header={"kid": f"late-{n}"}, key=stranger)) for n in range(50)]
    assert set(await asyncio.gather(*many)) == {TokenCode.UNKNOWN_KEY}
    assert desk.issuer.asked["jwks"] == 3
    assert await desk.check()


async def test_a_key_that_is_withdrawn_stops_working_even_for_tokens_seen_before(desk):
    desk.clock.later_s = 0
    token = desk.token()
    await desk.check(token)
    desk.issuer.rotate("ES256", "k2", drop=True)
    desk.later(FRESH_S + 1)
    await desk.outside.refresh_due()
    assert await desk.refused(token) is TokenCode.UNKNOWN_KEY
    assert await desk.check()


async def test_keys_that_are_not_fresh_are_used_while_new_ones_are_fetched(desk):
    await desk.check()
    desk.later(FRESH_S + 1)
    assert await desk.check()
    while desk.issuer.asked["jwks"] < 2:
        await asyncio.sleep(0)


async def test_an_issuer_that_is_unreachable_vouches_for_a_bounded_time_and_then_for_nobody(desk):
    token = desk.token(exp=desk.issuer.claims()["exp"] + 2_900)
    await desk.check(token)
    desk.issuer.trouble = "broken"
    desk.later(FRESH_S + 1)
    await desk.outside.refresh_due()
    assert desk.outside.problems()[desk.issuer.url].endswith("answered 500")
    assert await desk.check(token)
    desk.trusted = desk.trusts(desk.issuer.url, max_lifetime_s=86_400)
    desk.later(KEEP_S)
    later = desk.token(exp=desk.issuer.claims()["exp"] + 10_000)
    assert await desk.refused(later) is TokenCode.ISSUER_UNREACHABLE
    desk.issuer.trouble = None
    desk.later(ASK_AGAIN_S + 1)
    assert await desk.check(later)
    assert desk.outside.problems() == {}


@pytest.mark.parametrize("trouble", ["broken", "huge", "elsewhere", "garbage"])
async def test_an_issuer_that_answers_nonsense_vouches_for_nobody(desk, trouble):
    desk.issuer.trouble = trouble
    assert await desk.refused() is TokenCode.ISSUER_UNREACHABLE
    desk.issuer.trouble = None
    assert await desk.refused() is TokenCode.ISSUER_UNREACHABLE  # and it is not asked again at once
    desk.later(ASK_AGAIN_S + 1)
    assert await desk.check()


async def test_an_issuer_that_hangs_is_waited_for_once_and_not_for_long(desk, monkeypatch):
    monkeypatch.setattr(fetch, "FETCH_S", 1.0)
    desk.issuer.trouble = "hang"
    codes = await asyncio.gather(*(desk.refused() for _ in range(20)))
    assert set(codes) == {TokenCode.ISSUER_UNREACHABLE}
    assert desk.issuer.asked["discovery"] == 1


async def test_discovery_that_speaks_for_somebody_else_is_not_believed(desk):
    desk.issuer.claimed_issuer = "https://login.corp.example"
    assert await desk.refused() is TokenCode.ISSUER_UNREACHABLE
    assert "speaks for" in desk.outside.problems()[desk.issuer.url]


async def test_a_changed_release_is_obeyed_for_tokens_seen_before(desk):
    token = desk.token()
    await desk.check(token)
    desk.trusted = desk.trusts(desk.issuer.url, algorithms=("RS256",))
    assert await desk.refused(token) is TokenCode.ALGORITHM
    desk.trusted = {}
    assert await desk.refused(token) is TokenCode.ISSUER


@pytest.mark.parametrize(
    "url",
    [
        "http://login.example/x",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "https://u:p@login.example/",
        "http://127.0.0.1.evil.example/",
        "",
    ],
)
async def test_only_https_is_asked_or_this_very_machine(url):
    with pytest.raises(fetch.IssuerUnreachableError):
        await fetch_json(Source(url="http://127.0.0.1:1"), url)


async def test_an_https_issuer_does_not_send_us_back_to_plain_http():
    with pytest.raises(fetch.IssuerUnreachableError, match="not https"):
        await fetch_json(Source(url="https://login.example"), "http://127.0.0.1:1/jwks")


async def test_the_credential_for_an_issuer_goes_to_its_own_host_alone(desk, tmp_path):
    got = []
    file = tmp_path / "token"
    file.write_text("secret-of-the-cluster\n")

    async def answer(reader, writer):
        got.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await fetch_json(Source(url=url, credential=f"file:{file}"), f"{url}/jwks")
        await fetch_json(Source(url=desk.issuer.url, credential=f"file:{file}"), f"{url}/jwks")
    assert b"authorization: bearer secret-of-the-cluster" in got[0].lower()
    assert b"secret" not in got[1].lower()


def test_only_keys_that_check_signatures_are_taken_from_a_set():
    good = {**keyed("ES256", "good").as_dict(private=False), "kid": "good"}
    private = {**keyed("ES256", "private").as_dict(private=True), "kid": "private"}
    numbers = rsa.generate_private_key(public_exponent=65_537, key_size=1_024).public_key().public_numbers()
    n = base64.urlsafe_b64encode(numbers.n.to_bytes(128)).rstrip(b"=").decode()
    small = {"kty": "RSA", "n": n, "e": "AQAB", "kid": "small"}
    others = [
        private,
        small,
        {"kty": "oct", "k": "c2VjcmV0", "kid": "secret"},
        {**good, "kid": "for-encryption", "use": "enc"},
        {**good, "kid": "for-wrapping", "key_ops": ["wrapKey"]},
        {**good, "kid": ""},
        {**good, "kid": 7},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "not-on-the-curve"},
        {"kty": "??", "kid": "unknown"},
        {"kty": ["RSA"], "kid": "no-kind-at-all"},
        "text",
        None,
    ]
    assert set(usable([*others, good], "sig")) == {"good"}
    assert usable([good, {**keyed("ES256", "x").as_dict(private=False), "kid": "good"}], "sig") == {}
    assert usable("nonsense", "sig") == {}
    with pytest.raises(fetch.IssuerUnreachableError):
        usable([good] * (MAX_KEYS + 1), "sig")


def test_a_key_fits_the_algorithms_of_its_kind_and_no_others():
    for kind, fitting in (
        ("ES256", {"ES256"}),
        ("ES384", {"ES384"}),
        ("Ed25519", {"EdDSA", "Ed25519"}),
        ("RS256", {"RS256", "PS512"}),
    ):
        (known,) = usable([{**keyed(kind, "k").as_dict(private=False), "kid": "k"}], "sig").values()
        tried = {"RS256", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "HS256", "none"}
        assert {algorithm for algorithm in tried if fits(known, algorithm)} == fitting
        bound = msgspec.structs.replace(known, algorithm=kind)
        assert {algorithm for algorithm in tried if fits(bound, algorithm)} <= fitting


async def test_tokens_that_are_over_are_forgotten_as_others_come(desk):
    for number in range(30):
        await desk.check(jti=f"old{number}")
    assert len(desk.outside._known) == 30
    desk.later(3_600)
    for number in range(30):
        now = int(desk.clock.wall_us() / 1e6)
        await desk.check(jti=f"new{number}", iat=now, exp=now + 300)
    assert len(desk.outside._known) == 30
