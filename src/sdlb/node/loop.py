"""The asyncio loop that owns the `Balancer`: events in, effects carried out in order.

One iteration takes all waiting events, lets the core decide, and carries its effects out in order. A `Persist` is
written before any effect that follows it: decide, write, act. A durable one has reached the disk, any other at least
the operating system. So kill -9 loses nothing, and a power cut (which also ends the engine) loses at most the others.

When the disk cannot be written, the node reports `state-not-written` and retries without limit. The applied state keeps
serving, and the core continues in memory: renewals, health, beats. If a durable decision cannot be written, neither it
nor any later one takes effect until it is written (`decisions-wait`, see `sdlb.node.held_effects`). So a full disk
causes no outage, and after kill -9 no decision comes back that other nodes have seen undone. Meanwhile traffic is
served by the previous state: a new instance waits, and the engine retries elsewhere when an instance has exited. A
commit that is not durable holds nothing up: after a restart without it, the node receives the state again from its
source.

The core receives both changes as events (`StoreStuck`, `StoreWritten`), and a node that cannot write its decisions
reports this in its beats. After some time it may stop deciding and follow other roots (`ReleaseHeld`); from then on
nothing is held. A node that is stopped in this state informs its parents when its drain time is over, and exits.

An internal error costs the one event or effect in which it happens. The other events of the iteration are still
handled, and the other effects still carried out.

Only this module calls `Balancer.handle`. Reads (`balancer.view.instances()` and so on) are fine from any coroutine of
this thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import Awaitable, Callable

from sdlb.core import effects as ef
from sdlb.core.balancer import Balancer
from sdlb.core.events import (
    AskDone,
    AskUp,
    DriverDone,
    EngineRejected,
    Event,
    HookDone,
    MetricsAnswered,
    Stop,
    StoreStuck,
    StoreWritten,
    Tick,
)
from sdlb.core.figures import Analysed
from sdlb.node.answer_counter import AnswerCounter
from sdlb.node.figures import FigureCounter
from sdlb.node.held_effects import HeldEffects
from sdlb.node.in_flight import with_in_flight
from sdlb.node.service_watch import ServiceWatch
from sdlb.seams.engine import Engine
from sdlb.seams.links import ChildLinks, ParentLinks
from sdlb.seams.store import NoteSink, Store, StoreFailed

STALL_S = 2.0
"""A disk that has not answered after this time counts as one that cannot be written: leases do not wait for it."""
RETRY_FIRST_S = 1.0
RETRY_MAX_S = 5.0
FAULTS_MAX = 16
"""After this many internal errors in one iteration, beyond one for each event, the core is not called until the next
event."""
INCARNATION = "node/incarnation"
Run = Callable[[ef.Execute], Awaitable[tuple[int, bytes]]]
"""Runs an API call of the authority on this root -> (status, body)."""
RunHook = Callable[[ef.RunHook], Awaitable[tuple[str, str]]]
"""Asks the hook of a gate -> (outcome, detail), as in `HookDone`. Never raises."""
AskMetrics = Callable[[ef.AskMetrics], Awaitable[tuple[float | str, ...]]]
"""Asks the sources of metrics -> results, as in `MetricsAnswered`. Never raises."""
RunDriver = Callable[[ef.RunDriver], Awaitable[DriverDone]]
"""Calls the driver of a role's service. Never raises."""


def _ignore(services: tuple[str, ...]) -> None:
    """Nobody waits for changes of services."""


class Waiters:
    """Long-polls that wait for an instance or a service to change."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    def wake(self, names: tuple[str, ...]) -> None:
        for name in names:
            for future in self._waiting.pop(name, ()):
                if not future.done():
                    future.set_result(None)

    async def wait(self, name: str, timeout_s: float) -> None:
        """Returns when something about `name` may have changed, or when the time is up."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, []).append(future)
        try:
            await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            pass
        finally:
            left = self._waiting.get(name, [])
            if future in left:
                left.remove(future)
                if not left:
                    self._waiting.pop(name, None)


