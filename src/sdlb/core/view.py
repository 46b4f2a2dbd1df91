"""A node's state as dictionaries for JSON: the reads behind the API, the commands and the simulator's checks."""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec.structs import asdict

from sdlb.core.agents import Agents
from sdlb.core.authority import Authority, Root
from sdlb.core.children import Children
from sdlb.core.decisions import ServiceRecord
from sdlb.core.downlink import Downlink
from sdlb.core.events import EndpointKey, ReleasePut, RolloutOrder
from sdlb.core.explain import explain, refused
from sdlb.core.figures import Analysed
from sdlb.core.instance import AGENT, Instance, Life
from sdlb.core.local_instances import LocalInstances
from sdlb.core.messages import ACTIVE, OPENING, POLICY, REFUSED, TARGET, WAITING, Doc
from sdlb.core.opening import Candidate, from_body
from sdlb.core.parents import Parents
from sdlb.core.preview import preview
from sdlb.core.releases import Releases, data_of
from sdlb.core.reports import Reports
from sdlb.core.rollout_tree import rollout_tree
from sdlb.core.rollout_view import role_view, rollout_view
from sdlb.core.rollouts import Rollouts
from sdlb.core.share import overlay, percentages, picks
from sdlb.core.slot import Permit, Slot
from sdlb.core.source import OUT, SILENT, Standing
from sdlb.core.state import State
from sdlb.core.uplink import Phase, Uplink
from sdlb.model.canary import Blocks
from sdlb.model.gate import Gate
from sdlb.model.instance import InstanceSpec
from sdlb.model.policy_layers import Layers
from sdlb.model.problem import Invalid
from sdlb.model.reason import NoParent, NothingReady
from sdlb.model.request_target import request_host, request_path
from sdlb.model.route import Pattern
from sdlb.model.shadow import shadows
from sdlb.model.traffic import Traffic
from sdlb.model.version import sort_key

NO_ROOT = "this node is not a root"


class Link(NamedTuple):
    """A link to a parent or a child. `silent_s`: time since its last message."""

    name: str
    state: str
    silent_s: float


