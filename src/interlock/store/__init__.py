"""Postgres: named SQL, migrations, and the transactions that carry the guarantees."""
