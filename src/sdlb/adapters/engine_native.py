"""The native engine: `sdlb-engine`, spoken to over its Unix socket (proto/engine.proto has framing and meanings).

The engine process has a session of its own and outlives control. `start` attaches to the one that listens on the
socket, or starts one. When the connection breaks, it is attached to again; when the process is gone, another one is
started, at once and then with a growing delay.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sdlb.adapters.engine_sites import EngineSites
from sdlb.core.effects import Apply, Note
from sdlb.core.events import EngineApplied, EngineAttached, EngineDrained, EngineLost, EngineRejected, Event
from sdlb.seams.engine import EngineConfig, EngineFailed, Figures, GroupFigures, TargetFigures
from sdlb.seams.store import Tell
from sdlb.wire import engine as wire
from sdlb.wire.engine_pb2 import Attached, Configured, FromEngine, Stats, ToEngine

FRAME_BYTES_MAX = 16 << 20
START_WITHIN_S = 10.0
ANSWER_WITHIN_S = 10.0
DELAY_S_MIN, DELAY_S_MAX = 0.1, 5.0
UNSENT_BYTES_MAX = 64 << 20
"""An engine that does not read for so long is let go of; it gets everything again when it is back."""
ENDED_POLL_S = 0.02
BINARY = "sdlb-engine"
ROWS_MAX = 32_768
"""Statistics of so many versions and of so many targets are kept, those that changed last: a node that runs for years sees
more of them go than there ever are at once."""

K = TypeVar("K")
V = TypeVar("V")

# Engines that were let go of: theirs is another control, or they are about to end.
_outliving: list[subprocess.Popen[bytes]] = []


def find_binary() -> str:
    """SDLB_ENGINE, else beside this Python, else on the PATH, else as built in a checkout. Raises EngineFailed."""
    told = os.environ.get("SDLB_ENGINE")
    if told:
        return told
    beside = [Path(sys.executable).parent / BINARY, Path(sysconfig.get_path("scripts")) / BINARY]
    checkout = Path(__file__).parents[3] / "engine" / "target"
    built = [checkout / kind / BINARY for kind in ("release", "debug") if (checkout / kind / BINARY).exists()]
    for path in beside:
        if os.access(path, os.X_OK):
            return str(path)
    found = shutil.which(BINARY)
    if found is not None:
        return found
    if built:
        return str(max(built, key=lambda path: path.stat().st_mtime))
    raise EngineFailed(f"the program {BINARY} is not installed; install the package sdlb, or name it in SDLB_ENGINE")


class NativeEngine:
    def __init__(
        self, socket_path: Path, log_file: Path, workers: int, post: Callable[[Event], None], tell: Tell
    ) -> None:
        self.figures = Figures()
        self.sites = EngineSites(self._send)
        self._path = socket_path
        self._log = log_file
        self._workers = workers
        self._post = post
        self._tell = tell
        self._config: EngineConfig | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._configured: asyncio.Future[str] | None = None
        self._task: asyncio.Task[None] | None = None
        self._identity_warnings: list[str] = []
        self._ending = False
        self._spawned_at = 0.0
        self._delay_s = 0.0

    # ------------------------------------------------------------------ the seam

    async def start(self, config: EngineConfig) -> None:
        self._config = config
        spawned = False
        connected = await self._connect()
        if connected is None:
            self._spawn()
            spawned = True
            connected = await self._connect_soon()
        started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._live(*connected, started), name="engine")
        try:
            error = await asyncio.wait_for(started, START_WITHIN_S)
        except TimeoutError:
            error = f"the engine does not answer on {self._path}"
        if error:
            if spawned:
                await self.shut_down(0.0)
            else:
                await self.detach()
            raise EngineFailed(error)

    async def configure(self, config: EngineConfig) -> str:
        if self._writer is None:
            self._config = config
            return ""  # told when it is attached again
        before, self._config = self._config, config
        try:
            error = await asyncio.wait_for(self._configure(), ANSWER_WITHIN_S)
        except TimeoutError:
            error = "the engine does not answer"
        if error:
            self._config = before
        return error

    def apply(self, delta: Apply) -> None:
        for target in dict.fromkeys(key.target for key in delta.delete_members):
            known = self.figures.targets.get(target)
            if known is not None and known.in_flight:  # until the engine's own counts come, within a second
                key = next(key for key in delta.delete_members if key.target == target)
                self.figures.draining.setdefault(key, known.in_flight)
        for target in delta.delete_targets:
            self.figures.targets.pop(target, None)
            self.figures.ejected.pop(target, None)
        self._send(wire.to_delta(delta))

    async def shut_down(self, deadline_s: float) -> None:
        self._ending = True
        message = ToEngine()
        message.shutdown.deadline_ms = round(deadline_s * 1000)
        pid = self.figures.pid or (self._process.pid if self._process is not None else 0)
        self._send(message)
        if pid and not await self._ended(pid, deadline_s + 2.0):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            await self._ended(pid, 2.0)
        await self.detach()

    async def detach(self) -> None:
        self._ending = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._process is not None and self._process.poll() is None:
            _outliving.append(self._process)
        self._process = None
        self._let_go()

    # ------------------------------------------------------------------ the process

    def _spawn(self) -> None:
        binary = find_binary()
        _outliving[:] = [each for each in _outliving if each.poll() is None]
        words = [binary, "--socket", str(self._path)]
        if self._workers:
            words += ["--workers", str(self._workers)]
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._spawned_at = time.monotonic()
        try:
            log = os.open(self._log, flags, 0o600)
            try:
                self._process = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
                )
            finally:
                os.close(log)
        except OSError as error:
            raise EngineFailed(f"the engine {binary} cannot be started: {error.strerror}") from None

    async def _ended(self, pid: int, within_s: float) -> bool:
        for _ in range(1 + round(within_s / ENDED_POLL_S)):
            if not self._runs(pid):
                return True
            await asyncio.sleep(ENDED_POLL_S)
        return not self._runs(pid)

    def _runs(self, pid: int) -> bool:
        if self._process is not None and self._process.pid == pid:
            return self._process.poll() is None
        # Started by an earlier control: by its command line, for the number may have been given to somebody else.
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return os.fsencode(self._path) in words  # a process that only waits to be reaped has none

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        try:
            return await asyncio.open_unix_connection(str(self._path), limit=1 << 20)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as error:
            raise EngineFailed(f"{self._path}: {error.strerror}") from None

    async def _connect_soon(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """To a process that was just started."""
        end = time.monotonic() + START_WITHIN_S
        while time.monotonic() < end:
            connected = await self._connect()
            if connected is not None:
                return connected
            if self._process is not None and self._process.poll() is not None:
                raise EngineFailed(f"the engine ended at once: {self._last_words()}")
            await asyncio.sleep(0.01)
        raise EngineFailed(f"the engine did not open {self._path} within {START_WITHIN_S:g} s")

    def _last_words(self) -> str:
        code = self._process.poll() if self._process is not None else None
        with contextlib.suppress(OSError, IndexError), self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - 2000))
            return file.read().decode("utf-8", "replace").splitlines()[-1][:300]
        return f"exit code {code}"

    # ------------------------------------------------------------------ the connection

    async def _live(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, started: asyncio.Future[str]
    ) -> None:
        while True:
            await self._session(reader, writer, started)
            if self._ending:
                return
            reader, writer = await self._again()

    async def _again(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while True:
            try:
                connected = await self._connect()
                if connected is not None:
                    return connected
                if self._process is not None and self._process.poll() is None:
                    _outliving.append(self._process)
                if time.monotonic() - self._spawned_at > 60.0:
                    self._delay_s = 0.0
                self._tell(Note("engine-restarting", "the engine process is gone; starting another", "error"))
                await asyncio.sleep(self._delay_s)
                self._delay_s = min(DELAY_S_MAX, max(DELAY_S_MIN, self._delay_s * 2))
                self._spawn()
                return await self._connect_soon()
            except EngineFailed as error:
                self._tell(Note("engine-failed", str(error), "error"))
                await asyncio.sleep(max(self._delay_s, DELAY_S_MIN))

    async def _session(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, started: asyncio.Future[str]
    ) -> None:
        self._writer = writer
        attached = False
        configuring: asyncio.Task[None] | None = None
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(4), "big")
                if size > FRAME_BYTES_MAX:
                    raise ConnectionError(f"a frame of {size} bytes")
                message = FromEngine.FromString(await reader.readexactly(size))
                if message.WhichOneof("kind") == "attached":
                    attached = True
                    configuring = asyncio.create_task(self._greet(message.attached, started))
                else:
                    self._take(message)
        except (asyncio.IncompleteReadError, OSError):
            pass
        except wire.DecodeError as error:
            self._tell(Note("engine-protocol", f"the engine sent what cannot be read: {error}", "error"))
        finally:
            if configuring is not None:
                configuring.cancel()
            self._let_go()
            if attached and not self._ending:
                self._post(EngineLost())

    async def _greet(self, attached: Attached, started: asyncio.Future[str]) -> None:
        """Certificates and listeners first, then the core hears of it: what it sends next finds them open."""
        self.figures = Figures(
            pid=attached.pid, version=attached.engine_version, attached=True, bound=dict(self.figures.bound)
        )
        draining = tuple((wire.member_key(each.key), each.in_flight) for each in attached.draining)
        event = EngineAttached(attached.boot_id, attached.epoch, attached.members, draining)
        await self.sites.greet(self._drain)
        error = await self._configure()
        if not started.done():
            started.set_result(error)
            if error:
                return
        elif error:
            self._tell(Note("engine-config", f"the engine refused its configuration: {error}", "error"))
        self._post(event)

    async def _configure(self) -> str:
        assert self._config is not None
        self._configured = asyncio.get_running_loop().create_future()
        self._send(wire.to_configure(self._config))
        return await self._configured

    def _send(self, message: ToEngine) -> None:
        writer = self._writer
        if writer is None:
            return
        frame = message.SerializeToString()
        writer.write(len(frame).to_bytes(4, "big") + frame)
        if writer.transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
            self._tell(Note("engine-slow", "the engine does not read; letting go of it", "error"))
            writer.transport.abort()

    async def _drain(self) -> None:
        if self._writer is not None:
            await self._writer.drain()

    def _let_go(self) -> None:
        self.figures.attached = False
        self.sites.lost()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    # ------------------------------------------------------------------ what it says

    def _take(self, message: FromEngine) -> None:
        match message.WhichOneof("kind"):
            case "applied":
                self._post(EngineApplied(message.applied.epoch))
            case "rejected":
                self._post(EngineRejected(message.rejected.epoch, message.rejected.reason))
            case "drained":
                key = wire.member_key(message.drained.key)
                self.figures.draining.pop(key, None)
                self._post(EngineDrained(key, message.drained.epoch))
            case "sites_applied":
                self.sites.on_applied(message.sites_applied)
            case "configured":
                self._on_configured(message.configured)
            case "in_flight":
                counts = message.in_flight.draining
                self.figures.draining = {wire.member_key(each.key): each.in_flight for each in counts}
            case "target_health":
                health = message.target_health
                self._on_health(health.target, health.ejected, health.reason)
            case "stats":
                self._on_stats(message.stats)
            case "stalled":
                stalled = message.stalled
                text = f"worker {stalled.worker} of the engine did not turn for {stalled.for_ms} ms"
                self._tell(Note("engine-stalled", text, "warning"))
            case _:
                pass  # of a newer engine

    def _on_configured(self, configured: Configured) -> None:
        if not configured.error:
            self.figures.bound = {each.key: each.address for each in configured.listeners}
            self.figures.identity_not_after_s = configured.identity_not_after_unix_s
            warnings = list(configured.identity_warnings)
            for text in warnings:
                if text not in self._identity_warnings:
                    self._tell(Note("identity-warning", f"this node's certificate: {text}", "warning"))
            self._identity_warnings = warnings
        if self._configured is not None and not self._configured.done():
            self._configured.set_result(configured.error)

    def _on_health(self, target: str, ejected: bool, reason: str) -> None:
        if ejected:
            self.figures.ejected[target] = reason
            self._tell(Note("target-ejected", f"{target} is out for a while: {reason}", "warning", {"target": target}))
        elif self.figures.ejected.pop(target, None) is not None:
            self._tell(Note("target-back", f"{target} gets requests again", "info", {"target": target}))

    def _on_stats(self, stats: Stats) -> None:
        figures = self.figures
        for group in stats.groups:
            status = (group.status_1xx, group.status_2xx, group.status_3xx, group.status_4xx, group.status_5xx)
            row = GroupFigures(
                group.requests,
                status,
                group.failed,
                group.retries,
                group.parked,
                tuple(group.latency_buckets),
                group.latency_us_sum,
                tuple(group.grpc_status),
            )
            _keep(figures.groups, (group.service, group.version), row)
        for target in stats.targets:
            row = TargetFigures(
                target.requests,
                target.connects,
                target.connect_failures,
                target.failures,
                target.in_flight,
                target.idle_connections,
            )
            _keep(figures.targets, target.target, row)
        for counter in stats.counters:
            figures.counters[counter.name] = counter.value


def _keep(rows: dict[K, V], key: K, row: V) -> None:
    rows.pop(key, None)  # so that it comes last
    rows[key] = row
    while len(rows) > ROWS_MAX:
        del rows[next(iter(rows))]