class View:
    """Read access. No method changes the state."""

    def __init__(
        self,
        state: State,
        children: Children,
        local: LocalInstances,
        parents: Parents,
        authority: Authority,
        rollouts: Rollouts,
        reports: Reports,
        agents: Agents,
    ) -> None:
        self.settings = state.settings
        self._state = state
        self._children = children
        self._local = local
        self._parents = parents
        self._authority = authority
        self._rollouts = rollouts
        self._reports = reports
        self._agents = agents
        self.parts = (state, children, local, parents, authority, rollouts, reports, agents)
        self._releases = Releases(state)
        self.public = False  # the node's entry listeners have the hardened preset

    # ------------------------------------------------------------------ instances

    @property
    def _records(self) -> dict[str, ServiceRecord]:
        return self._authority.records if isinstance(self._authority, Root) else {}

    def instance(self, instance_id: str) -> dict[str, Any] | None:
        instance = self._local.by_id.get(instance_id)
        return None if instance is None else self._instance(instance)

    def may_carry(self, instance_id: str) -> bool:
        """Whether requests may be in flight to an instance that this node does not know, because its state folder was restored
        from an older copy."""
        return self._local.may_carry(instance_id)

    def of_agent(self, instance_id: str) -> InstanceSpec | None:
        """The current registration, if this node's agent has made it."""
        instance = self._local.by_id.get(instance_id)
        return instance.spec if instance is not None and instance.owner == AGENT else None

    def healthy(self, instance_id: str) -> bool | None:
        """The last known health. None: there is no such instance."""
        instance = self._local.by_id.get(instance_id)
        return None if instance is None else instance.healthy

    def instances(self) -> list[dict[str, Any]]:
        return [self._instance(self._local.by_id[name]) for name in sorted(self._local.by_id)]

    def _instance(self, instance: Instance) -> dict[str, Any]:
        spec, slots = instance.spec, self._slots(instance)
        state, code, reason = self._instance_state(instance, slots)
        return {
            "id": spec.id,
            "service": spec.service,
            "version": spec.version,
            "routes": list(spec.routes),
            "endpoint": spec.endpoint,
            "protocol": spec.protocol,
            "compatible": list(spec.compatible),
            "capacity": spec.capacity,
            "health": asdict(spec.health),
            "ttl_s": spec.ttl_s,
            "pid": spec.pid,
            "labels": dict(spec.labels),
            "state": state,
            "reason_code": code,
            "reason": reason,
            "decided_by": next((s.permit.decided_by for s in slots if s.permit.reason.code == code), ""),
            "claims": [_claim(slot) for slot in slots],
            "healthy": instance.healthy,
            "health_detail": instance.detail,
            "drained": instance.life is Life.DRAINED,
            "owner": instance.owner,
            "target": instance.target,
            "former": [self._former(each) for each in self._local.former(spec.id)],
            "node": self.settings.name,
        }

    def _slots(self, instance: Instance) -> list[Slot]:
        return [self._state.slots[key] for key in instance.keys() if key in self._state.slots]

    def at_endpoint(self, endpoint: str) -> list[str]:
        """Ids of the current registrations with this endpoint."""
        return self._local.at_endpoint(endpoint)

    def replaced(self) -> list[InstanceSpec]:
        """Former registrations that have not been removed yet."""
        return [each.spec for each in self._local.by_target.values() if self._local.by_id.get(each.spec.id) is not each]

    def _former(self, instance: Instance) -> dict[str, Any]:
        spec = instance.spec
        return {"version": spec.version, "endpoint": spec.endpoint, "state": instance.life.value}

    def _instance_state(self, instance: Instance, slots: list[Slot]) -> tuple[str, str, str]:
        match instance.life:
            case Life.DRAINED | Life.DRAINING:
                return instance.life.value, "", ""
            case Life.LAPSED:
                return "lapsed", "lapsed", f"it was not renewed for {instance.spec.ttl_s:g} s"
            case Life.REGISTERED:
                pass
        permits = [permit_for(slot, instance.target) for slot in slots]
        for state in (REFUSED, WAITING):
            found = next((permit for permit in permits if permit.state == state), None)
            if found is not None:
                return state, found.reason.code, str(found.reason)
        if instance.superseded:
            return "unhealthy", "superseded", instance.why
        if not instance.healthy:
            return "unhealthy", "unhealthy", instance.detail
        if not all(self._state.table.applied(EndpointKey(slot.key, instance.target)) for slot in slots):
            return "waiting", "opening", "the engine has not confirmed it yet"
        return "active", "", ""

    def instance_states(self) -> list[str]:
        """The state of each instance."""
        return [self._instance_state(each, self._slots(each))[0] for each in self._local.by_id.values()]

    # ------------------------------------------------------------------ services

    def service_names(self) -> list[str]:
        return sorted(set(self._state.by_service) | {n for n, r in self._records.items() if r.active})

    def version_names(self, name: str) -> list[str]:
        """The versions that claim for the service at this node."""
        return sorted({key.version for key in self._state.by_service.get(name, ())})

    def services(self) -> list[dict[str, Any]]:
        return [self._service(name) for name in self.service_names()]

    def claim_states(self) -> list[str]:
        """The state of each claim key."""
        return [slot.permit.state for slot in self._state.slots.values()]

    def service(self, name: str) -> dict[str, Any] | None:
        known = name in self._state.by_service or name in self._records or self._state.policies.doc(name) is not None
        return self._service(name) if known else None

    def _service(self, name: str) -> dict[str, Any]:
        slots: dict[str, list[Slot]] = {}
        for key in self._state.by_service.get(name, ()):
            slots.setdefault(key.version, []).append(self._state.slots[key])
        policy = self._state.policy(name)
        record = self._records.get(name)
        order = sorted(slots, key=lambda v: sort_key(v, policy.compatibility.scheme))
        versions = [self._version(version, slots[version]) for version in order]
        # As in the engine, the weight is the sum of capacities over all paths, even if several lead to the same host.
        ready = {
            v["version"]: max(slot.sums.capacity for slot in slots[v["version"]])
            for v in versions
            if v["state"] == ACTIVE
        }
        shares = percentages(picks(policy, ready, overlay(self._state.targets.get(name))), ready)
        for version in versions:
            version["share"] = shares.get(version["version"], 0.0)
        generation = record.generation if record is not None else max((v["generation"] for v in versions), default=0)
        return {
            "service": name,
            "generation": generation,
            "authority": self.settings.name if self._authority.is_root else "",
            "decided_by": sorted({s.permit.decided_by for each in slots.values() for s in each if s.permit.decided_by}),
            "priority": policy.priority,
            "shares": dict(policy.shares),
            "versions": versions,
            "routes": sorted({slot.key.route for each in slots.values() for slot in each}),
            "opening": self.opening(name),
        }

    def opening(self, name: str) -> dict[str, Any] | None:
        """How far the opening of a service is: the gates of its waiting versions, and its cut-over. None: nothing waits for a gate
        or a cut-over. Every node holds the record; `here`: this node conducts it."""
        doc = self._state.policies.docs.get(f"{OPENING}/{name}")
        record = from_body(doc.body) if doc is not None else None
        current = self._records.get(name)
        if record is None or (current is not None and current.generation > record.generation):
            return None
        waits = {key.version for key in self._state.by_service.get(name, ()) if not self._state.slots[key].active}
        candidates = {version: each for version, each in record.candidates.items() if version in waits or each.opened}
        if not candidates:
            return None
        wall_s, gates = self._state.wall_s, self._state.policy(name).gates
        return {
            "conductor": record.conductor,
            "here": record.conductor_id == self.settings.node_id,
            "phase": record.phase,
            "to": record.to,
            "since_s": _age(record.since, wall_s),
            "detail": record.detail,
            "versions": {version: _candidate(each, gates, wall_s) for version, each in sorted(candidates.items())},
        }

    def approval_objection(self, service: str, version: str, gate: str, by: str) -> str:
        """Why the event `Approve` would have no effect at this node. "": it has one."""
        authority = self._authority
        return (
            authority.openings.approval_objection(service, version, gate, by)
            if isinstance(authority, Root)
            else NO_ROOT
        )

    def promotion_objection(self, service: str, version: str) -> str:
        """Why the event `Promote` would have no effect at this node. "": it has one."""
        authority = self._authority
        return authority.openings.promotion_objection(service, version) if isinstance(authority, Root) else NO_ROOT

    def transfer_objection(self, route: str, service: str) -> str:
        """Why the event `RouteTransfer` would have no effect at this node. "": it has one."""
        return self._authority.transfer_objection(route, service) if isinstance(self._authority, Root) else NO_ROOT

    # ------------------------------------------------------------------ rollouts

    def rollouts(self) -> list[dict[str, Any]]:
        found = (self.rollout(target.service) for target in self._state.targets.all())
        return sorted((each for each in found if each is not None), key=lambda each: each["service"])

    def rollout(self, name: str) -> dict[str, Any] | None:
        """`name`: a service, or the id of a rollout of it. None: there is none."""
        target = self._rollouts.find(name)
        if target is None:
            return None
        return rollout_view(self._rollouts, target, self._reports.total(target.service), self._state.wall_s)

    def record(self, which: str) -> list[dict[str, Any]]:
        """What this root has recorded about a rollout (its id), or the last one of a service."""
        return self._rollouts.recorder.view(which)

    def recorded(self) -> list[str]:
        """Services whose answers are to be counted now. Empty: nothing."""
        return self._rollouts.recorder.counted()

    def roles(self) -> list[dict[str, Any]]:
        """The services that nodes run as their roles, as far as nodes report to this root, and those that have a target."""
        names = {*self._reports.services(), *(target.service for target in self._state.targets.all())}
        return [role_view(name, self._state.targets.get(name), self._reports.total(name)) for name in sorted(names)]

    def agent(self) -> list[dict[str, Any]]:
        """What this node runs itself: an entry for each service of its roles."""
        return self._agents.view()

    def analysed(self) -> list[Analysed]:
        """What this host has to count for the analyses of rollouts. Empty: nothing."""
        return self._agents.figures.analysed()

    def figures(self, service: str) -> Blocks:
        """What the hosts that report to this node have counted in the last blocks."""
        return self._reports.total(service).blocks

    def rollout_objection(self, order: RolloutOrder) -> str:
        """Why the event `RolloutOrder` would have no effect at this node. "": it has one."""
        return self._rollouts.objections.objection(order) if isinstance(self._authority, Root) else NO_ROOT

    def rollout_plan(self, order: RolloutOrder) -> dict[str, Any]:
        """With the tree in which it would happen, as far as this root knows it."""
        plan = self._rollouts.objections.plan(order)
        alone, before = bool(self._reports.total(order.service).alone), str(plan["before"])
        return {
            **plan,
            "tree": rollout_tree(self._state, self._children, self._reports, order.service, before, alone=alone),
        }

    def joint_plans(self, order: RolloutOrder) -> list[dict[str, Any]]:
        """Of a joint rollout: what would become of each service, in order. Empty: it is of one service."""
        return self._rollouts.objections.joint_plans(order)

    def _version(self, version: str, slots: list[Slot]) -> dict[str, Any]:
        first = min(slots, key=lambda s: (_ORDER.get(s.permit.state, 9), s.key.route))
        leaving = all(source.standing in OUT for slot in slots for source in slot.sources.values())
        state = "draining" if leaving and first.permit.state == ACTIVE else first.permit.state
        instances = max(slot.count() for slot in slots)
        reason = first.permit.reason
        if state == ACTIVE and not any(slot.sums.capacity for slot in slots):
            reason = NothingReady(tuple(sorted({host for slot in slots for host in slot.hosts()})), self._why(slots))
        return {
            "version": version,
            "state": state,
            "reason_code": reason.code,
            "reason": str(reason),
            "decided_by": first.permit.decided_by,
            "generation": first.permit.generation,
            "instances": instances,
            "capacity": max(slot.capacity() for slot in slots),
            "hosts": sorted({host for slot in slots for host in slot.hosts()}),
            "compatible": sorted({text for slot in slots for text in slot.compatible()}),
            "silent": sum(s.claim.count for s in slots[0].sources.values() if s.standing in SILENT),
            "claims": [
                {**_claim(slot), "instances": slot.count(), "sources": sorted(slot.sources)}
                for slot in sorted(slots, key=lambda s: s.key.route)
            ],
        }

    def _why(self, slots: list[Slot]) -> str:
        """The reason of one instance without capacity: of this host, else as a child reported it."""
        sources = sorted({target for slot in slots for target, source in slot.sources.items() if not source.child})
        instances = [each for each in self._local.by_id.values() if each.target in sources]
        found = [(each.spec.id, each.why) for each in instances if each.superseded or not each.healthy]
        reported = [why for slot in slots if (why := slot.why())]
        return [*(f"{name}: {why}" for name, why in found), *reported, ""][0]

    def serving(self, name: str) -> str:
        """ "up": an active version of the service has capacity. "gone": the service has no claim. "leaving": all its claims are
        draining. Otherwise "down"."""
        slots = [self._state.slots[key] for key in self._state.by_service.get(name, ())]
        if any(slot.active and slot.sums.capacity for slot in slots):
            return "up"
        if all(source.standing in OUT for slot in slots for source in slot.sources.values()):
            return "leaving" if slots else "gone"
        return "down"

    def active_routes(self, name: str) -> list[str]:
        """The routes on which a version of the service is active at this node."""
        keys = self._state.by_service.get(name, ())
        return sorted({key.route for key in keys if self._state.slots[key].active})

    def policy(self, service: str) -> Doc | None:
        return self._state.policies.doc(service)

    def target(self, service: str) -> Doc | None:
        return self._state.policies.docs.get(f"{TARGET}/{service}")

    def policies(self) -> list[Doc]:
        """All policy documents, readable or not."""
        return [doc for _, doc in sorted(self._state.policies.docs.items()) if doc.kind == POLICY]

    @property
    def policy_layers(self) -> Layers:
        """The readable policy documents. Not to be changed."""
        return self._state.policies.layers

    def preview(self, layers: Layers) -> list[dict[str, Any]]:
        """What other policy documents would change at this root (`core.preview`)."""
        return preview(self._state, self._records, layers, self.service_names())

    # ------------------------------------------------------------------ releases

    def release_names(self) -> list[str]:
        return sorted(self._releases.names())

    def release(self, name: str) -> dict[str, Any] | None:
        known = self._releases.get(name)
        return None if known is None else data_of(name, known)

    def releases(self) -> list[dict[str, Any]]:
        return [found for name in self.release_names() if (found := self.release(name)) is not None]

    def release_objection(self, event: ReleasePut) -> str:
        """Why the event would have no effect at this node. "": it has one, or changes nothing."""
        return self._rollouts.objections.release_objection(event) if self._authority.is_root else NO_ROOT

    # ------------------------------------------------------------------ tree

    def tree(self) -> dict[str, Any]:
        path = self._authority.path()
        return {
            "node": self.settings.name,
            "root": self._authority.is_root,
            "roots": list(path.roots),
            "ancestors": [name for name in path.ancestors if name != self.settings.name],
            "incarnation": self._state.incarnation,
            "labels": dict(self.settings.labels),
            "guarded": self._children.guarded,
            "cut_off": self.cut_off(),
            "ready": self.ready()[0],
            "detail": self.ready()[1],
            "stopping": self._state.stopping,
            "engine": {"attached": self._state.table.attached, "epoch": self._state.table.epoch},
            "parents": self.parents(),
            "children": [self._child(name) for name in sorted(self._children.by_name)],
            "remnants": self._children.remnants.summary(),
            "instances": self.instances(),
            "claims": len(self._state.slots),
        }

    def parents(self) -> list[dict[str, Any]]:
        return [self._parent(parent) for parent in sorted(self._parents.links)]

    def parent_links(self) -> list[Link]:
        return [Link(str(p["name"] or p["address"]), str(p["state"]), float(p["silent_s"])) for p in self.parents()]

    def child_links(self) -> list[Link]:
        children = [self._children.by_name[name] for name in sorted(self._children.by_name)]
        return [Link(child.name, _child_state(child), self._silent_s(child)) for child in children]

    def guarded(self) -> bool:
        return self._children.guarded

    def cut_off(self) -> bool:
        """Whether no parent has a say. The node then serves on with what it has and opens nothing new."""
        return not self._authority.is_root and not self._parents.with_say(self._state.now)

    def _parent(self, parent: str) -> dict[str, Any]:
        uplink = self._parents.links[parent]
        return {
            "address": parent,
            "name": uplink.name,
            "state": self._parent_state(uplink),
            "in_touch": uplink.in_touch(self._state.now),
            "silent_s": self._silent_s(uplink),
            "detail": uplink.detail,
        }

    def _parent_state(self, uplink: Uplink) -> str:
        if uplink.phase in (Phase.REFUSED, Phase.DUPLICATE):
            return "refused"
        if not uplink.in_touch(self._state.now):
            return "lost"
        return "connected" if uplink.phase is Phase.UP else "connecting"

    def child(self, name: str) -> dict[str, Any] | None:
        return self._child(name) if name in self._children.by_name else None

    def _child(self, name: str) -> dict[str, Any]:
        child = self._children.by_name[name]
        claims = [self._state.slots[key].sources[child.target].claim for key in sorted(child.keys)]
        count: dict[str, int] = {}
        capacity: dict[str, int] = {}
        for claim in claims:  # one instance may have several routes
            label = f"{claim.key.service}-{claim.key.version}"
            count[label] = max(count.get(label, 0), claim.count)
            capacity[label] = max(capacity.get(label, 0), claim.capacity)
        return {
            "name": name,
            "address": child.address,
            "state": _child_state(child),
            "silent_s": self._silent_s(child),
            "incarnation": child.incarnation,
            "labels": list(child.labels),
            "claims": len(claims),
            "services": list(count),
            "instances": sum(count.values()),
            "capacity": sum(capacity.values()),
        }

    def _silent_s(self, link: Downlink | Uplink) -> float:
        return round(max(0.0, self._state.now - link.heard_at), 1)

    def ready(self) -> tuple[bool, str]:
        if not self._state.table.attached:
            return False, "the engine is not attached"
        if not self._state.engine_confirmed:
            return False, "the engine has not confirmed its table yet"
        if self._authority.is_root or any(u.phase is Phase.UP for u in self._parents.links.values()):
            return True, "ready"
        return False, "no parent is connected"

    # ------------------------------------------------------------------ routes

    def routes(self) -> list[dict[str, Any]]:
        patterns = sorted(map(Pattern.parse, self._state.by_route), key=lambda p: p.specificity, reverse=True)
        below = {winner: sorted(map(str, losers)) for winner, losers in shadows(patterns).items()}
        above: dict[str, list[str]] = {}
        for winner, losers in below.items():
            for loser in losers:
                above.setdefault(loser, []).append(str(winner))
        return [self._route(str(p), below.get(p, []), sorted(above.get(str(p), []))) for p in patterns]

    def _route(self, text: str, below: list[str], above: list[str]) -> dict[str, Any]:
        """`below`: the routes that this one shadows; `above`: those that shadow it."""
        route = self._state.table.route(text)
        slots = [self._state.slots[key] for key in sorted(self._state.by_route[text])]
        granted = [slot for slot in slots if slot.permit.state != REFUSED]
        first = min(granted or slots, key=lambda s: (_ORDER.get(s.permit.state, 9), s.key))
        return {
            "route": text,
            "service": route.service if route is not None else first.key.service if granted else "",
            "state": first.permit.state,
            "reason_code": first.permit.reason.code,
            "reason": str(first.permit.reason),
            "capacity": sum(slot.capacity() for slot in granted if slot.active),
            "refused": [
                {"service": slot.key.service, "version": slot.key.version, **_decision(slot)}
                for slot in slots
                if slot.permit.state == REFUSED
            ],
            "versions": [pick.version for pick in route.picks] if route is not None else [],
            "parking": bool(route is not None and route.park_requests_max),
            "claims": [{"service": slot.key.service, "version": slot.key.version, **_decision(slot)} for slot in slots],
            "shadows": below,
            "shadowed_by": above,
        }

    def traffic(self, service: str) -> Traffic:
        """The traffic settings in the policy of the service."""
        return self._state.policy(service).traffic

    def explain(self, host: str, path: str) -> dict[str, Any]:
        """Which route, version and endpoint a request would get at this node's entry, and which others were considered."""
        try:
            return explain(self._state, request_host(host), request_path(path, public=self.public), self.public)
        except Invalid as problem:
            return refused(self._state, host, path, problem.what)

    def sizes(self) -> dict[str, int]:
        """Numbers of entries held, for promise 7: none grows with the number of instances below a child."""
        state = self._state
        return {
            "slots": len(state.slots),
            "sources": sum(len(slot.sources) for slot in state.slots.values()),
            "table": state.table.size(),
            "children": len(self._children.by_name),
            "instances": len(self._local.by_target),
            "told": sum(len(child.sent) for child in self._children.by_name.values()),
            "claimed": sum(len(uplink.sent) for uplink in self._parents.links.values()),
            "policies": len(state.policies.docs),
            "timers": state.timers,
        }


