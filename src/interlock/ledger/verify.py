"""Check a ledger, believing nobody. This module shares no code with the writer: its formats are written down here again.

An event's link is SHA-256 over the previous link (32 zero bytes before the first), the header

    interlock/event/1 LF chain LF seq LF kind LF at_us LF call_id LF

and the event's commitment, which is HMAC-SHA256(salt, body). A signed head is Ed25519 over `interlock/heads/1 LF` and its
body, a JSON object {n, prev, at_us, heads: [[chain, seq, link in hex], ...]} whose `prev` is the SHA-256 of the body before.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

GENESIS: Final = bytes(32)
MAX_TOLD_RANGES: Final = 20


@dataclass(frozen=True)
class Event:
    """One event as read from the database. `salt` and `body` are None when the body is not there."""

    chain: str
    seq: int
    kind: str
    at_us: int
    call_id: str
    commitment: bytes
    link: bytes
    salt: bytes | None
    body: str | None


@dataclass(frozen=True)
class Head:
    """One signed head as read from the database."""

    n: int
    body: str
    key_id: str
    signature: bytes


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, and where: the first wrong event of its chain, or a signed head."""

    where: str
    what: str


@dataclass
class Report:
    """What was checked, what was found, and what could not have been seen."""

    events: int = 0
    chains: int = 0
    heads: int = 0
    forgotten_bodies: int = 0
    unsigned_tail_events: int = 0
    unsigned_chains: int = 0
    witness_lines: int | None = None
    not_witnessed_heads: int = 0
    not_witnessed: list[tuple[int, int]] = field(default_factory=list)
    first_at_us: int = 0
    last_at_us: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        """Whether nothing is wrong with what could be checked."""
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return {"intact": self.intact, **asdict(self), "could_not_see": self.could_not_see()}

    def could_not_see(self) -> list[str]:
        """What this verification says nothing about."""
        said = []
        if self.unsigned_tail_events:
            said.append(
                f"{self.unsigned_tail_events} events came after the last signed head of their chain: if the newest of them "
                "had been cut off, nothing here would show it"
            )
        if self.unsigned_chains:
            said.append(f"{self.unsigned_chains} chains were never signed: one that was removed whole would not be missed")
        if self.witness_lines is None:
            said.append("no witness file was given: the newest signed heads could have been removed together with their events")
        elif self.not_witnessed_heads:
            told = self.not_witnessed[:MAX_TOLD_RANGES]
            which = ", ".join(f"{first}" if first == last else f"{first} to {last}" for first, last in told)
            which += ", and others" if len(told) < len(self.not_witnessed) else ""
            said.append(
                f"{self.not_witnessed_heads} signed heads are not in the witness file given ({which}): "
                "if one of them was removed with its events, this file would not tell; that of another process may"
            )
        if self.forgotten_bodies:
            said.append(
                f"{self.forgotten_bodies} bodies are not there: that the events happened is proved, what they said is not"
            )
        return said


