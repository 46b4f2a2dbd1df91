"""Active health checks of this host's instances, and the watch on their processes.

`node.probe` makes one check. `rise` successful checks in a row make an instance healthy, `fall` failed ones unhealthy.
A new instance is checked immediately. When control starts, the first check of each known instance comes after a random
part of the interval, so that a restart causes no burst.

A watched process is held by a pidfd, which names that one process even when its number is used again; after
a restart of control, the start time from /proc shows whether a number still means the same process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable
from random import Random

from sdlb.core.effects import Note
from sdlb.core.events import Event, InstanceGone, InstanceHealth
from sdlb.model.instance import InstanceSpec
from sdlb.node.probe import GREETINGS, probe

NEVER_S = 10.0
"""An instance that has not passed a check after this time is reported: it is no longer just starting."""
STARTING_S, STARTING_INTERVAL_S = 10.0, 0.5
"""For so long, an instance that is not healthy yet is checked more often: a rollout waits for it."""
POLL_PIDS_S = 0.5
"""The poll interval where the kernel has no pidfd."""


def until_next(now: float, interval_s: float) -> float:
    """Seconds to the next check, rounded to quarters of the interval, so that checks of several instances coincide: on
    an idle node a wake-up costs more than a check."""
    grain_s = interval_s / 4
    return round((now + interval_s) / grain_s) * grain_s - now


def start_time(pid: int) -> int:
    """When the process was started, in clock ticks since boot (proc(5), stat, field 22); 0: there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == b"Z" else int(fields[19])


def owner_of(pid: int) -> str:
    """The owner of a registration: the process that it names, or ""."""
    return f"process {pid}" if pid else ""


class Watch:
    """One instance: a task for its checks, a pidfd for its process."""

    def __init__(self, spec: InstanceSpec, started: int) -> None:
        self.spec = spec
        self.started = started  # start time of its process
        self.listens = False  # it was healthy at a renewal
        self.ever = False  # it was healthy, or it was reported that it never was
        self.checks: asyncio.Task[None] | None = None
        self.fd = -1


