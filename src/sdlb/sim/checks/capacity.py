"""Promise 9: no planned action takes more ready capacity of a service away than its policy allows. And what belongs to it: nothing is
taken out without a slot, nor stopped while it serves (promise 3), and rollouts end with one version everywhere (promise 5)."""

from __future__ import annotations

from msgspec.structs import replace

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.rollout_rules import nodes_out_max
from sdlb.model.rollout import CUTTING_OVER, DONE, FAILED, ROLLING, UNDOING, Rollout, RolloutSpec
from sdlb.sim import bridge
from sdlb.sim.affected import NEVER
from sdlb.sim.check import Check, check
from sdlb.sim.drivers import DriverSlot, Flaw
from sdlb.sim.host import Host
from sdlb.sim.process import Process
from sdlb.sim.world import World

HEARD_S = 4.0  # from the loss of an instance until its root knows, over all tiers
FORCED_S = 5.0  # from the deadline of a drain to the stop


@check(9)
class CapacityFloor(Check):
    """A slot is granted only if what is truly ready on all other nodes without a slot is at least the floor.

    What was lost by faults counts as ready until the root can know of it. Exceptions are those of the policy: a node that serves
    nothing; one node while all others are well; a gap that the operator accepts.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._slots: dict[tuple[str, str], dict[str, int]] = {}  # (root, service) -> node -> share, as saved
        self._holds: dict[str, dict[str, int]] = {}  # service -> host whose agent holds a slot -> share
        self._checked: dict[
            str, dict[str, None]
        ] = {}  # service -> nodes whose slot was granted, until they give it back
        self._lost: dict[Process, float] = {}  # last seen ready
        self._updated: dict[str, dict[str, None]] = {}  # rollout -> hosts that have finished their step
        self._states: dict[tuple[str, str], str] = {}  # (root, service) -> state of the rollout before this step

    # ------------------------------------------------------------------ what is known

    def ready(self, process: Process) -> bool:
        """Whether it serves, or did until so lately that a root may not know."""
        if process.alive and process.healthy and process.wanted and self.world.is_endpoint(process):
            return True
        shape, world = self.world.shape, self.world
        disturbed = world.affected.disturbed(shape.above(process.host))
        within_s = shape.presumed_after_s(0.0) + 2 * shape.slack_s if disturbed else HEARD_S
        return world.clock.now - self._lost.get(process, NEVER) < within_s

    def every_second(self) -> None:
        now = self.world.clock.now
        for service, processes in self.world.by_service.items():
            if self._holds.get(service) is None:
                continue
            for process in processes.values():
                if process.alive and process.healthy and process.wanted and self.world.is_endpoint(process):
                    self._lost[process] = now

    def capacity(self, service: str, root: str, but: set[str]) -> int:
        """Ready on all nodes below the root but these."""
        world = self.world
        there = [*world.by_service.get(service, {}).values(), *world.ended.get(service, {}).values()]
        mine = [p for p in there if p.host not in but and root in world.shape.above(p.host)]
        return sum(p.spec.capacity for p in mine if self.ready(p))

    def on_retired(self, host: Host, process: Process) -> None:
        self._lost.pop(process, None)  # on purpose
        if host.leaving or self.world.touch.fresh(host.name) or not self.world.is_endpoint(process):
            return
        self.compared()
        service = process.spec.service
        target = bridge.target_of(host.view, service)
        rollout = target.active if target is not None else None
        if rollout is not None and rollout.state == UNDOING and not rollout.before:
            return  # the first rollout of the service is aborted
        share = self._holds.get(service, {}).get(host.name)
        if share == 0:
            self._beside(host, process)
        if share is not None:
            return
        if rollout is None:
            return  # it was away, or its service was withdrawn
        if rollout.state != CUTTING_OVER:
            raise self.broken(f"{host.name} drains {process.name} without a slot; {rollout.id} is {rollout.state}")
        self._cuts_over(host, service, rollout)

    def _beside(self, host: Host, process: Process) -> None:
        """A slot that costs nothing: the new version serves before the old one leaves."""
        others = [p for p in host.processes.values() if p is not process and p.spec.service == process.spec.service]
        if not any(p.alive and p.healthy and p.wanted and self.world.is_endpoint(p) for p in others):
            raise self.broken(
                f"{host.name} drains {process.name} with a slot that takes no capacity away, and has no other program"
            )

    def _cuts_over(self, host: Host, service: str, rollout: Rollout) -> None:
        """The old version goes only if enough of the new one is ready."""
        root = self.world.hosts[rollout.owner]
        new = [p for p in self.world.by_service[service].values() if p.version == rollout.to]
        ready = sum(p.spec.capacity for p in new if p.healthy or self.ready(p))
        floor = self._floor(root, service, rollout)
        if ready < floor and not rollout.spec.accept_gap and not self.world.affected.harmed(root.name, service):
            raise self.broken(
                f"{host.name} cuts over {service} with a capacity of {ready} of {rollout.to}, floor {floor}"
            )

    def _floor(self, root: Host, service: str, rollout: Rollout) -> int:
        policy = self.world.relations.known(root.name, service).policy
        nodes = [h.name for h in self.world.hosts.values() if any(each.service == service for each in h.roles)]
        return policy.opening.floor(rollout.baseline, len(nodes))

    # ------------------------------------------------------------------ slots

    def before_step(self, host: Host, events: list[ev.Event]) -> None:
        if not host.parents:
            for root, service in self._slots:
                if root == host.name:
                    self._states[root, service] = self._state(host, service)

    def _state(self, host: Host, service: str) -> str:
        target = bridge.target_of(host.view, service)
        return target.active.state if target is not None and target.active is not None else ""

    def after_step(self, host: Host, events: list[ev.Event], effects: list[ef.Effect]) -> None:
        asked = bridge.slots_asked(events)
        for effect in effects:
            for service, slots in bridge.saved_slots(effect).items():
                before = self._slots.get((host.name, service), {})
                self._slots[host.name, service] = slots
                known = self._checked.setdefault(service, {})
                for node in slots:
                    new = node not in before and node not in known and node not in self._holds.get(service, ())
                    if new and node in asked:  # else a new owner collects it
                        known[node] = None
                        self._granted(host, service, node, {**self._holds.get(service, {}), **slots})
            for service, share in bridge.saved_holds(effect).items():
                self._agent(host, service, share)
        if host.roles:
            mine = [service for service, hosts in self._holds.items() if host.name in hosts]
            if len(mine) > 1:
                raise self.broken(f"{host.name} is out for several rollouts at a time: {mine}")

    def _agent(self, host: Host, service: str, share: int | None) -> None:
        """An agent has saved whether it holds a slot."""
        there, known = self._holds.setdefault(service, {}), self._checked.setdefault(service, {})
        if share is None:
            if host.name in there:
                del there[host.name]
                known.pop(host.name, None)
            return
        if host.name not in there and host.name not in known:  # its owner has not decided that
            target = bridge.target_of(host.view, service)
            assert target is not None and target.rollout is not None
            self._granted(self.world.hosts[target.rollout.owner], service, host.name, {**there, host.name: share})
        there[host.name] = share

    def _granted(self, root: Host, service: str, node: str, slots: dict[str, int]) -> None:
        """`slots`: of nodes, this one included, and the capacity that leaves with them."""
        target = bridge.target_of(root.view, service)
        rollout = target.rollout if target is not None else None
        assert rollout is not None
        self.compared()
        self.world.coverage.happened["slots granted"] += 1
        self._together(root, service, node, slots)
        states = {rollout.state, self._states.get((root.name, service), rollout.state)}
        if rollout.state == DONE:  # to a node that was away: what counts is the capacity of today
            rollout = replace(rollout, baseline=self.capacity(service, root.name, set()))
        elif not states & {ROLLING, UNDOING}:
            raise self.broken(f"{root.name} grants {node} a slot of {rollout.id}, which is {rollout.state}")
        first = 0 if rollout.promoted else rollout.spec.first
        if ROLLING in states and UNDOING not in states and len(self._updated.get(rollout.id, ())) < first < len(slots):
            raise self.broken(
                f"{root.name} grants {node} a slot before the first {first} nodes of {rollout.id} are verified"
            )
        out = {name for name, share in slots.items() if share}
        left = self.capacity(service, root.name, out)
        share = self.capacity(service, root.name, out - {node}) - left  # 0: it costs nothing, see `_beside`
        floor = self._floor(root, service, rollout)
        if not share or left >= floor:
            return
        whole = out == {node} and left + share >= rollout.baseline
        if whole and (left > 0 or rollout.spec.accept_gap):
            return
        raise self.broken(
            f"{root.name} grants {node} a slot of {rollout.id}: {left} of {rollout.baseline} are left, the floor is {floor}; "
            f"out are {sorted(out)}"
        )

    def _together(self, root: Host, service: str, node: str, slots: dict[str, int]) -> None:
        """All rollouts count together, whoever owns them."""
        if not slots[node]:
            return
        out = {name: service for name, share in slots.items() if share}
        specs: dict[str, RolloutSpec] = {}
        for other in {service, *self._holds, *self._checked}:
            target = bridge.target_of(root.view, other)
            if target is not None and target.rollout is not None:
                specs[other] = target.rollout.spec
            saved = [slots for (_, each), slots in self._slots.items() if each == other]
            granted = {n: s for each in saved for n, s in each.items() if n in self._checked.get(other, ())}
            there = {**granted, **self._holds.get(other, {})}
            out |= {name: other for name, share in there.items() if share and other != service}
        hosts = [host for host in self.world.hosts.values() if host.roles]
        limit = max(
            nodes_out_max(spec.nodes_out_max, len(hosts)) for name, spec in specs.items() if name in out.values()
        )
        if len(out) > limit:
            raise self.broken(f"{root.name} grants {node} a slot of {service}: out are {out}, at most {limit} may be")

    def on_note(self, host: Host, note: ef.Note) -> None:
        if note.code == "node-updated":
            self._updated.setdefault(note.fields.get("rollout", ""), {})[host.name] = None


@check(3)
class StopsLoseNothing(Check):
    """A driver stops a program only when no request can reach it any more, or at the deadline of its drain. It is never asked to
    start a version where another one runs."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._forced: dict[str, float] = {}  # instance -> when its drain was over by force

    def on_note(self, host: Host, note: ef.Note) -> None:
        if note.code == "drain-deadline":
            self._forced[note.fields.get("instance", "")] = self.world.clock.now

    def on_driver(self, host: Host, slot: DriverSlot, effect: ef.RunDriver) -> None:
        self.compared()
        if effect.call == "start":
            if slot.program is not None and slot.version != effect.version:
                raise self.broken(f"{host.name} starts {effect.version} in a slot where {slot.program.name} runs")
            return
        process = slot.program
        if process is None or self.world.clock.now - self._forced.get(process.id, NEVER) < FORCED_S:
            return
        if process.carried:
            raise self.broken(f"{host.name} stops {process.name}, which has {process.carried} requests in flight")
        if self.world.is_endpoint(process) and host.running and not host.lost_engine:
            raise self.broken(f"{host.name} stops {process.name}, to which its engine sends requests")


