"""Buildah and Podman without a daemon: an image to build from, the build, containers on this machine's network."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
from pathlib import Path
from typing import Any, Final

PROGRAMS: Final = {
    "buildah": "buildah",
    "podman": "podman",
    "crun": "crun",
    "unshare": "util-linux",
    "runuser": "util-linux",
    "pgbouncer": "pgbouncer",
}
DATABASE_PROGRAMS: Final = "/usr/lib/postgresql"
MADE_HERE: Final = "localhost/interlock-base"
IMAGE: Final = "localhost/interlock"
SUITE: Final = "bookworm"
# What the packages of a Debian call what python:3.12-slim brings along.
INCLUDED: Final = "ca-certificates,python3-venv,python-is-python3"
# Where a machine reaches the package index by settings of its own, the build uses the same; none of it is left in the image.
LENT: Final = tuple(path for path in ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt") if Path(path).exists())
MAX_FILES: Final = 4_096
UNIFIED: Final = Path("/sys/fs/cgroup/unified")


class EngineError(Exception):
    """A command of the engine has failed; the message is what it said."""


def lacking(*, base: str) -> list[str]:
    """The packages that are not installed."""
    wanted = dict(PROGRAMS) if base else {**PROGRAMS, "debootstrap": "debootstrap"}
    found = {
        package for program, package in wanted.items() if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None
    }
    return sorted(found if Path(DATABASE_PROGRAMS).is_dir() else found | {"postgresql"})


async def said(*words: str, check: bool = True) -> tuple[int, str, str]:
    """Run a command to its end. Raises `EngineError` when it fails and `check` is not taken back."""
    process = await asyncio.create_subprocess_exec(
        *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    code = process.returncode or 0
    if check and code != 0:
        raise EngineError(f"{' '.join(words)} ended with {code}:\n{out.decode()[-2000:]}{err.decode()[-4000:]}")
    return code, out.decode(), err.decode()


class Engine:
    """Images and containers under one folder, of nobody else's."""

    def __init__(self, folder: Path, driver: str) -> None:
        self._folder = folder
        self._options = ["--root", str(folder / "store"), "--runroot", str(folder / "run"), "--storage-driver", driver]
        self._names: list[str] = []

    def _buildah(self, *words: str) -> list[str]:
        return ["buildah", *self._options, *words]

    def _podman(self, *words: str) -> list[str]:
        kept = ["--cgroup-manager", "cgroupfs", "--events-backend", "none", "--runtime", "crun"]
        return ["podman", *self._options, *kept, *words]

    async def base(self) -> str:
        """An image made from Debian's packages, once; registries of images are not asked."""
        if (await said(*self._buildah("inspect", "--type", "image", MADE_HERE), check=False))[0] == 0:
            return MADE_HERE
        root = self._folder / "base"
        shutil.rmtree(root, ignore_errors=True)
        await said("debootstrap", "--variant=minbase", f"--include={INCLUDED}", SUITE, str(root))
        shutil.rmtree(root / "var/cache/apt/archives")
        container = (await said(*self._buildah("from", "scratch")))[1].strip()
        await said(*self._buildah("add", "--quiet", container, str(root), "/"))
        await said(*self._buildah("commit", "--quiet", "--rm", container, MADE_HERE))
        shutil.rmtree(root)
        return MADE_HERE

    async def build(self, context: Path, base: str, *, tag: str = IMAGE) -> dict[str, Any]:
        """Build the image, or one on top of it; gives its configuration and size."""
        lent = [word for path in LENT for word in ("--volume", f"{path}:{path}:ro")]
        plain = ["--isolation", "chroot", "--format", "docker", "--pull-never", "--layers", *lent]
        args = [word for name, value in (("BASE", base), ("INTERLOCK", IMAGE)) for word in ("--build-arg", f"{name}={value}")]
        file = str(context / "Containerfile")
        await said(*self._buildah("build", *plain, *args, "--tag", tag, "--file", file, str(context)))
        return await self.image(tag)

    async def image(self, name: str) -> dict[str, Any]:
        """What the engine knows of an image."""
        found: list[dict[str, Any]] = json.loads((await said(*self._podman("image", "inspect", name)))[1])
        return found[0]

    def _held(self, *, volumes: dict[str, str], variables: dict[str, str]) -> list[str]:
        """As strict as a platform can be: nothing to write to but what is mounted, no capability, no way to get one."""
        files, processes = (
            min(MAX_FILES, resource.getrlimit(which)[1] % (1 << 31))
            for which in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)
        )
        return [
            *("--network", "host", "--cgroups", "disabled", "--pull", "never", "--health-interval", "disable"),
            *("--read-only", "--read-only-tmpfs=false", "--cap-drop", "all", "--security-opt", "no-new-privileges"),
            *("--ulimit", f"nofile={files}:{files}", "--ulimit", f"nproc={processes}:{processes}"),
            *(word for source, target in volumes.items() for word in ("--volume", f"{source}:{target}")),
            *(word for name, value in variables.items() for word in ("--env", f"{name}={value}")),
        ]

    async def once(
        self,
        *words: str,
        volumes: dict[str, str],
        variables: dict[str, str],
        entrypoint: str = "",
        image: str = IMAGE,
        check: bool = True,
    ) -> tuple[int, str, str]:
        """One command of the image, to its end."""
        instead = ["--entrypoint", entrypoint] if entrypoint else []
        held = self._held(volumes=volumes, variables=variables)
        return await said(*self._podman("run", "--rm", *held, *instead, image, *words), check=check)

    async def start(self, name: str, *words: str, volumes: dict[str, str], variables: dict[str, str]) -> None:
        """A gateway, in the background. Without words, the image's own command."""
        self._names.append(name)
        held = self._held(volumes=volumes, variables=variables)
        await said(*self._podman("run", "--detach", "--name", name, *held, IMAGE, *words))

    async def inspect(self, name: str) -> dict[str, Any]:
        """What the engine knows of a container."""
        found: list[dict[str, Any]] = json.loads((await said(*self._podman("inspect", name)))[1])
        return found[0]

    async def within(self, name: str, *words: str) -> tuple[int, str, str]:
        """A command inside of a container that runs."""
        return await said(*self._podman("exec", name, *words), check=False)

    async def healthy(self, name: str) -> bool:
        """The image's own health check, run once."""
        return (await said(*self._podman("healthcheck", "run", name), check=False))[0] == 0

    async def signal(self, name: str, signal: str) -> None:
        """Send a signal to its first process."""
        await said(*self._podman("kill", "--signal", signal, name))

    async def ended(self, name: str) -> int:
        """Wait until it has ended; gives its exit code."""
        return int((await said(*self._podman("wait", name)))[1])

    async def again(self, name: str) -> None:
        """Start it once more, with all that it had."""
        await said(*self._podman("start", name))

    async def logs(self, name: str) -> str:
        """What it has printed."""
        _, out, err = await said(*self._podman("logs", name), check=False)
        return out + err

    async def changed(self, name: str) -> list[str]:
        """What is not as it was in the image."""
        return (await said(*self._podman("diff", name)))[1].split("\n")

    async def clear(self) -> None:
        """Nothing is left running, and no volume."""
        for name in self._names:
            await said(*self._podman("rm", "--force", "--time", "2", name), check=False)
        await said(*self._podman("volume", "rm", "--all", "--force"), check=False)
