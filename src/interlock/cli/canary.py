"""`interlock canary`: a planted secret, and what a release keeps of it."""

from __future__ import annotations

import re
from typing import Annotated, Final

from cyclopts import Parameter

from interlock.app.sources import secret_text
from interlock.cli.common import Json
from interlock.cli.output import OK, USAGE, Failure, print_json
from interlock.release.risk import STARTS_CHARS
from interlock.risk.canaries import digest_of

CANARY_CHARS: Final = 32
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,47}")


def canary(
    name: Annotated[str, Parameter(help="What it is called in the release: small letters, digits, dashes.")],
    *,
    as_json: Json = False,
) -> int:
    """Make a secret to plant where no agent has a reason to take it from. It is shown once, and kept nowhere."""
    if not _NAME.fullmatch(name):
        raise Failure(f"{name!r} is no name for a canary", hint="use small letters, digits and dashes", code=USAGE)
    secret = secret_text(CANARY_CHARS)
    kept = {"starts": secret[:STARTS_CHARS], "chars": len(secret), "sha256": digest_of(secret)}
    if as_json:
        print_json({"name": name, "secret": secret, "release": kept})
        return OK
    print(f"plant this where nobody needs it (a record, a document, a mailbox); it is not shown again:\n\n  {secret}\n")
    print("and put this into risk.yaml under `canaries`:\n")
    print(f'  {name}: {{starts: "{kept["starts"]}", chars: {kept["chars"]}, sha256: "{kept["sha256"]}"}}')
    return OK
