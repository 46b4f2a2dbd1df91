"""The native engine: `sdlb-engine`, controlled over its Unix socket (proto/engine.proto has framing and meanings).

The engine process has its own session and outlives control. `start` attaches to the process that listens on the
socket, or starts one. When the connection breaks, control attaches again. When the process is gone, a new one is
started: the first time immediately, then with a growing delay.

During a hot restart there are two processes (docs/decisions/engine-take-over.md): the one in use, and one that starts
or drains. The core sees them as one engine. A delta goes to both and counts as applied when both have applied it; an
endpoint is drained when both report it. Requests in flight at a process that has exited are over.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

from sdlb.adapters import engine_process as processes
from sdlb.adapters.engine_challenges import ChallengeFeed, EngineChallenges
from sdlb.adapters.engine_link import EngineLink
from sdlb.adapters.engine_sites import EngineSites, SiteFeed
from sdlb.adapters.engine_stats import Rows, Totals
from sdlb.core.effects import Apply, Note
from sdlb.core.events import (
    EndpointKey,
    EngineApplied,
    EngineAttached,
    EngineDrained,
    EngineJoined,
    EngineLost,
    EngineRejected,
    Event,
)
from sdlb.seams.engine import FEATURES, Degraded, EngineConfig, EngineFailed, EngineStats, Feature, Upgraded
from sdlb.seams.store import NoteSink
from sdlb.wire import engine as wire
from sdlb.wire.engine_pb2 import FromEngine, TargetHealth, ToEngine

START_WITHIN_S = 10.0
TABLE_WITHIN_S = 20.0
DELAY_S_MIN, DELAY_S_MAX = 0.1, 5.0
RESPAWN_SETTLE_S = 0.001
"""The settle time of a restarted engine. Control already has the whole table, so the engine parks requests only until it
is applied."""
GONE_WITHIN_S = 2.0
"""After its connection is lost, an engine that exits is gone within this time; otherwise only the connection broke."""
DRAIN_S = 30.0
"""The drain time of a replaced engine that an earlier control did not stop before it exited."""


class NativeEngine:
    """`socket_path`: the socket of the first engine. Its successor in a hot restart uses the name with `-b`, the next one
    the first name again."""

    def __init__(
        self, socket_path: Path, log_file: Path, workers: int, post: Callable[[Event], None], report: NoteSink
    ) -> None:
        self.stats = EngineStats()
        self.sites = EngineSites()
        self.challenges = EngineChallenges()
        self._slots = (socket_path, socket_path.with_name(f"{socket_path.stem}-b{socket_path.suffix}"))
        self._hand_over_path = socket_path.with_name("hand-over.sock")
        self._log = log_file
        self._workers = workers
        self._post = post
        self._report = report
        self._totals = Totals(self.stats)
        self._config: EngineConfig | None = None
        self._current: EngineLink | None = None
        self._feeds: dict[EngineLink, SiteFeed] = {}
        self._challenge_feeds: dict[EngineLink, ChallengeFeed] = {}
        self._starting: EngineLink | None = None
        self._table_applied: asyncio.Future[None] | None = None  # of the new engine in a hot restart
        self._leaving: list[EngineLink] = []
        self._rows: dict[str, Rows] = {}  # by boot id
        self._reported_boot_ids: dict[str, str] = {}  # boot id -> the one that was reported to the core
        self._epoch = 0
        self._awaited: set[EngineLink] = set()
        self._identity_warnings: list[str] = []
        self._one_at_a_time = asyncio.Lock()
        self._broken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = False
        self._spawned: tuple[float, int, Path] = (0.0, 0, socket_path)  # when, process, socket
        self._delay_s = 0.0

    # ------------------------------------------------------------------ the seam

    @property
    def features(self) -> frozenset[Feature]:
        return FEATURES

    def degraded(self) -> Sequence[Degraded]:
        return ()

    async def start(self, config: EngineConfig, settle_s: float = 0.0) -> None:
        self._config = config
        spawned = not await self._attach()
        try:
            if spawned:
                self._spawn(self._free_slot())
                await self._attach_soon()
            error = await self._start_session(settle_s if spawned else 0.0)
            if error:
                raise EngineFailed(error)
        except (
            BaseException
        ):  # also when the start is cancelled: a process that was started for it must not be left behind
            await (self.shut_down(0.0) if spawned else self.detach())
            raise
        self._task = asyncio.create_task(self._live(), name="engine")

    async def configure(self, config: EngineConfig) -> str:
        async with self._one_at_a_time:
            before, self._config = self._config, config
            if self._current is None:
                return ""  # it is configured when it is attached again
            error = await self._configure(self._current)
            if error:
                self._config = before
            return error

    def apply(self, delta: Apply) -> None:
        for target in dict.fromkeys(key.target for key in delta.delete_endpoints):
            known = self.stats.upstreams.get(target)
            if known is not None and known.in_flight:  # until the engine's own counts come, within a second
                key = next(key for key in delta.delete_endpoints if key.target == target)
                self.stats.draining.setdefault(key, known.in_flight)
        for target in delta.delete_upstreams:
            self._totals.forget_upstream(target)
        message = wire.to_delta(delta)
        self._awaited.clear()
        self._epoch = delta.epoch
        for link in self._links():
            link.has_table |= delta.replace
            if link.has_table:
                link.undrained.update(dict.fromkeys((*delta.delete_endpoints, *delta.left_out), delta.epoch))
                for member in delta.put_endpoints:
                    link.undrained.pop(member.key, None)
                self._awaited.add(link)
                self._send(link, message)

    def attach_again(self) -> None:
        self._in_background(self._attach_again())

    async def _attach_again(self) -> None:
        async with self._one_at_a_time:  # not during a hot restart
            self._broken.set()

    def cut(self, endpoints: Sequence[EndpointKey], *, streams_only: bool = False) -> None:
        for link in self._links():
            self._send(link, wire.to_cut(endpoints, streams_only=streams_only))

    def reopen_log(self) -> None:
        for link in self._links():
            processes.reopen_log(link.pid, link.path)

    async def upgrade(self, deadline_s: float) -> Upgraded:
        if self._one_at_a_time.locked():
            raise EngineFailed("another hot restart of the engine is in progress; try again when it is done")
        async with self._one_at_a_time:
            before = self._current
            if before is None or self._ending:
                raise EngineFailed("control is not connected to an engine; see the node's log")
            if self._leaving:
                raise EngineFailed(
                    f"the previous engine (process {self._leaving[0].pid}) still drains; try again when it has exited"
                )
            self._hand_over_path.unlink(missing_ok=True)
            path = self._free_slot()
            pid = processes.spawn(path, self._log, self._workers, self._hand_over_path)
            try:
                return await self._hot_restart(before, path, pid, deadline_s)
            except BaseException as error:
                self._abort_upgrade()
                if self._current is before:  # else the new engine is the only one left: attach to it
                    await processes.kill(pid, path)
                if isinstance(error, (EngineFailed, TimeoutError)):
                    why = str(error) or "it did not apply the route table in time"
                    raise EngineFailed(
                        f"the old engine (process {before.pid}) keeps serving; the new one failed: {why}"
                    ) from None
                raise

    async def drain_clients(self, deadline_s: float) -> None:
        if self._current is not None:
            left = await self._current.drain_clients(deadline_s)
            if left:
                self._report(
                    Note(
                        "clients-left",
                        f"{left} client connections are still open after {deadline_s:g} s",
                        "warning",
                    )
                )

    async def shut_down(self, deadline_s: float) -> None:
        self._ending = True
        await self._cancel(self._task)
        held = [(link.pid, link.path) for link in self._links()]
        for link in self._links():
            link.shut_down(deadline_s)
        _, pid, path = self._spawned
        if pid and not held:
            held.append((pid, path))
        end = time.monotonic() + deadline_s + 2.0
        for pid, path in held:
            if not await processes.ended(pid, path, end - time.monotonic()):
                await processes.kill(pid, path)
        await self.detach()

    async def detach(self) -> None:
        self._ending = True
        await self._cancel(self._task, *self._tasks)
        self._disconnect()

    async def _cancel(self, *tasks: asyncio.Task[None] | None) -> None:
        for task in tasks:
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    # ------------------------------------------------------------------ hot restart

    async def _hot_restart(self, before: EngineLink, path: Path, pid: int, deadline_s: float) -> Upgraded:
        await self._hand_over(before, path, pid)
        link = await self._connect_soon(path, pid)
        self._starting = link
        self._table_applied = asyncio.get_running_loop().create_future()
        self._begin(link)
        link.listen(self)
        await self._feed(link)
        self._post(EngineJoined())
        await asyncio.wait_for(self._table_applied, TABLE_WITHIN_S)
        error = await self._configure(link)
        if error:
            raise EngineFailed(f"it refused its configuration: {error}")
        if self._current is not before:
            raise EngineFailed("the connection to it was lost")
        # From here on the hot restart is complete, whatever happens to the old engine.
        before.shut_down(deadline_s)
        self._reported_boot_ids[link.attached.boot_id] = self._reported_boot_ids.get(
            before.attached.boot_id, before.attached.boot_id
        )
        self._leaving.append(before)
        self._current, self._starting, self._table_applied = link, None, None
        self._spawned = (time.monotonic(), pid, path)
        self._stop_feeding(before)
        self._show(link)
        after = (link.pid, link.attached.engine_version)
        text = f"engine {after[1]} (process {after[0]}) has replaced process {before.pid}, which drains and exits within {deadline_s:g} s"
        self._report(Note("engine-upgraded", text))
        return Upgraded(*after, before.pid, before.attached.engine_version, deadline_s)

    async def _hand_over(self, before: EngineLink, path: Path, pid: int) -> None:
        """Waits until the new process listens for the sockets, which takes a moment, and has them passed to it."""
        end = time.monotonic() + START_WITHIN_S
        why = "it did not ask for the listening sockets"
        while time.monotonic() < end and processes.runs(pid, path) and self._current is before:
            if self._hand_over_path.exists():
                why = await before.hand_over(self._hand_over_path)
                if not why:
                    return
            await asyncio.sleep(0.02)
        if not processes.runs(pid, path):
            why = f"it exited at start: {processes.exit_reason(pid, self._log)}"
        raise EngineFailed(why)

    def _abort_upgrade(self) -> None:
        link, self._starting, self._table_applied = self._starting, None, None
        if link is not None:
            link.close()
            self._stop_feeding(link)
            self._gone(link)

    # ------------------------------------------------------------------ connections

    def _links(self) -> list[EngineLink]:
        return [link for link in (self._current, self._starting, *self._leaving) if link is not None]

    def _free_slot(self) -> Path:
        taken = {link.path for link in self._links()}
        return next(path for path in self._slots if path not in taken)

    def _spawn(self, path: Path) -> None:
        self._spawned = (time.monotonic(), 0, path)
        self._spawned = (time.monotonic(), processes.spawn(path, self._log, self._workers), path)

    async def _connect(self, path: Path) -> EngineLink | None:
        """Connects to the engine at `path`. None: no process listens there. Raises EngineFailed."""
        try:
            link = EngineLink(path, await asyncio.open_unix_connection(str(path), limit=1 << 20))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as error:
            raise EngineFailed(f"{path}: {error.strerror}") from None
        try:
            await link.wait_for_greeting()
        except BaseException:
            link.close()
            raise
        return link

    async def _connect_soon(self, path: Path, pid: int) -> EngineLink:
        """Connects to a process that was just started. Raises EngineFailed."""
        end = time.monotonic() + START_WITHIN_S
        while time.monotonic() < end:
            link = await self._connect(path)
            if link is not None:
                return link
            if not processes.runs(pid, path):
                raise EngineFailed(f"the engine exited at start: {processes.exit_reason(pid, self._log)}")
            await asyncio.sleep(0.01)
        raise EngineFailed(f"the engine did not listen at {path} within {START_WITHIN_S:g} s")

    async def _attach(self) -> bool:
        """Attaches to the running processes. False: none of them accepts connections."""
        links: list[EngineLink] = []
        try:
            for path in self._slots:
                link = await self._connect(path)
                links += [link] if link is not None else []
        except BaseException:
            for link in links:
                link.close()
            raise
        able = [link for link in links if not link.attached.ending]
        able.sort(key=lambda link: (link.attached.serving, processes.start_ticks(link.pid)))
        self._current = able.pop() if able else None
        for link in able:  # a previous control did not finish stopping or starting it
            link.shut_down(DRAIN_S if link.attached.serving else 0.0)
        self._leaving = [link for link in links if link is not self._current]
        self._adopt(links)
        return self._current is not None

    async def _attach_soon(self) -> None:
        _, pid, path = self._spawned
        self._current = await self._connect_soon(path, pid)
        self._adopt([self._current])

    def _adopt(self, links: list[EngineLink]) -> None:
        for link in links:
            link.has_table = True  # whatever its table is: the core gets its epoch, and keeps or replaces the table
            self._begin(link)
            link.listen(self)
        present = {link.attached.boot_id for link in self._links()}
        for boot_id in [boot_id for boot_id in self._rows if boot_id not in present]:
            self._totals.end(self._rows.pop(boot_id))

    def _begin(self, link: EngineLink) -> None:
        known = self._rows.get(link.attached.boot_id)
        if known is None:
            self._totals.begin(link.rows)
        else:
            self._totals.replace(known, link.rows)
        self._rows[link.attached.boot_id] = link.rows

    async def _start_session(self, settle_s: float = 0.0) -> str:
        """Sends certificates and listeners, then informs the core, so that the listeners are open before the core's deltas."""
        link = self._current
        assert link is not None
        self._show(link)
        await self._feed(link)
        error = await self._configure(link, settle_s)
        if error and self._task is None:
            return error
        if error:
            self._report(Note("engine-config", f"the engine refused its configuration: {error}", "error"))
        in_flight: dict[EndpointKey, int] = {}
        for each in self._links():
            for row in each.attached.draining:
                key = wire.endpoint_key(row.key)
                in_flight[key] = in_flight.get(key, 0) + row.in_flight
        boot_id = self._reported_boot_ids.get(link.attached.boot_id, link.attached.boot_id)
        epoch = max(each.attached.epoch for each in self._links())
        self._post(EngineAttached(boot_id, epoch, link.attached.members, tuple(in_flight.items())))
        return ""

    async def _feed(self, link: EngineLink) -> None:
        feed = self._feeds[link] = self.sites.feed(link.send)
        await feed.greet(link.drain)
        self._challenge_feeds[link] = self.challenges.feed(link.send)

    def _stop_feeding(self, link: EngineLink) -> None:
        """Stops sending sites: the engine is gone or accepts no new clients."""
        feed = self._feeds.pop(link, None)
        if feed is not None:
            self.sites.stop(feed)
        challenge_feed = self._challenge_feeds.pop(link, None)
        if challenge_feed is not None:
            self.challenges.stop(challenge_feed)

    async def _configure(self, link: EngineLink, settle_s: float = 0.0) -> str:
        assert self._config is not None
        configured = await link.configure(self._config, settle_s)
        if not configured.error:
            self.stats.bound = {each.key: each.address for each in configured.listeners}
            self.stats.identity_not_after_s = configured.identity_not_after_unix_s
            warnings = list(configured.identity_warnings)
            for text in warnings:
                if text not in self._identity_warnings:
                    self._report(Note("identity-warning", f"this node's certificate: {text}", "warning"))
            self._identity_warnings = warnings
        return configured.error

    def _show(self, link: EngineLink) -> None:
        stats = self.stats
        stats.pid, stats.version, stats.attached = link.pid, link.attached.engine_version, True
        stats.hangs = False
        stats.ejected = link.rows.ejected

    async def _live(self) -> None:
        while True:
            await self._broken.wait()
            self._broken.clear()
            self._disconnect()
            self._post(EngineLost())
            await self._reconnect()

    async def _reconnect(self) -> None:
        while True:
            try:
                if not await self._attach():
                    if time.monotonic() - self._spawned[0] > 60.0:
                        self._delay_s = 0.0
                    self._report(Note("engine-restarting", "the engine process is gone; starting a new one", "error"))
                    await asyncio.sleep(self._delay_s)
                    self._delay_s = min(DELAY_S_MAX, max(DELAY_S_MIN, self._delay_s * 2))
                    self._spawn(self._free_slot())
                    await self._attach_soon()
                await self._start_session(RESPAWN_SETTLE_S)
                return
            except EngineFailed as error:
                self._report(Note("engine-failed", str(error), "error"))
                self._disconnect()
                await asyncio.sleep(max(self._delay_s, DELAY_S_MIN))

    def _disconnect(self) -> None:
        self.stats.attached = False
        for link in self._links():
            link.close()
            self._stop_feeding(link)
        if self._table_applied is not None and not self._table_applied.done():
            self._table_applied.set_exception(EngineFailed("the connection to it was lost"))
        self._current, self._starting, self._leaving = None, None, []
        self._awaited.clear()

    def _send(self, link: EngineLink, message: ToEngine) -> None:
        if not link.send(message):
            self._report(
                Note(
                    "engine-slow",
                    "the engine does not read from control; closing the connection and attaching again",
                    "error",
                )
            )

    # ------------------------------------------------------------------ lost connections

    def lost(self, link: EngineLink, why: str) -> None:
        if why:
            self._report(Note("engine-protocol", why, "error"))
        if link is self._starting:
            if self._table_applied is not None and not self._table_applied.done():
                self._table_applied.set_exception(EngineFailed("it exited"))
        elif link in self._leaving:
            self._in_background(self._on_old_engine_lost(link))
        elif not self._ending:
            self._broken.set()

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def hangs(self, link: EngineLink, hangs: bool) -> None:
        if link is self._current:
            self.stats.hangs = hangs
        text = (
            f"the engine (process {link.pid}) does not answer control: it keeps serving, but no change takes effect"
            if hangs
            else f"the engine (process {link.pid}) answers again"
        )
        self._report(Note("engine-hangs" if hangs else "engine-answers", text, "error" if hangs else "info"))

    async def _on_old_engine_lost(self, link: EngineLink) -> None:
        """The connection to the old engine is lost. Either it has exited as ordered, or control attaches to both again."""
        if await processes.ended(link.pid, link.path, GONE_WITHIN_S):
            if link in self._leaving:
                self._leaving.remove(link)
                self._gone(link)
                self._report(Note("engine-ended", f"the previous engine (process {link.pid}) has exited"))
        elif link in self._leaving and not self._ending:
            self._broken.set()

    def _gone(self, link: EngineLink) -> None:
        """The process has exited: nothing is in flight there, and no change waits for it."""
        self._rows.pop(link.attached.boot_id, None)
        self._totals.end(link.rows)
        link.rows.in_flight.clear()
        undrained, link.undrained = link.undrained, {}
        for key, epoch in undrained.items():
            self._drained(key, epoch)
        self._applied(link)

    # ------------------------------------------------------------------ messages from the engines

    def on_message(self, link: EngineLink, message: FromEngine) -> None:
        match message.WhichOneof("kind"):
            case "applied":
                if message.applied.epoch == self._epoch:
                    if link is self._starting and self._table_applied is not None and not self._table_applied.done():
                        self._table_applied.set_result(None)
                    self._applied(link)
            case "rejected":
                self._rejected(link, message.rejected.epoch, message.rejected.reason)
            case "drained":
                key = wire.endpoint_key(message.drained.key)
                link.undrained.pop(key, None)
                link.rows.in_flight.pop(key, None)
                self._drained(key, message.drained.epoch)
            case "sites_applied":
                feed = self._feeds.get(link)
                if feed is not None:
                    feed.on_applied(message.sites_applied)
            case "challenges_applied":
                challenge_feed = self._challenge_feeds.get(link)
                if challenge_feed is not None:
                    challenge_feed.on_applied(message.challenges_applied)
            case "in_flight":
                counts = message.in_flight.draining
                link.rows.in_flight = {wire.endpoint_key(each.key): each.in_flight for each in counts}
                self._count_draining()
            case "target_health":
                self._on_health(link, message.target_health)
            case "stats":
                self._totals.on_stats(link.rows, message.stats)
            case "stalled":
                stalled = message.stalled
                text = f"worker {stalled.worker} of the engine was blocked for {stalled.for_ms} ms"
                self._report(Note("engine-stalled", text, "warning"))
            case "memory_short":
                short = message.memory_short
                limit, resident, held = (
                    number >> 20 for number in (short.limit_bytes, short.resident_bytes, short.held_bytes)
                )
                does = "; requests that hold the most are cancelled" if short.full else ""
                text = f"memory pressure: {resident} of {limit} MiB in use, {held} MiB of it by connections{does}"
                self._report(Note("engine-memory-full" if short.full else "engine-memory-high", text, "warning"))
            case _:
                pass  # a message of a newer engine

    def _applied(self, link: EngineLink) -> None:
        if link in self._awaited:
            self._awaited.remove(link)
            if not self._awaited:
                self._post(EngineApplied(self._epoch))

    def _rejected(self, link: EngineLink, epoch: int, reason: str) -> None:
        if link is self._current:
            self._awaited.clear()
            self._post(EngineRejected(epoch, reason))
        elif link is self._starting:
            if self._table_applied is not None and not self._table_applied.done():
                self._table_applied.set_exception(EngineFailed(f"it refused the route table: {reason}"))
        else:  # it must not route by an old table
            text = f"the previous engine (process {link.pid}) is stopped without draining: it refused epoch {epoch}: {reason}"
            self._report(Note("engine-rejected", text, "error"))
            link.shut_down(0.0)

    def _drained(self, key: EndpointKey, epoch: int) -> None:
        if all(key not in link.undrained for link in self._links()):
            self.stats.draining.pop(key, None)
            self._post(EngineDrained(key, epoch))

    def _count_draining(self) -> None:
        counts: dict[EndpointKey, int] = {}
        for link in self._links():
            for key, count in link.rows.in_flight.items():
                counts[key] = counts.get(key, 0) + count
        self.stats.draining = counts

    def _on_health(self, link: EngineLink, health: TargetHealth) -> None:
        """Health reports of a draining engine are stored but not logged."""
        target, ejected = health.target, link.rows.ejected
        known = target in ejected
        if health.ejected:
            ejected[target] = health.reason
        else:
            ejected.pop(target, None)
        if link is not self._current:
            return
        if health.ejected:
            text = f"endpoint {target} is ejected: {health.reason}"
            self._report(Note("target-ejected", text, "warning", {"target": target}))
        elif known:
            self._report(Note("target-back", f"endpoint {target} gets requests again", "info", {"target": target}))
