"""What is governed: a bank and a desk, many users, one agent; and two releases that differ in one limit, to change between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

ENVIRONMENT: Final = "prod"
TASK: Final = "work"
AGENT: Final = "bot"
USERS: Final = tuple(f"user{number}" for number in range(60))
APPROVER, OPERATOR, PROPOSER, ACTIVATOR = "lea", "oki", "pat", "sam"
MOST_ALONE: Final = 50
MOST_AT_ALL: Final = 200
_BANK: Final = """
url: {url}
operations:
  balance:
    effects: [read]
    input: {{account: string}}
    output: {{account: string, balance: decimal}}
    targets: [account]
    reviewed: {{by: bench}}
  refund:
    effects: [write]
    input: {{order: string, amount: decimal}}
    output: {{order: string, n: integer}}
    targets: [order, amount]
    verify: {{read: bank.refunded, done_when: {{"rows[].reference": {{is: $key}}}}}}
    settles_within_s: 5
    timeout_ms: 8000
    reviewed: {{by: bench}}
  refunded:
    effects: [read]
    internal: true
    input: {{order: string}}
    output: {{rows: [{{reference: string}}]}}
    reviewed: {{by: bench}}
"""
_DESK: Final = """
url: {url}
operations:
  search:
    effects: [read]
    input: {{words: string}}
    output: {{tickets: [{{id: integer, subject: string}}]}}
    degrade: {{cache_s: 60}}
    reviewed: {{by: bench}}
  export:
    effects: [read]
    input: {{kilobytes: integer}}
    output: {{rows: [{{id: integer, text: string}}]}}
    reviewed: {{by: bench}}
  delete:
    {{effects: [destructive], input: {{ticket: integer}}, output: {{deleted: boolean}}, reviewed: {{by: bench}}}}
"""
_AGENTS: Final = """
bot:
  prod: {issuer: interlock-dev, subject: bot}
  grants:
    - {on: [bank.balance, desk.search, desk.export], for: &staff {roles: [Staff], task: work}}
    - {on: desk.delete, for: {roles: [Nobody], task: work}}
    - on: bank.refund
      for: *staff
      where: {amount: {min: "0.01", max: "MOST"}}
      ask: {rule: refunds, when: {amount: {over: "50.00"}}}
"""


def files(bank: str, desk: str, *, most: int = MOST_AT_ALL) -> dict[str, str]:
    """The release; `most` is the largest refund at all."""
    return {
        "release.yaml": (
            "name: soak\n"
            "owners: {platform: [release.yaml, tools], product: [agents.yaml, tasks.yaml], security: [approvals.yaml]}\n"
            "administration:\n"
            "  operated_by: [acme]\n"
            "  teams: {platform: [Platform], product: [Platform], security: [Security]}\n"
            "  kill: [Operator]\n  resume: [Operator]\n  status: [Operator]\n  traces: [Operator]\n"
            "  propose: [Platform]\n  activate: [Security, Platform]\n"
        ),
        "agents.yaml": _AGENTS.replace("MOST", f"{most}.00"),
        "tasks.yaml": "work: {purpose: measure, open_to: [Staff], agents: [bot]}\n",
        "approvals.yaml": "refunds: {role: Lead, not: requester, holds_s: 300, show: [order, amount]}\n",
        "tools/bank.yaml": _BANK.format(url=bank),
        "tools/desk.yaml": _DESK.format(url=desk),
    }


def write(folder: Path, release: dict[str, str]) -> Path:
    """The release as a folder."""
    for name, text in release.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def write_directory(path: Path) -> Path:
    """Whom the built-in issuer vouches for."""
    roles = {APPROVER: "Lead", OPERATOR: "Operator", PROPOSER: "Platform", ACTIVATOR: "Security"} | dict.fromkeys(
        USERS, "Staff"
    )
    users = {name: {"tenant": "acme", "roles": [role]} for name, role in roles.items()}
    path.write_text(json.dumps({"users": users, "agents": {AGENT: {"subjects": {ENVIRONMENT: AGENT}}}}))
    return path
