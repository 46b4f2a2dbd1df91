"""Active checks of the instances of this host, and the watch over their processes.

A check connects (TCP or Unix socket), and for kind "http" asks for a path: 2xx and 3xx are well. `rise` good ones in a
row make an instance healthy, `fall` bad ones unhealthy. The question is asked in HTTP/1.1 whatever the instance speaks: one
that speaks HTTP/2 alone has the kind "tcp", which is the default. The first one comes at once for a new instance, and after a
random part of the interval for those that were there when control started, so that a restart is no burst.

A watched process is held by a pidfd, which names that one process even when its number is used again; over a restart
of control, the start time from /proc tells whether a number still means the same process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterable
from random import Random

from sdlb.core.events import Event, InstanceGone, InstanceHealth
from sdlb.model.instance import HealthCheck, InstanceSpec

READ_BYTES = 512
POLL_PIDS_S = 0.5
"""Only where the kernel has no pidfd."""


async def probe(endpoint: str, check: HealthCheck) -> str:
    """One check. "" when well, else why not."""
    try:
        async with asyncio.timeout(check.timeout_s):
            return await _probe(endpoint, check)
    except TimeoutError:
        return f"no answer within {check.timeout_s:g} s"
    except OSError as error:
        return f"cannot connect: {error.strerror or error}"


async def _probe(endpoint: str, check: HealthCheck) -> str:
    loop = asyncio.get_running_loop()
    if endpoint.startswith("unix:"):
        family, address = socket.AF_UNIX, endpoint[5:]
    else:
        host, _, port = endpoint.rpartition(":")
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        address = (host.strip("[]"), int(port))
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as connection:
        await loop.sock_connect(connection, address)
        if check.kind != "http":
            return ""
        host = "localhost" if family == socket.AF_UNIX else endpoint
        head = f"GET {check.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: sdlb-health\r\nConnection: close\r\n\r\n"
        await loop.sock_sendall(connection, head.encode())
        got = b""
        while b"\r\n" not in got and len(got) < READ_BYTES:
            more = await loop.sock_recv(connection, READ_BYTES)
            if not more:
                break
            got += more
    line = got.partition(b"\r\n")[0].decode("latin-1")
    words = line.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
        return f"GET {check.path} was not answered in HTTP"
    return "" if words[1][0] in "23" else f"GET {check.path} was answered {words[1]}"


def until_next(now: float, interval_s: float) -> float:
    """Seconds to the next check, within an eighth of the interval: checks of several instances fall on the same moments,
    for to wake up costs an idle node more than to check."""
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


class Watch:
    """One instance: a task for its checks, a pidfd for its process."""

    def __init__(self, spec: InstanceSpec, started: int) -> None:
        self.spec = spec
        self.started = started  # of its process
        self.checks: asyncio.Task[None] | None = None
        self.fd = -1


class Health:
    """`sync` tells which instances there are; what is found out is handed to `post`."""

    def __init__(self, post: Callable[[Event], None], rng: Random, remember: Callable[[str, object], None]) -> None:
        self._post = post
        self._rng = rng
        self._remember = remember
        self._watches: dict[str, Watch] = {}
        self._poll: asyncio.Task[None] | None = None

    def known(self, spec: InstanceSpec) -> bool:
        """Whether this endpoint is already checked in this way: what is known of its health still holds."""
        watch = self._watches.get(spec.id)
        return watch is not None and (watch.spec.endpoint, watch.spec.health) == (spec.endpoint, spec.health)

    def start(self, specs: Iterable[tuple[InstanceSpec, bool]], remembered: dict[str, list[int]]) -> None:
        """After a restart of control: instances and whether they were healthy. `remembered`: instance id -> [pid, start
        time of that process]."""
        for spec, healthy in specs:
            pid, started = remembered.get(spec.id, [0, 0])
            first_after_s = self._rng.random() * spec.health.interval_s
            self._add(spec, started if pid == spec.pid else 0, first_after_s, healthy)

    def put(self, spec: InstanceSpec, healthy: bool) -> None:
        """Registered or changed; `healthy`: as the core was told. Renewals cost a look-up."""
        watch = self._watches.get(spec.id)
        if watch is not None and watch.spec == spec:
            return
        if watch is not None and self.known(spec) and watch.spec.pid == spec.pid:
            watch.spec = spec
            return
        known = self.known(spec)
        self.drop(spec.id)
        self._add(spec, 0, spec.health.interval_s if known else 0.0, healthy)

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
        """Stops watching; what is remembered stays."""
        if self._poll is not None:
            self._poll.cancel()
        for watch in self._watches.values():
            if watch.checks is not None:
                watch.checks.cancel()
            self._unwatch(watch)
        self._watches.clear()

    # ------------------------------------------------------------------ checks

    def _add(self, spec: InstanceSpec, started: int, first_after_s: float, healthy: bool) -> None:
        watch = self._watches[spec.id] = Watch(spec, started)
        if spec.health.kind != "none":
            watch.checks = asyncio.create_task(self._check(watch, first_after_s, healthy), name=f"health of {spec.id}")
        if spec.pid:
            self._watch_process(watch)

    async def _check(self, watch: Watch, first_after_s: float, healthy: bool) -> None:
        good = bad = 0
        await asyncio.sleep(first_after_s)
        while True:
            check = watch.spec.health
            why = await probe(watch.spec.endpoint, check)
            good, bad = (0, bad + 1) if why else (good + 1, 0)
            if why and (bad >= check.fall or not healthy):
                healthy = False  # again each time: the reason may have changed
                self._post(InstanceHealth(watch.spec.id, False, why))
            elif good >= check.rise and not healthy:
                healthy = True
                self._post(InstanceHealth(watch.spec.id, True))
            await asyncio.sleep(until_next(asyncio.get_running_loop().time(), check.interval_s))

    # ------------------------------------------------------------------ processes

    def _watch_process(self, watch: Watch) -> None:
        pid = watch.spec.pid
        try:
            watch.fd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._gone(watch)
            return
        except OSError:  # no pidfd here: look at /proc now and then
            if self._poll is None:
                self._poll = asyncio.create_task(self._poll_processes(), name="processes of instances")
        found = start_time(pid)
        if not found or (watch.started and found != watch.started):
            self._gone(watch)
            return
        if not watch.started:
            watch.started = found
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
        self._post(InstanceGone(watch.spec.id, f"its process {watch.spec.pid} has ended"))

    async def _poll_processes(self) -> None:
        while True:
            await asyncio.sleep(POLL_PIDS_S)
            for watch in list(self._watches.values()):
                if watch.spec.pid and watch.fd < 0 and start_time(watch.spec.pid) != watch.started:
                    with contextlib.suppress(OSError):
                        self._gone(watch)
