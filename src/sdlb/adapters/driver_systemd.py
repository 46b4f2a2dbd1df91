"""The driver `systemd`: an instance of a template unit for each version, `catalog@VERSION.service`. systemd keeps it while control is away.

* The result of a job decides whether a start or stop has worked. The unit's state is read for what runs later.
* What the unit must know (the port above all) is in an environment file, `units/UNIT.env` in the state folder:
  `EnvironmentFile=/var/lib/sdlb/units/%n.env` in the template. No unit file is written and systemd is not reloaded.
* The record of the slot is written before systemd is called. A call that is repeated finds what the last one has done.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from sdlb.adapters import slot_folders, slot_records
from sdlb.adapters.artifacts import ArtifactStore
from sdlb.adapters.hook_program import PATH
from sdlb.adapters.slot_records import STOPPED, STOPPING
from sdlb.adapters.supervisor import files
from sdlb.adapters.systemd_bus import UNIT_CHARS_MAX, UnitState, connect, escaped
from sdlb.model.role import Unit
from sdlb.seams.driver import DriverFailed, Fault, Plan, Slot, SlotState, Status

RUN = "run"
FILE = "unit.json"
JOURNAL = ("journalctl", "--quiet", "--no-pager", "--output=cat", f"--lines={files.LINES_MAX}", "--unit")
JOURNAL_S = 5.0
_STATUS: dict[str, Status] = {
    "active": "running",
    "reloading": "running",
    "refreshing": "running",
    "activating": "running",
    "deactivating": "stopping",
}
_RESULTS: dict[str, tuple[Fault, str, bool]] = {
    "failed": ("program", "it failed", False),
    "timeout": ("program", "it took too long", True),
    "canceled": ("machine", "another job replaced it", True),
    "dependency": ("machine", "a unit that it requires failed", True),
}
"""Of a job: whose failure it is, in words, and whether to retry."""


class Record(NamedTuple):
    """What is in a slot."""

    phase: str
    fingerprint: str
    version: str
    port: int
    unit: str
    env: dict[str, str]
    timeout_s: float
    since_s: float
    log: list[str] = []  # noqa: RUF012 - never changed


class SystemdDriver:
    """`folder`: of the slots; it belongs to one control. `units`: of the environment files. `address`: of the bus; "": the
    system's. `journal`: the command that prints the last lines of a unit's log."""

    def __init__(
        self, folder: Path, store: ArtifactStore, units: Path, address: str = "", journal: Sequence[str] = JOURNAL
    ) -> None:
        self._folder = folder.absolute()
        self._store = store
        self._units = units.absolute()
        self._address = address
        self._journal = tuple(journal)

    # ------------------------------------------------------------------ calls

    async def prepare(self, plan: Plan) -> None:
        record = await self._record(plan)
        async with connect(self._address) as systemd:
            await systemd.load(record.unit)

    async def start(self, plan: Plan) -> SlotState:
        folder, record = self._slot(plan.slot), await self._record(plan)
        known = files.read(folder, FILE, Record)
        await slot_records.check_free(plan, known, record.fingerprint, self.state)
        async with connect(self._address) as systemd:
            before = await systemd.load(record.unit)
            ours = known is not None and known.phase == RUN and known.unit == record.unit
            if not ours and _STATUS.get(before.active):
                text = (
                    f"{record.unit} runs already, and this slot has not started it; run: systemctl stop {record.unit}"
                )
                raise DriverFailed("machine", text, retry=False)
            if known is None or known.phase != RUN or known.fingerprint != record.fingerprint:
                slot_records.put(folder, FILE, record)
            self._put_env(record)
            if before.active == "failed":
                await systemd.forget_failure(record.unit)
            result = await systemd.run_job("StartUnit", record.unit, record.timeout_s)
            if result != "done":
                after = await systemd.state(record.unit)
                raise await self._failed("start", record, result, after)
        return await self.state(plan.slot)

    async def stop(self, slot: Slot) -> None:
        folder = self._slot(slot)
        record = slot_records.begin_stop(folder, FILE, Record)
        if record is None:
            return
        async with connect(self._address) as systemd:
            if await systemd.state(record.unit) is not None:
                result = await systemd.run_job("StopUnit", record.unit, record.timeout_s)
                if result != "done":
                    raise await self._failed("stop", record, result, None)
                await systemd.forget_failure(record.unit)
        log = await self._log(record.unit)
        with contextlib.suppress(OSError):
            self._env_file(record.unit).unlink()
        slot_records.put(folder, FILE, record._replace(phase=STOPPED, since_s=time.time(), log=list(log)))

    async def state(self, slot: Slot) -> SlotState:
        record = files.read(self._slot(slot), FILE, Record)
        if record is None:
            return SlotState("absent")
        gone = SlotState("stopped", record.version, 0, record.port, record.since_s, log=tuple(record.log))
        if record.phase == STOPPED:
            return gone
        async with connect(self._address) as systemd:
            found = await systemd.state(record.unit)
        log = await self._log(record.unit)
        if found is None:
            return replace(gone, reason="systemd has unloaded its unit", log=log)
        status = _STATUS.get(found.active, "stopped")
        if found.sub.startswith("auto-restart"):
            status = "pausing"
        runs = status == "running"
        return SlotState(
            "stopping" if record.phase == STOPPING and status in ("running", "pausing") else status,
            record.version,
            found.pid if runs else 0,
            record.port,
            found.since_s or record.since_s,
            found.restarts,
            reason="" if runs else _reason(found),
            log=log,
        )

    async def forget(self, slot: Slot) -> None:
        folder = self._slot(slot)
        record = files.read(folder, FILE, Record)
        if record is not None:
            slot_records.check_forgettable(record)
            await asyncio.to_thread(slot_folders.remove, folder)

    # ------------------------------------------------------------------ records

    async def _record(self, plan: Plan) -> Record:
        run = plan.entry.run
        if not isinstance(run, Unit):
            raise DriverFailed("us", "the service is not for the driver systemd", retry=False)
        unit = run.template.replace("@.", f"@{escaped(plan.version)}.", 1)
        if len(unit) > UNIT_CHARS_MAX:
            text = (
                f"the unit {unit[:60]}... would have a name of {len(unit)} characters; systemd permits {UNIT_CHARS_MAX}"
            )
            raise DriverFailed("machine", text, retry=False)
        folder = ""
        if plan.artifact is not None:
            folder = str(await self._store.fetch(plan.artifact, plan.entry.artifacts))
        env = {
            "PORT": str(plan.port),
            **plan.entry.env,
            **slot_records.about(plan),
            "SDLB_FOLDER": folder,
        }
        record = Record(RUN, "", plan.version, plan.port, unit, env, run.timeout_s, 0.0)
        fingerprint = slot_records.fingerprint(record)
        return record._replace(fingerprint=fingerprint, since_s=time.time())

    def _slot(self, slot: Slot) -> str:
        return slot_folders.path(self._folder, slot)

    def _env_file(self, unit: str) -> Path:
        return self._units / f"{unit}.env"

    def _put_env(self, record: Record) -> None:
        """systemd reads it as root, at each start."""
        content = "".join(f"{name}={_quoted(value)}\n" for name, value in record.env.items())
        path = self._env_file(record.unit)
        try:
            self._units.mkdir(mode=0o700, exist_ok=True)
            new = path.with_suffix(".new")
            with open(new, "w", opener=_private) as file:
                file.write(content)
            new.rename(path)
        except OSError as error:
            raise DriverFailed("machine", f"{path} cannot be written ({error.strerror})", retry=True) from None

    # ------------------------------------------------------------------ failures

    async def _failed(self, what: str, record: Record, result: str, after: UnitState | None) -> DriverFailed:
        fault, words, retry = _RESULTS.get(result, ("machine", f"its job finished with {result!r}", False))
        why = f": {_reason(after)}" if result == "failed" and after is not None else ""
        text = f"systemd could not {what} {record.unit}: {words}{why}; see: journalctl --unit {record.unit}"
        return DriverFailed(fault, text, retry=retry, log=await self._log(record.unit))

    async def _log(self, unit: str) -> tuple[str, ...]:
        return await asyncio.to_thread(_output, (*self._journal, unit))


def _output(command: Sequence[str]) -> tuple[str, ...]:
    """The last lines that a command prints. Whatever fails, there are none: a log is never worth a failed call."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=JOURNAL_S,
            env={"PATH": PATH},
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(files.last_lines(done.stdout[-files.TAIL_BYTES :]))


def _reason(state: UnitState) -> str:
    match state.result:
        case "success" | "":
            return "it has exited"
        case "exit-code":
            return f"it exited with code {state.exit}"
        case "signal" | "core-dump":
            return f"it was killed by signal {state.exit}"
        case "oom-kill":
            return "it needed too much memory and was killed"
        case _:
            return f"systemd reports {state.result!r}"


def _quoted(value: str) -> str:
    """As systemd.exec(5) reads a value of an environment file."""
    for character in '\\"`$':
        value = value.replace(character, f"\\{character}")
    return f'"{value}"'


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
