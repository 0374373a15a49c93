"""A real MCP server made with the SDK: `python -m bench.real_server PORT`."""

import sys

import uvicorn
from mcp.server import MCPServer
from pydantic import BaseModel


class Pong(BaseModel):
    n: int


def main(port: int) -> None:
    server = MCPServer("bench", log_level="ERROR")

    @server.tool()
    async def ping(n: int) -> Pong:
        return Pong(n=n)

    uvicorn.run(server.streamable_http_app(json_response=True), host="127.0.0.1", port=port, log_level="error")


if __name__ == "__main__":
    main(int(sys.argv[1]))