class NodeLoop:
    """Wire it up (the attributes without a value), then `await start()` and `run()` until `stopped` is set."""

    parents: ParentLinks
    children: ChildLinks
    engine: Engine
    run_here: Run
    run_hook: RunHook
    ask_metrics: AskMetrics
    run_driver: RunDriver
    watch_instances: Callable[[tuple[str, ...]], None]
    watch_services: Callable[[tuple[str, ...]], None] = staticmethod(_ignore)

    def __init__(
        self,
        balancer: Balancer,
        store: Store,
        report: NoteSink,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.balancer = balancer
        self.stopped: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.instances = Waiters()
        self.services = Waiters()
        self.errors = 0
        self.stopping = False
        self._store = store
        self.report = report
        self._clock = clock
        self._wall = wall
        self._events: list[Event] = []
        self._callers: list[asyncio.Future[None]] = []
        self._wake: asyncio.Future[None] | None = None
        self._idle = asyncio.Event()  # set while nothing waits to be decided or carried out
        self._root_calls: dict[str, asyncio.Future[ef.Answered]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._hooks: set[asyncio.Task[None]] = set()  # of these tasks: they may take minutes
        self._unwritten: dict[str, object] = {}
        self._retry_at = 0.0
        self._retry_s = RETRY_FIRST_S
        self._why = ""  # why the last commit failed
        self._held_effects = HeldEffects()
        self._services = ServiceWatch(balancer.view, report)
        self._figures = FigureCounter(self._analysed, lambda: self.engine.stats, self.post, wall)
        self._answers = AnswerCounter(balancer.view.recorded, lambda: self.engine.stats, self.post)
        self._released = False  # the disk fails but nothing is held: other roots decide, this one follows

    def _analysed(self) -> list[Analysed]:
        """Without latencies a block is not reported, so that no step of a canary passes for lack of them."""
        return self.balancer.view.analysed() if "latency" in self.engine.features else []

    # ------------------------------------------------------------------ in

    def post(self, event: Event) -> None:
        """Takes an event; it is handled within this or the next iteration."""
        if isinstance(event, Stop):
            self.stopping = True
        self._events.append(event)
        self._idle.clear()
        self._poke()

    async def do(self, event: Event) -> None:
        """Returns when the event was handled and what follows from it was carried out."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._callers.append(done)
        self.post(event)
        await done

    async def ask(self, event: AskUp) -> ef.Answered:
        """The answers of the roots. The core limits the time."""
        answered: asyncio.Future[ef.Answered] = asyncio.get_running_loop().create_future()
        self._root_calls[event.id] = answered
        try:
            self.post(event)
            return await answered
        finally:
            self._root_calls.pop(event.id, None)

    def remember(self, key: str, value: object) -> None:
        """Saves a value of the node itself, not of the core. It is written soon, not durably."""
        if self._unwritten:
            self._unwritten[key] = value
            return
        self._spawn(self._write({key: value}, durable=False))

    async def quiet(self, most_s: float) -> None:
        """Returns when nothing waits to be decided or carried out, or when the time is up."""
        if not self._idle.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), most_s)

    def _poke(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    # ------------------------------------------------------------------ iterations

    async def start(self) -> None:
        """Loads the stored state; from now on the balancer can be read."""
        await self._carry_out(self.balancer.start(self._clock(), self._wall()))

    async def run(self) -> None:
        while True:
            await self._pause()
            events, self._events = self._events or [Tick()], []
            callers, self._callers = self._callers, []
            for event in events if self._held_effects.on else ():
                self._held_effects.event(event)
            await self._handle(events)
            self._figures.look()
            self._answers.look()
            for caller in callers:
                if not caller.done():
                    caller.set_result(None)

    async def _handle(self, events: list[Event]) -> None:
        """The core takes events from the iterator one by one. After an internal error it continues with the next one
        and returns the effects so far."""
        rest = iter(events)
        for _ in range(len(events) + FAULTS_MAX):
            try:
                effects = self.balancer.handle_all(rest, self._clock(), self._wall())
            except Exception:
                self._fault()
                continue
            await self._carry_out(effects)
            return

    def _fault(self) -> None:
        """Reports an internal error; called within an `except`."""
        self.errors += 1
        self.report(ef.Note("internal-error", traceback.format_exc(limit=-6), "error"))

    async def _pause(self) -> None:
        """Waits until there is something to do. Always lets the other tasks run once."""
        if self._events:
            await asyncio.sleep(0)
            return
        self._idle.set()
        wake_at = self.balancer.wake_at()
        if self._unwritten:
            wake_at = self._retry_at if wake_at is None else min(wake_at, self._retry_at)
        loop = asyncio.get_running_loop()
        self._wake = loop.create_future()
        timer = None
        if wake_at is not None:
            timer = loop.call_later(max(0.0, wake_at - self._clock()), self._poke)
        try:
            await self._wake
        finally:
            self._idle.clear()
            self._wake = None
            if timer is not None:
                timer.cancel()

    # ------------------------------------------------------------------ effects

    async def _carry_out(self, effects: list[ef.Effect]) -> None:
        if self._unwritten and self._clock() >= self._retry_at:
            await self._write({}, durable=True)
        if (self._held_effects.on or self._released) and not self._unwritten:
            self._release()
            self._released = False
            self.post(StoreWritten())
        for effect in effects if self._held_effects.on else ef.without_spare(effects):
            match effect:
                case ef.Persist(puts, durable):
                    await self._persist(puts, durable)
                case ef.Reincarnate(incarnation):
                    await self._persist({INCARNATION: incarnation}, durable=True)
                case ef.ReleaseHeld():
                    self._released = bool(self._unwritten)
                    self._release()
                case _:
                    now = self._held_effects.pass_or_hold(effect) if self._held_effects.on else effect
                    if now is not None:
                        self._act_safely(now)

    def _release(self) -> None:
        while (held := self._held_effects.pop()) is not None:
            self._act_safely(held)

    async def _persist(self, puts: dict[str, object], durable: bool) -> None:
        if self._held_effects.on or self._released:
            self._unwritten.update(puts)
        elif not await self._write(puts, durable) and durable:
            self._held_effects.on = True
            text = f"a decision cannot be written to disk and takes effect only when it is: {self._why}"
            self.report(ef.Note("decisions-wait", text, "error"))
            self.post(StoreStuck())

    def _act_safely(self, effect: ef.Effect) -> None:
        """An exception here is an error of an adapter. A lost message appears as a gap at the other side; a lost delta
        of the engine is made again."""
        try:
            self._act(effect)
        except Exception as error:
            self._fault()
            if isinstance(effect, ef.Apply):
                self.post(EngineRejected(effect.epoch, f"{type(error).__name__}: {error}"))

    def _act(self, effect: ef.Effect) -> None:
        match effect:
            case ef.Persist() | ef.Reincarnate() | ef.ReleaseHeld():
                raise TypeError("of the disk: not acted on")
            case ef.Apply():
                self.engine.apply(effect)
            case ef.AttachAgain():
                self.engine.attach_again()
            case ef.Cut(endpoints, streams_only):
                self.engine.cut(endpoints, streams_only=streams_only)
            case ef.ToParent(parent, message):
                self.parents.send(parent, message)
            case ef.ToChild(link, message):
                self.children.send(link, message)
            case ef.Dial(parent):
                self.parents.dial(parent)
            case ef.HangUp(parent):
                self.parents.hang_up(parent)
            case ef.DropChild(link):
                self.children.drop(link)
            case ef.Note():
                self.report(with_in_flight(effect, self.engine.stats))
            case ef.Changed(instances, services):
                self.watch_instances(instances)
                self._services.look(services)
                self.watch_services(services)
                self.instances.wake(instances)
                self.services.wake(services)
            case ef.Execute():
                self._spawn(self._execute(effect))
            case ef.RunHook():
                self._hooks.add(self._spawn(self._run_hook(effect)))
            case ef.AskMetrics():
                self._hooks.add(self._spawn(self._ask_metrics(effect)))
            case ef.RunDriver():
                self._hooks.add(self._spawn(self._run_driver(effect)))
            case ef.Answered():
                caller = self._root_calls.get(effect.id)
                if caller is not None and not caller.done():
                    caller.set_result(effect)
            case ef.Stopped(clean):
                if not self.stopped.done():
                    self.stopped.set_result(clean)

    async def _write(self, puts: dict[str, object], durable: bool) -> bool:
        """Writes the values together with all unwritten ones. False: the write failed; the values are kept and retried."""
        if self._unwritten:
            puts = {**self._unwritten, **puts}
            self._unwritten = {}
            durable = True
        try:
            await self._commit(puts, durable)
        except StoreFailed as error:
            if not self._why:
                self.report(ef.Note("state-not-written", f"the state cannot be written: {error}", "error"))
                self._retry_s = RETRY_FIRST_S
            self._why = str(error)
            self._unwritten = {**puts, **self._unwritten}
            self._retry_at = self._clock() + self._retry_s
            self._retry_s = min(self._retry_s * 2, RETRY_MAX_S)
            return False
        if self._why and not self._unwritten:
            self._why = ""
            self.report(ef.Note("state-written", "the state can be written again"))
        return True

    async def _commit(self, puts: dict[str, object], durable: bool) -> None:
        """Raises StoreFailed, also for a commit that is still in progress: writing the same values again later does no
        harm."""
        commit = asyncio.ensure_future(self._store.commit(puts, durable))
        done, _ = await asyncio.wait((commit,), timeout=STALL_S)
        if not done:
            commit.add_done_callback(lambda late: late.cancelled() or late.exception())
            raise StoreFailed(f"the disk has not answered for {STALL_S:g} s")
        try:
            commit.result()
        except StoreFailed:
            raise
        except Exception as error:  # an error of the adapter: later effects must not take effect either
            self._fault()
            raise StoreFailed(f"{type(error).__name__}: {error}") from error

    @property
    def writes(self) -> bool:
        """Whether the last commit reached the disk."""
        return not self._why

    @property
    def held(self) -> int | None:
        """The number of effects that wait for the disk; None: decisions take effect immediately."""
        return len(self._held_effects) if self._held_effects.on else None

    def ready(self) -> tuple[bool, str]:
        """The readiness of the balancer; not ready while decisions wait for the disk or the node is stopping."""
        if self.stopping:
            return False, "the node is stopping"
        if self.engine.stats.hangs:
            return False, "the engine does not answer control: it keeps serving, but no change takes effect"
        if self._held_effects.on:
            return False, f"decisions wait for the disk, traffic is served as before: {self._why}"
        ready, detail = self.balancer.view.ready()
        return ready, f"{detail}; but the state cannot be written: {self._why}" if self._why else detail

    async def _execute(self, effect: ef.Execute) -> None:
        status, body = await self.run_here(effect)
        self.post(AskDone(effect.id, status, body))

    async def _run_hook(self, effect: ef.RunHook) -> None:
        outcome, detail = await self.run_hook(effect)
        self.post(HookDone(effect.key, outcome, detail))

    async def _ask_metrics(self, effect: ef.AskMetrics) -> None:
        self.post(MetricsAnswered(effect.key, await self.ask_metrics(effect)))

    async def _run_driver(self, effect: ef.RunDriver) -> None:
        self.post(await self.run_driver(effect))

    def _spawn(self, work: Awaitable[object]) -> asyncio.Task[None]:
        async def carried() -> None:
            await work

        task = asyncio.create_task(carried())
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._hooks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.errors += 1
            text = "".join(traceback.format_exception(task.exception(), limit=-6))
            self.report(ef.Note("internal-error", text, "error"))

    async def close(self) -> None:
        """After `run` was cancelled: waits for running tasks, but not for hooks, and retries unwritten values once."""
        self._figures.close()
        self._answers.close()
        hooks = set(self._hooks)
        for task in hooks:
            task.cancel()
        for task in self._tasks - hooks:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(task, 2.0)
        if self._unwritten:
            await self._write({}, durable=True)