def permit_for(slot: Slot, target: str) -> Permit:
    """The permit for one source. A source that was never admitted gets no consent from a node that is cut off."""
    source = slot.sources.get(target)
    if slot.active and source is not None and source.standing is Standing.CLAIMED:
        return Permit(WAITING, NoParent(), slot.permit.decided_by, slot.permit.generation)
    return slot.permit


def _child_state(child: Downlink) -> str:
    return "suspect" if child.suspect else "connected" if child.link is not None else "disconnected"


def _candidate(candidate: Candidate, gates: tuple[Gate, ...], wall_s: float) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    for gate in gates:
        state = candidate.gates.get(gate.name)
        if state is not None:
            found.append(
                {
                    "name": gate.name,
                    "kind": gate.kind,
                    "at": gate.at,
                    "state": state.state,
                    "age_s": _age(state.since, wall_s),
                    "reason": state.reason,
                    "by": list(state.by),
                    "attempts": state.attempts,
                }
            )
    return {
        "clear": candidate.clear,
        "age_s": _age(candidate.since, wall_s),
        "gates": found,
        "promoted": candidate.promoted,
        "no_gates": candidate.no_gates,
    }


def _age(since: float, wall_s: float) -> float:
    return round(max(0.0, wall_s - since), 1)


def _decision(slot: Slot) -> dict[str, Any]:
    permit = slot.permit
    return {
        "state": permit.state,
        "reason_code": permit.reason.code,
        "reason": str(permit.reason),
        "decided_by": permit.decided_by,
    }


def _claim(slot: Slot) -> dict[str, Any]:
    return {"route": slot.key.route, **_decision(slot)}


_ORDER = {ACTIVE: 0, "waiting": 1, REFUSED: 2}
