"""The driver `command`: programs of the user start and stop the service. Argument lists, no shell; what is to be done stands in
the environment (`SDLB_...`).

| exit code | `prepare`, `start`, `stop`, `forget` | `state` |
| --- | --- | --- |
| 0 | done | it runs |
| 3 | failed | it does not run |
| 75 | not now: called again | not known now |
| others | failed | failed |

The commands of a slot are kept with it: a version is stopped by the commands that it was started with. A command must accept being
run again, because control may be killed at any point. One command at a time runs for a slot, also after such a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from sdlb.adapters import slot_folders, slot_records
from sdlb.adapters.artifacts import ArtifactStore
from sdlb.adapters.hook_program import EX_TEMPFAIL, KILL_AFTER_S, PATH, POLL_S, exit_of, reap, signal_group
from sdlb.adapters.slot_records import STOPPED, STOPPING
from sdlb.adapters.supervisor import files, processes
from sdlb.model.role import Commands
from sdlb.seams.driver import DriverFailed, Plan, Slot, SlotState

NOT_RUNNING = 3
"""As the status action of an init script."""
KEPT = ("HOME", "LANG", "TZ", "USER", "LOGNAME")
STARTING, STARTED = "starting", "started"
FILE = "record.json"
_PID = re.compile(r"^pid=([1-9][0-9]{0,6})$", re.MULTILINE)


class Record(NamedTuple):
    """What is in a slot. `phase` is written before the command is run."""

    phase: str
    fingerprint: str
    version: str
    port: int
    commands: dict[str, list[str]]
    env: dict[str, str]
    timeout_s: float
    since_s: float


class Running(NamedTuple):
    """The command that runs for a slot."""

    name: str
    pid: int
    start: int
    boot: str


class CommandDriver:
    """`folder`: of the slots; it belongs to one control. `variables`: for every command."""

    def __init__(self, folder: Path, store: ArtifactStore, variables: Mapping[str, str] | None = None) -> None:
        self._folder = folder.absolute()
        self._store = store
        self._variables = dict(variables or {})
        self._waited: set[int] = set()

    def reaps(self, pid: int) -> bool:
        """Whether this object waits for that child process itself."""
        return pid in self._waited

    # ------------------------------------------------------------------ calls

    async def prepare(self, plan: Plan) -> None:
        record = await self._record(plan)
        await self._done(self._slot(plan.slot), record, "prepare")

    async def start(self, plan: Plan) -> SlotState:
        folder, record = self._slot(plan.slot), await self._record(plan)
        known = files.read(folder, FILE, Record)
        await slot_records.check_free(plan, known, record.fingerprint)
        if known is not None and known.phase != STOPPED and (await self._runs(folder, known))[0]:
            slot_records.put(folder, FILE, known._replace(phase=STARTED))
            return await self.state(plan.slot)
        slot_records.put(folder, FILE, record)
        await self._done(folder, record, "start")
        slot_records.put(folder, FILE, record._replace(phase=STARTED, since_s=time.time()))
        return await self.state(plan.slot)

    async def stop(self, slot: Slot) -> None:
        folder = self._slot(slot)
        record = slot_records.begin_stop(folder, FILE, Record)
        if record is None:
            return
        await self._done(folder, record, "stop")
        loop = asyncio.get_running_loop()
        end = loop.time() + record.timeout_s
        while (await self._runs(folder, record))[0]:
            if loop.time() >= end:
                text = f"`stop` is done, but `state` reports that it still runs after {record.timeout_s:g} s"
                raise DriverFailed("program", text, retry=True)
            await asyncio.sleep(POLL_S * 4)
        slot_records.put(folder, FILE, record._replace(phase=STOPPED, since_s=time.time()))

    async def state(self, slot: Slot) -> SlotState:
        folder = self._slot(slot)
        record = files.read(folder, FILE, Record)
        if record is None:
            return SlotState("absent")
        found = SlotState("stopped", record.version, 0, record.port, record.since_s)
        if record.phase == STOPPED:
            return found
        runs, text = await self._runs(folder, record)
        pid = _PID.search(text)
        return SlotState(
            "running" if runs and record.phase != STOPPING else "stopping" if runs else "stopped",
            record.version,
            int(pid[1]) if pid and runs else 0,
            record.port,
            record.since_s,
            reason="" if runs else "`state` reports that it does not run",
            log=tuple(text.splitlines()),
        )

    async def forget(self, slot: Slot) -> None:
        folder = self._slot(slot)
        record = files.read(folder, FILE, Record)
        if record is not None:
            slot_records.check_forgettable(record)
            await self._done(folder, record, "forget")
        await asyncio.to_thread(slot_folders.remove, folder)

    # ------------------------------------------------------------------ records

    async def _record(self, plan: Plan) -> Record:
        run = plan.entry.run
        if not isinstance(run, Commands):
            raise DriverFailed("us", "the service is not for the driver command", retry=False)
        folder = ""
        if plan.artifact is not None:
            folder = str(await self._store.fetch(plan.artifact, plan.entry.artifacts))
        slot = self._slot(plan.slot)
        env = {
            "PATH": PATH,
            **{name: os.environ[name] for name in KEPT if name in os.environ},
            **self._variables,
            **plan.entry.env,
            **slot_records.about(plan),
            "SDLB_PORT": str(plan.port),
            "SDLB_FOLDER": folder,
            "SDLB_SHA256": plan.artifact.sha256 if plan.artifact else "",
            processes.MARK: slot,
        }
        words = {name: list(getattr(run, name)) for name in ("prepare", "start", "stop", "state", "forget")}
        record = Record(STARTING, "", plan.version, plan.port, words, env, run.timeout_s, 0.0)
        return record._replace(fingerprint=slot_records.fingerprint(record), since_s=time.time())

    def _slot(self, slot: Slot) -> str:
        return slot_folders.path(self._folder, slot)

    # ------------------------------------------------------------------ commands

    async def _runs(self, folder: str, record: Record) -> tuple[bool, str]:
        """Whether the service runs, and what `state` has printed."""
        code, text = await self._call(folder, record, "state")
        if code not in (0, NOT_RUNNING):
            raise _failed("state", code, text)
        return code == 0, text

    async def _done(self, folder: str, record: Record, name: str) -> None:
        if record.commands[name]:
            code, text = await self._call(folder, record, name)
            if code:
                raise _failed(name, code, text)

    async def _call(self, folder: str, record: Record, name: str) -> tuple[int, str]:
        """Exit code, negative for a signal; and the last lines of the output."""
        loop = asyncio.get_running_loop()
        end = loop.time() + record.timeout_s
        while (other := files.read(folder, "call.json", Running)) is not None and _lives(other):
            if loop.time() >= end:
                text = f"process {other.pid} still runs `{other.name}`, which an earlier control began"
                raise DriverFailed("program", text, retry=True)
            await asyncio.sleep(POLL_S)
        output = f"{folder}/call.log"
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            pid = await asyncio.to_thread(self._begin, folder, record, name, output)
        except OSError as error:
            what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            raise DriverFailed("machine", f"`{name}` cannot be run: {what}", retry=False) from None
        try:
            end = loop.time() + record.timeout_s
            while (found := exit_of(pid)) is None and loop.time() < end:
                await asyncio.sleep(POLL_S / 2)
            if found is None:
                await self._kill(pid)
                text = f"`{name}` ran for more than {record.timeout_s:g} s and was stopped"
                raise DriverFailed("program", text, retry=True, log=_lines(output))
        except asyncio.CancelledError:  # the next call waits for it
            self._waited.discard(pid)
            raise
        reap(pid)
        self._waited.discard(pid)
        how, status = found
        return status if how == os.CLD_EXITED else -status or -1, "\n".join(_lines(output))

    def _begin(self, folder: str, record: Record, name: str, output: str) -> int:
        """A file for the output, not a pipe: what the command leaves running must not fail or block when nobody reads it. It begins
        anew with each call."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        out = os.open(output, flags, 0o600)
        try:
            process = subprocess.Popen(
                record.commands[name],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd="/",
                env={**record.env, "SDLB_CALL": name},
                start_new_session=True,
            )
        finally:
            os.close(out)
        self._waited.add(process.pid)
        process.returncode = 0  # it is waited for by its process id
        found = processes.stat(process.pid)
        running = Running(name, process.pid, found.start if found else 0, files.boot_id())
        with contextlib.suppress(OSError):  # a full disk must not keep a service from being stopped
            files.write(folder, "call.json", running)
        return process.pid

    async def _kill(self, pid: int) -> None:
        signal_group(pid, signal.SIGTERM)
        loop = asyncio.get_running_loop()
        end = loop.time() + KILL_AFTER_S
        while exit_of(pid) is None and loop.time() < end:
            await asyncio.sleep(POLL_S)
        signal_group(pid, signal.SIGKILL)
        while exit_of(pid) is None and loop.time() < end + 1:
            await asyncio.sleep(POLL_S)
        reap(pid)
        self._waited.discard(pid)


def _lives(running: Running) -> bool:
    return running.boot == files.boot_id() and processes.lives(running.pid, running.start)


def _failed(name: str, code: int, text: str) -> DriverFailed:
    how = f"exited with code {code}" if code >= 0 else f"was killed by signal {-code}"
    log = tuple(text.splitlines())
    shown = f": {log[-1]}" if log else ""
    return DriverFailed("program", f"`{name}` {how}{shown}", retry=code < 0 or code == EX_TEMPFAIL, log=log)


def _lines(output: str) -> tuple[str, ...]:
    try:
        with open(output, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - files.TAIL_BYTES))
            return tuple(files.last_lines(file.read(files.TAIL_BYTES)))
    except OSError:
        return ()
