"""When an instance renews its registration, and which changes are reported. No I/O, no clock: `serve` and `sdlb run`
call it.

A lease is renewed after a third of its time, so that two attempts may fail. A node that is down is retried without
limit: its engine keeps serving meanwhile, and the node learns of the instance as soon as it is back. Only a first
registration that is refused as invalid is given up.
"""

from __future__ import annotations

from collections.abc import Callable

from sdlb.sdk.problem import Problem
from sdlb.sdk.types import Instance, Spec

RETRY_FIRST_S, RETRY_MAX_S = 0.2, 2.0
LOOK_S = 1.0
UNDECIDED_S, LOOKS_MAX = 0.25, 6
SETTLED = ("active", "refused")


class Renewal:
    """`report` gets one sentence for each change of state, and one, not one an attempt, when the node is unreachable."""

    def __init__(self, spec: Spec, report: Callable[[str], None]) -> None:
        self.spec = spec
        self.instance: Instance | None = None
        self._report = report
        self._last_report = ""
        self._retry_s = 0.0
        self._trouble = ""
        self._looks = 0

    @property
    def registered(self) -> bool:
        """A node has accepted the instance at some time, so the instance must be deregistered when it ends."""
        return self.instance is not None

    def succeeded(self, instance: Instance) -> float:
        """Seconds until the next renewal."""
        if self._trouble:
            self._report(f"{self.spec.label} is registered again" if self.registered else "the node is reachable now")
        self.instance, self._retry_s, self._trouble = instance, 0.0, ""
        if _undecided(instance) and self._looks < LOOKS_MAX:
            self._looks += 1
            return UNDECIDED_S
        self._looks = 0
        text = f"{self.spec.label} is {instance.state}" + (f": {instance.reason}" if instance.reason else "")
        if text != self._last_report:
            self._last_report = text
            self._report(text)
        # a state that is about to change is polled more often, so that the change is reported soon
        return self.spec.ttl_s / 3 if instance.state in SETTLED else min(self.spec.ttl_s / 3, LOOK_S)

    def is_final(self, problem: Problem) -> bool:
        """The registration is invalid: a retry cannot help."""
        return 400 <= problem.status < 500 and not self.registered

    def failed(self, problem: Problem) -> float:
        """Seconds until the next attempt."""
        if problem.code != self._trouble:
            self._trouble = problem.code
            self._report(f"{problem.detail} (retrying)")
        self._retry_s = min(max(self._retry_s * 2, RETRY_FIRST_S), RETRY_MAX_S)
        return self._retry_s


def _undecided(instance: Instance) -> bool:
    """Just registered: the node has not checked its health yet, or its parents or its engine have not answered."""
    unchecked = instance.state == "unhealthy" and not instance.health_detail
    return unchecked or (instance.state == "waiting" and instance.reason_code in ("asking", "opening"))
