"""A small MCP server made with the SDK; run as a program it speaks stdio."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from typing import Annotated

from mcp.server.mcpserver import Context, MCPServer
from pydantic import BaseModel, Field


class Sum(BaseModel):
    total: int


class Consent(BaseModel):
    yes: bool


def make() -> MCPServer:
    server = MCPServer("shop", log_level="ERROR")

    @server.tool()
    def echo(text: str) -> str:
        return text

    @server.tool()
    def add(a: int, b: int) -> Sum:
        """Adds."""
        return Sum(total=a + b)

    @server.tool()
    def fail() -> str:
        raise RuntimeError("the till is empty")

    @server.tool()
    async def chatty(ctx: Context) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            await ctx.info("secret progress")
        await ctx.report_progress(1, 2, "half")
        return "after all that"

    @server.tool()
    async def asks(ctx: Context) -> str:
        answer = await ctx.elicit("Pay?", Consent)
        return f"asked: {answer.action}"

    @server.tool()
    def route(region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})]) -> str:
        return f"routed to {region}"

    @server.tool()
    def environment() -> str:
        return " ".join(sorted(os.environ))

    @server.tool()
    def secret() -> str:
        return os.environ.get("SHOP_TOKEN", "none")

    @server.tool()
    def process() -> int:
        return os.getpid()

    @server.tool()
    def die() -> str:
        os._exit(3)

    @server.tool()
    def hang() -> str:
        threading.Event().wait(60)
        return "late"

    @server.tool()
    def spawn() -> int:
        """Leaves a grandchild behind."""
        import subprocess  # noqa: PLC0415  # used by this tool only

        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]).pid

    return server


if __name__ == "__main__":
    make().run("stdio")
