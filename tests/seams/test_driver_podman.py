"""The driver `container` with a real Podman: an image is pulled by its digest, runs, outlives control and is gone after a stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from sdlb.adapters.driver_container import ContainerDriver
from sdlb.model.location import parse_prefix
from sdlb.model.release import Artifact
from sdlb.model.role import ArtifactRules, Container, RoleService
from sdlb.seams.driver import DriverFailed, Plan, Slot
from tests.seams.real_podman import Podman, podman, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=f"needs Podman: {why_not()}")
SLOT = Slot("web", "catalog")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    with podman(tmp_path_factory.mktemp("p")) as found:
        yield found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def plan_of(engine: Podman, version: str = "1.0.1", **run: Any) -> Plan:
    fields: dict[str, Any] = {
        "command": ("{version}",),
        "port": 8080,
        "socket": str(engine.socket),
        "stop_timeout_s": 0.0,
    }
    rules = ArtifactRules((parse_prefix(f"docker://{engine.registry}/team/"),))
    entry = RoleService("web", "catalog", Container(**(fields | run)), ("a/",), artifacts=rules)
    image = Artifact(f"docker://{engine.registry}/team/catalog", engine.digest.removeprefix("sha256:"))
    return Plan(SLOT, version, entry, free_port(), image)


def runs(pid: int) -> bool:
    """Whether the process is that of the image."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/app\0")
    except OSError:
        return False


async def answer(port: int, path: str = "/") -> str:
    async with httpx.AsyncClient(trust_env=False) as http:
        for _ in range(250):
            try:
                return (await http.get(f"http://127.0.0.1:{port}{path}")).text
            except httpx.TransportError:
                await asyncio.sleep(0.02)
    raise AssertionError(f"nothing answers on {port}")


def test_a_life_in_podman(engine: Podman, tmp_path: Path) -> None:
    """Pulled, started, reached on loopback, adopted by the next control, ended without a rest; then the next version."""

    async def play() -> None:
        plan = plan_of(engine, memory_mb=64, cpu=0.5)
        driver = ContainerDriver(tmp_path)
        await driver.prepare(plan)
        first = await driver.start(plan)
        assert (first.status, first.version, first.port) == ("running", "1.0.1", plan.port)
        assert await answer(plan.port) == "1.0.1"
        assert runs(first.pid)
        driver = ContainerDriver(tmp_path)
        assert (await driver.start(plan)).pid == first.pid
        while (await driver.state(SLOT)).log != ("listening",):
            await asyncio.sleep(0.02)
        with pytest.raises(DriverFailed, match=r"the slot has catalog-1\.0\.1; stop it first"):
            await driver.start(plan_of(engine, "1.0.2"))
        await driver.stop(SLOT)
        assert not runs(first.pid)
        assert (await driver.state(SLOT)).log == ("listening",)
        following = replace(plan_of(engine, "1.0.2"), port=plan.port)
        await driver.start(following)
        assert await answer(plan.port) == "1.0.2"
        await driver.stop(SLOT)
        await driver.stop(SLOT)
        await driver.forget(SLOT)
        assert (await driver.state(SLOT)).status == "absent"

    asyncio.run(play())


def test_podman_starts_a_program_that_exits_again(engine: Podman, tmp_path: Path) -> None:
    async def play() -> None:
        plan, driver = plan_of(engine), ContainerDriver(tmp_path)
        first = await driver.start(plan)
        assert await answer(plan.port) == "1.0.1"
        os.kill(first.pid, signal.SIGKILL)
        end = time.monotonic() + 30
        while (state := await driver.state(SLOT)).pid in (0, first.pid):
            assert time.monotonic() < end
            assert state.reason in ("", "it exited with code 137")
            await asyncio.sleep(0.02)
        assert await answer(plan.port) == "1.0.1"
        await driver.stop(SLOT)

    asyncio.run(play())


def test_what_podman_refuses(engine: Podman, tmp_path: Path) -> None:
    async def play() -> None:
        plan, driver = plan_of(engine), ContainerDriver(tmp_path)
        unknown = replace(plan, artifact=Artifact(f"docker://{engine.registry}/team/catalog", "0" * 64))
        with pytest.raises(DriverFailed, match="cannot be pulled") as error:
            await driver.prepare(unknown)
        assert (error.value.fault, error.value.retry) == ("artifact", False)
        with socket.create_server(("127.0.0.1", plan.port)):
            with pytest.raises(DriverFailed, match="cannot be started") as error:
                await driver.start(plan)
            assert (error.value.fault, error.value.retry) == ("machine", True)
        assert (await driver.start(plan)).status == "running"  # nothing holds the port any more
        await driver.stop(SLOT)

    asyncio.run(play())
