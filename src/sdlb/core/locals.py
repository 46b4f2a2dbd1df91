"""The instances of this host: registered, renewed, drained and removed over the local API.

registered --drain--> draining --nothing in flight here, parents have let go--> drained --remove--> gone
           --lease over or process gone--> gone at once, and known to have stopped
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, cast

from sdlb.core.events import InstanceDrain, InstanceGone, InstanceHealth, InstancePut, InstanceRemove, MemberKey
from sdlb.core.messages import Claim, ClaimKey
from sdlb.core.slot import NEVER, Source
from sdlb.core.state import State
from sdlb.model.instance import HealthCheck, InstanceSpec

GUARD_INSTANCES_MIN = 3
NO_LEASE_S = 1e9
GUARDED = "missed its renewal together with most others"


@dataclass(slots=True)
class Instance:
    spec: InstanceSpec
    stamp: int
    healthy: bool
    lease_until: float
    detail: str = ""
    leaving: int = 0  # number of the drain; 0: none
    drain_until: float = 0.0
    removing: bool = False
    drained: bool = False
    forced: bool = False  # past its drain deadline: taken out without waiting for the parents

    @property
    def target(self) -> str:
        return f"i:{self.spec.id}"

    def keys(self) -> list[ClaimKey]:
        return [ClaimKey(self.spec.service, self.spec.version, route) for route in self.spec.routes]


class Locals:
    def __init__(self, state: State) -> None:
        self._state = state
        self.by_id: dict[str, Instance] = {}
        self._resume: list[tuple[str, bool]] = []  # drains that a restart interrupted
        self._last_stamp = 0

    # ------------------------------------------------------------------ what the disk had

    def load(self, saved: dict[str, object], now: float) -> None:
        """As before the restart. A drain that was under way starts again once the engine has confirmed the table: until
        then nobody knows what is in flight."""
        spec = _spec_from_json(saved["spec"])
        stamp = int(saved["stamp"])  # type: ignore[call-overload]
        instance = Instance(spec, stamp, bool(saved["healthy"]), _lease_end(spec, now))
        self.by_id[spec.id] = instance
        self._last_stamp = max(self._last_stamp, stamp)
        if saved["leaving"]:
            self._resume.append((spec.id, bool(saved["removing"])))
        self._publish(instance)
        self._watch_lease(instance)

    def resume_drains(self, now: float) -> None:
        for name, removing in self._resume:
            if name in self.by_id:
                self._start_drain(self.by_id[name], now, 30.0, removing)
        self._resume.clear()

    def _save(self, instance: Instance) -> None:
        value = {
            "spec": _spec_to_json(instance.spec),
            "stamp": instance.stamp,
            "healthy": instance.healthy,
            "leaving": bool(instance.leaving),
            "removing": instance.removing,
        }
        self._state.persist(f"instance/{instance.spec.id}", value, durable=False)

    # ------------------------------------------------------------------ events

    def on_put(self, event: InstancePut, now: float) -> None:
        state, spec = self._state, event.spec
        instance = self.by_id.get(spec.id)
        if instance is not None:
            instance.lease_until = _lease_end(spec, now)
            if instance.detail == GUARDED:
                instance.detail = ""
            if instance.spec == spec and not instance.leaving:
                return
            if instance.spec == spec and instance.removing:
                return  # a late renewal does not call a removal back
            if instance.spec != spec:
                self._retract(instance, keep=set(_keys(spec)))
                if (instance.spec.service, instance.spec.version) != (spec.service, spec.version):
                    instance.stamp = self._stamp(event.stamp)
                instance.spec = spec
                instance.leaving, instance.removing, instance.drained, instance.forced = 0, False, False, False
                instance.healthy = event.healthy
                self._watch_lease(instance)  # it may have become shorter
                state.note("instance-updated", f"{spec.id} was registered again as {spec.service}-{spec.version}")
            else:
                return  # renewing keeps a draining instance registered, and draining
        else:
            lease_until = _lease_end(spec, now)
            instance = self.by_id[spec.id] = Instance(spec, self._stamp(event.stamp), event.healthy, lease_until)
            self._watch_lease(instance)
            state.note(
                "instance-registered", f"{spec.id} registered as {spec.service}-{spec.version}", instance=spec.id
            )
        self._publish(instance)
        self._save(instance)

    def _stamp(self, wall_stamp: int) -> int:
        self._last_stamp = max(self._last_stamp + 1, wall_stamp)
        return self._last_stamp

    def on_health(self, event: InstanceHealth) -> None:
        instance = self.by_id.get(event.id)
        if instance is None or (instance.healthy, instance.detail) == (event.healthy, event.detail):
            return
        changed = instance.healthy != event.healthy
        instance.healthy, instance.detail = event.healthy, event.detail
        if changed:
            word = "healthy" if event.healthy else "unhealthy"
            why = f": {event.detail}" if event.detail else ""
            self._state.note(f"instance-{word}", f"{event.id} is {word}{why}", instance=event.id)
            self._publish(instance)
            self._save(instance)

    def on_drain(self, event: InstanceDrain, now: float) -> None:
        instance = self.by_id.get(event.id)
        if instance is not None and not instance.leaving:
            self._start_drain(instance, now, event.deadline_s, removing=False)

    def on_remove(self, event: InstanceRemove, now: float) -> None:
        instance = self.by_id.get(event.id)
        if instance is None:
            return
        if not instance.leaving:
            self._start_drain(instance, now, event.deadline_s, removing=True)
            return
        if instance.drained:
            self._forget(instance, "instance-removed", f"{event.id} was removed", "info")
            return
        instance.removing = True
        instance.drain_until = min(instance.drain_until, now + event.deadline_s)
        self._state.set_timer(instance.drain_until, "drain", event.id)
        self._publish(instance)
        self._save(instance)

    def _start_drain(self, instance: Instance, now: float, deadline_s: float, removing: bool) -> None:
        instance.leaving = self._state.next_number()
        instance.removing = removing
        instance.drain_until = now + deadline_s
        self._state.set_timer(instance.drain_until, "drain", instance.spec.id)
        self._state.note("instance-draining", f"{instance.spec.id} is draining", instance=instance.spec.id)
        self._publish(instance)
        self._save(instance)

    def on_gone(self, event: InstanceGone) -> None:
        if event.id in self.by_id:
            self._forget(self.by_id[event.id], "instance-gone", f"{event.id} is gone: {event.detail}", "warning")

    # ------------------------------------------------------------------ timers

    def _watch_lease(self, instance: Instance) -> None:
        if instance.spec.ttl_s:
            self._state.set_timer(instance.lease_until, "instance", instance.spec.id)

    def shift(self, by_s: float) -> None:
        for instance in self.by_id.values():
            instance.lease_until += by_s
            instance.drain_until += by_s

    def check_lease(self, name: str, now: float) -> None:
        instance = self.by_id.get(name)
        if instance is None:
            return
        if now < instance.lease_until:
            self._state.set_timer(instance.lease_until, "instance", name)
            return
        lapsed = sum(1 for each in self.by_id.values() if each.lease_until <= now + 0.5)
        if len(self.by_id) >= GUARD_INSTANCES_MIN and lapsed * 2 > len(self.by_id) and instance.detail != GUARDED:
            text = f"{lapsed} of {len(self.by_id)} instances missed their renewal together; waiting one lease more"
            self._state.note("guarded", text, "error")
            for each in self.by_id.values():
                if each.lease_until <= now + 0.5:
                    each.lease_until = _lease_end(each.spec, now)
                    each.detail = GUARDED
            self._state.set_timer(instance.lease_until, "instance", name)
            return
        text = f"{name} was not renewed for {instance.spec.ttl_s:g} s"
        self._forget(instance, "instance-lapsed", text, "warning")

    def check_drain(self, name: str, now: float) -> None:
        instance = self.by_id.get(name)
        if instance is None or not instance.leaving or instance.drained:
            return
        if now < instance.drain_until:
            self._state.set_timer(instance.drain_until, "drain", name)
            return
        self._state.note("drain-deadline", f"{name} did not drain in time", "warning", instance=name)
        if instance.removing:
            self._forget(instance, "instance-removed", f"{name} was removed at its deadline", "warning")
        else:
            instance.forced = True
            self._publish(instance)

    # ------------------------------------------------------------------ what follows

    def check_drained(self, target: str) -> None:
        """A slot of this instance has settled: is nothing of it in the engine any more?"""
        instance = self.by_id.get(target[2:])
        if instance is None:
            return
        self._state.changed_instances[instance.spec.id] = None
        if not instance.leaving or instance.drained:
            return
        if any(self._state.table.present(MemberKey(key, target)) for key in instance.keys()):
            return
        instance.drained = True
        self._state.note("instance-drained", f"{instance.spec.id} is drained", instance=instance.spec.id)
        if instance.removing:
            self._forget(instance, "instance-removed", f"{instance.spec.id} was removed", "info")

    def _publish(self, instance: Instance) -> None:
        spec = instance.spec
        self._state.table.set_target(instance.target, False, spec.endpoint, spec.protocol)
        self._state.changed_instances[spec.id] = None
        for key in instance.keys():
            claim = Claim(
                key,
                capacity=spec.capacity if instance.healthy else 0,
                count=1,
                hosts=(self._state.settings.name,),
                compatible=tuple(sorted(spec.compatible)),
                stamp=instance.stamp,
                leaving=instance.leaving,
                seen=NEVER,
            )
            self._state.put_source(key, Source(instance.target, claim, forced=instance.forced))

    def _retract(self, instance: Instance, keep: set[ClaimKey]) -> None:
        for key in instance.keys():
            if key not in keep:
                self._state.drop_source(key, instance.target)

    def _forget(self, instance: Instance, code: str, text: str, level: str) -> None:
        name = instance.spec.id
        self._retract(instance, keep=set())
        del self.by_id[name]
        self._state.table.forget_target(instance.target)
        self._state.persist(f"instance/{name}", None, durable=False)
        self._state.changed_instances[name] = None
        self._state.note(code, text, level, instance=name)


def _lease_end(spec: InstanceSpec, now: float) -> float:
    """A `ttl_s` of 0 is no lease: registered by hand, until it is removed by hand or its process ends."""
    return now + spec.ttl_s if spec.ttl_s else now + NO_LEASE_S


def _keys(spec: InstanceSpec) -> list[ClaimKey]:
    return [ClaimKey(spec.service, spec.version, route) for route in spec.routes]


_SPEC_FIELDS = tuple(each.name for each in fields(InstanceSpec))
_HEALTH_FIELDS = tuple(each.name for each in fields(HealthCheck))


def _spec_to_json(spec: InstanceSpec) -> dict[str, object]:
    """`dataclasses.asdict` copies every value deeply, which costs more than all else that a registration does here."""
    return {**{name: getattr(spec, name) for name in _SPEC_FIELDS}, "health": health_to_json(spec.health)}


def health_to_json(check: HealthCheck) -> dict[str, object]:
    return {name: getattr(check, name) for name in _HEALTH_FIELDS}


def _spec_from_json(saved: object) -> InstanceSpec:
    fields: dict[str, Any] = dict(cast("dict[str, Any]", saved))
    fields["health"] = HealthCheck(**fields["health"])
    fields["routes"] = tuple(fields["routes"])
    fields["compatible"] = tuple(fields["compatible"])
    fields["labels"] = tuple((name, value) for name, value in fields["labels"])
    return InstanceSpec(**fields)
