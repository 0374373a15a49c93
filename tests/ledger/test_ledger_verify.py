"""Whatever is changed in a ledger is found and named, by a verifier that shares no code with the writer."""

import dataclasses
import hashlib
import hmac

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from interlock.ledger.heads import SignedHead, sign, witness_line
from interlock.ledger.reader import verify_database
from interlock.ledger.verify import Event, Head, Verifier
from interlock.ledger.witness import append_witness, read_witness
from tests.support.shop import counter

PRIVATE = bytes(range(32))
PUBLIC = {"k": Ed25519PrivateKey.from_private_bytes(PRIVATE).public_key().public_bytes_raw()}


def chain(name, length):
    events, link = [], bytes(32)
    for seq in range(1, length + 1):
        salt, body = bytes([seq % 256]) * 16, f'{{"n":{seq}}}'
        commitment = hmac.digest(salt, body.encode(), "sha256")
        header = f"interlock/event/1\n{name}\n{seq}\nkind\n{seq}\ncall\n".encode()
        link = hashlib.sha256(link + header + commitment).digest()
        events.append(Event(name, seq, "kind", seq, "call", commitment, link, salt, body))
    return events


def signed(*chains):
    heads, previous = [], ""
    for number, events in enumerate(chains, start=1):
        made = sign(number, previous, number, [(events[-1].chain, events[-1].seq, events[-1].link)], "k", PRIVATE)
        previous = made.body
        heads.append(Head(made.n, made.body, made.key_id, made.signature))
    return heads


def verify(events, heads=(), witness=None, stored=None, keys=PUBLIC):
    stored = stored if stored is not None else {event.chain: event.seq for event in events}
    verifier = Verifier(keys, heads, witness, stored)
    for event in events:
        verifier.add(event)
    return verifier.finish()


def test_an_untouched_ledger_is_intact_and_the_report_says_what_it_could_not_see():
    events = chain("a", 5)
    report = verify(events, signed(events[:3]))
    assert report.intact
    assert (report.events, report.chains, report.heads, report.unsigned_tail_events) == (5, 1, 1, 2)
    said = " ".join(report.could_not_see())
    assert "2 events came after the last signed head" in said
    assert "no witness file" in said


mutations = st.sampled_from(["kind", "at_us", "call_id", "commitment", "link", "body", "salt", "drop", "swap", "twice"])


@given(st.integers(2, 12), st.data(), mutations)
def test_any_single_change_is_found_at_the_event_it_was_made_to(length, data, mutation):
    events = chain("a", length)
    heads = signed(events)
    at = data.draw(st.integers(0, length - 2))
    changed = list(events)
    match mutation:
        case "drop":
            del changed[at]
        case "swap":
            changed[at], changed[at + 1] = changed[at + 1], changed[at]
        case "twice":
            changed.insert(at, changed[at])
        case "at_us":
            changed[at] = dataclasses.replace(events[at], at_us=events[at].at_us + 1)
        case "kind" | "call_id" | "body":
            changed[at] = dataclasses.replace(events[at], **{mutation: getattr(events[at], mutation) + "x"})
        case _:
            value = bytearray(getattr(events[at], mutation))
            value[0] ^= 1
            changed[at] = dataclasses.replace(events[at], **{mutation: bytes(value)})
    report = verify(changed, heads, stored={"a": length})
    assert not report.intact
    named = int(report.findings[0].where.split()[2])
    assert named in {at + 1, at + 2}


@given(st.integers(2, 12), st.data())
def test_a_tail_cut_off_after_a_signed_head_is_named(length, data):
    events = chain("a", length)
    kept = data.draw(st.integers(1, length - 1))
    report = verify(events[:kept], signed(events), stored={"a": kept})
    assert report.findings[0].where == f"a event {kept + 1}"
    assert "tail is cut off" in report.findings[0].what


def test_a_tail_cut_off_before_it_was_signed_contradicts_the_databases_own_head():
    events = chain("a", 5)
    assert "own head says 5" in verify(events[:3], signed(events[:2]), stored={"a": 5}).findings[0].what


def test_a_chain_that_is_missing_whole_is_named():
    events = chain("a", 3)
    assert "whole chain is missing" in verify([], signed(events), stored={}).findings[0].what
    assert "chain is missing" in verify([], [], stored={"b": 2}).findings[0].what


