"""The instances of this host: registered, renewed, replaced, drained and removed through the local API.

An id that registers again with another version, route or endpoint gets a new source beside the old one. The old one drains
when the new one serves (make before break). It drains immediately if the two are incompatible, or if the new one has
the same endpoint with another version: then the old version no longer listens there.
"""

from __future__ import annotations

import math

from sdlb.core import drains, saved
from sdlb.core.events import EndpointKey, InstanceDrain, InstanceGone, InstanceHealth, InstancePut, InstanceRemove
from sdlb.core.instance import NEVER, Instance, Life, lease_end, replaces, same_service
from sdlb.core.messages import Cause, Claim
from sdlb.core.slot import ALL_SEEN, digest_of
from sdlb.core.source import Source, Standing, Step
from sdlb.core.state import State
from sdlb.model.drain import WAIT
from sdlb.model.instance import InstanceSpec

GUARD_INSTANCES_MIN = 3
GUARDED = "missed its renewal at the same time as most others"
DRAIN_S = 30.0
"""Drain deadline of a replaced registration."""


class LocalInstances:
    def __init__(self, state: State) -> None:
        self._state = state
        self.by_id: dict[str, Instance] = {}
        self.by_target: dict[str, Instance] = {}  # replaced ones too
        self._at: dict[str, dict[str, None]] = {}  # endpoint -> ids of the current registrations that have it
        self._former: dict[str, dict[str, Instance]] = {}  # id -> replaced registrations that still drain
        self._resume: list[tuple[str, bool]] = []  # drains that a restart interrupted
        self._lapsed: tuple[float, int] = (0.0, 0)  # (time, number of leases that had expired then)

    # ------------------------------------------------------------------ loading

    def load(self, name: str, value: object, now: float) -> None:
        """Loads a registration from before the restart. An interrupted drain starts again when the engine has confirmed the
        table; until then it is not known what is in flight."""
        data = saved.instance_from(value)
        spec = data.spec
        until, superseded = lease_end(spec, now), data.superseded
        instance = Instance(
            spec,
            f"i:{name}",
            data.healthy,
            until,
            data.owner,
            superseded=superseded,
            admitted=data.admitted,
            listeners=data.listeners,
            by_policy=data.by_policy,
        )
        self.by_target[instance.target] = instance
        if data.current:
            self.by_id[spec.id] = instance
            self._index(spec)
        else:
            self._former.setdefault(spec.id, {})[instance.target] = instance
            self._state.set_timer(now + DRAIN_S, "replaced", instance.target)
        if data.leaving:
            self._resume.append((instance.target, data.removing))
        self._publish(instance)
        self._watch_lease(instance)

    def resume_drains(self, now: float) -> None:
        for target, removing in self._resume:
            if target in self.by_target:
                instance = self.by_target[target]
                self._start_drain(instance, now, None if instance.by_policy else DRAIN_S, removing)
        self._resume.clear()

    def _save(self, instance: Instance) -> None:
        current = self.by_id.get(instance.spec.id) is instance
        value = saved.instance_to(instance, current)
        self._state.persist(f"instance/{instance.target[2:]}", value, durable=False)

    # ------------------------------------------------------------------ registering

    def conflict(self, event: InstancePut) -> str:
        """Why the id stays with the live instance of another owner. "": the id may be registered."""
        instance = self.by_id.get(event.spec.id)
        if instance is None or not event.owner or not instance.owner or instance.owner == event.owner:
            return ""
        spec = instance.spec
        if instance.life is Life.LAPSED and self._state.policy(spec.service).on_silence == "wait":
            return (
                f"{spec.id} was registered by {instance.owner} as {spec.service}-{spec.version} and has not been renewed; with "
                'on_silence = "wait" it counts as running: stop it, then deregister it'
            )
        if instance.life is not Life.REGISTERED:
            return ""  # it is draining, or its lease has expired
        return (
            f"{spec.id} is registered by {instance.owner} as {spec.service}-{spec.version} on {spec.endpoint}, and that "
            "instance is alive; use another id, or stop it first"
        )

    def at_endpoint(self, endpoint: str) -> list[str]:
        return list(self._at.get(endpoint, ()))

    def _supersede(self, event: InstancePut) -> None:
        """Supersedes registrations whose endpoint now belongs to another program, as its listening sockets show.

        They get no requests until they register again. A program that serves several services is no conflict: its
        registrations have the same owner or share a socket.
        """
        spec, owner, there = event.spec, event.owner, event.listeners
        for other in [self.by_id[name] for name in self._at.get(spec.endpoint, ()) if name != spec.id]:
            same = same_service(other.spec, spec) or (owner and other.owner == owner) or other.listeners & there
            if same or not other.listeners or not there:
                continue
            other.superseded = spec.id
            text = f"{other.spec.id} gets no more requests: another program listens on {spec.endpoint}, registered as {spec.id}"
            self._state.note("instance-superseded", text, "warning", instance=other.spec.id)
            self._publish(other)
            self._save(other)

    def _index(self, spec: InstanceSpec) -> None:
        self._at.setdefault(spec.endpoint, {})[spec.id] = None

    def _unindex(self, spec: InstanceSpec) -> None:
        there = self._at.get(spec.endpoint, {})
        there.pop(spec.id, None)
        if not there:
            self._at.pop(spec.endpoint, None)

    def on_put(self, event: InstancePut, now: float) -> None:
        state, spec = self._state, event.spec
        conflict = self.conflict(event)
        if conflict:
            state.note("owner-conflict", conflict, "warning", instance=spec.id)
            return
        old = self.by_id.get(spec.id)
        if old is None:
            self._register(event, f"i:{spec.id}", now)
            text = f"{spec.id} registered as {spec.service}-{spec.version}"
            state.note("instance-registered", text, instance=spec.id)
            return
        leaving = old.life in (Life.DRAINING, Life.DRAINED)
        if replaces(old.spec, spec) or (leaving and event.owner and event.owner != old.owner):
            self._replace(old, event, now)
            return
        was = old.life
        old.renewed(now)
        old.owner = event.owner or old.owner
        if old.detail == GUARDED:
            old.detail = ""
        returned, old.superseded = bool(old.superseded), ""
        old.listeners = event.listeners or old.listeners
        if was is Life.LAPSED:  # it was only late: it starts as a new registration
            old.life, old.forced, old.leaving, old.healthy = Life.REGISTERED, False, 0, event.healthy
        elif old.spec == spec and not returned:
            return  # a renewal keeps a draining instance registered and draining
        old.spec = spec
        self._watch_lease(old)  # it may have become shorter
        self._publish(old)
        self._save(old)

    def _register(self, event: InstancePut, target: str, now: float) -> Instance:
        spec = event.spec
        until, listeners = lease_end(spec, now), event.listeners
        instance = Instance(spec, target, event.healthy, until, event.owner, listeners=listeners)
        if spec.id in self.by_id:
            self._unindex(self.by_id[spec.id].spec)
        self.by_id[spec.id] = self.by_target[target] = instance
        self._index(spec)
        self._supersede(event)
        self._watch_lease(instance)
        self._publish(instance)
        self._save(instance)
        return instance

    def _replace(self, old: Instance, event: InstancePut, now: float) -> None:
        """Registers a new source, then drains the old one."""
        spec, number = event.spec, 2
        while f"i:{spec.id}#{number}" in self.by_target:
            number += 1
        taken = f"i:{spec.id}" in self.by_target
        self._former.setdefault(spec.id, {})[old.target] = old
        new = self._register(event, f"i:{spec.id}#{number}" if taken else f"i:{spec.id}", now)
        text = f"{spec.id} registered again as {spec.service}-{spec.version} on {spec.endpoint}"
        self._state.note("instance-replaced", text, instance=spec.id)
        if old.spec.ttl_s:
            self._state.clear_timer("instance", old.target)
        old.lease_until = lease_end(old.spec, now) if old.life is not Life.LAPSED else old.lease_until
        if old.life is not Life.REGISTERED:
            if old.life is Life.LAPSED and event.owner == old.owner:
                old.life = Life.DRAINING  # its owner is alive and has replaced it
            old.removing = True
            self._save(old)
            self.settle(old, now)
        elif self._must_part(old, new):
            self._start_drain(old, now, DRAIN_S, removing=True)
        else:
            self._state.set_timer(now + DRAIN_S, "replaced", old.target)
            self._save(old)

    def _must_part(self, old: Instance, new: Instance) -> bool:
        """Whether the two registrations must not serve at the same time."""
        was, now = old.spec, new.spec
        if was.service != now.service:
            return True
        if was.endpoint == now.endpoint and was.version != now.version:
            return True
        rules = self._state.policy(now.service).compatibility
        return not rules.compatible(was.version, now.version, was.compatible, now.compatible)

    def check_replaced(self, target: str, now: float) -> None:
        """Drains the old registration although the new one does not serve yet: DRAIN_S has passed."""
        instance = self.by_target.get(target)
        if instance is not None and instance.life is Life.REGISTERED and not self._is_current(instance):
            self._start_drain(instance, now, DRAIN_S, removing=True)

    def _is_current(self, instance: Instance) -> bool:
        return self.by_id.get(instance.spec.id) is instance

    def former(self, instance_id: str) -> list[Instance]:
        """Replaced registrations of this id that have not been removed yet."""
        return list(self._former.get(instance_id, {}).values())

    def may_carry(self, instance_id: str) -> bool:
        """Whether requests may be in flight to a registration of this id that this node does not know. A restored state folder
        does not have the registrations that were made after the copy."""
        if instance_id in self.by_id:
            return False
        return not self._state.table.contents_known or self._drains_unknown(instance_id)

    def _drains_unknown(self, instance_id: str) -> bool:
        """Whether the engine drains an endpoint of a registration of this id that this node does not know."""
        targets = (key.target for key in self._state.table.draining)
        return any(each not in self.by_target and _id_of(each) == instance_id for each in targets)

    # ------------------------------------------------------------------ health, drain, removal

    def on_health(self, event: InstanceHealth) -> None:
        instance = self.by_id.get(event.id)
        if instance is None or (instance.healthy, instance.detail) == (event.healthy, event.detail):
            return
        changed = instance.healthy != event.healthy
        first = not event.healthy and not instance.detail
        instance.healthy, instance.detail = event.healthy, event.detail
        if changed:
            word = "healthy" if event.healthy else "unhealthy"
            why = f": {event.detail}" if event.detail else ""
            level = "info" if event.healthy else "warning"
            self._state.note(f"instance-{word}", f"{event.id} is {word}{why}", level, instance=event.id)
            self._publish(instance)
            self._save(instance)
        elif first:  # the first result is reported to the parents; later changes of the text alone are not
            self._publish(instance)

    def on_drain(self, event: InstanceDrain, now: float) -> None:
        instance = self.by_id.get(event.id)
        if instance is not None and instance.life is Life.REGISTERED:
            self._start_drain(instance, now, event.deadline_s, removing=False)

    def _named(self, instance_id: str, owner: str) -> Instance | None:
        """The registration of `owner`, current or former. Without an owner, the current one."""
        current = self.by_id.get(instance_id)
        if not owner or current is None or current.owner in ("", owner):
            return current
        return next((each for each in self.former(instance_id) if each.owner == owner), None)

    def on_remove(self, event: InstanceRemove, now: float) -> None:
        instance = self._named(event.id, event.owner)
        if instance is None:
            return
        match instance.life:
            case Life.REGISTERED:
                self._start_drain(instance, now, event.deadline_s, removing=True)
            case Life.DRAINED:
                self._forget(instance, Cause.STOPPED, "instance-removed", f"{event.id} was removed")
            case Life.LAPSED:
                instance.life, instance.removing = Life.DRAINING, True
                self._save(instance)
                self._end_drain(instance)
            case Life.DRAINING:
                instance.removing = True
                if instance.forced:  # its deadline has passed
                    self._save(instance)
                    self._end_drain(instance)
                    return
                if event.deadline_s is not None:
                    until = now + event.deadline_s
                    instance.drain_until = until if instance.by_policy else min(instance.drain_until, until)
                    instance.by_policy = False
                    self._state.set_timer(instance.drain_until, "drain", instance.target)
                self._publish(instance)
                self._save(instance)

    def _start_drain(self, instance: Instance, now: float, deadline_s: float | None, removing: bool) -> None:
        instance.life = Life.DRAINING
        instance.by_policy = deadline_s is None
        if deadline_s is None:
            drain = self._state.policy(instance.spec.service).drain
            deadline_s = drain.deadline_s
            if drain.streams_s:
                self._state.set_timer(now + drain.streams_s, "streams", instance.target)
        instance.leaving = self._state.next_number()
        instance.removing = removing
        instance.drain_until = now + deadline_s
        self._state.set_timer(instance.drain_until, "drain", instance.target)
        self._state.note("instance-draining", f"{self.name_of(instance)} is draining", instance=instance.spec.id)
        self._publish(instance)
        self._save(instance)

    def name_of(self, instance: Instance) -> str:
        spec = instance.spec
        return spec.id if self._is_current(instance) else f"the former registration of {spec.id} as {spec.version}"

    def on_gone(self, event: InstanceGone) -> None:
        instance = self._named(event.id, event.owner)
        if instance is not None:
            text = f"{self.name_of(instance)} has stopped: {event.detail}"
            self._forget(instance, Cause.STOPPED, "instance-gone", text, "warning")

    # ------------------------------------------------------------------ timers

    def _watch_lease(self, instance: Instance) -> None:
        if instance.spec.ttl_s:
            self._state.set_timer(instance.lease_until, "instance", instance.target)

    def shift(self, by_s: float) -> None:
        for instance in self.by_target.values():
            instance.lease_until += by_s
            instance.drain_until += by_s

    def check_lease(self, target: str, now: float) -> None:
        instance = self.by_target.get(target)
        if instance is None or not self._is_current(instance) or instance.life is Life.LAPSED:
            return
        if now < instance.lease_until:
            self._state.set_timer(instance.lease_until, "instance", target)
            return
        lapsed = self._count_lapsed(now)
        if len(self.by_id) >= GUARD_INSTANCES_MIN and lapsed * 2 > len(self.by_id) and instance.detail != GUARDED:
            text = (
                f"{lapsed} of {len(self.by_id)} instances missed their renewal at the same time; "
                "extending their leases once"
            )
            self._state.note("guarded", text, "error")
            for each in self.by_id.values():
                if each.lease_until <= now + 0.5:
                    each.renewed(now)
                    each.detail = GUARDED
                    self._watch_lease(each)
            return
        self._lapse(instance, now)

    def _count_lapsed(self, now: float) -> int:
        at, count = self._lapsed
        if at != now:
            count = sum(1 for each in self.by_id.values() if each.lease_until <= now + 0.5)
            self._lapsed = (now, count)
        return count

    def _lapse(self, instance: Instance, now: float) -> None:
        """The lease has expired: the instance gets no new requests. It is only presumed to have stopped, so requests in flight
        have the same time again before `on_silence` decides."""
        instance.life = Life.LAPSED
        instance.forced = True
        instance.leaving = instance.leaving or self._state.next_number()
        instance.drain_until = now + max(self._state.settings.fence_s, instance.spec.ttl_s)
        self._state.set_timer(instance.drain_until, "drain", instance.target)
        text = f"{instance.spec.id} was not renewed for {instance.spec.ttl_s:g} s"
        self._state.note("instance-lapsed", text, "warning", instance=instance.spec.id)
        self._publish(instance)
        self._save(instance)

    def check_drain(self, target: str, now: float) -> None:
        instance = self.by_target.get(target)
        if instance is None or instance.life not in (Life.DRAINING, Life.LAPSED):
            return
        if now < instance.drain_until:
            self._state.set_timer(instance.drain_until, "drain", target)
            return
        if instance.life is Life.LAPSED:
            self._end_lapse(instance, now)
            return
        drain = self._state.policy(instance.spec.service).drain
        if instance.by_policy:
            drains.slow(self._state, self.name_of(instance), drain, instance=instance.spec.id)
            if drain.then == WAIT:
                instance.drain_until = now + drains.SLOW_AGAIN_S
                self._state.set_timer(instance.drain_until, "drain", target)
                return
            drains.cut(self._state, self._endpoints(instance))
        text = f"{self.name_of(instance)} did not drain before its deadline"
        self._state.note("drain-deadline", text, "warning", instance=instance.spec.id)
        instance.forced = True
        self._publish(instance)
        self._end_drain(instance)

    def cut_streams(self, target: str) -> None:
        """They have had the time that a policy gives them from the beginning of a drain."""
        instance = self.by_target.get(target)
        if instance is not None and instance.life is Life.DRAINING and instance.by_policy:
            drains.cut(self._state, self._endpoints(instance), streams_only=True)

    def _endpoints(self, instance: Instance) -> list[EndpointKey]:
        keys = (EndpointKey(key, instance.target) for key in instance.keys())
        return [key for key in keys if self._state.table.has(key)]

    def _end_drain(self, instance: Instance) -> None:
        """Removes an instance after its deadline. Requests in flight no longer matter, but the engine must have confirmed that
        it sends no new ones: an engine that control cannot reach may still send them."""
        if instance.removing and instance.forced and not self._routable(instance):
            text = f"{self.name_of(instance)} was removed at its deadline"
            self._forget(instance, Cause.STOPPED, "instance-removed", text, "warning")

    def _end_lapse(self, instance: Instance, now: float) -> None:
        """Ends a lapse when nothing is in flight or the time for it is over, but not before the engine has confirmed that it
        sends no new requests."""
        if self._routable(instance):
            return
        drained = not self._present(instance) and self._state.policy(instance.spec.service).on_silence == "open"
        if drained or now >= instance.drain_until:
            self._presume(instance)

    def _presume(self, instance: Instance) -> None:
        """Presumes a lapsed instance stopped. With `on_silence = "wait"` it stays on record as silent, until it renews, its
        process is known to have exited, or it is removed."""
        if self._state.policy(instance.spec.service).on_silence == "wait":
            for key in instance.keys():
                slot = self._state.slots.get(key)
                source = slot.sources.get(instance.target) if slot is not None else None
                if source is not None and source.standing is not Standing.PRESUMED:
                    self._state.step(key, source, Step.PRESUME)
            return
        text = f"{instance.spec.id} is presumed to have stopped"
        self._forget(instance, Cause.PRESUMED, "instance-presumed-stopped", text, "warning")

    # ------------------------------------------------------------------ settling

    def on_slot_changed(self, target: str) -> None:
        """A slot of the registration `target` has changed."""
        instance = self.by_target.get(target)
        if instance is not None:
            self.settle(instance, self._state.now)
        elif target.startswith("i:"):  # an answer may wait for it (`may_carry`), or the drain of another registration
            name = _id_of(target)
            self._state.changed_instances[name] = None
            for each in (self.by_id.get(name), *self.former(name)):
                if each is not None:
                    self.settle(each, self._state.now)

    def settle(self, instance: Instance, now: float) -> None:
        """Drains former registrations when this one serves, and ends its own drain or lapse when nothing is in flight."""
        state = self._state
        state.changed_instances[instance.spec.id] = None
        if instance.life is Life.REGISTERED:
            serves = instance.healthy and not instance.superseded and self._is_active(instance)
            instance.serves_since = min(instance.serves_since, now) if serves else NEVER
        current = self.by_id.get(instance.spec.id)
        if instance is current and instance.life is Life.REGISTERED and self._serves(instance):
            for old in self.former(instance.spec.id):
                if old.life is Life.REGISTERED:
                    self._start_drain(old, now, DRAIN_S, removing=True)
        if instance.life is Life.LAPSED:
            self._end_lapse(instance, now)
            return
        if instance.life is Life.DRAINED and instance.removing:
            self._forget(instance, Cause.STOPPED, "instance-removed", f"{self.name_of(instance)} was removed")
            return
        if instance.life is not Life.DRAINING:
            return
        if self._present(instance):
            self._end_drain(instance)
            return
        instance.life = Life.DRAINED
        name = self.name_of(instance)
        state.note("instance-drained", f"{name} is drained", instance=instance.spec.id)
        if instance.removing:
            self._forget(instance, Cause.STOPPED, "instance-removed", f"{name} was removed")

    def _present(self, instance: Instance) -> bool:
        table = self._state.table
        if any(table.present(EndpointKey(key, instance.target)) for key in instance.keys()):
            return True
        return self._drains_unknown(instance.spec.id)

    def _routable(self, instance: Instance) -> bool:
        table = self._state.table
        return any(table.routable(EndpointKey(key, instance.target)) for key in instance.keys())

    def _is_active(self, instance: Instance) -> bool:
        slots = self._state.slots
        return all((slot := slots.get(key)) is not None and slot.active for key in instance.keys())

    def _serves(self, instance: Instance) -> bool:
        table = self._state.table
        return all(table.applied(EndpointKey(key, instance.target)) for key in instance.keys())

    def admitted(self, target: str) -> None:
        instance = self.by_target.get(target)
        if instance is not None and not instance.admitted:
            instance.admitted = True
            self._save(instance)

    def _publish(self, instance: Instance) -> None:
        spec, state = instance.spec, self._state
        state.table.set_upstream(instance.target, False, spec.endpoint, spec.protocol)
        state.changed_instances[spec.id] = None
        host = state.settings.name
        serves = instance.healthy and not instance.superseded and instance.life is not Life.LAPSED
        for key in instance.keys():
            claim = Claim(
                key,
                capacity=spec.capacity if serves else 0,
                count=1,
                hosts=(host,),
                hosts_digest=digest_of(host),
                compatible=tuple(sorted(spec.compatible)),
                leaving=instance.leaving if instance.life is not Life.REGISTERED else 0,
                seen=ALL_SEEN,
                lease_s=math.ceil(spec.ttl_s),
                able=spec.capacity if serves else 0,
                healthy=int(serves),
                why="" if serves else f"{spec.id}: {instance.why}",
            )
            slot = state.slots.get(key)
            source = slot.sources.get(instance.target) if slot is not None else None
            if source is None:
                source = Source(instance.target, claim)
                if instance.admitted:
                    source.step(Step.ADMIT)
                state.put_source(key, source)
            else:
                source.claim = claim
                state.touch(key, instance.target)
            source.step(Step.LEAVE if claim.leaving else Step.STAY)
            if instance.forced:
                source.step(Step.EXPIRE)

    def _forget(self, instance: Instance, cause: Cause, code: str, text: str, level: str = "info") -> None:
        for key in instance.keys():
            self._state.drop_source(key, instance.target, cause)
        name = instance.spec.id
        del self.by_target[instance.target]
        if self.by_id.get(name) is instance:
            del self.by_id[name]
            self._unindex(instance.spec)
            for former in self.former(name):
                self._state.set_timer(0.0, "replaced", former.target)  # no registration replaces it any more
        else:
            former = self._former[name]
            del former[instance.target]
            if not former:
                del self._former[name]
        for kind in ("instance", "drain", "replaced", "streams"):
            self._state.clear_timer(kind, instance.target)
        self._state.table.forget_upstream(instance.target)
        self._state.persist(f"instance/{instance.target[2:]}", None, durable=False)
        self._state.changed_instances[name] = None
        self._state.note(code, text, level, instance=name)


def _id_of(target: str) -> str:
    """The id of an instance from its target: "i:ID", of a later registration "i:ID#2" and so on."""
    return target[2:].partition("#")[0]
