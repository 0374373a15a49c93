"""A real Postgres under our own supervisor: private, shared by several processes, gone with the last of them."""
