"""MCP servers over streamable HTTP, on a small HTTP/1.1 client of our own.

Why our own: the permit and the lease must be checked where the first byte is written, with nothing between the check and
the write. httpx2 and httpcore2 yield to the event loop in between (and cost 0.35 and 0.25 ms a request), aiohttp (0.11 ms)
offers no such place at all. The parsing is llhttp's (`httptools`), at 0.03 ms a request.
"""
