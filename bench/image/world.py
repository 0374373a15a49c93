"""What stands around the containers: a Postgres that asks for passwords, a pooler in both modes, an issuer, a tool."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx2
from mcp.server import MCPServer
from pydantic import BaseModel

from bench.image.engine import DATABASE_PROGRAMS, said
from bench.image.page import blocks
from tests.support.issuer import LocalIssuer
from tests.support.listening import bound, listening

ENVIRONMENT: Final = "prod"
AUDIENCE: Final = "https://interlock.acme.example/mcp"
ROLES: Final = ("owner", "app", "auditor")
DATABASE_USER: Final = "postgres"
STATELESS: Final = "2026-07-28"
META: Final = {"io.modelcontextprotocol/protocolVersion": STATELESS, "io.modelcontextprotocol/clientCapabilities": {}}
PATIENCE_S: Final = 60.0
_RELEASE: Final = {
    "release.yaml": "name: image\nadministration: {operated_by: [acme], status: [Operator], traces: [Operator]}\n",
    "tasks.yaml": "work: {purpose: try the image, open_to: [Staff], agents: [bot]}\n",
    "agents.yaml": """
bot:
  prod: {issuer: corp, subject: bot-app}
  grants:
    - {on: [bank.balance, bank.pay], for: {roles: [Staff], task: work}}
""",
    "issuers.yaml": """
corp:
  kind: oidc
  issuer: ISSUER
  environments: {prod: ["AUDIENCE"]}
  people: {user: sub, tenant: {fixed: acme}, roles: {claim: groups, map: {staff: Staff}}, clients: [console]}
  agents: {delegated: true}
""",
    "tools/bank.yaml": """
url: TOOL
operations:
  balance: {effects: [read], input: {account: string}, output: {account: string, balance: decimal}, reviewed: {by: bench}}
  pay: {effects: [write], input: {order: string}, output: {n: integer}, timeout_ms: 20000, reviewed: {by: bench}}
