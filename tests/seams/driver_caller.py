"""A process that calls a driver as control does, and that is killed: `python -m tests.seams.driver_caller KIND FOLDER CALL [STEP]`.

With STEP it kills itself before its STEP-th write, rename, folder or process.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import textwrap
from pathlib import Path
from typing import Any

from sdlb.adapters.artifacts import ArtifactStore
from sdlb.adapters.driver_command import CommandDriver
from sdlb.adapters.driver_process import ProcessDriver
from sdlb.model.release import Artifact
from sdlb.model.role import Commands, Program, RoleService
from sdlb.seams.driver import Driver, Plan, Slot

KINDS = ("process", "command")
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
    return CommandDriver(folder / "slots", store, **more)


def program_file(folder: Path) -> Path:
    return folder / "program.py"


def make_plan(
    kind: str, folder: Path, version: str = "1.0.1", artifact: Artifact | None = None, env: Any = None, **run: Any
) -> Plan:
    """Runs `program_file`. `run`: fields of Program or Commands."""
    program = str(program_file(folder))
    if kind == "process":
        fields: dict[str, Any] = {"command": (*PYTHON, program, "{version}"), "stop_timeout_s": 2.0} | run
        what: Program | Commands = Program(**fields)
    else:
        control = folder / "control.py"
        if not control.exists():
            control.write_text(CONTROL)
        calls = {name: (*PYTHON, str(control), name, program) for name in ("start", "stop", "state")}
        what = Commands(**(calls | {"timeout_s": 10.0} | run))
    return Plan(SLOT, version, RoleService("web", "catalog", what, ("a/",), env=env or {}), 8001, artifact)


def write_program(folder: Path, text: str = WAITS) -> None:
    program_file(folder).write_text(textwrap.dedent(text))


def die_at(step: int, folder: str) -> None:
    count = itertools.count(1)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        ours = event in STEPS or (writes and str(args[0]).startswith(folder))
        if ours and next(count) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


async def call(kind: str, folder: Path, name: str, step: int) -> None:
    driver, plan = make_driver(kind, folder), make_plan(kind, folder)
    if step:
        die_at(step, str(folder))
    if name == "start":
        await driver.start(plan)
    elif name == "stop":
        await driver.stop(plan.slot)
    else:
        await driver.forget(plan.slot)


if __name__ == "__main__":
    asyncio.run(call(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else 0))
    print("done", flush=True)
    if len(sys.argv) == 4:
        signal.pause()
