"""The driver `container`: a container for each slot, by the API of Docker or Podman. The engine keeps it while control is away.

* An image is pulled by its digest only. What the release names as `sha256` is what runs.
* A slot has one container name, and an engine has at most one container of a name: two calls cannot start a version twice.
* The record of the slot is written before the engine is called. A call that is repeated finds what the last one has done.
* A failed start and a stop remove the container. Only a running version, or one that the engine restarts, has one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from msgspec.structs import replace

from sdlb.adapters import slot_folders, slot_records
from sdlb.adapters.artifact_fetch import artifact_failed, permitted
from sdlb.adapters.container_api import ContainerApi, ContainerState, Inspected, shown
from sdlb.adapters.slot_records import STOPPED, STOPPING
from sdlb.adapters.supervisor import files, processes
from sdlb.model.role import Container, filled
from sdlb.seams.driver import DriverFailed, Plan, Slot, SlotState, Status

RUN = "run"
FILE = "container.json"
KILL_S = 20.0
"""How long an engine may take to end a container after SIGKILL, and to remove it."""
POLL_S = 0.05
START_SKEW_S = 10.0
_STATUS: dict[str, Status] = {
    "running": "running",
    "paused": "running",
    "restarting": "pausing",
    "stopping": "stopping",
    "removing": "stopping",
}
_OF_IMAGE = ("manifest unknown", "not found", "statuscode: 404", "unauthorized", "denied", "no matching manifest")
_OF_PROGRAM = ("exec: ", "exec format error", "executable file")


class Record(NamedTuple):
    """What is in a slot. `body`: of the request that creates the container."""

    phase: str
    fingerprint: str
    version: str
    port: int
    socket: str
    image: str
    body: dict[str, object]
    stop_timeout_s: float
    since_s: float
    reason: str = ""
    log: list[str] = []  # noqa: RUF012 - never changed


class ContainerDriver:
    """`folder`: of the slots; it belongs to one control."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    # ------------------------------------------------------------------ calls

    async def prepare(self, plan: Plan) -> None:
        record = self._record(plan)
        await _pull(record, plan.entry.artifacts.timeout_s)

    async def start(self, plan: Plan) -> SlotState:
        folder, record = self._slot(plan.slot), self._record(plan)
        known = files.read(folder, FILE, Record)
        await slot_records.check_free(plan, known, record.fingerprint, self.state)
        await _pull(record, plan.entry.artifacts.timeout_s)
        if known is None or known.phase != RUN or known.fingerprint != record.fingerprint:
            slot_records.put(folder, FILE, record)
        await self._run(plan.slot, record)
        return await self.state(plan.slot)

    async def stop(self, slot: Slot) -> None:
        folder = self._slot(slot)
        record = slot_records.begin_stop(folder, FILE, Record)
        if record is None:
            return
        api, name = ContainerApi(record.socket), self._name(slot)
        log: tuple[str, ...] = ()
        if await api.inspect(name) is not None:
            whole_s = int(record.stop_timeout_s + 0.999)
            query = {"t": str(whole_s)}
            await api.call("POST", f"/containers/{quote(name)}/stop", query, timeout_s=whole_s + KILL_S)
            log = await api.log(name)
            await _remove(api, name)
        stopped = record._replace(phase=STOPPED, since_s=time.time(), log=list(log) or record.log)
        slot_records.put(folder, FILE, stopped)

    async def state(self, slot: Slot) -> SlotState:
        record = files.read(self._slot(slot), FILE, Record)
        if record is None:
            return SlotState("absent")
        gone = SlotState("stopped", record.version, 0, record.port, record.since_s, log=tuple(record.log))
        if record.phase == STOPPED:
            return gone
        api, name = ContainerApi(record.socket), self._name(slot)
        found = await api.inspect(name)
        if found is None or not _is_of(found, record):
            return replace(gone, reason="it has no container")
        now = found.state
        status = _STATUS.get(now.status, "stopped")
        runs = status == "running"
        return SlotState(
            "stopping" if record.phase == STOPPING and status in ("running", "pausing") else status,
            record.version,
            now.pid if runs and _is_here(now) else 0,
            record.port,
            _unix_s(now.started_at if runs else now.finished_at) or record.since_s,
            found.restart_count,
            reason="" if runs else _reason(now),
            log=await api.log(name),
            warnings=("it is paused",) if now.status == "paused" else (),
        )

    async def forget(self, slot: Slot) -> None:
        folder = self._slot(slot)
        record = files.read(folder, FILE, Record)
        if record is not None:
            slot_records.check_forgettable(record)
            await asyncio.to_thread(slot_folders.remove, folder)

    # ------------------------------------------------------------------ records

    def _record(self, plan: Plan) -> Record:
        run = plan.entry.run
        if not isinstance(run, Container):
            raise DriverFailed("us", "the service is not for the driver container", retry=False)
        image = _image(plan)
        inside = run.port or plan.port
        values = {"port": str(inside), "version": plan.version}
        about = slot_records.about(plan)
        env = {"PORT": str(inside), **plan.entry.env, **about}
        port, half = f"{inside}/tcp", max(run.log_bytes_max // 2, 1)
        body: dict[str, object] = {
            "Image": image,
            "Env": [f"{name}={value}" for name, value in env.items()],
            "ExposedPorts": {port: {}},
            "HostConfig": {
                "PortBindings": {port: [{"HostIp": "127.0.0.1", "HostPort": str(plan.port)}]},
                "RestartPolicy": {"Name": "unless-stopped"},
                "SecurityOpt": ["no-new-privileges"],
                "LogConfig": {"Type": "json-file", "Config": {"max-size": str(half), "max-file": "2"}},
                **({"Memory": run.memory_mb << 20, "MemorySwap": run.memory_mb << 20} if run.memory_mb else {}),
                **({"NanoCpus": round(run.cpu * 1e9)} if run.cpu else {}),
            },
            **({"Cmd": [filled(word, values) for word in run.command]} if run.command else {}),
            **({"User": run.user} if run.user else {}),
        }
        record = Record(
            *(RUN, "", plan.version, plan.port, run.socket, image, body, run.stop_timeout_s, 0.0),
        )
        fingerprint = slot_records.fingerprint(record)
        labels = {name.lower().replace("_", "."): value for name, value in about.items()}
        body["Labels"] = {**labels, "sdlb.fingerprint": fingerprint}
        return record._replace(fingerprint=fingerprint, since_s=time.time())

    def _slot(self, slot: Slot) -> str:
        return slot_folders.path(self._folder, slot)

    def _name(self, slot: Slot) -> str:
        """Another node of this machine has other folders, and thus other names."""
        own = hashlib.sha256(self._slot(slot).encode()).hexdigest()[:12]
        return f"sdlb-{slot.role}-{slot.service}-{slot.name}-{own}"

    # ------------------------------------------------------------------ containers

    async def _run(self, slot: Slot, record: Record) -> None:
        api, name = ContainerApi(record.socket), self._name(slot)
        found = await api.inspect(name)
        if found is not None and not _is_of(found, record):  # the record of what it is was lost
            await _remove(api, name)
            found = None
        if found is None:
            answer = await api.call("POST", "/containers/create", {"name": name}, record.body)
            if not answer.ok and await api.inspect(name) is None:  # another call may have just created it
                text = f"the container of {slot.service}-{record.version} cannot be created: {answer.text}"
                raise DriverFailed("machine", text, retry=answer.status != 400)
        answer = await api.call("POST", f"/containers/{quote(name)}/start")
        if not answer.ok:
            log = await api.log(name)
            with contextlib.suppress(DriverFailed):  # of its port, some engines let go only then
                await _remove(api, name)
            text = f"the container of {slot.service}-{record.version} cannot be started: {answer.text}"
            of_image = any(each in answer.text.lower() for each in _OF_PROGRAM)
            raise DriverFailed("artifact" if of_image else "machine", text, retry=not of_image, log=log)


def _image(plan: Plan) -> str:
    artifact = plan.artifact
    if artifact is None:
        artifact_failed(
            'the release has no artifact; the driver container needs an image: url = "docker://REGISTRY/IMAGE", and its digest in sha256'
        )
    place = permitted(artifact.url, plan.entry.artifacts)
    if place.scheme != "docker":
        artifact_failed(f"{place} is no container image; the driver container needs a docker:// URL")
    return f"{place.host}{place.path}@sha256:{artifact.sha256}"


async def _pull(record: Record, timeout_s: float) -> None:
    api, image = ContainerApi(record.socket), record.image
    if await api.has_image(image):
        return
    try:
        async with asyncio.timeout(timeout_s):
            error = await api.pull(image, timeout_s)
    except TimeoutError:
        raise DriverFailed("machine", f"{image} was not pulled within {timeout_s:g} s", retry=True) from None
    if not error and await api.has_image(image):
        return
    of_image = any(each in error.lower() for each in _OF_IMAGE)
    text = f"{image} cannot be pulled: {error or 'the container engine does not have it afterwards'}"
    raise DriverFailed("artifact" if of_image else "machine", text, retry=not of_image)


async def _remove(api: ContainerApi, name: str) -> None:
    """Also what runs. Returns when the name is free."""
    loop = asyncio.get_running_loop()
    end = loop.time() + KILL_S
    while True:
        answer = await api.call("DELETE", f"/containers/{quote(name)}", {"force": "true", "v": "true"})
        if await api.inspect(name) is None:
            return
        if loop.time() >= end:
            why = "" if answer.ok else f": {answer.text}"
            raise DriverFailed("machine", f"the container {name} was not removed within {KILL_S:g} s{why}", retry=True)
        await asyncio.sleep(POLL_S)


def _is_of(found: Inspected, record: Record) -> bool:
    return (found.config.labels or {}).get("sdlb.fingerprint") == record.fingerprint


def _reason(state: ContainerState) -> str:
    if state.error:
        return shown(state.error)
    if state.status in ("created", "configured", "initialized"):
        return "it was not started"
    if state.oom_killed:
        return "it needed more memory than `memory_mb` and was killed"
    return f"it exited with code {state.exit_code}"


def _unix_s(text: str) -> float:
    """0 for what has not happened, which engines write as the year 1."""
    try:
        return max(datetime.fromisoformat(text).timestamp(), 0.0)
    except (ValueError, OverflowError, OSError):
        return 0.0


def _is_here(state: ContainerState) -> bool:
    """Whether the engine's process id is one of this machine: an engine in a virtual machine has others. Its start time tells."""
    found = processes.stat(state.pid) if state.pid > 0 else None
    if found is None or found.zombie:
        return False
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - found.start / os.sysconf("SC_CLK_TCK")
    return abs(time.time() - age_s - _unix_s(state.started_at)) < START_SKEW_S
