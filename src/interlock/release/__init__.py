"""The immutable bundle that shapes behaviour: policies, contracts, grants, tasks, tests; loaded whole, named by its digest."""
