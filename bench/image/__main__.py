"""`make image`: build the Containerfile, run what came of it as strictly as a platform can, and look at what it does.

What is run, and with which rights, is what docs/how-to/deploy.md says. No daemon and no registry of images is needed: Buildah
and Podman work on a folder (`.image/`), and the image to build from is made of Debian's packages once, or named with `--base`.
Linux, root, and some minutes; what is not installed is named. Exit code 1 says that something is not as it should be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench.image.engine import IMAGE, UNIFIED, Engine, EngineError, lacking, said
from bench.image.page import blocks, mounts, pod, variables
from bench.image.world import World, free_port, make_volume, standing, write_secrets
from interlock.cli.up import TERMINATED

ROOT: Final = Path(__file__).resolve().parents[2]
DATABASE: Final = "/run/secrets/database"
STATE: Final = "/var/lib/interlock/state"
USER: Final = "10001"
LEAVES_WITHIN_S: Final = 35.0


class Report:
    """What was looked at, and how it is."""

    def __init__(self) -> None:
        self.checks: list[tuple[str, bool, str]] = []
        self.figures: dict[str, float] = {}

    def check(self, what: str, *, holds: bool, found: object = "") -> None:
        self.checks.append((what, holds, str(found)))
        print(f"  {'yes' if holds else 'NO '}  {what}{f': {found}' if found != '' else ''}", flush=True)

    def figure(self, what: str, value: float) -> None:
        self.figures[what] = round(value, 2)
        print(f"       {what}: {value:.2f}", flush=True)


class Trial:
    """The steps, in the order in which a platform would come by them."""

    def __init__(self, engine: Engine, world: World, report: Report) -> None:
        self.engine, self.world, self.report = engine, world, report
        self.ports = {"interlock-a": free_port(), "interlock-b": free_port()}
        self.job = pod("Job")["containers"][0]
        self.first = pod("StatefulSet")["initContainers"][0]
        self.gateway = pod("StatefulSet")["containers"][0]
        secrets = {role: str(world.folder / f"secret-{role}") for role in ("owner", "app", "auditor", "keys")}
        self.sources = {name: {**secrets, "state": str(world.folder / f"state-{name}")} for name in (*self.ports, "probe")}

    def variables(self, container: dict[str, Any], **more: str) -> dict[str, str]:
        """The page's, but for where the database is."""
        database = self.world.database
        here = {"INTERLOCK_OWNER_URL": database.url("owner"), "INTERLOCK_DATABASE_URL": database.url("app")}
        said_there = variables(container)
        return {**said_there, **{name: url for name, url in here.items() if name in said_there}, **more}

    def volumes(self, container: dict[str, Any], name: str = "probe") -> dict[str, str]:
        return mounts(container, self.sources[name])

    async def migrate(self) -> str:
        job = self.job
        return (await self.engine.once(*job["args"], volumes=self.volumes(job), variables=self.variables(job)))[1]

    async def image(self, seen: dict[str, Any], took_s: float) -> None:
        config = seen["Config"]
        self.report.figure("seconds to build", took_s)
        self.report.figure("image MB", seen["Size"] / 1e6)
        self.report.check("its user is a number that is not root", holds=config["User"] == "10001:10001", found=config["User"])
        version = (await self.engine.once("--version", volumes={}, variables={}))[1].strip()
        self.report.check("it runs at all", holds=bool(version), found=version)
        code, _, _ = await self.engine.once("-c", "import opentelemetry.sdk", volumes={}, variables={}, entrypoint="python")
        self.report.check("it can send to a collector", holds=code == 0)
        code, out, _ = await self.engine.once("-c", "pip --version", volumes={}, variables={}, entrypoint="sh", check=False)
        self.report.check("what built it is not in it", holds="/opt/" not in out, found=out.strip() or f"exit code {code}")

    async def prepare(self) -> None:
        """Keys once for all gateways, secrets, the schema."""
        keys = self.world.folder / "made"
        await said(sys.executable, "-m", "interlock", "keys", "--state", str(keys))
        secrets = self.sources["probe"]
        write_secrets(Path(secrets["keys"]), {path.name: path.read_bytes() for path in (keys / "keys").iterdir()})
        for role in ("owner", "app", "auditor"):
            write_secrets(Path(secrets[role]), {"password": self.world.database.passwords[role].encode()})
        for sources in self.sources.values():
            make_volume(Path(sources["state"]))
        for name in self.sources:
            first = self.first
            await self.engine.once(
                *first["command"][1:],
                *first["args"],
                volumes=self.volumes(first, name),
                variables={},
                entrypoint=first["command"][0],
            )
        await self.refused("a gateway on an empty database says what is lacking", "`interlock db migrate")
        migrated = await self.migrate()
        self.report.check("the schema is made by a step of its own", holds="applied" in migrated, found=migrated[:24].strip())
        self.report.check("which may be repeated", holds="nothing to do" in await self.migrate())
        pooled = self.world.database.url("app", port=self.world.database.poolers["transaction"])
        await self.refused("PgBouncer in transaction mode is refused", "pool_mode = session", INTERLOCK_DATABASE_URL=pooled)

    async def refused(self, what: str, sentence: str, **more: str) -> None:
        gateway = self.gateway
        code, _, err = await self.engine.once(
            *gateway["args"], volumes=self.volumes(gateway), variables=self.variables(gateway, **more), check=False
        )
        self.report.check(what, holds=code != 0 and sentence in err, found=f"exit code {code}")

    async def start(self, name: str, *more: str, release: bool = False, **variables: str) -> None:
        gateway, began_s = self.gateway, time.monotonic()
        own = {"INTERLOCK_PORT": str(self.ports[name]), "INTERLOCK_METRICS": str(free_port())}
        volumes = self.volumes(gateway, name) | ({str(self.world.folder / "release"): "/release:ro"} if release else {})
        await self.engine.start(
            name, *gateway["args"], *more, volumes=volumes, variables=self.variables(gateway, **own, **variables)
        )
        try:
            await self.world.until(self.ports[name], "/readyz", {200})
        except RuntimeError as error:
            raise EngineError(f"{error}\n{await self.engine.logs(name)}") from error
        self.report.figure(f"seconds until {name} is ready", time.monotonic() - began_s)

    async def gateways(self) -> None:
        """One straight at Postgres, which puts the first release in force; one through a pooler that gives sessions."""
        await self.start("interlock-a", "--release", "/release", release=True)
        pooled = self.world.database.url("app", port=self.world.database.poolers["session"])
        await self.start("interlock-b", INTERLOCK_DATABASE_URL=pooled)
        for name, port in self.ports.items():
            found = {path: await self.world.status(port, path) for path in ("/livez", "/readyz")}
            self.report.check(f"{name} answers the probes, by any name", holds=set(found.values()) == {200}, found=found)
            self.report.check(f"{name} is healthy by the image's own check", holds=await self.engine.healthy(name))

    async def confined(self) -> None:
        name = "interlock-a"
        seen = await self.engine.inspect(name)
        fields = _status(seen["State"]["Pid"])
        self.report.check("every user id of it is its own", holds=set(fields["Uid"]) == {USER}, found=" ".join(fields["Uid"]))
        self.report.check("it has no capability", holds=int(fields["CapEff"][0], 16) == 0 == int(fields["CapBnd"][0], 16))
        self.report.check("and can get none", holds=fields["NoNewPrivs"] == ["1"])
        places = "/ /opt/interlock /etc /usr/lib /var/lib/interlock /tmp /var/tmp /run"
        script = f"for place in {places} {STATE}; do touch $place/x 2>/dev/null && rm $place/x && echo $place; done"
        _, out, _ = await self.engine.within(name, "sh", "-c", script)
        self.report.check("it can write to its state and nowhere else", holds=out.split() == [STATE], found=out.split())
        changed = [line for line in await self.engine.changed(name) if line[2:] not in {"", "/etc", "/run", "/run/secrets"}]
        mounted = ("/release", DATABASE, "/var/lib/interlock", "/etc/mtab", "/run/.containerenv")
        changed = [line for line in changed if not line[2:].startswith(mounted)]
        self.report.check("the image is as it was", holds=not changed, found=changed or "")
        self.report.figure("memory of a gateway, MB", int(fields["VmRSS"][0]) / 1024)

    async def calls(self) -> None:
        a, b = self.ports.values()
        read = await self.world.call(a, "bank.balance", account="A1")
        self.report.check(
            "a governed read is answered", holds=read.get("structuredContent") == {"account": "A1", "balance": "12.50"}
        )
        wrote = await self.world.call(b, "bank.pay", order="O1")
        self.report.check("a governed write by the other gateway", holds=wrote.get("structuredContent") == {"n": 1})
        again = await self.world.call(a, "bank.pay", order="O1")
        once = self.world.bank.paid == ["O1"] and again.get("structuredContent") == {"n": 1}
        self.report.check("repeated at the first it is not paid again", holds=once, found=self.world.bank.paid)

    async def leaves(self) -> None:
        """SIGTERM while a payment is under way: the payment ends as it should, and nothing else begins."""
        name, port = "interlock-a", self.ports["interlock-a"]
        self.world.bank.entered.clear()
        self.world.bank.go_on.clear()
        under_way = asyncio.create_task(self.world.call(port, "bank.pay", order="O2"))
        await self.world.bank.entered.wait()
        began_s = time.monotonic()
        await self.engine.signal(name, "TERM")
        await self.world.until(port, "/readyz", {503, 0})
        alive = await self.world.status(port, "/livez")
        self.report.check("told to leave it is not ready, and alive", holds=alive == 200, found=alive)
        self.world.bank.go_on.set()
        answer = await under_way
        self.report.check("what was under way is answered", holds=answer.get("structuredContent") == {"n": 2})
        code = await self.engine.ended(name)
        took_s = time.monotonic() - began_s
        self.report.check("it leaves with exit code 0, in time", holds=code == 0 and took_s < LEAVES_WITHIN_S, found=code)
        self.report.figure("seconds from SIGTERM to the end", took_s)
        elsewhere = await self.world.call(self.ports["interlock-b"], "bank.pay", order="O2")
        once = self.world.bank.paid == ["O1", "O2"] and elsewhere.get("structuredContent") == {"n": 2}
        self.report.check("the other gateway knows that it was paid", holds=once, found=self.world.bank.paid)
        await self.engine.again(name)
        await self.world.until(port, "/readyz", {200})
        read = await self.world.call(port, "bank.balance", account="A1")
        self.report.check("started again on its state it serves", holds="structuredContent" in read)

    async def dies(self) -> None:
        """Killed in the middle of a payment: the other gateway does not make it again."""
        self.world.bank.entered.clear()
        self.world.bank.go_on.clear()
        broken = asyncio.create_task(self.world.call(self.ports["interlock-a"], "bank.pay", order="O3"))
        await self.world.bank.entered.wait()
        await self.engine.signal("interlock-a", "KILL")
        lost = await asyncio.gather(broken, return_exceptions=True)
        self.world.bank.go_on.set()
        self.report.check("killed, its caller gets no answer", holds=isinstance(lost[0], Exception))
        answer = await self.world.call(self.ports["interlock-b"], "bank.pay", order="O3")
        decided = answer.get("_meta", {}).get("interlock/decision", {})
        doubt = decided.get("outcome") == "in_doubt" and self.world.bank.paid.count("O3") == 1
        self.report.check("asked again, the other says that it is in doubt", holds=doubt, found=decided.get("outcome"))

    async def ends_early(self) -> None:
        """SIGTERM while it starts: the first process of a container has no default for it."""
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def says_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.set()
            await go_on.wait()
            writer.close()

        async with await asyncio.start_server(says_nothing, "127.0.0.1", 0) as silent:
            url = self.world.database.url("app", port=silent.sockets[0].getsockname()[1])
            name, own = "interlock-c", {"INTERLOCK_DATABASE_URL": url, "INTERLOCK_METRICS": str(free_port())}
            gateway = self.gateway
            await self.engine.start(
                name, *gateway["args"], volumes=self.volumes(gateway), variables=self.variables(gateway, **own)
            )
            await asked.wait()
            began_s = time.monotonic()
            await self.engine.signal(name, "TERM")
            code = await self.engine.ended(name)
            took_s = time.monotonic() - began_s
            go_on.set()
        at_once = code == TERMINATED and took_s < LEAVES_WITHIN_S
        self.report.check("told to end while it starts it ends", holds=at_once, found=f"exit code {code}")
        self.report.figure("seconds until it has", took_s)

    async def on_top(self, base: str) -> None:
        """The page's own image, whose function is of a cloud that is not here; then another function in its place."""
        context, tag = self.world.folder / "on-top", f"{IMAGE}-more"
        context.mkdir()
        (context / "Containerfile").write_text(blocks("dockerfile")[0])
        (context / "database_password.py").write_text(blocks("python")[0])
        await self.engine.build(context, base, tag=tag)
        script = "import azure.identity, cryptography, database_password as d; print(d.token.__name__, cryptography.__file__)"
        _, out, _ = await self.engine.once("-c", script, volumes={}, variables={}, entrypoint="python", image=tag)
        kept = out.startswith("token /opt/interlock/")
        self.report.check("an image on top adds to it and replaces nothing", holds=kept, found=out.strip())
        other = context / "other.py"
        other.write_text(f"def token():\n    return open('{DATABASE}/password').read()\n")
        volumes = self.volumes(self.job) | {str(other): "/opt/more/database_password.py:ro"}
        own = self.variables(self.job)
        del own["INTERLOCK_DATABASE_PASSWORD_COMMAND"]
        code, out, _ = await self.engine.once(*self.job["args"], volumes=volumes, variables=own, image=tag, check=False)
        self.report.check("and gives the password by a function", holds=code == 0 and "nothing to do" in out, found=out.strip())

    async def record(self) -> None:
        """What is printed is JSON with no password in it; the ledger holds."""
        printed = {name: await self.engine.logs(name) for name in self.ports}
        passwords = [word for text in printed.values() for word in self.world.database.passwords.values() if word in text]
        lines = [line for text in printed.values() for line in text.splitlines() if line.startswith("{")]
        self.report.check(
            "log lines are JSON and hold no password", holds=not passwords and all(map(_is_json, lines)), found=len(lines)
        )
        auditor = {
            "INTERLOCK_AUDITOR_URL": self.world.database.url("auditor"),
            "INTERLOCK_DATABASE_PASSWORD_COMMAND": f"cat {DATABASE}/password",
        }
        volumes = self.volumes(self.gateway, "interlock-b")
        signed = await self.engine.once(
            "audit", "checkpoint", volumes=volumes, variables=self.variables(self.gateway), check=False
        )
        self.report.check("heads are signed by hand", holds=signed[0] == 0, found=signed[1].strip())
        own = {self.sources["probe"]["auditor"]: f"{DATABASE}:ro", self.sources["interlock-b"]["state"]: STATE}
        verified = await self.engine.once("audit", "verify", "--json", volumes=own, variables=auditor, check=False)
        report = json.loads(verified[1] or "{}")
        found = f"{report.get('events')} events"
        self.report.check("an auditor verifies the ledger with the image", holds=verified[0] == 0, found=found)


