"""Controls the load generator process (`load.py`): orders go to its stdin, statistics come from its stdout."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sdlb.cli.demo.launch import Launcher, WaitTimeout, until

MODULE = "sdlb.cli.demo.load"


@dataclass(frozen=True, slots=True)
class TrafficStats:
    """The counts up to now. `phases`: by name, the dicts of `check.Tally.to_dict`."""

    phases: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    in_flight: int = 0
    done: bool = False

    def total(self, key: str) -> int:
        return sum(phase[key] for phase in self.phases.values())

    @property
    def longest_wait_ms(self) -> float:
        return max((phase["longest_wait_ms"] for phase in self.phases.values()), default=0.0)

    def by_version(self, phase: str) -> dict[str, int]:
        return self.phases.get(phase, {}).get("by_version", {})


class Traffic:
    """`entries` are host:port. `on_stats` is called from a thread of its own at each report, `on_failure` per
    failure."""

    def __init__(
        self,
        launcher: Launcher,
        entries: Sequence[str],
        on_stats: Callable[[TrafficStats], None] = lambda stats: None,
        on_failure: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.stats = TrafficStats()
        self._on_stats, self._on_failure = on_stats, on_failure
        self._process = launcher.program(
            [sys.executable, "-m", MODULE, *entries], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def phase(self, name: str) -> None:
        """Requests sent from now on are counted under this name."""
        self._order(do="phase", name=name)

    def start(self, service: str, version: str) -> None:
        """This version may answer from now on. Call this before it can."""
        self._order(do="start", service=service, version=version, at_ns=time.monotonic_ns())

    def end(self, service: str, version: str) -> None:
        """Its last instance has ended: it may not answer any more."""
        self._order(do="end", service=service, version=version, at_ns=time.monotonic_ns())

    def expect(self, kind: str, *services: str) -> None:
        """Requests of this kind ("catalog", "search") belong to one of these services; sends them from now on."""
        self._order(do="expect", kind=kind, services=list(services))

    def send(self, rate: float, *, posts: bool = True, slow: bool = True) -> None:
        """Requests a second over all entries together, with or without POST requests and slow answers."""
        self._order(do="traffic", rate=rate, posts=posts, slow=slow)

    def stop(self, timeout_s: float = 45.0) -> TrafficStats:
        """No more requests; waits for the outstanding responses and returns the final statistics."""
        self._order(do="stop")
        until("all requests answered", lambda: self.stats.done or self._process.poll() is not None, timeout_s)
        self._thread.join(5.0)
        if not self.stats.done:
            raise WaitTimeout(f"the load generator exited with code {self._process.returncode} before its last report")
        return self.stats

    def _order(self, **order: object) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WaitTimeout(f"the load generator has exited (code {self._process.poll()})") from None

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            report = json.loads(line)
            self.stats = TrafficStats(report["phases"], report["in_flight"], report["done"])
            for text in report["failures"]:
                self._on_failure(text)
            self._on_stats(self.stats)
