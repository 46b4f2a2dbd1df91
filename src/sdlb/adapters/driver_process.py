"""The driver `process`: a program under a supervisor of its own (`supervisor`), which outlives control.

A supervisor is a small Python process (about 11 MB resident, 7 MB of them its own): it is what can wait for the program, read its
output and restart it while control is away. Control writes what it wants, wakes the supervisor or starts one, and
reads what is. All of it can be repeated at any point.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from sdlb.adapters import slot_folders
from sdlb.adapters.artifacts import ArtifactStore
from sdlb.adapters.hook_program import PATH
from sdlb.adapters.supervisor import __file__ as supervisor_file
from sdlb.adapters.supervisor import cgroup, files, processes
from sdlb.adapters.supervisor.files import PAUSING, RUNNING, STARTING, STOPPED, STOPPING, State, Want
from sdlb.model.role import Program, filled
from sdlb.seams.driver import DriverFailed, Plan, Slot, SlotState, Status

START_S = 20.0
KILL_S = 20.0
"""How long processes may take to end after SIGKILL."""
POLL_S = 0.02
T = TypeVar("T")
KEPT = ("LANG", "TZ")
"""What the program gets of control's own environment."""
_STATUS: dict[str, Status] = {STARTING: "running", RUNNING: "running", PAUSING: "pausing", STOPPING: "stopping"}


class ProcessDriver:
    """`folder`: of the slots; it belongs to one control. `cgroups`: a folder in which cgroups can be made, "" for none; None:
    found out. `variables`: for every program."""

    def __init__(
        self, folder: Path, store: ArtifactStore, cgroups: str | None = None, variables: Mapping[str, str] | None = None
    ) -> None:
        self._folder = folder.absolute()
        self._store = store
        self._cgroups = cgroup.base() if cgroups is None else cgroups
        self._variables = dict(variables or {})

    # ------------------------------------------------------------------ calls

    async def prepare(self, plan: Plan) -> None:
        await self._prepared(plan)

    async def start(self, plan: Plan) -> SlotState:
        want = await self._prepared(plan)
        folder = self._slot(plan.slot)
        known = files.read(folder, "want.json", Want)
        if known is not None and known.fingerprint != want.fingerprint and not self._is_stopped(folder):
            text = f"the slot has {plan.slot.service}-{known.version}; stop it first"
            raise DriverFailed("us", text, retry=False)
        if known is not None and not known.run and not self._is_stopped(folder):
            raise DriverFailed("us", "the slot is being stopped", retry=True)
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            if known != want:
                files.write(folder, "want.json", want)
        except OSError as error:
            raise _disk(folder, error) from None
        state = await self._until(folder, lambda: self._started(folder, want.fingerprint), START_S)
        if state is None:
            raise DriverFailed("us", f"the supervisor does not answer{_errors(folder)}", retry=True)
        if state.not_executed:
            raise DriverFailed("artifact" if plan.artifact else "machine", state.reason, retry=False)
        return await self.state(plan.slot)

    async def stop(self, slot: Slot) -> None:
        folder = self._slot(slot)
        want = files.read(folder, "want.json", Want)
        if want is None or (not want.run and self._is_stopped(folder)):
            return
        try:
            if want.run:
                files.write(folder, "want.json", want._replace(run=False))
        except OSError as error:
            raise _disk(folder, error) from None
        timeout_s = want.stop_timeout_s + KILL_S
        if await self._until(folder, lambda: self._is_stopped(folder) or None, timeout_s) is None:
            state = files.read(folder, "state.json", State)
            why = state.reason if state else ""
            raise DriverFailed(
                "machine", f"it did not stop within {timeout_s:g} s: {why or _errors(folder)}", retry=True
            )

    async def state(self, slot: Slot) -> SlotState:
        folder = self._slot(slot)
        want = files.read(folder, "want.json", Want)
        if want is None:
            return SlotState("absent")
        state = files.read(folder, "state.json", State) or State(STOPPED, reason="it was never started")
        log = tuple(files.tail(folder))
        if state.status != STOPPED and not files.supervised(folder):
            state = _unsupervised(state)
        return SlotState(
            _STATUS.get(state.status, "stopped"),
            state.version or want.version,
            state.pid,
            state.port or want.port,
            state.since_s,
            state.restarts,
            state.next_start_s if state.status == PAUSING else 0.0,
            state.reason,
            log,
            tuple(state.warnings),
            state.ended,
        )

    async def forget(self, slot: Slot) -> None:
        folder = self._slot(slot)
        if not self._is_stopped(folder):
            raise DriverFailed("us", "something runs in the slot; stop it first", retry=False)
        await asyncio.to_thread(slot_folders.remove, folder)

    # ------------------------------------------------------------------ what to run

    async def _prepared(self, plan: Plan) -> Want:
        run = plan.entry.run
        if not isinstance(run, Program):
            raise DriverFailed("us", "the service is not for the driver process", retry=False)
        folder = ""
        if plan.artifact is not None:
            folder = str(await self._store.fetch(plan.artifact, plan.entry.artifacts))
        values = {"port": str(plan.port), "version": plan.version, "folder": folder}
        words = [filled(word, values) for word in run.command]
        if not words[0].startswith("/"):
            if not folder:
                raise DriverFailed("artifact", f"the release has no artifact, which {words[0]} is part of", retry=False)
            words[0] = os.path.join(folder, words[0].removeprefix("./"))
        uid, gid, groups, variables = _user(run.user)
        _check_program(words[0], inside=bool(folder) and words[0].startswith(f"{folder}/"))
        cwd = run.cwd or folder or "/"
        if uid >= 0:
            for path in (words[0], cwd):
                _check_reachable(path, run.user, uid, {gid, *groups})
        slot = self._slot(plan.slot)
        env = {
            "PATH": PATH,
            **{name: os.environ[name] for name in KEPT if name in os.environ},
            **variables,
            **self._variables,
            "PORT": str(plan.port),
            **plan.entry.env,
            "SDLB_ROLE": plan.slot.role,
            "SDLB_SERVICE": plan.slot.service,
            "SDLB_VERSION": plan.version,
            processes.MARK: slot,
        }
        own = f"{self._cgroups}/sdlb-{hashlib.sha256(slot.encode()).hexdigest()[:16]}" if self._cgroups else ""
        want = Want(
            *(True, "", plan.version, words, env, cwd, plan.port, run.stop_timeout_s),
            *(run.restart.first_s, run.restart.max_s, run.restart.stable_s, run.log_bytes_max),
            *(uid, gid, groups, run.memory_mb, run.cpu, own),
        )
        content = json.dumps(want._asdict(), sort_keys=True).encode()
        return want._replace(fingerprint=hashlib.sha256(content).hexdigest())

    def _slot(self, slot: Slot) -> str:
        return slot_folders.path(self._folder, slot)

    # ------------------------------------------------------------------ supervisors

    def _started(self, folder: str, fingerprint: str) -> State | None:
        state = files.read(folder, "state.json", State)
        if state is None or state.fingerprint != fingerprint or state.status not in (RUNNING, PAUSING):
            return None
        return state if files.supervised(folder) else None

    def _is_stopped(self, folder: str) -> bool:
        """Whether nothing runs in the slot, for certain."""
        if not os.path.isdir(folder):
            return True
        if files.supervised(folder):
            return False
        state = files.read(folder, "state.json", State)
        if state is None:
            return files.read(folder, "want.json", Want) is None or not os.path.exists(f"{folder}/out")
        return state.status == STOPPED or state.boot not in ("", files.boot_id())

    async def _until(self, folder: str, check: Callable[[], T | None], timeout_s: float) -> T | None:
        """The first result of `check`. Meanwhile the slot has a supervisor, which is woken. None: not in time."""
        loop = asyncio.get_running_loop()
        end, next_s = loop.time() + timeout_s, 0.0
        while (found := check()) is None:
            if loop.time() >= end:
                return None
            if loop.time() >= next_s:
                next_s = loop.time() + 1
                if files.supervised(folder):
                    files.wake(folder)
                else:
                    await asyncio.to_thread(_launch, folder)
            await asyncio.sleep(POLL_S)
        return found


