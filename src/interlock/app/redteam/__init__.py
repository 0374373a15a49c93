"""Runs attacks against a release in a dry world: the real gate on a real Postgres, with recorders where tools would be."""
