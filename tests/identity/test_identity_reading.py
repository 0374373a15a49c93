"""What each shape of claims must become. The shapes are files in `claims/`, one token each, with what it proves and what it does not."""

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.identity.errors import TokenRefusedError
from interlock.identity.outside import Vouched
from interlock.identity.reading import agent_of, delegated_of, speaks_for_themselves, user_of
from interlock.release.documents import Node, Problems, read_yaml
from interlock.release.issuers import read_issuers

CLAIMS = sorted((Path(__file__).parent / "claims").glob("*.json"))
NOW_S = 1_800_000_000.0


def issuer(written):
    problems = Problems()
    found = read_issuers(Node({"corp": written}, "issuers.yaml", {}), {"teams": "set"}, problems)
    assert problems.found == []
    return found["corp"]


def vouched(case):
    claims = case["claims"]
    iss = claims.get("iss", "https://login.corp.example")
    directory = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", iss)
    return Vouched(
        issuer=issuer(case["issuer"]),
        iss=iss,
        kind=case["header"].get("typ", ""),
        claims=claims,
        issued_at_s=NOW_S,
        expires_at_s=NOW_S + 600,
        directory=directory.group() if directory else "",
    )


def became(read, token):
    try:
        return read(token)
    except TokenRefusedError as error:
        return f"refused: {error.code.value}"


def as_user(proof):
    if isinstance(proof, str):
        return proof
    person = proof.person
    made = {"user": person.user, "tenant": person.tenant, "roles": list(person.roles), "client": proof.client}
    return {**made, "attributes": dict(proof.attributes)} if proof.attributes else made


@pytest.mark.parametrize("file", CLAIMS, ids=lambda file: file.stem)
def test_each_shape_of_claims_becomes_what_its_file_says(file):
    case = msgspec.json.decode(file.read_bytes())
    token = vouched(case)
    agent, both = became(agent_of, token), became(delegated_of, token)
    assert (agent if isinstance(agent, str) else agent.subject) == case["agent"]
    assert as_user(became(user_of, token)) == case["user"]
    assert as_user(became(speaks_for_themselves, token)) == case["themselves"]
    assert (both if isinstance(both, str) else {"user": both.user.person.user, "agent": both.agent.subject}) == case["both"]


@pytest.mark.parametrize(
    "file", [file for file in CLAIMS if "overage" in file.stem and "not" not in file.stem], ids=lambda file: file.stem
)
def test_operators_are_told_what_to_configure_when_groups_do_not_fit(file):
    case = msgspec.json.decode(file.read_bytes())
    with pytest.raises(TokenRefusedError, match=case["says"]):
        user_of(vouched(case))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
NAMES = (
    *("sub", "oid", "azp", "appid", "client_id", "cid", "scp", "scope", "idtyp", "ver", "tid", "act", "cnf", "org", "roles"),
    *(
        "groups",
        "realm_access",
        "teams",
        "gty",
        "typ",
        "_claim_names",
        "hasgroups",
        "azpacr",
        "xms_sub_fct",
        "kubernetes.io",
        "sid",
    ),
)


@given(st.sampled_from(CLAIMS), st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4))
def test_no_claims_at_all_do_anything_but_prove_or_refuse(file, changed):
    case = msgspec.json.decode(file.read_bytes())
    token = vouched({**case, "claims": {**case["claims"], **changed}})
    results = [became(read, token) for read in (agent_of, user_of, delegated_of, speaks_for_themselves)]
    agent, user, both, themselves = results
    # An application's own token is no person's, and whoever acts for somebody does not speak for themselves.
    if not isinstance(themselves, str):
        assert as_user(themselves) == as_user(user)
        assert themselves.client in token.issuer.people.clients
    if not isinstance(both, str):
        assert not isinstance(user, str)
    if not isinstance(user, str):
        assert user.person.tenant == "acme"
        assert user.person.user
    if not isinstance(agent, str) and token.issuer.kind == "entra":
        assert isinstance(user, str)


def test_the_issuers_of_the_guide_load():
    guides = Path(__file__).resolve().parents[2] / "docs" / "how-to"
    pages = [(guides / name).read_text() for name in ("identity.md", "log-in.md")]
    blocks = [block for page in pages for block in re.findall(r"```yaml issuers\n(.*?)```", page, re.DOTALL)]
    assert len(blocks) == 5
    for block in blocks:
        problems = Problems()
        document = read_yaml("issuers.yaml", block, problems)
        assert read_issuers(document, {"teams": "set"}, problems)
        assert problems.found == []