""",
}


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def newest_programs() -> Path:
    """Where Debian keeps what Postgres is made of."""
    return max(Path(DATABASE_PROGRAMS).glob("*/bin"), key=lambda found: int(found.parent.name))


class Database:
    """Debian's Postgres in a folder of its own, on loopback, by password only; and its pooler."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.poolers = {mode: free_port() for mode in ("session", "transaction")}
        self.passwords = {role: f"of-{role}-{os.urandom(6).hex()}" for role in (*ROLES, "postgres")}

    def url(self, role: str, *, port: int = 0, password: bool = False) -> str:
        """As a role; the password is in it only for the trial itself."""
        name = role if role == "postgres" else f"interlock_{role}"
        known = f":{self.passwords[role]}" if password else ""
        return f"postgresql://{name}{known}@127.0.0.1:{port or self.port}/{'postgres' if role == 'postgres' else 'interlock'}"

    async def as_user(self, *words: str) -> None:
        """Postgres does not run as root."""
        await said("runuser", "--user", DATABASE_USER, "--", *words)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Roles and an empty database are made as docs/how-to/deploy.md says."""
        programs = newest_programs()
        shutil.chown(self.folder, DATABASE_USER)
        data, secret = self.folder / "data", self.folder / "password"
        secret.write_text(self.passwords["postgres"])
        secret.chmod(0o644)
        await self.as_user(f"{programs}/initdb", "-D", str(data), "-A", "scram-sha-256", "--pwfile", str(secret), "-E", "UTF8")
        secret.unlink()
        options = f"-c port={self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}"
        await self.as_user(f"{programs}/pg_ctl", "-D", str(data), "-o", options, "-l", str(self.folder / "log"), "-w", "start")
        poolers = []
        try:
            connection = await asyncpg.connect(self.url("postgres", password=True))
            for statement in filter(str.strip, blocks("sql")[0].split(";\n")):
                await connection.execute(statement)
            for role in ROLES:
                await connection.execute(f"ALTER ROLE interlock_{role} PASSWORD '{self.passwords[role]}'")
            await connection.close()
            poolers = [await self._pooler(mode) for mode in self.poolers]
            yield
        finally:
            for pooler in poolers:
                pooler.send_signal(signal.SIGINT)
                await pooler.wait()
            await self.as_user(f"{programs}/pg_ctl", "-D", str(data), "-m", "immediate", "stop")

    async def _pooler(self, mode: str) -> asyncio.subprocess.Process:
        settings = self.folder / f"{mode}.ini"
        users = self.folder / "users.txt"
        users.write_text("".join(f'"interlock_{role}" "{self.passwords[role]}"\n' for role in ROLES))
        settings.write_text(
            f"[databases]\ninterlock = host=127.0.0.1 port={self.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {self.poolers[mode]}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {users}\n"
            f"pool_mode = {mode}\nlogfile =\n"
        )
        for path in (settings, users):
            shutil.chown(path, DATABASE_USER)
        process = await asyncio.create_subprocess_exec(
            *("/usr/sbin/pgbouncer", "--user", DATABASE_USER, str(settings)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=(self.folder / f"{mode}.log").open("wb"),
        )
        until_s = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.poolers[mode]), timeout=1).close()
                return process
            if time.monotonic() > until_s or process.returncode is not None:
                raise RuntimeError(f"pgbouncer does not listen: {(self.folder / f'{mode}.log').read_text()}")
            await asyncio.sleep(0.05)


class Balance(BaseModel):
    account: str
    balance: str


class Paid(BaseModel):
    n: int


class Bank:
    """A real MCP server whose payments take as long as the trial wants."""

    def __init__(self) -> None:
        self.paid: list[str] = []
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    def app(self) -> Any:
        server = MCPServer("bank", log_level="ERROR")

        @server.tool()
        async def balance(account: str) -> Balance:
            """What is on an account."""
            return Balance(account=account, balance="12.50")

        @server.tool()
        async def pay(order: str) -> Paid:
            """Pay."""
            self.paid.append(order)
            self.entered.set()
            await self.go_on.wait()
            return Paid(n=len(self.paid))

        return server.streamable_http_app(json_response=True)


class World:
    """All of it, and a client."""

    def __init__(self, folder: Path, database: Database, issuer: LocalIssuer, bank: Bank) -> None:
        self.folder, self.database, self.issuer, self.bank = folder, database, issuer, bank

    def token(self) -> str:
        """The issuer's word that the agent acts for Ana."""
        return self.issuer.token(sub="ana", groups=["staff"], aud=AUDIENCE, client_id="bot-app", sid="login-1")

    async def call(self, port: int, operation: str, **arguments: str) -> dict[str, Any]:
        """One governed call over MCP; gives its result."""
        body = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": operation, "arguments": arguments, "_meta": META},
        }
        headers = {
            "authorization": f"Bearer {self.token()}",
            "host": "interlock:8080",
            "mcp-method": "tools/call",
            "mcp-name": operation,
            "mcp-protocol-version": STATELESS,
            "accept": "application/json, text/event-stream",
        }
        async with httpx2.AsyncClient(timeout=PATIENCE_S, trust_env=False) as http:
            answer = await http.post(f"http://127.0.0.1:{port}/mcp", json=body, headers=headers)
        found: dict[str, Any] = answer.json()
        if "result" not in found:
            raise RuntimeError(f"{operation} at {port} was answered {answer.status_code}: {found}")
        result: dict[str, Any] = found["result"]
        return result

    async def status(self, port: int, path: str) -> int:
        """What a probe is answered; 0 when nobody listens."""
        async with httpx2.AsyncClient(timeout=5, trust_env=False) as http:
            try:
                return (await http.get(f"http://127.0.0.1:{port}{path}", headers={"host": "10.1.2.3:8080"})).status_code
            except httpx2.HTTPError:
                return 0

    async def until(self, port: int, path: str, wanted: set[int]) -> float:
        """Ask as a platform's probe does; gives the seconds it took."""
        began_s = time.monotonic()
        while (found := await self.status(port, path)) not in wanted:
            if time.monotonic() > began_s + PATIENCE_S:
                raise RuntimeError(f"{path} at {port} answers {found} and not {wanted}")
            await asyncio.sleep(0.1)
        return time.monotonic() - began_s


def write_release(folder: Path, issuer: str, tool: str) -> Path:
    """The release that everybody may read, as a platform mounts it."""
    for name, text in _RELEASE.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("ISSUER", issuer).replace("AUDIENCE", AUDIENCE).replace("TOOL", tool))
    return folder


def write_secrets(folder: Path, files: dict[str, bytes]) -> Path:
    """As Kubernetes mounts a secret: files of root's that a group may read, behind two links."""
    kept = folder / "..2026_11_26"
    kept.mkdir(parents=True)
    (folder / "..data").symlink_to(kept.name)
    for name, content in files.items():
        (kept / name).write_bytes(content)
        (kept / name).chmod(0o440)
        os.chown(kept / name, 0, 10001)
        (folder / name).symlink_to(f"..data/{name}")
    for place in (folder, kept):
        place.chmod(0o755)
    return folder


def make_volume(folder: Path) -> Path:
    """As Kubernetes gives a disk to a pod with `fsGroup`: root's, and the group may write."""
    folder.mkdir()
    os.chown(folder, 0, 10001)
    folder.chmod(0o2775)
    return folder


@contextlib.asynccontextmanager
async def standing(folder: Path) -> AsyncIterator[World]:
    """Everything runs until the trial has ended."""
    os.chmod(folder, 0o755)  # noqa: PTH101  # at once
    (folder / "db").mkdir(mode=0o700)
    database, bank = Database(folder / "db"), Bank()
    sockets = [bound() for _ in range(2)]
    urls = [f"http://127.0.0.1:{item.getsockname()[1]}" for item in sockets]
    issuer = LocalIssuer(urls[0])
    app = bank.app()
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(database.running())
        await stack.enter_async_context(listening(issuer.app(), sockets[0]))
        await stack.enter_async_context(listening(app, sockets[1]))
        write_release(folder / "release", urls[0], f"{urls[1]}/mcp")
        yield World(folder, database, issuer, bank)
