"""`interlock keys`: the keys that all gateways of an installation share, made before any of them starts."""

from __future__ import annotations

from interlock.cli.common import DEFAULT_STATE, Json, State
from interlock.cli.output import OK, USAGE, Failure, print_json


def make(*, state: State = DEFAULT_STATE, as_json: Json = False) -> int:
    """Make what is lacking of the keys in the state folder; those that are there stay."""
    from interlock.identity.errors import KeyFolderError  # noqa: PLC0415  # not needed for --help
    from interlock.identity.keys import SHARED, KeyRing  # noqa: PLC0415

    folder = state / "keys"
    try:
        keys = KeyRing(folder)
        found = {purpose: str(keys.signing(purpose).kid) for purpose in SHARED}
    except KeyFolderError as error:
        raise Failure(str(error), code=USAGE) from error
    except OSError as error:
        raise Failure(f"{folder} cannot be written: {error.strerror}", code=USAGE) from error
    if as_json:
        print_json({"folder": str(folder), "keys": found})
    else:
        print(f"{', '.join(found)}: in {folder}")
        print("give every gateway of the installation the same; whoever can read them can be anyone")
    return OK
