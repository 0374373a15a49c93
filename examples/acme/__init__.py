"""A small company of real processes, to see what Interlock does for it."""
