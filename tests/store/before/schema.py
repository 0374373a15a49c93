"""What a schema is, told by `pg_dump`: a digest for each object, by its kind and name, so that a difference names what differs.

`schema.json` is of a database that the migrations 1 to 41 made, which the baseline stands for, and that 0042 was applied to. Those
41 files are in the history of this repository up to the change that brought the baseline, and nowhere else: the record is not made anew.
"""

import hashlib
import json
import re
import subprocess
from pathlib import Path

from interlock.store.embedded.layout import binaries

RECORD = Path(__file__).parent / "schema.json"
_OBJECT = re.compile(r"^-- Name: (.*); Type: (.*); Schema: .*; Owner: .*$", re.MULTILINE)
_ROWS = {
    "epoch": "to_jsonb(t) || jsonb_build_object('incarnation', incarnation = incarnation())",
    "database_identity": "to_jsonb(t) - 'database_id'",
}


def recorded():
    return json.loads(RECORD.read_text())


def described(layout, url):
    """Digests of all objects of a database: functions with their sources, rights, comments, constraints, indexes, triggers, ..."""
    command = [str(binaries(layout) / "pg_dump"), "--schema-only", url]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # our own programs
    _, *parts = _OBJECT.split(told.partition("-- PostgreSQL database dump complete")[0])
    return {
        f"{kind} {name}": hashlib.sha256(text.strip("-\n").encode()).hexdigest()[:24]
        for name, kind, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    }


async def rows_of(connection):
    """What every table holds that holds anything, but for what is another in each database."""
    names = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'migration'"
    )
    held = {}
    for (name,) in names:
        found = await connection.fetch(f"SELECT ({_ROWS.get(name, 'to_jsonb(t)')})::text FROM {name} t")  # the catalogue's
        if found:
            held[name] = sorted(row[0] for row in found)
    return held
