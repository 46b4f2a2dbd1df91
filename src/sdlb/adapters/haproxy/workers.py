"""HAProxy's processes: one master, the worker that accepts, and those from before a reload that still have connections.

The workers should have the table of control (`tables.py`). A change is a list of commands for all of them. If a worker does not do
what it is told, they may differ from the table: then the files are written from the table and loaded (`dirty`).

A reload checks the files first (`haproxy -c`), hands the sockets over, and happens at most once in `RELOAD_EVERY_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from sdlb.adapters import engine_process as processes
from sdlb.adapters.haproxy import program
from sdlb.adapters.haproxy.figures import Figures, Sample
from sdlb.adapters.haproxy.files import Files
from sdlb.adapters.haproxy.master import CommandFailed, Master, Processes, Silent, entries, info
from sdlb.adapters.haproxy.rules import MASTER
from sdlb.adapters.haproxy.sites import Sites, expiry
from sdlb.adapters.haproxy.tables import Command, MapDelete, Tables
from sdlb.core.effects import Note
from sdlb.seams.engine import EngineConfig, EngineFailed, EngineStats
from sdlb.seams.store import NoteSink

GROUPS = 64
"""Spare backends of a first start."""
RELOAD_EVERY_S = 1.0
RELOADED_WITHIN_S = 20.0
START_WITHIN_S = 10.0
LOG_BYTES_MAX = 1 << 20


class Workers:
    """`lock`: for whoever changes the table or the workers. `config`: what the files are written from."""

    def __init__(
        self, folder: Path, log: Path, threads: int, stats: EngineStats, sites: Sites, report: NoteSink, binary: str
    ) -> None:
        self.tables = Tables(GROUPS)
        self.files = Files(folder, threads)
        self.lock = asyncio.Lock()
        self.dirty = False
        self.config: EngineConfig | None = None
        self.program: program.Program | None = None
        self.now: Processes | None = None
        self._folder = folder
        self._log = log
        self._stats = stats
        self._sites = sites
        self._report = report
        self._binary = binary
        self._master = Master(folder / MASTER)
        self._figures = Figures(stats)
        self._connections: dict[int, int] = {}  # accepted by each worker, also by those that are gone
        self._reloaded_at = -RELOAD_EVERY_S

    async def find(self) -> program.Program:
        """Raises EngineFailed."""
        self.program = found = await program.find(self._binary)
        self.tables.chooses_sni = found.chooses_sni
        return found

    # ------------------------------------------------------------------ start and exit

    async def attach(self) -> bool:
        """Attaches to a running HAProxy, and takes its table. False: there is none. Raises EngineFailed."""
        try:
            self.now = await self._master.processes()
        except Silent as error:
            if not error.gone:
                raise EngineFailed(f"{error}; it runs in {self._folder}") from None
            return False
        state = self.files.read_state()
        self.tables = Tables(state.groups, node_tls=self.tables.node_tls, chooses_sni=self.tables.chooses_sni)
        dumps = await asyncio.gather(
            *(self._master.worker(self.now.current, f"show map {name}.map") for name in self.tables.maps)
        )
        maps = {name: entries(text) for name, text in zip(self.tables.maps, dumps, strict=True)}
        self.tables.restore(maps)
        self.files.ports = state.ports
        self.files.number = state.number or self.files.number
        self._reloaded_at = time.monotonic() - RELOAD_EVERY_S
        await self.send(self.tables.take_back())
        return True

    async def spawn(self, settle_s: float) -> None:
        """Starts HAProxy with the table that control has. Raises EngineFailed."""
        assert self.program is not None and self.config is not None
        self._sites.report(self._sites.take()[0])
        if settle_s:
            self.tables.maps["meta"]["settle_ms"] = str(round(settle_s * 1000))
        self.files.write(self.config, self.program, self.tables, self._sites)
        error = await program.check(self.program, self._folder)
        if error:
            raise EngineFailed(f"HAProxy refuses its configuration: {error}")
        (self._folder / MASTER).unlink(missing_ok=True)
        self.files.pid = program.start(self.program, self._folder, self._log)
        end = time.monotonic() + START_WITHIN_S
        while True:
            try:
                self.now = await self._master.processes(1.0)
                if await self._master.serves(self.now.current):
                    break
                raise Silent("it has not loaded its files")
            except Silent as silent:
                if not processes.runs(self.files.pid, self.files.config_path):
                    why = self.files.complaint(self._log) or processes.exit_reason(self.files.pid, self._log)
                    raise EngineFailed(f"HAProxy exited at start: {why}") from None
                if time.monotonic() > end:
                    await processes.kill(self.files.pid, self.files.config_path)
                    raise EngineFailed(f"HAProxy does not start: {silent}") from None
                await asyncio.sleep(0.02)
        self._reloaded_at = time.monotonic()
        self.dirty = False

    async def settled(self) -> None:
        """Requests without a route wait no longer."""
        commands: list[Command] = [MapDelete("meta", "settle_ms")]
        if self.tables.maps["meta"].pop("settle_ms", None) is not None:
            await self.send(commands)

    async def exit(self) -> None:
        """Returns when the master has exited."""
        assert self.now is not None
        try:
            descriptor = os.pidfd_open(self.now.master)
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

    def kill_left(self) -> None:
        """A master that was killed leaves its workers behind."""
        for pid in self.now.workers if self.now is not None else ():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if self.owns(pid):
                    os.kill(pid, signal.SIGKILL)

    async def stop(self, deadline_s: float) -> None:
        pid = self.now.master if self.now is not None else self.files.pid
        path = self.files.config_path
        for number, within_s in ((signal.SIGUSR1, deadline_s), (signal.SIGTERM, 2.0)):
            if pid and processes.runs(pid, path):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
                await processes.ended(pid, path, within_s)
        if pid:
            await processes.kill(pid, path)

    # ------------------------------------------------------------------ commands

    async def processes(self) -> Processes:
        """Raises Silent."""
        self.now = now = await self._master.processes()
        return now

    async def tell(self, pid: int, command: str) -> str:
        """The answer of a worker to one command. Raises Silent."""
        return await self._master.worker(pid, command)

    async def run(self, commands: Sequence[Command]) -> None:
        """For the worker that accepts. Raises Silent or CommandFailed."""
        if self.now is not None:
            await self._master.run(self.now.current, commands)

    def owns(self, pid: int) -> bool:
        """Whether the process runs with this node's files."""
        return processes.runs(pid, self.files.config_path)

    async def send(self, commands: Sequence[Command]) -> bool:
        """Whether all workers have carried the commands out."""
        if not commands:
            return True
        while True:
            try:
                now = await self.processes()
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
            self.dirty = True
            return False

    async def _answers_again(self, why: Silent) -> bool:
        """Waits until a HAProxy that does not answer does. False: it is gone."""
        while not why.gone:
            self.hangs(True)
            await asyncio.sleep(0.2)
            try:
                await self._master.processes()
                self.hangs(False)
                return True
            except Silent as error:
                why = error
        self.dirty = True
        return False

    def hangs(self, hangs: bool) -> None:
        if hangs == self._stats.hangs:
            return
        self._stats.hangs = hangs
        pid = self._stats.pid
        text = (
            f"HAProxy (process {pid}) does not answer control: it keeps serving, but no change takes effect"
            if hangs
            else f"HAProxy (process {pid}) answers again"
        )
        self._report(Note("engine-hangs" if hangs else "engine-answers", text, "error" if hangs else "info"))

    async def sample(self) -> dict[str, Sample]:
        """What servers have counted since the last time. Raises Silent."""
        now = await self.processes()
        answers = [(pid, await self._master.worker(pid, "show stat -1 6 -1")) for pid in now.workers]
        connections_open = 0
        for pid in now.workers:
            found = info(await self._master.worker(pid, "show info"))
            connections_open += found.get("CurrConns", 0)
            self._connections[pid] = found.get("CumConns", self._connections.get(pid, 0))
        self._stats.counters["connections_open"] = connections_open
        self._stats.counters["connections_total"] = sum(self._connections.values())
        return self._figures.poll(answers, self.tables.claim_of, self.tables.server)

    def trim_log(self) -> None:
        self.files.trim(self._log, LOG_BYTES_MAX)

    # ------------------------------------------------------------------ reload

    async def reload_soon(self) -> str:
        """Reloads the files; returns "", or why that has failed."""
        try:
            error = await self.reload()
        except Silent as silent:
            error = str(silent)
        if error:
            self.dirty = True
            self._report(Note("engine-config", f"HAProxy was not reloaded: {error}", "error"))
        return error

    async def reload(self) -> str:
        """Raises Silent. On a failure the former files are there again, and the workers serve on."""
        assert self.program is not None and self.config is not None
        await asyncio.sleep(max(0.0, self._reloaded_at + RELOAD_EVERY_S - time.monotonic()))
        self._sites.report(self._sites.take()[0])
        before = await self._master.processes()
        self.files.write(self.config, self.program, self.tables, self._sites)
        error = await program.check(self.program, self._folder)
        if error:
            self.files.undo()
            return error
        await self.sample()  # what the old worker has counted; it may exit at once
        self._reloaded_at = time.monotonic()
        self.files.mark(self._log)
        await self._master.ask("reload\n")
        after = await self._loaded(before)
        if after is None:
            error = self.files.complaint(self._log) or "the new worker did not start"
            self.files.undo()
            return error
        self.now = after
        self.dirty = False
        for pid in after.leaving:  # links of children would keep it for ever; they connect again
            await self._master.worker(pid, "shutdown sessions server children/s")
        self._stats.pid, self._stats.version = after.current, self.program.version
        self.show()
        return ""

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

    def show(self) -> None:
        """The addresses of listeners, and until when the node's certificate is valid."""
        assert self.config is not None
        self._stats.bound = {each.key: self.files.bound(each) for each in self.config.listeners}
        if self.config.identity is not None:
            with contextlib.suppress(ValueError):
                self._stats.identity_not_after_s = expiry(self.config.identity.pem)

    async def exchange(self, changed: Sequence[tuple[str, bytes]]) -> bool:
        """Exchanges certificates at run time: files with their content. False: a reload must do it."""
        if self.now is None:
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
