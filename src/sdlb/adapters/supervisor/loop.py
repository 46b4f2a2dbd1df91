"""The life of a supervisor: it brings the slot to what `want.json` says, writes `state.json`, and copies the output to the log.

It ends when nothing is wanted and nothing runs. SIGTERM stops the program and ends it too; only `want.json` says what is wanted.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time

from sdlb.adapters.supervisor import child, files, processes
from sdlb.adapters.supervisor.cgroup import Cgroup
from sdlb.adapters.supervisor.files import PAUSING, RUNNING, STARTING, STOPPED, STOPPING, State, Want
from sdlb.adapters.supervisor.log import Log

LOOK_S = 5.0
"""How often `want.json` is read although nobody woke us."""
MEMORY_S = 1.0
POLL_S = 0.05
KILL_S = 10.0
READS_MAX = 64
MIB = 1 << 20


class Supervisor:
    """`folder`: of the slot, which is locked."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._boot = files.boot_id()
        self._want = Want(False, "", "", [], {}, "/", 0, 10, 1, 60, 60, 10 << 20)
        self._state = files.read(folder, "state.json", State) or State(STOPPED)
        self._adopted = os.path.exists(f"{folder}/out")
        """There was a supervisor before: there may be processes of the slot that are not below this one."""
        self._pidfd = -1
        self._began_s = time.monotonic()
        self._next_s = 0.0
        self._memory_s = 0.0
        self._killed = ""
        self._oom_kills = 0
        self._unsaved = False
        self._cgroup: Cgroup | None = None
        self._log: Log | None = None
        self._terminated = False
        self._out = files.open_fifo(f"{folder}/out")
        self._wake = files.open_fifo(f"{folder}/wake")
        self._signals, signalled = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _awake)
        signal.signal(signal.SIGTERM, self._on_term)
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)

    def _on_term(self, *_: object) -> None:
        self._terminated = True

    def run(self) -> None:
        self._read_want()
        self._adopt()
        while True:
            self._read_want()
            if self._pidfd >= 0 and self._has_ended():
                self._after_end()
            if self._pidfd < 0 and not os.path.isdir(self._folder):
                return  # the slot was removed; a program that runs is not ended by that
            if not self._want.run or self._terminated:
                if self._stop():
                    return
            elif self._pidfd < 0 and time.monotonic() >= self._next_s:
                self._start()
            elif self._pidfd >= 0:
                self._check_memory()
            if self._unsaved:
                self._save(self._state)
            self._wait(self._patience_s())

    # ------------------------------------------------------------------ what is wanted, what is

    def _read_want(self) -> None:
        found = files.read(self._folder, "want.json", Want)
        if found is None or found == self._want:
            return
        old, self._want = self._want, found
        if self._log is None or old.log_bytes_max != found.log_bytes_max:
            self._log = Log(self._folder, found.log_bytes_max)
        if found.cgroup and old.cgroup != found.cgroup:
            self._cgroup = Cgroup.make(found.cgroup, found.memory_mb, found.cpu)

    def _adopt(self) -> None:
        """The program of an earlier supervisor; if it has ended, what it left is ended too."""
        state = self._state
        same_boot = state.boot == self._boot
        if same_boot and processes.lives(state.pid, state.start):
            try:
                self._pidfd = os.pidfd_open(state.pid)
            except OSError:
                self._pidfd = -1
            else:
                self._oom_kills = self._cgroup.oom_kills() if self._cgroup else 0
                if state.status == STARTING:
                    self._save(state._replace(status=RUNNING))
                return
        self._kill_all()
        if state.status == PAUSING and same_boot:
            self._next_s = time.monotonic() + min(max(0.0, state.next_start_s - time.time()), self._want.max_s)
        elif state.status in (STARTING, RUNNING) and same_boot:
            self._pause("it exited while its supervisor was gone; how is not known")
        else:
            self._state = State(STOPPED)

    def _save(self, state: State) -> None:
        """On a full disk it goes on with what it knows, and tries again."""
        self._state = state
        try:
            files.write(self._folder, "state.json", state)
            self._unsaved = False
        except OSError:
            self._unsaved = True

    # ------------------------------------------------------------------ start

    def _start(self) -> None:
        if not self._kill_all():
            self._save(self._state._replace(status=PAUSING, reason="processes of the last run cannot be stopped"))
            self._next_s = time.monotonic() + self._want.max_s
            return
        want, again = self._want, self._state.fingerprint == self._want.fingerprint and self._state.status == PAUSING
        if want.cgroup:
            self._cgroup = Cgroup.make(want.cgroup, want.memory_mb, want.cpu)
            self._oom_kills = self._cgroup.oom_kills() if self._cgroup else 0
        try:
            started = child.start(want, f"{self._folder}/out", self._cgroup)
        except OSError as error:
            self._pause(f"no process can be started: {error.strerror}")
            return
        self._pidfd, self._began_s, self._killed = os.pidfd_open(started.pid), time.monotonic(), ""
        found = processes.stat(started.pid)
        self._save(
            State(
                STARTING,
                want.fingerprint,
                want.version,
                started.pid,
                found.start if found else 0,
                self._boot,
                want.port,
                time.time(),
                self._state.restarts + 1 if again else 0,
                self._state.pauses if again else 0,
                warnings=self._warnings(),
                ended=self._state.ended if again else "",
            )
        )
        why = started.go()
        if why:
            self._reap(started.pid)
            self._pause(f"the program cannot be run: {why}", not_executed=True)
        else:
            self._save(self._state._replace(status=RUNNING))

    def _warnings(self) -> list[str]:
        want, cgroup, found = self._want, self._cgroup, list[str]()
        if want.memory_mb and not (cgroup and cgroup.memory):
            found.append("memory_mb is checked once a second only: the memory controller is not delegated to this node")
        if want.cpu and not (cgroup and cgroup.cpu):
            found.append("cpu is not limited: the cpu controller is not delegated to this node")
        return found

    # ------------------------------------------------------------------ end

    def _has_ended(self) -> bool:
        return bool(select.select([self._pidfd], [], [], 0)[0])

    def _after_end(self) -> None:
        """The program is not reaped before its processes are gone: so their numbers stay theirs."""
        reason = self._killed or self._how_it_ended(self._state.pid)
        self._kill_all()
        self._reap(self._state.pid)
        self._copy_output()
        if time.monotonic() - self._began_s >= self._want.stable_s:
            self._state = self._state._replace(pauses=0)
        self._pause(reason)

    def _pause(self, reason: str, not_executed: bool = False) -> None:
        pauses = self._state.pauses
        pause_s = min(self._want.max_s, self._want.first_s * 2 ** min(pauses, 30))
        self._next_s = time.monotonic() + pause_s
        last = files.tail(self._folder)
        self._save(
            self._state._replace(
                status=PAUSING,
                fingerprint=self._want.fingerprint,
                version=self._want.version,
                port=self._want.port,
                boot=self._boot,
                pid=0,
                start=0,
                since_s=time.time(),
                pauses=pauses + 1,
                next_start_s=time.time() + pause_s,
                reason=reason,
                not_executed=not_executed,
                ended=f"{reason}: {last[-1]}" if last and not not_executed else reason,
            )
        )

    def _how_it_ended(self, pid: int) -> str:
        if self._cgroup is not None and self._cgroup.oom_kills() > self._oom_kills:
            return f"it was killed because it used more than memory_mb ({self._want.memory_mb} MiB)"
        try:
            found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return "it exited; how is not known, because its supervisor was replaced"
        if found is None:
            return "it exited"
        if found.si_code == os.CLD_EXITED:
            return f"it exited with code {found.si_status}"
        try:
            name = signal.Signals(found.si_status).name
        except ValueError:
            name = "unknown"
        more = "; perhaps the machine ran out of memory" if found.si_status == signal.SIGKILL else ""
        return f"it was killed by signal {found.si_status} ({name}){more}"

    def _reap(self, pid: int) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        if pid <= 0:
            return
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0 if processes.stat(pid) else os.WNOHANG)

    def _check_memory(self) -> None:
        limit = self._want.memory_mb * MIB
        if not limit or (self._cgroup and self._cgroup.memory) or time.monotonic() < self._memory_s + MEMORY_S:
            return
        self._memory_s = time.monotonic()
        used = processes.memory_bytes(self._members(marks=False), limit)
        if used > limit:
            self._killed = f"it was killed because it used {used // MIB} MiB, more than memory_mb ({limit // MIB} MiB)"
            self._kill_all()

    # ------------------------------------------------------------------ stop

    def _stop(self) -> bool:
        """Whether nothing is left and this process may end."""
        if self._pidfd >= 0 and self._state.status != STOPPING:
            self._save(self._state._replace(status=STOPPING, since_s=time.time()))
            self._signal_group(signal.SIGTERM)
            self._signal_group(signal.SIGCONT)  # a stopped process would not get it
            until = time.monotonic() + self._want.stop_timeout_s
            while time.monotonic() < until and self._members():
                self._wait(POLL_S)
        pid = self._state.pid
        if not self._kill_all():
            self._save(
                self._state._replace(status=STOPPING, reason="processes cannot be stopped; they wait in the kernel")
            )
            return False
        self._reap(pid)
        self._copy_output()
        if self._cgroup is not None:
            self._cgroup.remove()
        if self._log is not None:
            self._log.close()
        self._save(State(STOPPED, version=self._state.version, boot=self._boot, since_s=time.time()))
        return True

    def _signal_group(self, number: signal.Signals) -> None:
        """The program is not reaped yet, or lives: so the group is its own."""
        if self._has_ended() and self._adopted:
            return
        with contextlib.suppress(OSError):
            os.killpg(self._state.pid, number)

    def _members(self, marks: bool = True) -> set[int]:
        """All living processes of the slot. `marks`: also what an earlier supervisor has lost; that costs more."""
        table = processes.table()
        own = os.getpid()
        found = processes.below(table, [own])
        if self._cgroup is not None:
            found |= self._cgroup.pids()
        if self._adopted:
            roots = processes.marked(table, self._folder) if marks else set[int]()
            if self._pidfd >= 0 and not self._has_ended():
                roots.add(self._state.pid)
            found |= roots | processes.below(table, roots)
        found.discard(own)
        return {pid for pid in found if pid in table and not table[pid].zombie}

    def _kill_all(self) -> bool:
        """SIGKILL, until nothing is left. False: something does not end."""
        until = time.monotonic() + KILL_S
        while members := self._members():
            if self._cgroup is not None:
                self._cgroup.kill()
            for pid in members:
                if (found := processes.stat(pid)) is not None:
                    processes.send(pid, found.start, signal.SIGKILL)
            if time.monotonic() >= until:
                return False
            self._wait(POLL_S / 5)
        return True

    # ------------------------------------------------------------------ waiting

    def _patience_s(self) -> float:
        if self._pidfd < 0:
            return min(LOOK_S, max(0.0, self._next_s - time.monotonic()))
        limited = self._want.memory_mb and not (self._cgroup and self._cgroup.memory)
        return MEMORY_S if limited or self._unsaved else LOOK_S

    def _wait(self, seconds: float) -> None:
        """Until something happens. The output is copied meanwhile."""
        watched = [self._out, self._wake, self._signals]
        if self._pidfd >= 0 and not self._has_ended():
            watched.append(self._pidfd)
        ready = select.select(watched, [], [], seconds)[0]
        for each in (self._wake, self._signals):
            if each in ready:
                _drain(each)
        if self._out in ready:
            self._copy_output()
        self._reap_orphans()

    def _copy_output(self) -> None:
        for _ in range(READS_MAX):  # then something else has its turn
            try:
                chunk = os.read(self._out, self._log.chunk if self._log else 1 << 16)
            except BlockingIOError:
                return
            if self._log is not None:
                self._log.write(chunk)

    def _reap_orphans(self) -> None:
        """Processes that the program left behind; not the program itself."""
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid == self._state.pid:
                return
            os.waitpid(found.si_pid, os.WNOHANG)


def _awake(*_: object) -> None:
    """Something must be called, or no byte is written to the wake-up pipe."""


def _drain(file: int) -> None:
    try:
        while os.read(file, 4096):
            pass
    except BlockingIOError:
        pass