class Verifier:
    """Takes the heads first, then events chain by chain in their order; collects a report. At most one finding a chain."""

    def __init__(
        self,
        public_keys: Mapping[str, bytes],
        signed: Iterable[Head],
        witness: list[Mapping[str, Any]] | None,
        stored_heads: Mapping[str, int],
    ) -> None:
        self.report = Report()
        self._stored = stored_heads
        self._wanted: dict[str, dict[int, tuple[str, int]]] = {}
        self._last_signed: dict[str, int] = {}
        self._check_heads(public_keys, list(signed), witness)
        self._chain = ""
        self._seq = 0
        self._link = GENESIS
        self._broken = False
        self._seen: set[str] = set()

    def add(self, event: Event) -> None:
        """Check the next event. Events come ordered by chain and, inside it, as they are stored."""
        report = self.report
        if event.chain != self._chain:
            self._begin(event.chain)
        report.events += 1
        report.first_at_us = min(report.first_at_us or event.at_us, event.at_us)
        report.last_at_us = max(report.last_at_us, event.at_us)
        if self._broken:
            return
        wrong = self._wrong(event)
        if wrong:
            self._broken = True
            report.findings.append(Finding(f"{event.chain} event {event.seq} ({event.kind})", wrong))
            return
        self._seq, self._link = event.seq, event.link
        wanted = self._wanted.get(event.chain, {}).pop(event.seq, None)
        if wanted is not None and wanted[0] != event.link.hex():
            self._broken = True
            where = f"{event.chain} event {event.seq} ({event.kind})"
            report.findings.append(Finding(where, f"the signed head {wanted[1]} says another link: the chain was rewritten"))

    def finish(self) -> Report:
        """Close the last chain and look for chains that are missing whole; gives the report."""
        self._end()
        findings = self.report.findings
        for chain, wanted in sorted(self._wanted.items()):
            if wanted and chain not in self._seen:
                number = wanted[max(wanted)][1]
                findings.append(Finding(f"{chain} event 1", f"the whole chain is missing; signed head {number} knows it"))
        for chain, seq in sorted(self._stored.items()):
            if seq > 0 and chain not in self._seen and chain not in self._last_signed:
                findings.append(Finding(f"{chain} event 1", f"the chain is missing; the database's own head says {seq} events"))
        return self.report

    def _begin(self, chain: str) -> None:
        self._end()
        self._chain, self._seq, self._link, self._broken = chain, 0, GENESIS, False
        self._seen.add(chain)
        self.report.chains += 1

    def _end(self) -> None:
        if not self._chain:
            return
        report, chain = self.report, self._chain
        last = self._last_signed.get(chain, 0)
        if not self._broken:
            missing = sorted(self._wanted.get(chain, {}).items())
            if missing:
                number = missing[-1][1][1]
                what = f"the tail is cut off: signed head {number} knows {missing[-1][0]} events, and {self._seq} are here"
                report.findings.append(Finding(f"{chain} event {self._seq + 1}", what))
            elif self._stored.get(chain) != self._seq:
                what = f"the database's own head says {self._stored.get(chain)} events, and {self._seq} are here"
                report.findings.append(Finding(f"{chain} event {self._seq + 1}", what))
            report.unsigned_tail_events += max(0, self._seq - last)
        if last == 0:
            report.unsigned_chains += 1
        self._wanted.pop(chain, None)

    def _wrong(self, event: Event) -> str:
        if event.seq == self._seq and self._seq > 0:
            return "the event stands twice"
        if event.seq < self._seq + 1:
            return f"out of order: it comes after event {self._seq}"
        if event.seq > self._seq + 1:
            return f"event {self._seq + 1} is missing before it"
        if event.body is None or event.salt is None:
            self.report.forgotten_bodies += 1
        elif not hmac.compare_digest(hmac.digest(event.salt, event.body.encode(), "sha256"), event.commitment):
            return "its body was changed or cut short"
        header = f"interlock/event/1\n{event.chain}\n{event.seq}\n{event.kind}\n{event.at_us}\n{event.call_id}\n".encode()
        if hashlib.sha256(self._link + header + event.commitment).digest() != event.link:
            return "it does not follow from the event before it: its header, commitment or link was changed"
        return ""

    def _check_heads(
        self, public_keys: Mapping[str, bytes], signed: list[Head], witness: list[Mapping[str, Any]] | None
    ) -> None:
        report = self.report
        previous, expected = "", 1
        by_number: dict[int, Head] = {}
        for head in signed:
            where = f"signed head {head.n}"
            wrong = _head_problem(head, public_keys, expected, previous)
            if wrong:
                report.findings.append(Finding(where, wrong))
                break
            by_number[head.n] = head
            for chain, seq, link in _read_head(head.body)["heads"]:
                self._wanted.setdefault(chain, {})[seq] = (link, head.n)
                self._last_signed[chain] = max(seq, self._last_signed.get(chain, 0))
            previous, expected = head.body, head.n + 1
            report.heads += 1
        if witness is None:
            return
        report.witness_lines = len(witness)
        for line in witness:
            known = by_number.get(line["n"])
            if known is None:
                report.findings.append(
                    Finding(f"signed head {line['n']}", "the witness file has it, and the database does not")
                )
                break
            if known.body != line["body"]:
                report.findings.append(Finding(f"signed head {line['n']}", "the witness file has another text"))
                break
        witnessed = {line["n"] for line in witness}
        missing = sorted(set(by_number) - witnessed)
        report.not_witnessed_heads, report.not_witnessed = len(missing), _ranges(missing)


def _ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Numbers in order, as first and last of each unbroken range."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def _head_problem(head: Head, public_keys: Mapping[str, bytes], expected: int, previous: str) -> str:
    if head.n != expected:
        return f"signed head {expected} is missing before it"
    key = public_keys.get(head.key_id)
    if key is None:
        return f"signed by the key {head.key_id!r}, which is not one of ours"
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(head.signature, b"interlock/heads/1\n" + head.body.encode())
    except InvalidSignature:
        return "its signature is wrong: it was changed"
    body = _read_head(head.body)
    if not body:
        return "it is signed, and its text is none that we write"
    if body["n"] != head.n or body["prev"] != (hashlib.sha256(previous.encode()).hexdigest() if previous else ""):
        return "it does not follow from the signed head before it"
    return ""


def _read_head(text: str) -> Mapping[str, Any]:
    """What a signed head says; empty when it is no such text: whoever holds a key may sign anything."""
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(read, dict) or not isinstance(read.get("n"), int) or not isinstance(read.get("prev"), str):
        return {}
    heads = read.get("heads")
    return read if isinstance(heads, list) and all(map(_is_head, heads)) else {}


def _is_head(head: object) -> bool:
    match head:
        case [str(), int(), str()]:
            return True
        case _:
            return False
