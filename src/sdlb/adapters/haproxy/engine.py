"""HAProxy behind the seam `Engine`: one task carries out deltas in order, another polls figures and drains.

HAProxy has its own session and outlives control. The table of control (`tables.py`) is what the workers should have. Every
delta is a list of commands for all workers, leaving ones too. If a worker does not do what it is told, the workers may differ
from the table: then files are written from the table and loaded (`_dirty`). A delta counts as applied when that has worked.

A reload checks the files first (`haproxy -c`), hands the sockets over, and happens at most once in `RELOAD_EVERY_S`. It is
never needed for an endpoint or a route, only for listeners, sites, and when few spare backends are left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from sdlb.adapters import engine_process as processes
from sdlb.adapters.haproxy import limits, program
from sdlb.adapters.haproxy.access_log import AccessLog
from sdlb.adapters.haproxy.challenges import Challenges
from sdlb.adapters.haproxy.figures import ERROR, Figures, Sample
from sdlb.adapters.haproxy.files import Files
from sdlb.adapters.haproxy.health import Health
from sdlb.adapters.haproxy.links import Links
from sdlb.adapters.haproxy.master import CommandFailed, Master, Processes, Silent
from sdlb.adapters.haproxy.names import is_node, of_slot
from sdlb.adapters.haproxy.rules import LOG, MASTER
from sdlb.adapters.haproxy.sites import Sites, expiry
from sdlb.adapters.haproxy.tables import Command, MapDelete, NoSlots, Refused, ServerCommand, Tables
from sdlb.core.effects import Apply, Note
from sdlb.core.events import (
    EndpointKey,
    EngineApplied,
    EngineAttached,
    EngineDrained,
    EngineLost,
    EngineRejected,
    Event,
)
from sdlb.model.traffic import Traffic
from sdlb.seams.engine import ChallengeSink, Degraded, EngineConfig, EngineFailed, EngineStats, Feature, Upgraded
from sdlb.seams.store import NoteSink

GROUPS = 64
"""Spare backends of a first start."""
RELOAD_EVERY_S = 1.0
RELOADED_WITHIN_S = 20.0
START_WITHIN_S = 10.0
POLL_S = 1.0
DRAIN_POLL_S = 0.05
DELAY_S_MIN, DELAY_S_MAX = 0.1, 5.0
LOG_BYTES_MAX = 1 << 20


class HaproxyEngine:
    """`folder`: for all of HAProxy's files and sockets. `binary`: its path; "": found on the PATH."""

    def __init__(
        self,
        folder: Path,
        log_file: Path,
        workers: int,
        post: Callable[[Event], None],
        report: NoteSink,
        binary: str = "",
    ) -> None:
        self.stats = EngineStats()
        self.sites = Sites(folder, self._sites_changed)
        self.tables = Tables(GROUPS)
        self._folder = folder
        self._log = log_file
        self._post = post
        self._report = report
        self._binary = binary
        self._files = Files(folder, workers)
        self._master = Master(folder / MASTER)
        self._figures = Figures(self.stats)
        self._health = Health()
        self._access = AccessLog(folder / LOG, self._endpoint_of)
        self._challenges = Challenges(folder, self._put_challenges)
        self._links = Links(folder)
        self._config: EngineConfig | None = None
        self._program: program.Program | None = None
        self._services: dict[str, Traffic] = {}
        self._processes: Processes | None = None
        self._connections: dict[int, int] = {}  # accepted by each worker, also by those that are gone
        self._deltas: asyncio.Queue[Apply] = asyncio.Queue()
        self._undrained: dict[EndpointKey, int] = {}
        self._idle_polls: dict[str, int] = {}
        self._unused: set[str] = set()  # full names: drained, but HAProxy has not deleted them yet
        self._sites_wait = asyncio.Event()
        self._drains = asyncio.Event()
        self._lock = asyncio.Lock()
        self._dirty = False
        self._reloaded_at = -RELOAD_EVERY_S
        self._ending = False
        self._degraded: tuple[Degraded, ...] = ()
        self._tasks: list[asyncio.Task[None]] = []
        self._to_cut: set[EndpointKey] = set()

    # ------------------------------------------------------------------ the seam

    @property
    def features(self) -> frozenset[Feature]:
        return limits.FEATURES

    def degraded(self) -> Sequence[Degraded]:
        return self._degraded

    async def start(self, config: EngineConfig, settle_s: float = 0.0) -> None:
        found = await self._find()
        self._config = config
        self.tables.node_tls = config.identity is not None
        self._folder.mkdir(mode=0o700, exist_ok=True)
        try:
            self._access.configure(config.access_log)
        except OSError as error:
            raise EngineFailed(f"the access log {config.access_log}: {error.strerror}") from None
        attached = await self._attach()
        try:
            await self._links.use(config)
            await self._challenges.use(config)
            if not attached:
                await self._spawn(settle_s)
            elif not self._files.are_of(config, found, self.tables, self.sites):
                await self._reload_soon()
            self._note_degraded()
            self._attached()
        except BaseException:
            await (self.detach() if attached else self.shut_down(0.0))
            raise
        works = (self._carry_out, self._poll, self._watch_drains, self._watch_sites, self._watch)
        self._tasks = [asyncio.create_task(self._keep(work), name="haproxy") for work in works]
        if settle_s and not attached:
            self._tasks.append(asyncio.create_task(self._settle(settle_s), name="haproxy"))

    async def configure(self, config: EngineConfig) -> str:
        async with self._lock:
            before, self._config = self._config, config
            try:
                self._access.configure(config.access_log)
                error = await self._reload()
                if not error:
                    await self._links.use(config)
                    await self._challenges.use(config)
            except (OSError, Silent) as failure:
                error = str(failure)
            if error:
                self._config = before
                with contextlib.suppress(OSError):
                    self._access.configure(before.access_log if before is not None else "")
            self._note_degraded()
            return error

    @property
    def challenges(self) -> ChallengeSink:
        return self._challenges

    def apply(self, delta: Apply) -> None:
        if self.stats.attached:
            self._deltas.put_nowait(delta)

    def attach_again(self) -> None:
        if self.stats.attached:
            left = (each for each in self.tables.leaving.values() if each.key not in self.tables.endpoints())
            self._undrained.update({each.key: each.epoch for each in left})
            self._drains.set()
            self._attached()

    def cut(self, endpoints: Sequence[EndpointKey], *, streams_only: bool = False) -> None:
        if not streams_only:  # it cannot tell them from other sessions (`limits.py`)
            self._to_cut.update(endpoints)
            self._drains.set()

    def reopen_log(self) -> None:
        self._access.reopen()

    async def upgrade(self, deadline_s: float) -> Upgraded:
        if self._lock.locked():
            raise EngineFailed("HAProxy is being reloaded; try again when it is done")
        async with self._lock:
            before, version = self._processes, self.stats.version
            if before is None:
                raise EngineFailed("control is not connected to HAProxy; see the node's log")
            found = await self._find()
            error = await self._reload()
            if error:
                raise EngineFailed(f"HAProxy (process {before.current}) keeps serving; the reload failed: {error}")
            assert self._processes is not None
            pid = self._processes.current
            text = f"HAProxy {found.version} (process {pid}) has replaced process {before.current}, which drains"
            self._report(Note("engine-upgraded", text))
            return Upgraded(pid, found.version, before.current, version, deadline_s)

    async def drain_clients(self, deadline_s: float) -> None:
        keys = self._files.entries(self._config) if self._config is not None else []
        end = time.monotonic() + deadline_s
        with contextlib.suppress(Silent, CommandFailed):
            async with self._lock:
                if self._processes is not None:
                    commands = [ServerCommand(f"disable frontend {key}") for key in keys]
                    await self._master.run(self._processes.current, commands)
            idle = 0
            while time.monotonic() < end and idle < 3:
                await asyncio.sleep(DRAIN_POLL_S)
                idle = idle + 1 if not sum(sample.in_flight for sample in (await self._sample()).values()) else 0

    async def shut_down(self, deadline_s: float) -> None:
        self._ending = True
        await self._cancel()
        pid = self._processes.master if self._processes is not None else self._files.pid
        path = self._files.config_path
        for number, within_s in ((signal.SIGUSR1, deadline_s), (signal.SIGTERM, 2.0)):
            if pid and processes.runs(pid, path):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
                await processes.ended(pid, path, within_s)
        if pid:
            await processes.kill(pid, path)
        await self.detach()

    async def detach(self) -> None:
        self._ending = True
        await self._cancel()
        await self._links.close()
        await self._challenges.close()
        self._access.close()
        self.stats.attached = False

    async def _keep(self, work: Callable[[], Awaitable[None]]) -> None:
        """Repeats a work after an internal error, which is reported. The workers may differ from the table then."""
        while True:
            try:
                await work()
            except Exception:
                self._dirty = True
                self._report(Note("engine-failed", f"internal error: {traceback.format_exc(limit=-4)}", "error"))
                await asyncio.sleep(POLL_S)

    async def _cancel(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            if task is not asyncio.current_task():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    # ------------------------------------------------------------------ start and restart

    async def _find(self) -> program.Program:
        """Raises EngineFailed."""
        self._program = found = await program.find(self._binary)
        self.tables.chooses_sni = found.chooses_sni
        return found

    async def _attach(self) -> bool:
        """Attaches to a running HAProxy. False: there is none."""
        try:
            self._processes = await self._master.processes()
        except Silent as error:
            if not error.gone:
                raise EngineFailed(f"{error}; it runs in {self._folder}") from None
            return False
        state = self._files.read_state()
        self.tables = Tables(state.groups, node_tls=self.tables.node_tls, chooses_sni=self.tables.chooses_sni)
        dumps = await asyncio.gather(
            *(self._master.worker(self._processes.current, f"show map {name}.map") for name in self.tables.maps)
        )
        maps = {name: _entries(text) for name, text in zip(self.tables.maps, dumps, strict=True)}
        self.tables.restore(maps)
        self._files.ports = state.ports
        self._undrained = {server.key: server.epoch for server in self.tables.leaving.values()}
        self._reloaded_at = time.monotonic() - RELOAD_EVERY_S
        await self._send(self.tables.take_back())
        self._sites_changed()
        self._drains.set()
        return True

    async def _spawn(self, settle_s: float) -> None:
        """Starts HAProxy with the table that control has. Raises EngineFailed."""
        assert self._program is not None and self._config is not None
        self._take_sites()
        if settle_s:
            self.tables.maps["meta"]["settle_ms"] = str(round(settle_s * 1000))
        self._files.write(self._config, self._program, self.tables, self.sites)
        error = await program.check(self._program, self._folder)
        if error:
            raise EngineFailed(f"HAProxy refuses its configuration: {error}")
        (self._folder / MASTER).unlink(missing_ok=True)
        self._files.pid = program.start(self._program, self._folder, self._log)
        end = time.monotonic() + START_WITHIN_S
        while True:
            try:
                self._processes = await self._master.processes(1.0)
                if await self._master.serves(self._processes.current):
                    break
                raise Silent("it has not loaded its files")
            except Silent as silent:
                if not processes.runs(self._files.pid, self._files.config_path):
                    why = self._files.complaint(self._log) or processes.exit_reason(self._files.pid, self._log)
                    raise EngineFailed(f"HAProxy exited at start: {why}") from None
                if time.monotonic() > end:
                    await processes.kill(self._files.pid, self._files.config_path)
                    raise EngineFailed(f"HAProxy does not start: {silent}") from None
                await asyncio.sleep(0.02)
        self._reloaded_at = time.monotonic()
        self._dirty = False

    def _attached(self) -> None:
        assert self._processes is not None and self._program is not None and self._config is not None
        stats = self.stats
        stats.pid, stats.version, stats.attached, stats.hangs = (
            self._processes.current,
            self._program.version,
            True,
            False,
        )
        self._show(self._config)
        in_flight = dict.fromkeys(self._undrained, 1)
        boot_id = f"haproxy-{self._processes.master}-{processes.start_ticks(self._processes.master)}"
        count = len(self.tables.endpoints())
        self._post(EngineAttached(boot_id, self.tables.epoch, count, tuple(in_flight.items())))

    async def _settle(self, settle_s: float) -> None:
        await asyncio.sleep(settle_s)
        async with self._lock:
            commands: list[Command] = [MapDelete("meta", "settle_ms")]
            if self.tables.maps["meta"].pop("settle_ms", None) is not None:
                await self._send(commands)

    async def _watch(self) -> None:
        """Starts HAProxy again when it has exited."""
        delay_s, spawned = 0.0, time.monotonic()
        while True:
            await self._exit()
            self.stats.attached = False
            self._post(EngineLost())
            self._report(Note("engine-restarting", "HAProxy has exited; starting it again", "error"))
            while True:
                if time.monotonic() - spawned > 60.0:
                    delay_s = 0.0
                await asyncio.sleep(delay_s)
                delay_s = min(DELAY_S_MAX, max(DELAY_S_MIN, delay_s * 2))
                spawned = time.monotonic()
                try:
                    async with self._lock:
                        await self._restart()
                    break
                except (EngineFailed, OSError) as error:
                    self._report(Note("engine-failed", str(error), "error"))

    async def _restart(self) -> None:
        assert self._processes is not None
        for pid in self._processes.workers:  # a master that was killed leaves its workers behind
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if self.owns(pid):
                    os.kill(pid, signal.SIGKILL)
        while not self._deltas.empty():
            self._deltas.get_nowait()
        self._undrained.clear()
        self._unused.clear()
        self._idle_polls.clear()
        for name in list(self.tables.leaving):
            self.tables.forget(name)
        self.tables.ejected.clear()
        await self._spawn(0.0)
        self._attached()

    async def _exit(self) -> None:
        """Returns when the master has exited."""
        assert self._processes is not None
        try:
            descriptor = os.pidfd_open(self._processes.master)
        except ProcessLookupError:
            return
        loop = asyncio.get_running_loop()
        gone = loop.create_future()
        loop.add_reader(descriptor, lambda: gone.done() or gone.set_result(None))
        try:
            await gone
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)

    # ------------------------------------------------------------------ deltas

    async def _carry_out(self) -> None:
        while True:
            delta = await self._deltas.get()
            async with self._lock:
                try:
                    await self._apply(delta)
                except EngineFailed as error:
                    self._post(EngineRejected(delta.epoch, str(error)))
                except Exception as error:
                    self._post(EngineRejected(delta.epoch, f"internal error: {error!r}"))
                    raise

    async def _apply(self, delta: Apply) -> None:
        """Raises EngineFailed when the workers do not have the table."""
        while True:
            try:
                commands = self.tables.apply(delta)
                break
            except NoSlots:
                self.tables.grow()
                self._dirty = True
            except Refused as error:
                raise EngineFailed(str(error)) from None
        self._keep_services(delta)
        for key, epoch in ((each, delta.epoch) for each in (*delta.delete_endpoints, *delta.left_out)):
            self._undrained[key] = epoch
        for endpoint in delta.put_endpoints:
            self._undrained.pop(endpoint.key, None)
        if self._dirty or not await self._send(commands):
            error = await self._reload_soon()
            if error:
                raise EngineFailed(error)
        self._post(EngineApplied(delta.epoch))
        self._report_drained()
        self._note_degraded()
        if self.tables.leaving:
            self._drains.set()
        if self.tables.few_left():
            self.tables.grow()
            await self._reload_soon()

    def _keep_services(self, delta: Apply) -> None:
        if delta.replace:
            self._services.clear()
        self._services.update((put.name, put.traffic) for put in delta.put_services)
        for name in delta.delete_services:
            self._services.pop(name, None)

    async def _send(self, commands: Sequence[Command]) -> bool:
        """Whether all workers have carried the commands out."""
        if not commands:
            return True
        while True:
            try:
                now = self._processes = await self._master.processes()
                await self._master.run(now.current, commands)
                for pid in now.leaving:
                    await self._master.run(pid, commands, leaving=True)
                return True
            except CommandFailed as error:
                self._report(
                    Note("engine-command", f"HAProxy refused a command ({error}); reloading its files", "warning")
                )
            except Silent as error:
                if not await self._answers_again(error):
                    return False
            self._dirty = True
            return False

    async def _answers_again(self, why: Silent) -> bool:
        """Waits until a HAProxy that does not answer does. False: it is gone."""
        while not why.gone:
            self._hangs(True)
            await asyncio.sleep(0.2)
            try:
                await self._master.processes()
                self._hangs(False)
                return True
            except Silent as error:
                why = error
        self._dirty = True
        return False

    def _hangs(self, hangs: bool) -> None:
        if hangs == self.stats.hangs:
            return
        self.stats.hangs = hangs
        pid = self.stats.pid
        text = (
            f"HAProxy (process {pid}) does not answer control: it keeps serving, but no change takes effect"
            if hangs
            else f"HAProxy (process {pid}) answers again"
        )
        self._report(Note("engine-hangs" if hangs else "engine-answers", text, "error" if hangs else "info"))

    # ------------------------------------------------------------------ reload

    async def _reload_soon(self) -> str:
        """Reloads the files; returns "", or why that has failed."""
        try:
            error = await self._reload()
        except Silent as silent:
            error = str(silent)
        if error:
            self._dirty = True
            self._report(Note("engine-config", f"HAProxy was not reloaded: {error}", "error"))
        return error

    async def _reload(self) -> str:
        """Raises Silent. On a failure the former files are there again, and the workers serve on."""
        assert self._program is not None and self._config is not None
        await asyncio.sleep(max(0.0, self._reloaded_at + RELOAD_EVERY_S - time.monotonic()))
        self._take_sites()
        before = await self._master.processes()
        self._files.write(self._config, self._program, self.tables, self.sites)
        error = await program.check(self._program, self._folder)
        if error:
            self._files.undo()
            return error
        await self._sample()  # what the old worker has counted; it may exit at once
        self._reloaded_at = time.monotonic()
        self._files.mark(self._log)
        await self._master.ask("reload\n")
        after = await self._loaded(before)
        if after is None:
            error = self._files.complaint(self._log) or "the new worker did not start"
            self._files.undo()
            return error
        self._processes = after
        self._dirty = False
        for pid in after.leaving:  # links of children would keep it for ever; they connect again
            await self._master.worker(pid, "shutdown sessions server children/s")
        self.stats.pid, self.stats.version = after.current, self._program.version
        self._show(self._config)
        return ""

    def _show(self, config: EngineConfig) -> None:
        self.stats.bound = {each.key: self._files.bound(each) for each in config.listeners}
        if config.identity is not None:
            with contextlib.suppress(ValueError):
                self.stats.identity_not_after_s = expiry(config.identity.pem)

    async def _loaded(self, before: Processes) -> Processes | None:
        end = time.monotonic() + RELOADED_WITHIN_S
        while time.monotonic() < end:
            await asyncio.sleep(0.02)
            with contextlib.suppress(Silent):
                now = await self._master.processes()
                if now.failed > before.failed:
                    return None
                loaded = now.reloads > before.reloads and now.current not in before.workers
                if loaded and await self._master.serves(now.current):
                    return now
        return None

    # ------------------------------------------------------------------ sites

    def _sites_changed(self) -> None:
        self._sites_wait.set()

    def _take_sites(self) -> tuple[list[tuple[str, bytes]], bool]:
        """Writes the files of sites that were put; whether a reload is needed."""
        self._sites_wait.clear()
        states, changed, reload = self.sites.take()
        if states:
            asyncio.get_running_loop().call_soon(self.sites.on_states, states)
        return changed, reload

    async def _watch_sites(self) -> None:
        while True:
            await self._sites_wait.wait()
            async with self._lock:
                changed, reload = self._take_sites()
                self._note_degraded()
                if reload or (changed and not await self._exchange(changed)):
                    await self._reload_soon()

    async def _exchange(self, changed: Sequence[tuple[str, bytes]]) -> bool:
        """Exchanges certificates at run time. False: a reload must do it."""
        if self._processes is None:
            return False
        try:
            for pid in (await self._master.processes()).workers:
                for name, pem in changed:
                    put = await self._master.ask(f"@!{pid} set ssl cert {name} <<\n{pem.decode()}\n")
                    if not put.startswith(("Transaction created", "Transaction updated")):
                        return False
                    done = await self._master.worker(pid, f"commit ssl cert {name}")
                    if "Success!" not in done:
                        return False
        except Silent:
            return False
        return True

    async def _put_challenges(self, answers: Mapping[tuple[str, str], str]) -> str:
        async with self._lock:
            commands = self.tables.challenges(answers)
            if self._processes is None or await self._send(commands):
                return ""
            return await self._reload_soon()

    # ------------------------------------------------------------------ each second

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                samples = await self._sample()
                async with self._lock:
                    await self._adjust(samples)
                self._hangs(False)
            except Silent as error:
                if not error.gone:
                    self._hangs(True)
            self._files.trim(self._log, LOG_BYTES_MAX)

    async def processes(self) -> Processes:
        """Raises Silent."""
        return await self._master.processes()

    async def tell(self, pid: int, command: str) -> str:
        """The answer of a worker to one command. Raises Silent."""
        return await self._master.worker(pid, command)

    def owns(self, pid: int) -> bool:
        """Whether the process runs with this node's files."""
        return processes.runs(pid, self._files.config_path)

    async def _sample(self) -> dict[str, Sample]:
        """Raises Silent."""
        self._processes = now = await self._master.processes()
        answers = [(pid, await self._master.worker(pid, "show stat -1 6 -1")) for pid in now.workers]
        connections_open = 0
        for pid in now.workers:
            info = _info(await self._master.worker(pid, "show info"))
            connections_open += info.get("CurrConns", 0)
            self._connections[pid] = info.get("CumConns", self._connections.get(pid, 0))
        self.stats.counters["connections_open"] = connections_open
        self.stats.counters["connections_total"] = sum(self._connections.values())
        self.stats.counters["log_lines_dropped_total"] = self._access.dropped
        return self._figures.poll(answers, self.tables.claim_of, self.tables.server)

    async def _adjust(self, samples: dict[str, Sample]) -> None:
        in_flight = {name: sample.in_flight for name, sample in samples.items()}
        commands = [*self.tables.sweep(), *self.tables.balance(in_flight)]
        for name, sample in samples.items():
            server = self.tables.server(name)
            if server is not None and is_node(server.key.target):
                sample.added.pop(ERROR, None)  # an answer of its instance, which the child judges itself
        for name, ejected, why in self._health.check(samples, time.monotonic()):
            found = self.tables.eject(name, ejected)
            server = self.tables.server(name)
            if not found or server is None:
                continue
            commands += found
            self._note_ejected(server.key.target, ejected, why)
        servers = map(self.tables.server, self.tables.ejected)
        known = {server.key.target for server in servers if server is not None}
        for target in self.stats.ejected.keys() - known:  # it has left, or HAProxy was started again
            del self.stats.ejected[target]
        await self._send(commands)

    def _note_ejected(self, target: str, ejected: bool, why: str) -> None:
        if ejected:
            self.stats.ejected[target] = why
            text = f"endpoint {target} is ejected: {why}"
            self._report(Note("target-ejected", text, "warning", {"target": target}))
        elif self.stats.ejected.pop(target, None) is not None:
            self._report(Note("target-back", f"endpoint {target} gets requests again", "info", {"target": target}))

    def _endpoint_of(self, full_name: str) -> str:
        server = self.tables.server(of_slot(full_name))
        return server.key.target if server is not None else ""

    # ------------------------------------------------------------------ drain

    async def _watch_drains(self) -> None:
        while True:
            await self._drains.wait()
            self._drains.clear()
            while self.tables.leaving or self._to_cut:
                with contextlib.suppress(Silent):
                    async with self._lock:
                        await self._cut()
                        await self._drain()
                waiting = self.tables.leaving.keys() - self._unused
                await asyncio.sleep(DRAIN_POLL_S if waiting else POLL_S)

    async def _cut(self) -> None:
        names = self.tables.names_of(self._to_cut)
        for pid in (await self._master.processes()).workers if names else ():
            for name in names:
                await self._master.worker(pid, f"shutdown sessions server {name}")
        self._to_cut.clear()

    async def _drain(self) -> None:
        self._processes = now = await self._master.processes()
        in_flight = dict.fromkeys(self.tables.leaving, 0)
        names = {name for server in self.tables.leaving.values() for name in server.copies}
        for backend in {name.partition("/")[0] for name in names}:
            for pid in now.workers:
                answer = await self._master.worker(pid, f"show stat {backend} 4 -1")
                for name, count in Figures.in_flight(answer):
                    if name in in_flight:
                        in_flight[name] += count
        for name, count in in_flight.items():
            # Twice in a row: a request may have chosen the server just before it was told to leave.
            self._idle_polls[name] = 0 if count else self._idle_polls.get(name, 0) + 1
            if self._idle_polls[name] >= 2:
                self._unused.add(name)
        self.stats.draining = {}
        for name in in_flight.keys() - self._unused:
            key = self.tables.leaving[name].key
            self.stats.draining[key] = self.stats.draining.get(key, 0) + in_flight[name]
        self._report_drained()
        for name in sorted(self._unused & in_flight.keys()):
            copies = self.tables.leaving[name].copies
            answers = [await self._master.worker(now.current, f"del server {each}") for each in copies]
            if all(_is_deleted(answer) for answer in answers):
                self._unused.discard(name)
                self._idle_polls.pop(name, None)
                await self._send(self.tables.forget(name))

    def _report_drained(self) -> None:
        busy = {server.key for name, server in self.tables.leaving.items() if name not in self._unused}
        for key in [key for key in self._undrained if key not in busy]:
            self.stats.draining.pop(key, None)
            self._post(EngineDrained(key, self._undrained.pop(key)))

    # ------------------------------------------------------------------ what it cannot do

    def _note_degraded(self) -> None:
        if self._config is None or self._program is None:
            return
        refused = [f"{key.target}: {why}" for key, why in sorted(self.tables.refused.items())]
        found = tuple(
            limits.degraded(
                self._config,
                self._services,
                lua=self._program.lua,
                limits_floods=self._program.limits_floods,
                wildcards=self.sites.wildcards,
                fronts=self.sites.fronts,
                refused=refused,
                sessions=self.tables.sessions,
            )
        )
        new = [each for each in found if each not in self._degraded]
        for each in new:
            if each.services:
                asks = "asks" if len(each.services) == 1 else "ask"
                text = f"HAProxy does not have {each.what}, which {', '.join(each.services)} {asks} for: {each.instead}"
                self._report(Note("engine-degraded", text, "warning", {"what": each.what}))
        ours = "; ".join(f"{each.what} ({each.instead})" for each in new if not each.services)
        if ours:
            self._report(Note("engine-degraded", f"HAProxy does not have: {ours}"))
        self._degraded = found


def _is_deleted(answer: str) -> bool:
    return "Server deleted" in answer or "No such server" in answer or not answer.strip()


def _entries(text: str) -> dict[str, str]:
    """The answer to `show map`: a reference, the key and the value in each line."""
    rows = [line.split(" ", 2) for line in text.splitlines() if line.startswith("0x")]
    return {row[1]: row[2] for row in rows if len(row) == 3}


def _info(text: str) -> dict[str, int]:
    pairs = [line.partition(": ") for line in text.splitlines()]
    return {name: int(value) for name, _, value in pairs if name in ("CurrConns", "CumConns") and value.isdigit()}
