"""A real Postgres under our own supervisor, for one machine: private, shared by several processes, gone with the last of them."""
