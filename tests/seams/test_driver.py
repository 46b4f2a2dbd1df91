"""All drivers, with real programs: whatever is killed, at most one program of a slot runs, and a stop leaves none."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sdlb.adapters.supervisor import processes
from sdlb.seams.driver import Driver, DriverFailed, Plan, Slot, SlotState
from tests.seams import fake_systemd
from tests.seams.driver_caller import (
    IMAGE,
    KINDS,
    PYTHON,
    SLOT,
    engine_socket,
    killed_at,
    make_driver,
    make_plan,
    program_file,
    write_program,
)
from tests.seams.fake_containers import FakeEngine
from tests.seams.fake_systemd import FakeSystemd

ROOT = Path(__file__).parents[2]


def until(done: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def running(text: str) -> list[int]:
    """Processes with this text in their command line."""
    found: list[int] = []
    for pid, each in processes.table().items():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if not each.zombie and text.encode() in words and b"control.py" not in b"".join(words):
            found.append(pid)
    return found


class Stand:
    """One driver and one slot."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.driver: Driver = make_driver(kind, folder)
        write_program(folder)

    def plan(self, version: str = "1.0.1", **more: Any) -> Plan:
        return make_plan(self.kind, self.folder, version, **more)

    def start(self, plan: Plan | None = None) -> SlotState:
        return asyncio.run(self.driver.start(plan or self.plan()))

    def stop(self) -> None:
        asyncio.run(self.driver.stop(SLOT))

    def state(self) -> SlotState:
        return asyncio.run(self.driver.state(SLOT))

    def forget(self) -> None:
        asyncio.run(self.driver.forget(SLOT))

    def programs(self) -> list[int]:
        return running(str(program_file(self.folder)))

    def fails(self, call: Any, fault: str, expected: str, retry: bool = False) -> DriverFailed:
        with pytest.raises(DriverFailed) as error:
            asyncio.run(call)
        assert expected in error.value.text
        assert (error.value.fault, error.value.retry) == (fault, retry)
        return error.value

    def caller(self, *words: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.seams.driver_caller", self.kind, self.folder, *map(str, words)]
        env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)


@contextmanager
def other_side(kind: str, folder: Path) -> Generator[object]:
    """What runs the programs, if the driver only asks for it."""
    if kind == "container":
        with FakeEngine(engine_socket(folder), IMAGE.sha256) as engine:
            yield engine
    elif kind == "systemd":
        if fake_systemd.why_not():
            pytest.skip(f"needs a D-Bus daemon: {fake_systemd.why_not()}")
        with FakeSystemd(folder, folder / "units", program_file(folder)) as systemd:
            yield systemd
    else:
        yield None


