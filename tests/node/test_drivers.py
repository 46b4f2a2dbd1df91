"""What a running node does with drivers: real programs from real artifacts, adopted by the next control."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, Self

import httpx
import pytest
from msgspec.structs import replace

from sdlb.adapters.artifacts import ArtifactStore
from sdlb.adapters.driver_command import CommandDriver
from sdlb.adapters.driver_process import ProcessDriver
from sdlb.core.effects import Note, RunDriver
from sdlb.core.events import DriverDone
from sdlb.model.location import parse_prefix
from sdlb.model.role import ArtifactRules, Commands, Program, Restart, RoleService
from sdlb.node.drivers import Drivers, this_platform
from sdlb.node.ports import hold
from sdlb.node.programs import Programs
from sdlb.seams.driver import Slot, SlotState
from tests.releases import COMMAND, pack, release
from tests.seams.driver_caller import PYTHON

CRASHES = "import time\nprint('no table', flush=True)\ntime.sleep(0.2)\nraise SystemExit(3)\n"
CONTROL = """
import os, signal, subprocess, sys
what, pid = sys.argv[1], os.environ["SDLB_SLOT_FOLDER"] + "/pid"
alive = os.path.exists(pid) and os.path.exists("/proc/" + open(pid).read())
if what == "start" and not alive:
    words = [os.environ["SDLB_FOLDER"] + "/app", "--service", "catalog", "--version", os.environ["SDLB_VERSION"], "--instance", "c"]
    child = subprocess.Popen(words, env={**os.environ, "PORT": os.environ["SDLB_PORT"]}, start_new_session=True,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    open(pid, "w").write(str(child.pid))
elif what == "stop" and alive:
    os.kill(int(open(pid).read()), signal.SIGKILL)
elif what == "state":
    print("pid=" + open(pid).read() if alive else "")
    sys.exit(0 if alive else 3)
"""


class Control:
    """The drivers of one control, as `compose` makes them."""

    def __init__(self, folder: Path, entry: RoleService | None) -> None:
        self.folder = folder
        self.ended: list[str] = []
        self.started: list[int] = []
        self.notes: list[Note] = []
        self.named: list[Mapping[str, object]] = []
        """The releases that the target names."""
        self.store = ArtifactStore(folder / "store")
        slots = folder / "roles"
        made = {"process": ProcessDriver(slots, self.store), "command": CommandDriver(slots, self.store)}
        programs = Programs(lambda port, why: self.ended.append(why), self.started.append)
        services = () if entry is None else (entry,)
        report, keep = self.notes.append, self.store.keep
        self.drivers = Drivers(services, made, slots, programs, report, self.of_target, keep, Random(1))

    def of_target(self, service: str) -> list[Mapping[str, object]]:
        return self.named

    async def call(self, call: str, version: str = "", slot: str = "a", **fields: Any) -> DriverDone:
        return await self.drivers.run(RunDriver(f"key {call}", "web", "catalog", call, slot, version, **fields))

    async def start(self, version: str, slot: str = "a", **fields: Any) -> DriverDone:
        return await self.call("start", version, slot, release=release(self.folder, version), **fields)


def entry_of(folder: Path, **fields: Any) -> RoleService:
    run = Program(COMMAND, stop_timeout_s=5.0, restart=Restart(0.05, 0.4, 60))
    rules = ArtifactRules((parse_prefix(f"{folder}/"),))
    return replace(RoleService("web", "catalog", run, ("a.example/",), artifacts=rules), **fields)


class Controls:
    """Makes the next control: the one before is closed, as at a restart. Nothing is left running."""

    def __init__(self, folder: Path, **fields: Any) -> None:
        self.folder, self.entry = folder, entry_of(folder, **fields)
        self.last: Control | None = None

    def following(self, entry: RoleService | None) -> Control:
        if self.last is not None:
            self.last.drivers.close()
        self.last = Control(self.folder, entry)
        return self.last

    def __call__(self) -> Control:
        return self.following(self.entry)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        last = self()
        for slot in ("a", "b"):
            done = await last.call("stop", slot=slot)
            assert not done.fault, done
        last.drivers.close()


async def answer(port: int) -> str:
    """The version that answers on the port."""
    async with httpx.AsyncClient(trust_env=False) as http:
        for _ in range(500):
            try:
                return (await http.get(f"http://127.0.0.1:{port}/")).json()["version"]
            except httpx.TransportError:
                await asyncio.sleep(0.02)
    raise AssertionError(f"nothing answers on {port}")


async def until(done: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


def runs(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def test_a_version_is_prepared_started_and_stopped(tmp_path: Path) -> None:
    async def play() -> None:
        async with Controls(tmp_path) as following:
            control = following()
            prepared = await control.call("prepare", "1.0.1", release=release(tmp_path, "1.0.1"))
            assert (prepared.key, prepared.fault, prepared.status) == ("key prepare", "", "absent")
            started = await control.start("1.0.1")
            assert (started.status, started.version, started.port) == ("running", "1.0.1", prepared.port)
            assert await answer(started.port) == "1.0.1"
            stopped = await control.call("stop")
            assert (stopped.fault, stopped.status, stopped.pid) == ("", "stopped", 0)
            assert not runs(started.pid)
            assert (await control.call("forget")).status == "absent"
            assert list((tmp_path / "roles").iterdir()) == []
            assert control.ended == []  # a stop is no failure

    asyncio.run(play())


@pytest.mark.promise(8)
def test_the_next_control_adopts_what_runs(tmp_path: Path) -> None:
    """A program outlives control. The next control finds it, with its port, and starts no other one."""

    async def play() -> None:
        async with Controls(tmp_path) as following:
            first = await following().start("1.0.1")
            assert await answer(first.port) == "1.0.1"
            control = following()
            found = await control.call("state")
            assert (found.status, found.version) == ("running", "1.0.1")
            assert (found.pid, found.port) == (first.pid, first.port)
            assert (await control.start("1.0.1")).pid == first.pid
            assert await answer(first.port) == "1.0.1"

    asyncio.run(play())


def test_a_slot_keeps_its_port_and_two_slots_have_two(tmp_path: Path) -> None:
    async def play() -> None:
        async with Controls(tmp_path) as following:
            control = following()
            first = await control.start("1.0.1")
            second = await control.start("1.0.2", "b")
            assert first.port != second.port
            assert await answer(second.port) == "1.0.2"
            control = following()
            await control.call("stop")
            again = await control.start("1.0.3")
            assert again.port == first.port

    asyncio.run(play())


def test_a_port_that_another_process_has_taken_is_not_used(tmp_path: Path) -> None:
    async def play() -> None:
        async with Controls(tmp_path) as following:
            control = following()
            first = await control.start("1.0.1")
            await control.call("stop")
            with socket.create_server(("127.0.0.1", first.port)):
                again = await control.start("1.0.2")
                assert again.port != first.port
                assert await answer(again.port) == "1.0.2"

    asyncio.run(play())


def test_the_port_of_the_node_file_is_used_in_slot_a(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    async def play() -> None:
        async with Controls(tmp_path, port=port) as following:
            control = following()
            assert (await control.start("1.0.1")).port == port
            assert (await control.start("1.0.2", "b")).port != port

    asyncio.run(play())


def test_a_port_is_reserved_while_control_lives(tmp_path: Path) -> None:
    async def play() -> None:
        async with Controls(tmp_path) as following:
            await following().start("1.0.1")
            control = following()
            port = (await control.call("state")).port
            assert hold(port) is None
            control.drivers.close()
            name = hold(port)
            assert name is not None
            name.close()

    asyncio.run(play())


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "fault", "expected"),
    [
        ({"platform": "linux-other"}, "artifact", "only for linux-other; add one to the release file"),
        ({"sha256": "0" * 64}, "artifact", "but the release has 000"),
        ({"url": "https://elsewhere.example/c.tgz"}, "artifact", "is not below a prefix in `from` of the node file"),
        ({"version": "1.0.9"}, "us", "the release of catalog-1.0.1 is that of catalog-1.0.9"),
        ({"artifact": {}}, "artifact", "the release has no artifact, which ./app is part of"),
        ({"nothing": 1}, "us", "is not a known key"),
    ],
)
def test_a_release_that_cannot_be_used_is_refused_with_its_reason(
    tmp_path: Path, change: dict[str, Any], fault: str, expected: str
) -> None:
    async def play() -> None:
        async with Controls(tmp_path) as following:
            named: dict[str, Any] = {**release(tmp_path, "1.0.1")}
            artifact = {key: change[key] for key in ("url", "sha256") if key in change}
            platform = change.get("platform", this_platform())
            named["artifact"] = {platform: {**named["artifact"]["any"], **artifact}}
            named |= {key: value for key, value in change.items() if key not in ("platform", *artifact)}
            done = await following().call("prepare", "1.0.1", release=named)
            assert (done.fault, done.retry) == (fault, False)
            assert expected in done.detail

    asyncio.run(play())


def test_a_service_that_is_no_longer_in_the_node_file_can_be_stopped_but_not_started(tmp_path: Path) -> None:
    async def play() -> None:
        async with Controls(tmp_path) as following:
            first = await following().start("1.0.1")
            control = following.following(None)
            done = await control.start("1.0.1")
            assert (done.fault, done.detail) == ("us", "the node file has no [role.web.catalog] any more")
            assert (await control.call("state")).pid == first.pid
            assert (await control.call("stop")).status == "stopped"
            assert not runs(first.pid)

    asyncio.run(play())


def test_an_error_of_our_own_is_an_answer_too(tmp_path: Path) -> None:
    async def play() -> None:
        async with Controls(tmp_path) as following:
            control = following()
            control.store.fetch = None  # pyright: ignore[reportAttributeAccessIssue]
            done = await control.call("prepare", "1.0.1", release=release(tmp_path, "1.0.1"))
            assert (done.fault, done.retry) == ("us", True)
            assert [note.code for note in control.notes] == ["internal-error"]

    asyncio.run(play())


def test_the_driver_that_has_started_a_version_stops_it(tmp_path: Path) -> None:
    """Although the node file names another one by now. Meanwhile the other one starts nothing in the slot."""
    (tmp_path / "control.py").write_text(CONTROL)
    calls = {name: (*PYTHON, str(tmp_path / "control.py"), name) for name in ("start", "stop", "state")}

    async def play() -> None:
        async with Controls(tmp_path, run=Commands(**calls, timeout_s=10.0)) as following:
            first = await following().start("1.0.1")
            assert (first.status, await answer(first.port)) == ("running", "1.0.1")
            other = Control(tmp_path, entry_of(tmp_path))
            refused = await other.start("1.0.2")
            assert "the slot has catalog-1.0.1, which the driver command has started; stop it first" in refused.detail
            assert (await other.call("state")).pid == first.pid
            await other.call("stop")
            assert not runs(first.pid)
            assert (await other.start("1.0.2")).version == "1.0.2"
            other.drivers.close()

    asyncio.run(play())


# ---------------------------------------------------------------------- programs that exit


def test_the_end_of_a_program_is_known_at_once_and_its_restart_too(tmp_path: Path) -> None:
    async def play() -> None:
        async with Controls(tmp_path) as following:
            await following().start("1.0.1")
            control = following()
            found = await control.call("state")
            os.kill(found.pid, signal.SIGKILL)
            await until(lambda: control.started == [found.port])
            assert control.ended[0].startswith("it was killed by signal 9 (SIGKILL)")
            again = await control.call("state")
            assert again.pid != found.pid
            os.kill(again.pid, signal.SIGKILL)
            await until(lambda: control.started == [found.port] * 2)

    asyncio.run(play())


def test_a_driver_that_has_not_noticed_the_end_yet_is_asked_again() -> None:
    program = subprocess.Popen(["sleep", "1000"])

    async def play() -> None:
        told: list[str] = []
        slot = Slot("web", "catalog")
        states = [
            SlotState("running", "1.0.1", program.pid, 8001),
            SlotState("running", "1.0.1", program.pid, 8001),
            SlotState("pausing", "1.0.1", 0, 8001, reason="it exited with code 3", log=("no table",)),
            SlotState("running", "1.0.1", os.getpid(), 8001),
        ]

        async def state(slot: Slot) -> SlotState:
            return states.pop(0)

        programs = Programs(lambda port, why: told.append(why), lambda port: told.append(f"started on {port}"))
        programs.state = state
        programs.watch(slot, states[0])
        program.kill()
        program.wait()
        await until(lambda: not states)
        programs.close()
        assert told == ["it exited with code 3: no table", "started on 8001"]

    asyncio.run(play())


def test_a_program_that_keeps_exiting_is_reported_with_its_reason(tmp_path: Path) -> None:
    async def play() -> None:
        async with Controls(tmp_path) as following:
            control = following()
            pack(tmp_path / "catalog-1.0.2.tar", CRASHES)
            named = release(tmp_path, "1.0.2", CRASHES)
            await control.call("start", "1.0.2", release=named)
            await until(lambda: "it exited with code 3: no table" in control.ended)
            assert "no table" in (await control.call("state")).log
            await control.call("stop")
            await asyncio.sleep(0)
            before = len(control.ended)
            await asyncio.sleep(1.0)
            assert len(control.ended) == before  # nobody asks any more
            assert (await control.start("1.0.1")).log == ()  # not that of the version before

    asyncio.run(play())


# ---------------------------------------------------------------------- artifacts that stay


def test_artifacts_stay_while_a_target_names_them_or_a_slot_has_them(tmp_path: Path) -> None:
    async def play() -> None:
        async with Controls(tmp_path) as following:
            control = following()
            digests = {
                version: release(tmp_path, version)["artifact"]["any"]["sha256"]
                for version in ("1.0.1", "1.0.2", "1.0.3")
            }
            kept = lambda: {version for version, digest in digests.items() if control.store.path(digest)}  # noqa: E731
            control.named = [release(tmp_path, "1.0.2")]
            await control.start("1.0.1")
            await control.call("prepare", "1.0.2", "b", release=release(tmp_path, "1.0.2"))
            await control.call("prepare", "1.0.3", "b", release=release(tmp_path, "1.0.3"))
            assert kept() == {"1.0.1", "1.0.2", "1.0.3"}
            control = following()
            control.named = [release(tmp_path, "1.0.2")]
            await control.start("1.0.1")
            await until(lambda: kept() == {"1.0.1", "1.0.2"})
            control = following()
            await control.start("1.0.3", "b")  # slot a has 1.0.1, and nothing names 1.0.2
            await until(lambda: kept() == {"1.0.1", "1.0.3"})
            control.named = [release(tmp_path, "1.0.2")]
            await control.call("stop", slot="b")
            await control.call("forget", slot="b")
            await control.call("stop")
            await control.start("1.0.2")
            await until(lambda: kept() == {"1.0.2"})

    asyncio.run(play())


def test_no_artifact_is_removed_while_a_target_cannot_be_read(tmp_path: Path) -> None:
    async def play() -> None:
        async with Controls(tmp_path) as following:
            control = following()
            digest = release(tmp_path, "1.0.2")["artifact"]["any"]["sha256"]
            await control.call("prepare", "1.0.2", "b", release=release(tmp_path, "1.0.2"))
            control = following()
            control.named = [{"of": "a newer version of sdlb"}]
            await control.start("1.0.1")
            await asyncio.sleep(0.2)
            assert control.store.path(digest) is not None
            control.named = []
            await control.start("1.0.1")
            await until(lambda: control.store.path(digest) is None)

    asyncio.run(play())
