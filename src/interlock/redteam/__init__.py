"""Attacks on a release, derived from its own contracts and grants, and the report on them. Pure: nothing runs here."""