@pytest.fixture(params=KINDS)
def stand(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    with other_side(request.param, tmp_path):
        found = Stand(request.param, tmp_path)
        yield found
        found.stop()
        assert found.programs() == []
        assert running(str(tmp_path / "slots/web/catalog/a")) == []  # no supervisor is left either


def test_a_life(stand: Stand) -> None:
    assert stand.state() == SlotState("absent")
    asyncio.run(stand.driver.prepare(stand.plan()))
    assert stand.state() == SlotState("absent")
    assert stand.programs() == []
    first = stand.start()
    assert (first.status, first.version, first.port, first.restarts) == ("running", "1.0.1", 8001, 0)
    assert stand.programs() == [first.pid]
    assert stand.start().pid == first.pid
    stand.fails(stand.driver.forget(SLOT), "us", "stop it first")
    stand.stop()
    assert stand.programs() == []
    assert stand.state().status == "stopped"
    stand.stop()
    second = stand.start(stand.plan("1.0.2"))
    assert second.version == "1.0.2"
    assert stand.programs() == [second.pid]
    stand.stop()
    stand.forget()
    assert stand.state() == SlotState("absent")
    assert not (stand.folder / "slots/web").exists()
    stand.forget()
    stand.stop()


def test_one_version_at_a_time_is_in_a_slot(stand: Stand) -> None:
    first = stand.start()
    error = stand.fails(stand.driver.start(stand.plan("1.0.2")), "us", "the slot has catalog-1.0.1; stop it first")
    assert not error.retry
    assert stand.programs() == [first.pid]


def test_two_slots_of_a_service(stand: Stand) -> None:
    first = stand.start()
    other = replace(stand.plan("1.0.2"), slot=Slot("web", "catalog", "b"), port=8002)
    second = asyncio.run(stand.driver.start(other))
    assert sorted(stand.programs()) == sorted([first.pid, second.pid])
    asyncio.run(stand.driver.stop(other.slot))
    asyncio.run(stand.driver.forget(other.slot))
    assert stand.programs() == [first.pid]


def test_control_is_killed_and_the_program_is_adopted(stand: Stand) -> None:
    caller = stand.caller("start")
    assert caller.stdout is not None
    assert caller.stdout.readline() == "done\n"
    [pid] = stand.programs()
    caller.kill()
    caller.wait()
    caller.stdout.close()
    assert stand.programs() == [pid]
    assert (stand.state().status, stand.state().pid) == ("running", pid)
    assert stand.start().pid == pid
    assert stand.programs() == [pid]


@pytest.mark.parametrize("call", ["start", "stop", "forget"])
def test_control_is_killed_at_any_step(stand: Stand, call: str) -> None:
    """Before each write, rename, folder, process, connection and message in turn: the same call, repeated by the next control, ends as if
    nothing had happened, and nothing runs twice."""
    for step in range(1, 60):
        if call != "start":
            stand.start()
        if call == "forget":
            stand.stop()
        killed = killed_at(step, stand.kind, stand.folder, call)
        assert len(stand.programs()) <= 1
        state = stand.state()
        if call == "start":
            state = stand.start()
            assert state.status == "running"
            assert stand.programs() == [state.pid]
        if call != "forget":
            stand.stop()
            assert stand.state().status in ("stopped", "absent")
        assert stand.programs() == []
        stand.forget()
        assert stand.state().status == "absent"
        if not killed:
            assert step > 3
            return
    raise AssertionError("the call has too many steps")


@pytest.mark.parametrize("version", ["1.0.2;touch x", "$(id)", "`id`", "1 2", "a'b\"c", "{port}", "*", "-rf"])
def test_a_hostile_version_is_only_a_word(stand: Stand, version: str) -> None:
    """Releases and policies never have such versions; a driver does nothing with them all the same."""
    out = stand.folder / "out"
    write_program(stand.folder, f"import sys, time; open({str(out)!r}, 'w').write(sys.argv[1]); time.sleep(1000)")
    stand.start(stand.plan(version))
    until(lambda: out.exists() and out.read_text())
    assert out.read_text() == version
    assert not (stand.folder / "x").exists()
    stand.stop()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", "$(id)", "a b", "a\n"])
def test_a_hostile_slot_is_refused(stand: Stand, name: str) -> None:
    for slot in (Slot(name, "catalog"), Slot("web", name), Slot("web", "catalog", name)):
        with pytest.raises(ValueError, match="not a name"):
            asyncio.run(stand.driver.state(slot))


def test_the_environment(stand: Stand) -> None:
    out = stand.folder / "out"
    write_program(
        stand.folder,
        f"import os, time; open({str(out)!r}, 'w').write('\\0'.join(map('='.join, os.environ.items()))); time.sleep(1000)",
    )
    os.environ["SECRET_OF_CONTROL"] = "x"
    try:
        stand.start(stand.plan(env={"A": "$(id)"}))
    finally:
        del os.environ["SECRET_OF_CONTROL"]
    until(lambda: out.exists() and out.read_text())
    found = dict(each.split("=", 1) for each in out.read_text().split("\0"))
    assert found["A"] == "$(id)"
    assert (found["SDLB_ROLE"], found["SDLB_SERVICE"], found["SDLB_VERSION"]) == ("web", "catalog", "1.0.1")
    assert found["SDLB_PORT" if stand.kind == "command" else "PORT"] == "8001"
    assert "SECRET_OF_CONTROL" not in found


def test_the_service_of_another_driver_is_refused(stand: Stand) -> None:
    other = make_plan("command" if stand.kind == "process" else "process", stand.folder)
    stand.fails(stand.driver.start(other), "us", f"not for the driver {stand.kind}")
    stand.fails(stand.driver.prepare(other), "us", f"not for the driver {stand.kind}")


def test_what_cannot_be_run(stand: Stand) -> None:
    missing = ("/no/such/program",)
    if stand.kind == "process":
        stand.fails(stand.driver.prepare(stand.plan(command=missing)), "machine", "no program /no/such/program")
        stand.fails(stand.driver.start(stand.plan(command=missing)), "machine", "no program /no/such/program")
        stand.fails(stand.driver.start(stand.plan(command=("./catalog",))), "artifact", "has no artifact")
        bad = stand.folder / "bad"
        bad.write_bytes(b"\x7fELF nonsense")
        stand.fails(stand.driver.prepare(stand.plan(command=(str(bad),))), "machine", "not an executable file")
        bad.chmod(0o755)
        error = stand.fails(stand.driver.start(stand.plan(command=(str(bad),))), "machine", "cannot be run")
        assert "Exec format error" in error.text
        assert stand.state().status == "pausing"
    elif stand.kind == "container":
        error = stand.fails(stand.driver.start(stand.plan(command=missing)), "artifact", "cannot be started")
        assert "/no/such/program" in error.text
        assert stand.state().status == "stopped"
    elif stand.kind == "systemd":
        nothing = stand.plan(template="missing@.service")
        stand.fails(stand.driver.prepare(nothing), "machine", "this machine has no unit missing@.service")
        stand.fails(stand.driver.start(nothing), "machine", "this machine has no unit missing@.service")
    else:
        stand.fails(stand.driver.start(stand.plan(start=missing)), "machine", "`start` cannot be run")


def test_the_command_line_of_python_is_found() -> None:
    assert running(PYTHON[0])
