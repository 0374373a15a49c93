"""The OWASP Top 10 for Agentic Applications, 2026: its identifiers and names, and what each means here, in our words."""

from __future__ import annotations

from typing import Final

import msgspec


class Risk(msgspec.Struct, frozen=True, kw_only=True):
    """One of the ten. `means` says what is tried under it here; `untried` what of it no dry world can try."""

    id: str
    name: str
    means: str
    untried: str = ""


TOP_TEN: Final = (
    Risk(
        id="ASI01",
        name="Agent Goal Hijack",
        means="Text that the agent reads gives it another goal; the agent obeys and calls what the text asks for.",
    ),
    Risk(
        id="ASI02",
        name="Tool Misuse and Exploitation",
        means="Allowed tools put to bad use: data read is sent out, what is listed is deleted in bulk, one payment made twice.",
    ),
    Risk(
        id="ASI03",
        name="Identity and Privilege Abuse",
        means="Somebody else's object, tenant or role; a token that was stolen, is over, was revoked, or is for elsewhere.",
    ),
    Risk(
        id="ASI04",
        name="Agentic Supply Chain Vulnerabilities",
        means="A tool's server describes itself otherwise than it was reviewed.",
        untried="packages and models that your agents load",
    ),
    Risk(
        id="ASI05",
        name="Unexpected Code Execution",
        means="Commands and scripts in what the agent writes, from text it has read.",
        untried="what your tools do with a text once they have it",
    ),
    Risk(
        id="ASI06",
        name="Memory and Context Poisoning",
        means="Hostile text is made to look harmless: pasted by the user, claimed by the agent, encoded, or of a session ago.",
    ),
    Risk(
        id="ASI07",
        name="Insecure Inter-Agent Communication",
        means="An agent that work was handed on to does more than was handed on.",
        untried="messages between agents that do not pass a gateway",
    ),
    Risk(
        id="ASI08",
        name="Cascading Failures",
        means="An agent in a loop calls and calls.",
    ),
    Risk(
        id="ASI09",
        name="Human-Agent Trust Exploitation",
        means="A person's yes to one call is used for another, or somebody says yes who may not.",
        untried="whether your people look before they say yes",
    ),
    Risk(
        id="ASI10",
        name="Rogue Agents",
        means="An agent goes on after it was stopped, or calls what it was never granted.",
    ),
)
BY_ID: Final = {risk.id: risk for risk in TOP_TEN}
