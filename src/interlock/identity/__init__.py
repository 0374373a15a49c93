"""Who calls, and for whom: keys, tokens, the exchange that binds an agent to a user, and refusals counted."""