def test_a_chain_rewritten_with_new_links_contradicts_its_signed_head():
    events = chain("a", 5)
    forged = [dataclasses.replace(event) for event in chain("a", 5)]
    link = bytes(32)
    for index, event in enumerate(forged):
        commitment = hmac.digest(event.salt, b"{}", "sha256")
        header = f"interlock/event/1\na\n{event.seq}\nkind\n{event.at_us}\ncall\n".encode()
        link = hashlib.sha256(link + header + commitment).digest()
        forged[index] = dataclasses.replace(event, body="{}", commitment=commitment, link=link)
    assert "rewritten" in verify(forged, signed(events)).findings[0].what


def test_a_forgotten_body_is_said_and_is_no_damage():
    events = chain("a", 3)
    events[1] = dataclasses.replace(events[1], body=None, salt=None)
    report = verify(events, signed(events))
    assert report.intact
    assert report.forgotten_bodies == 1


def test_signed_heads_follow_each_other_and_are_ours():
    events = chain("a", 6)
    heads = signed(events[:2], events[:4], events)
    assert "missing before it" in verify(events, [heads[0], heads[2]]).findings[0].what
    assert "not one of ours" in verify(events, heads, keys={}).findings[0].what
    altered = dataclasses.replace(heads[1], body=heads[1].body.replace('"at_us":2', '"at_us":9'))
    assert "signature is wrong" in verify(events, [heads[0], altered]).findings[0].what


@pytest.mark.parametrize(
    "text", ["", "\x00", "[]", "{}", "[" * 5_000, '{"n":1,"prev":"","heads":1}', '{"n":1,"prev":"","heads":[["a","1","00"]]}']
)
def test_a_text_that_is_no_head_is_a_finding_whoever_signed_it(text):
    key = Ed25519PrivateKey.from_private_bytes(PRIVATE)
    report = verify(chain("a", 2), [Head(1, text, "k", key.sign(b"interlock/heads/1\n" + text.encode()))])
    assert not report.intact
    assert "its text is none that we write" in report.findings[0].what


def test_the_witness_file_notices_signed_heads_that_were_removed(tmp_path):
    events = chain("a", 4)
    heads = signed(events[:2], events)
    for head in heads:
        line = witness_line(SignedHead(n=head.n, body=head.body, key_id="k", signature=head.signature))
        append_witness(tmp_path / "heads.jsonl", line)
    witness = read_witness(tmp_path / "heads.jsonl")
    assert verify(events, heads, witness).intact
    cut = verify(events[:2], heads[:1], witness, stored={"a": 2})
    assert cut.findings[0].what == "the witness file has it, and the database does not"


async def traffic(database_urls, folder):
    async with counter(database_urls.app, folder) as made:
        session = await made.session()
        for n in range(5):
            await made.call(session, "note", text=str(n))
        await made.system.sign_heads()
        return session.session_id, made.system.keys.public_bytes("heads")


DAMAGE = {
    "a byte changed": (
        "UPDATE event_body SET body = overlay(body placing 'X' from 12 for 1) WHERE seq = 4 AND chain_id = $1",
        4,
    ),
    "an event removed": ("DELETE FROM event WHERE seq = 6 AND chain_id = $1", 7),
    "a header changed": ("UPDATE event SET call_id = 'call_other' WHERE seq = 3 AND chain_id = $1", 3),
    "the tail cut off": ("DELETE FROM event WHERE seq > 9 AND chain_id = $1", 10),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_damage_done_to_a_real_database_by_its_superuser_is_named(database_urls, tmp_path, damage):
    session, keys = await traffic(database_urls, tmp_path)
    intact = await verify_database(database_urls.auditor, keys, tmp_path / "heads.jsonl")
    assert intact.intact, intact.findings
    sql, seq = DAMAGE[damage]
    connection = await asyncpg.connect(database_urls.superuser)
    await connection.execute("SET session_replication_role = replica")
    await connection.execute(sql, session)
    await connection.close()
    report = await verify_database(database_urls.auditor, keys, tmp_path / "heads.jsonl")
    assert report.findings[0].where.startswith(f"{session} event {seq}")