class Health:
    """Checks the instances that `start` and `put` add; results go to `post` as events."""

    def __init__(
        self,
        post: Callable[[Event], None],
        rng: Random,
        remember: Callable[[str, object], None],
        report: Callable[[Note], None] = lambda note: None,
        proxy_protocol: Callable[[str], str] = lambda service: "off",
    ) -> None:
        """`proxy_protocol`: the setting in the policy of a service."""
        self._proxy_protocol = proxy_protocol
        self._post = post
        self._report = report
        self._rng = rng
        self._remember = remember
        self._watches: dict[str, Watch] = {}
        self._former: dict[
            tuple[str, int], Watch
        ] = {}  # (id, pid): replaced registrations, whose processes may still run
        self._poll: asyncio.Task[None] | None = None

    def known(self, spec: InstanceSpec) -> bool:
        """Whether this endpoint is already checked in this way, so that its known health is still valid."""
        watch = self._watches.get(spec.id)
        return watch is not None and (watch.spec.endpoint, watch.spec.health) == (spec.endpoint, spec.health)

    def may_have_moved(self, spec: InstanceSpec, healthy: bool) -> bool:
        """Whether the sockets at the endpoint may differ from those of the last registration. They do not change once
        the program was healthy."""
        watch = self._watches.get(spec.id)
        if watch is None or watch.spec != spec:
            return True
        late = healthy and not watch.listens
        watch.listens = watch.listens or healthy
        return late

    def start(self, specs: Iterable[tuple[InstanceSpec, bool]], remembered: dict[str, list[int]]) -> None:
        """After a restart of control: instances and whether they were healthy. `remembered`: instance id -> [pid, start
        time of that process]."""
        for spec, healthy in specs:
            pid, started = remembered.get(spec.id, [0, 0])
            first_after_s = self._rng.random() * spec.health.interval_s
            self._add(spec, started if pid == spec.pid else 0, first_after_s, healthy)

    def put(self, spec: InstanceSpec, healthy: bool) -> None:
        """The instance was registered or changed. `healthy`: its health in the core. A renewal costs only a look-up."""
        watch = self._watches.get(spec.id)
        if watch is not None and watch.spec == spec:
            return
        if watch is not None and self.known(spec) and watch.spec.pid == spec.pid:
            watch.spec = spec
            return
        known = self.known(spec)
        if watch is not None and watch.spec.pid not in (0, spec.pid):
            self._keep(self._watches.pop(spec.id))
        self.drop(spec.id)
        self._add(spec, 0, spec.health.interval_s if known else 0.0, healthy)

    def watch_former(self, spec: InstanceSpec) -> None:
        """After a restart of control: a registration that was replaced earlier and whose process may still run."""
        if spec.pid:
            self._keep(Watch(spec, 0))

    def _keep(self, watch: Watch) -> None:
        """From now on only watches the process of a replaced registration."""
        if watch.checks is not None:
            watch.checks.cancel()
        self._former[watch.spec.id, watch.spec.pid] = watch
        if watch.fd < 0:
            self._watch_process(watch, remember=False)

    def check_process(self, instance_id: str) -> None:
        """Reports an exited process immediately, before the kernel's notification arrives."""
        watch = self._watches.get(instance_id)
        if watch is not None and watch.spec.pid and start_time(watch.spec.pid) != watch.started:
            self._gone(watch)

    def suspend(self, instance_id: str, why: str) -> None:
        """Its program has exited, and is started again."""
        watch = self._watches.get(instance_id)
        if watch is None:
            return
        self._post(InstanceHealth(instance_id, False, why))
        if watch.checks is not None:
            watch.checks.cancel()
            watch.checks = None

    def resume(self, instance_id: str) -> None:
        """Its program runs again: it has to pass its checks anew."""
        watch = self._watches.get(instance_id)
        if watch is None:
            return
        if watch.spec.health.kind == "none":
            self._post(InstanceHealth(instance_id, True))
        elif watch.checks is None:
            self._start_checks(watch, 0.0, healthy=False)

    def drop(self, instance_id: str) -> None:
        watch = self._watches.pop(instance_id, None)
        if watch is None:
            return
        if watch.checks is not None:
            watch.checks.cancel()
        self._unwatch(watch)
        if watch.spec.pid:
            self._remember(f"pid/{instance_id}", None)

    def ids(self) -> list[str]:
        return list(self._watches)

    def close(self) -> None:
        """Stops watching; the remembered start times stay."""
        if self._poll is not None:
            self._poll.cancel()
        for watch in (*self._watches.values(), *self._former.values()):
            if watch.checks is not None:
                watch.checks.cancel()
            self._unwatch(watch)
        self._watches.clear()
        self._former.clear()

    # ------------------------------------------------------------------ checks

    def _add(self, spec: InstanceSpec, started: int, first_after_s: float, healthy: bool) -> None:
        watch = self._watches[spec.id] = Watch(spec, started)
        watch.ever = healthy
        if spec.health.kind != "none":
            self._start_checks(watch, first_after_s, healthy)
        if spec.pid:
            self._watch_process(watch)

    def _start_checks(self, watch: Watch, first_after_s: float, healthy: bool) -> None:
        work = self._check(watch, first_after_s, healthy)
        watch.checks = asyncio.create_task(work, name=f"health of {watch.spec.id}")

    async def _check(self, watch: Watch, first_after_s: float, healthy: bool) -> None:
        good = bad = 0
        await asyncio.sleep(first_after_s)
        began = asyncio.get_running_loop().time()
        while True:
            check = watch.spec.health
            wants = self._proxy_protocol(watch.spec.service)
            why = await probe(watch.spec.endpoint, check, GREETINGS.get(wants, b""))
            good, bad = (0, bad + 1) if why else (good + 1, 0)
            if why and (bad >= check.fall or not healthy):
                healthy = False  # posted each time, because the reason may have changed
                self._post(InstanceHealth(watch.spec.id, False, why))
            elif good >= check.rise and not healthy:
                watch.ever = healthy = True
                self._post(InstanceHealth(watch.spec.id, True))
            if not watch.ever and asyncio.get_running_loop().time() - began >= max(NEVER_S, 2 * check.interval_s):
                watch.ever = True  # reported once
                name = f"{watch.spec.id} ({watch.spec.service}-{watch.spec.version} on {watch.spec.endpoint})"
                text = f"{name} has not been healthy since it was registered: {why or 'too few successful checks in a row'}"
                self._report(Note("instance-never-healthy", text, "warning", {"instance": watch.spec.id}))
            now = asyncio.get_running_loop().time()
            starting = not healthy and now - began < STARTING_S
            await asyncio.sleep(
                until_next(now, min(check.interval_s, STARTING_INTERVAL_S) if starting else check.interval_s)
            )

    # ------------------------------------------------------------------ processes

    def _watch_process(self, watch: Watch, *, remember: bool = True) -> None:
        pid = watch.spec.pid
        try:
            watch.fd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._gone(watch)
            return
        except OSError:  # no pidfd here: poll /proc
            if self._poll is None:
                self._poll = asyncio.create_task(self._poll_processes(), name="processes of instances")
        found = start_time(pid)
        if not found or (watch.started and found != watch.started):
            self._gone(watch)
            return
        if not watch.started:
            watch.started = found
            if remember:
                self._remember(f"pid/{watch.spec.id}", [pid, found])
        if watch.fd >= 0:
            asyncio.get_running_loop().add_reader(watch.fd, self._gone, watch)

    def _unwatch(self, watch: Watch) -> None:
        if watch.fd >= 0:
            asyncio.get_running_loop().remove_reader(watch.fd)
            os.close(watch.fd)
            watch.fd = -1

    def _gone(self, watch: Watch) -> None:
        self._unwatch(watch)
        pid = watch.spec.pid
        self._former.pop((watch.spec.id, pid), None)
        self._post(InstanceGone(watch.spec.id, f"its process {pid} has exited", owner_of(pid)))

    async def _poll_processes(self) -> None:
        while True:
            await asyncio.sleep(POLL_PIDS_S)
            for watch in (*self._watches.values(), *self._former.values()):
                if watch.spec.pid and watch.fd < 0 and start_time(watch.spec.pid) != watch.started:
                    with contextlib.suppress(OSError):
                        self._gone(watch)
