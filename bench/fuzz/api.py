"""The HTTP API against its own OpenAPI document, by schemathesis; afterwards the tool's table is laid beside the ledger.

Each round is one kind of caller: a session that only calls, a session, a person with every role, an agent alone, nobody. No
answer may be a defect or say something that the document does not, and whatever was executed was claimed on record before.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from bench.fuzz.findings import Finding, Part
from bench.fuzz.places import CALLS
from interlock.ledger.reader import verify_database
from interlock.store.embedded import server
from tests.support.office import GOVERNED, ROLES, office
from tests.support.postgres import TestServer

# Of the checks of schemathesis all but: `positive_data_acceptance` (bodies of the right shape are refused for what they say,
# rightly: a scope that does not exist, a number that two readers would take differently, a blank reason), and those that
# need an API which deletes things.
CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
ROOT: Final = Path(__file__).resolve().parents[2]
# Calls have a round of their own, so that the tool is reached however little time the other operations leave.
CALLING: Final = "session that only calls"
ROUNDS: Final = ((CALLING, 0.1), ("session", 0.4), ("person", 0.3), ("agent", 0.1), ("nobody", 0.1))
MOST_ROUND_S: Final = 120
LEAST_ROUND_S: Final = 10
_FAILURE: Final = re.compile(r"^_{3,} (.+?) _{3,}$")
# What would stop everything that comes after it: a kill of the fleet, the end of everybody's sessions.
SPARED: Final = ("/v1/controls/kill", "/v1/controls/posture", "/v1/revocations", "/v1/releases/rollback")
_COUNTS: Final = "SELECT operation, count(*) AS n FROM claim GROUP BY operation"
_BODIES: Final = """
SELECT count(*) FROM claim c WHERE NOT EXISTS (SELECT FROM event e WHERE e.call_id = c.call_id AND e.kind = 'call.claimed')
"""


async def fuzz_api(seconds: float, seed: int) -> Part:
    """Rounds until the time is over."""
    started = time.monotonic()
    postgres = TestServer()
    figures: Counter[str] = Counter()
    findings: list[Finding] = []
    try:
        name = await postgres.clone()
        with tempfile.TemporaryDirectory() as folder:
            async with office(postgres.url(server.APP, name), Path(folder), GOVERNED) as served:
                for number in itertools.count():
                    left_s = seconds - (time.monotonic() - started)
                    if number and left_s < LEAST_ROUND_S:
                        break
                    who, share = ROUNDS[number % len(ROUNDS)]
                    share_s = max(LEAST_ROUND_S, min(MOST_ROUND_S, seconds * share))
                    found = await _round(served, who, seed + number, min(share_s, max(left_s, LEAST_ROUND_S)), Path(folder))
                    figures.update(found[0])
                    findings += found[1]
                findings += await _accounted(served, postgres.url("postgres", name), figures)
                await served.system.sign_heads()
                public = served.system.keys.public_bytes("heads")
            report = await verify_database(postgres.url(server.AUDITOR, name), public, None)
        figures["events verified"] = report.events
        findings += [Finding(what=found.what, where=f"ledger: {found.where}") for found in report.findings]
    finally:
        postgres.close()
    return Part(
        name="API by its own document (schemathesis)",
        seconds=time.monotonic() - started,
        figures=dict(figures),
        findings=tuple(findings),
    )


async def _round(served: Any, who: str, seed: int, seconds: float, folder: Path) -> tuple[dict[str, int], list[Finding]]:
    token = ""
    if who == "person":
        token = served.person("oki", *ROLES, teams=["north"])
    elif who in {"session", CALLING}:
        token, _ = await served.session("ana")
    elif who == "agent":
        token = served.agent("bot")
    report = folder / f"round-{seed}.json"
    words = [
        *("run", f"{served.url}/v1/openapi.json", "--seed", str(seed), "--max-time", str(max(1, int(seconds)))),
        *("--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing,stateful", "--continue-on-failure", "--no-color"),
        *("--report", "json", "--report-json-path", str(report), "--warnings", "off", "--request-timeout", "30"),
    ]
    for path in SPARED:
        words += ["--exclude-path", path] if who != CALLING else []
    words += ["--include-path", CALLS] if who == CALLING else []
    if token:
        words += ["-H", f"Authorization: Bearer {token}"]
    program = Path(sys.executable).parent / "schemathesis"
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "bench.fuzz.hooks", "PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(
        str(program), *words, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(seconds + 90):
            text = (await process.communicate())[0].decode(errors="replace")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if not report.exists():
        return {}, [Finding(what="schemathesis did not finish", where=who, how=text[-2_000:])]
    told = json.loads(report.read_text())
    figures = {f"requests as {who}": told["test_cases"]["generated"]}
    if not told["failures"] and not told["errors"]:
        return figures, []
    return figures, _failures(text, who, seed) or [Finding(what="a failure", where=who, how=json.dumps(told["failures"]))]


def _failures(text: str, who: str, seed: int) -> list[Finding]:
    """Each failing operation, as schemathesis tells it."""
    found, where, lines = [], "", []
    body = text.partition("= FAILURES =")[2].partition("= SUMMARY =")[0]
    for line in [*body.splitlines(), "___ end ___"]:
        begins = _FAILURE.match(line)
        if begins is None:
            lines.append(line)
            continue
        if where:
            codes = ", ".join(dict.fromkeys(item[2:].strip() for item in lines if item.startswith("- ST")))
            shown = "\n".join(item for item in lines if item.strip() and "st replay" not in item)
            found.append(Finding(what=codes, where=f"{where} as {who}, seed {seed}", how=shown[:4_000]))
        where, lines = begins.group(1), []
    return found


async def _accounted(served: Any, url: str, figures: Counter[str]) -> list[Finding]:
    """INVARIANT: what the tool was made to do was claimed on record, once each."""
    import asyncpg  # noqa: PLC0415  # beside its only use

    connection = await asyncpg.connect(url)
    try:
        claimed = {row["operation"]: row["n"] for row in await connection.fetch(_COUNTS)}
        bare = await connection.fetchval(_BODIES)
    finally:
        await connection.close()
    done = Counter(f"shop.{name}" for name, _ in served.shop.shop.calls)
    figures["executions of the tool"] = sum(done.values())
    figures["claims on record"] = sum(claimed.values())
    found = [
        Finding(what=f"executed {count} times with {claimed.get(operation, 0)} claims", where=operation)
        for operation, count in done.items()
        if count > claimed.get(operation, 0)
    ]
    return found + ([Finding(what=f"{bare} claims without their event", where="ledger")] if bare else [])