def _launch(folder: str) -> None:
    """The process starts the supervisor in the background and exits. If there is one already, it does nothing."""
    main = os.path.join(os.path.dirname(os.path.abspath(supervisor_file)), "__main__.py")
    try:
        with open(f"{folder}/supervisor.err", "wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", main, folder],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd="/",
                env={"PATH": PATH},
                start_new_session=True,
            )
    except OSError as error:
        raise DriverFailed("machine", f"the supervisor cannot be started ({error.strerror})", retry=True) from None
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(START_S)


def _unsupervised(state: State) -> State:
    """What is true of a slot whose supervisor was killed."""
    if state.boot != files.boot_id():
        return State(STOPPED, version=state.version, reason="the machine was restarted")
    if processes.lives(state.pid, state.start):
        return state._replace(warnings=[*state.warnings, "its supervisor was killed; the next start call replaces it"])
    return State(STOPPED, version=state.version, reason="it exited, and its supervisor was killed")


def _errors(folder: str) -> str:
    with contextlib.suppress(OSError):
        lines = files.last_lines(Path(folder, "supervisor.err").read_bytes()[-files.TAIL_BYTES :])
        if lines:
            return f": {lines[-1]}"
    return ""


def _disk(folder: str, error: OSError) -> DriverFailed:
    return DriverFailed("machine", f"{folder} cannot be written ({error.strerror})", retry=True)


# ---------------------------------------------------------------------- users and permissions


def _user(name: str) -> tuple[int, int, list[int], dict[str, str]]:
    """uid and gid, -1 for those of control; further groups; variables."""
    own = os.geteuid()
    if not name:
        return -1, -1, [], {each: os.environ[each] for each in ("HOME", "USER", "LOGNAME") if each in os.environ}
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise DriverFailed("machine", f"this machine has no user {name}", retry=False) from None
    variables = {"HOME": found.pw_dir, "USER": name, "LOGNAME": name}
    if found.pw_uid == own:
        return -1, -1, [], variables
    if own != 0:
        raise DriverFailed("machine", f"only root may run programs as user {name}", retry=False)
    return found.pw_uid, found.pw_gid, os.getgrouplist(name, found.pw_gid), variables


def _check_program(path: str, inside: bool) -> None:
    fault, where = ("artifact", "the artifact has") if inside else ("machine", "this machine has")
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise DriverFailed(fault, f"{where} no program {path} ({error.strerror})", retry=False) from None
    if not stat.S_ISREG(mode) or not mode & 0o111:
        raise DriverFailed(fault, f"{path} is not an executable file", retry=False)


def _check_reachable(path: str, user: str, uid: int, groups: set[int]) -> None:
    """The state folder is often closed to others, and then the user of the program cannot read its own program."""
    for folder in reversed(Path(path).parents):
        there = os.stat(folder)
        bit = 0o100 if there.st_uid == uid else 0o010 if there.st_gid in groups else 0o001
        if not there.st_mode & bit:
            text = f"user {user} cannot enter {folder}, which {path} is in; run: chmod a+x {folder}"
            raise DriverFailed("machine", text, retry=False)
