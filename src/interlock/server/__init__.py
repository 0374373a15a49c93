"""How agents and people come in over HTTP: MCP of both revisions, the HTTP API, the page, logging in."""
