"""Other people's MCP clients in front of `interlock mcp`, as they install from their registries; printed as they answer.

    python -m examples.local_clients fastmcp FOLDER     # FOLDER/bin/python has fastmcp
    python -m examples.local_clients inspector FOLDER   # FOLDER/node_modules has node@22 and @modelcontextprotocol/inspector

Each lists the tools, reads a ticket list, tries a refund over the limit, and one that waits for a person.
"""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

from examples.acme.demo import FOLDER
from examples.acme.interlocked import DIRECTORY, Interlocked
from examples.acme.world import World

CALLS = [
    ("customers.get", {"customer_id": 7}),
    ("payments.refund", {"order_id": "A1", "amount": "900.00", "currency": "EUR"}),
    ("payments.refund", {"order_id": "A1", "amount": "80.00", "currency": "EUR"}),
]
FASTMCP = """
import asyncio, json, sys
from fastmcp import Client
async def main():
    config, calls = json.loads(sys.argv[1]), json.loads(sys.argv[2])
    async with Client(config) as client:
        print("tools:", ", ".join(sorted(tool.name for tool in await client.list_tools())))
        for name, arguments in calls:
            done = await client.call_tool_mcp(name, arguments)
            print(f"{name} {json.dumps(arguments)} -> {'refused: ' if done.isError else ''}{done.content[0].text}")
asyncio.run(main())
"""


def entry(interlock):
    """The configuration block of a local client, as in docs/how-to/mcp-clients.md."""
    who = ["--agent", "support-bot", "--user", "ana", "--task", "customer-support", "--environment", "prod"]
    where = ["--server", interlock.url, "--state", str(interlock.state.absolute()), "--directory", str(DIRECTORY)]
    return {"command": sys.executable, "args": ["-m", "interlock", "mcp", *who, *where]}


def fastmcp(folder, block):
    config = json.dumps({"mcpServers": {"interlock": block}})
    return run([folder / "bin" / "python", "-c", FASTMCP, config, json.dumps(CALLS)])


def inspector(folder, block):
    modules = folder / "node_modules"
    node = modules / "node" / "bin" / "node"
    config = FOLDER / "inspector.json"
    config.write_text(json.dumps({"mcpServers": {"interlock": block}}))
    command = [node, modules / ".bin" / "mcp-inspector", "--cli", "--config", config.absolute(), "--server", "interlock"]
    ran = run([*command, "--method", "tools/list"], most=400)
    for name, arguments in CALLS:
        given = [f"{key}={json.dumps(value)}" for key, value in arguments.items()]
        words = [word for item in given for word in ("--tool-arg", item)]
        ran += run([*command, "--method", "tools/call", "--tool-name", name, *words], most=1200)
    return ran


def run(command, most=4000):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, timeout=120)
    print(
        f"\n$ … {' '.join(str(word) for word in command[-9:])[-160:]}\nexit {done.returncode}\n{done.stdout[:most]}{done.stderr[:most]}"
    )
    return done.returncode


async def main(which, folder):
    world = World(FOLDER / f"world-{time.time_ns()}")
    await world.start()
    interlock = None
    try:
        interlock = Interlocked(FOLDER / f"state-{time.time_ns()}", world)
        return await asyncio.to_thread({"fastmcp": fastmcp, "inspector": inspector}[which], folder, entry(interlock))
    finally:
        if interlock is not None:
            interlock.stop()
        world.stop()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1], Path(sys.argv[2]).absolute())))
