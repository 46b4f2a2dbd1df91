"""The only file of the explorer that creates, drives and reads a `Balancer`.

Leases are `LEASE_S` long, so that every short wait (back-off, a retry) is negligible. Short timers run immediately, in the step
that set them, and the clock advances only in a step of its own (`TICK_S`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.balancer import Balancer
from sdlb.core.messages import ClaimKey
from sdlb.core.settings import Settings
from sdlb.core.state import text_of
from sdlb.core.view import View
from sdlb.model.policy import Policy
from sdlb.model.role import RoleService
from sdlb.model.rollout import RolloutSpec, Target
from sdlb.sim import drivers

LEASE_S = 1e6
FENCE_S = LEASE_S
TICK_S = 0.49 * LEASE_S  # less than half a lease, or a node takes itself for stalled; five are lease and fence
BEAT_S = 0.48 * LEASE_S
SHORT_S = 3.7
"""Timers up to this far away run at once. The waits for an answer, for an engine, and for the next request for a slot are longer."""
T0 = 1e9  # where clocks start: a float above half of it is a time
WALL_S = 1e8  # it stands still, and is no time of the clocks: nothing is reverted because it took too long
SHORT_TIMERS_MAX = 200


class Steady:
    """A random generator without randomness: jitter is always the minimum."""

    def uniform(self, a: float, b: float) -> float:
        return a

    def random(self) -> float:
        return 0.0

    def choice(self, options: Any) -> Any:
        return options[0]


class Control(Struct):
    """A live `Balancer` and its clock."""

    balancer: Balancer
    now: float

    @property
    def view(self) -> View:
        return self.balancer.view

    def handle(self, event: ev.Event) -> list[ef.Effect]:
        return self._handle(event) + self.short_timers()

    def tick(self) -> list[ef.Effect]:
        """Advances the clock by most of a lease."""
        self.now += TICK_S
        return self.handle(ev.Tick())

    def _handle(self, event: ev.Event) -> list[ef.Effect]:
        return self.balancer.handle(event, self.now, WALL_S)

    def short_timers(self) -> list[ef.Effect]:
        effects: list[ef.Effect] = []
        for _ in range(SHORT_TIMERS_MAX):
            at = self.balancer.wake_at()
            if at is None or at > self.now + SHORT_S:
                return effects
            self.now = max(self.now, at)
            effects += self._handle(ev.Tick())
        raise AssertionError("short timers never end")


def start(
    name: str,
    incarnation: int,
    nonce: str,
    parents: tuple[str, ...],
    saved: Mapping[str, object],
    roles: tuple[RoleService, ...] = (),
) -> tuple[Control, list[ef.Effect]]:
    settings = Settings(
        *(name, f"id-{name}", incarnation, parents),
        beat_s=BEAT_S,
        lease_s=LEASE_S,
        fence_s=FENCE_S,
        nonce=nonce,
        roles=roles,
    )
    control = Control(Balancer(settings, saved, Steady()), T0)  # type: ignore[arg-type]
    return control, control.balancer.start(T0, WALL_S) + control.short_timers()


# ------------------------------------------------------------------ what is on disk


def lets_be_active(disk: Mapping[str, object], is_root: bool, key: ClaimKey) -> bool:
    """Whether `key` is active according to the records on disk."""
    if not is_root:
        return disk.get(f"permit/{text_of(key)}") is not None
    record = disk.get(f"service/{key.service}")
    return isinstance(record, Mapping) and key.version in record["active"]


# ------------------------------------------------------------------ reads


def claim_states(control: Control) -> dict[ClaimKey, str]:
    return {
        ClaimKey(service["service"], version["version"], claim["route"]): claim["state"]
        for service in control.view.services()
        for version in service["versions"]
        for claim in version["claims"]
    }


def claim_reasons(control: Control) -> dict[ClaimKey, str]:
    return {
        ClaimKey(service["service"], version["version"], claim["route"]): claim["reason"]
        for service in control.view.services()
        for version in service["versions"]
        for claim in version["claims"]
    }


class Registration(NamedTuple):
    """Of an instance of a host. `current`: not replaced by a later one of the same id. `late`: past its drain's deadline."""

    id: str
    key: tuple[str, str, str]
    current: bool
    state: str
    healthy: bool
    late: bool = False
    reason_code: str = ""
    reason: str = ""


def registrations(control: Control) -> dict[str, Registration]:
    """By target, former ones too."""
    views = {str(view["target"]): view for view in control.view.instances()}
    found: dict[str, Registration] = {}
    for target, instance in control.balancer._local.by_target.items():  # type: ignore[reportPrivateUsage]
        spec, view, late = instance.spec, views.get(target), instance.forced
        key = (spec.service, spec.version, spec.routes[0])
        if view is None:
            found[target] = Registration(spec.id, key, False, instance.life.value, instance.healthy, late)
        else:
            code, reason = str(view["reason_code"]), str(view["reason"])
            found[target] = Registration(spec.id, key, True, str(view["state"]), instance.healthy, late, code, reason)
    return found


def tree(control: Control) -> dict[str, Any]:
    return control.view.tree()


def approve(text: str) -> ev.Event:
    """`text`: service, version, gate and person."""
    return ev.Approve(*text.split(" "))


def promote(text: str) -> ev.Event:
    """`text`: service, version and person."""
    return ev.Promote(*text.split(" "))


SPEC = RolloutSpec(soak_s=40.0, drain_s=1e12, progress_s=1e12, nodes_out_max="100%")
"""A node is verified, and asks again for a slot, when time has passed; no drain and no start is ever late."""


def release(version: str) -> ev.Event:
    body = json.dumps(drivers.release("catalog", version)).encode()
    return ev.ReleasePut(f"catalog-{version}", body, "operator-a")


def rollout(text: str) -> ev.Event:
    """`text`: a verb; for "start" the version, and "gap" if the service may go below its floor."""
    verb, version, gap = [*text.split(" "), "", ""][:3]
    return ev.RolloutOrder("catalog", verb, "operator-a", version, replace(SPEC, accept_gap=bool(gap)))


def target(control: Control) -> Target | None:
    return control.balancer._state.targets.get("catalog")  # type: ignore[reportPrivateUsage]


def open_slots(control: Control) -> list[str]:
    """Nodes that hold a slot of the rollout that this node owns."""
    return sorted(control.balancer._rollouts.owned("catalog").slots)  # type: ignore[reportPrivateUsage]


def flips(policy: Policy) -> bool:
    return policy.opening.cut_over == "flip"


def policy_put(text: str) -> ev.Event:
    """`text`: the service, a space, the policy as JSON."""
    service, _, document = text.partition(" ")
    return ev.PolicyPut(service, document.encode())
