"""The HTTP API beside MCP: one module a resource. Errors are problem documents; `application` puts it together."""