def _status(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.partition(":")[0]: line.partition(":")[2].split() for line in lines}


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


async def trial(options: argparse.Namespace, folder: Path) -> Report:
    """All of it. Raises `EngineError` when something cannot even be tried."""
    report = Report()
    kept = ROOT / ".image"
    kept.mkdir(exist_ok=True)
    engine = Engine(kept, options.driver)
    try:
        base = options.base or await engine.base()
        print(f"building {IMAGE} from {base}", flush=True)
        began_s = time.monotonic()
        seen = await engine.build(ROOT, base)
        took_s = time.monotonic() - began_s
        async with standing(folder) as world:
            tried = Trial(engine, world, report)
            await tried.image(seen, took_s)
            steps: tuple[Callable[[], Any], ...] = (
                *(tried.prepare, tried.gateways, tried.confined, tried.calls),
                *(tried.leaves, tried.dies, tried.ends_early, tried.record, partial(tried.on_top, base)),
            )
            for step in steps:
                await step()
            await engine.clear()
    finally:
        await engine.clear()
    return report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.image", description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="", help="an image that is here already, in place of one made of Debian's packages")
    parser.add_argument(
        "--driver", default="overlay", help="how layers are stored: overlay, or vfs where the kernel has no other"
    )
    parser.add_argument("--json", type=Path, help="keep what was found")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if sys.platform != "linux" or os.geteuid() != 0:
        return _cannot("it needs Linux and root: layers are mounted, and a container gets a user of its own")
    missing = lacking(base=options.base)
    if missing:
        return _cannot(
            f"not installed: {', '.join(missing)}; on Debian: apt-get install --no-install-recommends {' '.join(missing)}"
        )
    if not options.inside:
        # Mounts of its own: nothing of this is seen elsewhere, and all of it ends with the process.
        again = [sys.executable, "-m", "bench.image", "--inside", *sys.argv[1:]]
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", "--", *again])
    return asyncio.run(_tried(options))


async def _tried(options: argparse.Namespace) -> int:
    if UNIFIED.is_mount():
        # Half one kind of control groups and half the other is not for crun, which is not asked to use either.
        await said("umount", str(UNIFIED))
    with tempfile.TemporaryDirectory(prefix="interlock-image-", dir="/var/tmp") as folder:
        try:
            report = await trial(options, Path(folder))
        except EngineError as error:
            return _cannot(str(error))
    wrong = [what for what, holds, _ in report.checks if not holds]
    if options.json:
        checks = [{"check": what, "holds": holds, "found": found} for what, holds, found in report.checks]
        options.json.write_text(json.dumps({"figures": report.figures, "checks": checks}, indent=2) + "\n")
    print(f"{len(report.checks) - len(wrong)} of {len(report.checks)} as they should be")
    return 1 if wrong else 0


def _cannot(why: str) -> int:
    print(f"the image cannot be tried: {why}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