@check(5)
class OneVersionEverywhere(Check):
    """When faults have stopped and no rollout is in progress, each role runs the version that it shall have, alone and registered, and
    no node holds a slot."""

    def at_end(self) -> None:
        for host in self.world.inside():
            for role in host.roles:
                self._look(host, role.service)

    def _look(self, host: Host, service: str) -> None:
        world = self.world
        targets = {root: bridge.target_of(world.hosts[root].view, service) for root in self._roots(host)}
        target = bridge.target_of(host.view, service)
        self.compared()
        for root, other in targets.items():
            if other != target:
                raise self.broken(f"{host.name} and {root} disagree about the version of {service}: {target} / {other}")
        if target is None or target.rollout is None:
            return
        running = world.drivers.running(service, host.name)
        versions = sorted(slot.version for slot in running)
        agent = next(each for each in host.view.agent() if each["service"] == service)
        if target.active is not None:
            world.coverage.happened[f"rollouts {target.active.state} at the end"] += 1
            known = {target.active.before, target.active.to}
            if target.active.before and (len(set(versions)) < len(versions) or not set(versions) <= known):
                raise self.broken(f"{host.name} runs {versions} during {target.active.id}: {sorted(known)}")
            return
        wanted = target.rollout.before if agent["phase"] == FAILED else target.settled
        if world.drivers.flaw(host.name, wanted) != Flaw():
            return
        if not wanted:
            if versions:
                raise self.broken(f"{host.name} runs {versions} of {service}, which no node shall run: {agent}")
            return
        if versions != [wanted]:
            raise self.broken(f"{host.name} runs {versions} of {service} instead of {wanted}: {agent}")
        process = running[0].program
        if process is not None and not (process.healthy and process.wanted):
            raise self.broken(f"{host.name} has not registered {process.name}, or stops it: {agent}")

    def _roots(self, host: Host) -> list[str]:
        return [name for name in self.world.shape.above(host.name) if not self.world.shape.parents[name]]
