"""Processes that call a driver as control does, and that are killed: `python -m tests.seams.driver_caller KIND FOLDER CALL`, and
`killed_at`.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dbus_fast import Message
from dbus_fast.aio import MessageBus

from sdlb.adapters.artifacts import ArtifactStore
from sdlb.adapters.driver_command import CommandDriver
from sdlb.adapters.driver_container import ContainerDriver
from sdlb.adapters.driver_process import ProcessDriver
from sdlb.adapters.driver_systemd import SystemdDriver
from sdlb.model.location import parse_prefix
from sdlb.model.release import Artifact
from sdlb.model.role import ArtifactRules, Commands, Container, Program, RoleService, Run, Unit
from sdlb.seams.driver import Driver, Plan, Slot

KINDS = ("process", "command", "container", "systemd")
IMAGE = Artifact("docker://registry.example/team/catalog", "5" * 64)
SLOT = Slot("web", "catalog")
PYTHON = (sys.executable, "-I", "-S")
WAITS = "import time\nprint('line', flush=True)\ntime.sleep(1000)\n"
CONTROL = """
import os, signal, subprocess, sys, time
what, program = sys.argv[1:]
file = os.environ["SDLB_SLOT_FOLDER"] + "/pid"
def pid():
    try:
        found = int(open(file).read())
        return found if open(f"/proc/{found}/stat").read().rpartition(")")[2].split()[0] != "Z" else 0
    except (OSError, ValueError):
        return 0
if what == "start":
    if not pid():
        run = [sys.executable, "-I", "-S", program, os.environ["SDLB_VERSION"]]
        child = subprocess.Popen(run, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        open(file, "w").write(str(child.pid))
elif what == "stop":
    while found := pid():
        os.kill(found, signal.SIGKILL)
        time.sleep(0.01)
elif what == "state":
    print(f"pid={pid()}")
    sys.exit(0 if pid() else 3)
"""
"""What a user may write for the driver `command`."""
STEPS = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "subprocess.Popen")


def make_driver(kind: str, folder: Path, **more: Any) -> Driver:
    store = ArtifactStore(folder / "store")
    if kind == "process":
        return ProcessDriver(folder / "slots", store, **more)
    if kind == "container":
        return ContainerDriver(folder / "slots")
    if kind == "systemd":
        more = {"address": f"unix:path={folder / 'bus.sock'}", "journal": ("/bin/echo", "log of")} | more
        return SystemdDriver(folder / "slots", store, folder / "units", **more)
    return CommandDriver(folder / "slots", store, **more)


def engine_socket(folder: Path) -> Path:
    """Where a stand-in for a container engine answers."""
    return folder / "engine.sock"


def program_file(folder: Path) -> Path:
    return folder / "program.py"


def make_plan(
    kind: str, folder: Path, version: str = "1.0.1", artifact: Artifact | None = None, env: Any = None, **run: Any
) -> Plan:
    """Runs `program_file`. `run`: fields of what the driver runs."""
    program = str(program_file(folder))
    fields: dict[str, Any] = {"command": (*PYTHON, program, "{version}"), "stop_timeout_s": 2.0} | run
    rules = ArtifactRules()
    if kind == "process":
        what: Run = Program(**fields)
    elif kind == "container":
        what = Container(**({"socket": str(engine_socket(folder))} | fields))
        rules = ArtifactRules((parse_prefix("docker://registry.example/team/"),))
        artifact = artifact or IMAGE
    elif kind == "systemd":
        what = Unit(**({"template": "catalog@.service", "timeout_s": 10.0} | run))
    else:
        control = folder / "control.py"
        if not control.exists():
            control.write_text(CONTROL)
        calls = {name: (*PYTHON, str(control), name, program) for name in ("start", "stop", "state")}
        what = Commands(**(calls | {"timeout_s": 10.0} | run))
    entry = RoleService("web", "catalog", what, ("a/",), env=env or {}, artifacts=rules)
    return Plan(SLOT, version, entry, 8001, artifact)


def write_program(folder: Path, text: str = WAITS) -> None:
    program_file(folder).write_text(textwrap.dedent(text))


def die_at(step: int, folder: str) -> Callable[[], None]:
    """-> counts one step more."""
    count = itertools.count(1)

    def step_of() -> None:
        if next(count) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        asks = event == "socket.connect" and str(args[1]).startswith(folder)
        ours = event in STEPS or asks or (writes and str(args[0]).startswith(folder))
        if ours:
            step_of()

    sys.addaudithook(hook)
    return step_of


async def call(kind: str, folder: Path, name: str) -> None:
    driver, plan = make_driver(kind, folder), make_plan(kind, folder)
    if name == "start":
        await driver.start(plan)
    elif name == "stop":
        await driver.stop(plan.slot)
    else:
        await driver.forget(plan.slot)


def killed_at(step: int, kind: str, folder: Path, name: str) -> bool:
    """Makes the call in a process that kills itself before its `step`-th write, rename, folder, process, connection or message.
    False: it was done before. The process is forked from one that has all modules: many steps are tried."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_call_and_die, args=(step, kind, folder, name))
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def _call_and_die(step: int, kind: str, folder: Path, name: str) -> None:
    step_of = die_at(step, str(folder))
    send = MessageBus.call

    async def call_or_die(bus: MessageBus, message: Message) -> Message:
        step_of()
        return await send(bus, message)

    MessageBus.call = call_or_die  # messages on D-Bus share one connection
    asyncio.run(call(kind, folder, name))


if __name__ == "__main__":
    asyncio.run(call(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
    print("done", flush=True)
    signal.pause()
