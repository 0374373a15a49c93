"""How agents and people come in over HTTP: the MCP endpoint of both revisions, tokens, controls."""
