"""The composition root: the only place where clocks, randomness, database, keys, release and gate are wired together."""
