"""Promise 2 for gates and flips: what opens has passed its gates, no client goes back, and a migration runs alone."""

from __future__ import annotations

from sdlb.core import effects as ef
from sdlb.core.messages import ClaimKey
from sdlb.model.gate import Approval, Gate, Hook, MinReady, Soak
from sdlb.model.policy import Policy
from sdlb.sim.check import Check, check
from sdlb.sim.hooks import Program
from sdlb.sim.host import Host
from sdlb.sim.process import Process
from sdlb.sim.world import World

Group = tuple[int, str]
"""A tree and a service."""
LAG_S = 3.0  # from a condition to what follows from it, over all tiers


class OpeningsCheck(Check):
    """What the checks here have in common: services by tree, and the versions that were active in their generation."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.era: dict[Group, dict[str, None]] = {}
        self.vague: set[Group] = set()  # services whose era is not known for certain

    def group_of(self, host: str, service: str) -> Group:
        return self.world.shape.tree_of(host), service

    def roots_of(self, host: str) -> list[str]:
        return [root for root in self.world.touch.roots_in_touch(host) if self.world.hosts[root].balancer is not None]

    def disturbed(self, host: str, service: str) -> bool:
        """Whether the roots above may have forgotten, or may disagree about, what was active."""
        world = self.world
        if world.affected.is_split(service) or host in world.outside:
            return True
        above = world.shape.above(host)
        return any(map(world.touch.fresh, above)) or world.touch.rejoined(host)

    def fits(self, roots: list[str], service: str, version: str, others: list[str]) -> bool | None:
        """Whether the version is compatible with all others for every root. None: unsettled."""
        found = [self.world.relations.compatible(root, service, version, other) for root in roots for other in others]
        return False if False in found else None if None in found else True

    def opened(self, group: Group, version: str, fits: bool | None) -> None:
        if fits is False:
            self.era[group] = {}
            self.vague.discard(group)
        elif fits is None:  # the rules have just changed: a root may have begun a generation
            self.vague.add(group)
        self.era.setdefault(group, {})[version] = None


@check(2)
class GatesHold(OpeningsCheck):
    """A version opens only when its gates are open, unless it was active in this generation.

    Exempt are trees that were split or have forgotten, policies that have just changed, and promotions without gates.
    """

    def on_open(self, host: Host, key: ClaimKey, process: Process) -> None:
        world, group = self.world, self.group_of(host.name, key.service)
        era = self.era.setdefault(group, {})
        roots = self.roots_of(host.name)
        others = [version for version in era if version != key.version]
        fits = self.fits(roots, key.service, key.version, others)
        known = fits is not None and group not in self.vague
        if key.version not in era and roots and known and not self.disturbed(host.name, key.service):
            for root in roots:
                if world.relations.settled_opening(root, key.service):
                    self._passed(root, key, world.relations.known(root, key.service).policy, incompatible=not fits)
        self.opened(group, key.version, fits)

    def _passed(self, root: str, key: ClaimKey, policy: Policy, *, incompatible: bool) -> None:
        opening = policy.opening
        self.compared()
        if (
            opening.held(key.version, returns=False)
            or opening.pinned_out(key.version)
            or opening.below_floor(key.version, policy.compatibility.scheme)
        ):
            raise self.broken(f"{' '.join(key)} opens although the policy at {root} keeps it out: {opening}")
        if self.world.orders.promoted.get((key.service, key.version)):
            return
        for gate in policy.gates:
            if (gate.applies == "every" or incompatible) and not self._open(key, gate):
                raise self.broken(f"{' '.join(key)} opens although gate {gate.name} at {root} is not open")

    def _open(self, key: ClaimKey, gate: Gate) -> bool:
        world, now = self.world, self.world.clock.now
        live = world.by_service.get(key.service, {}).values()
        there = [p for p in (*live, *world.ended.get(key.service, {}).values()) if p.version == key.version]
        there = [p for p in there if p.ended > now - LAG_S]
        match gate:
            case Approval():
                by = world.orders.approvals.get((key.service, key.version, gate.name), set())
                return len(by & set(gate.by)) >= gate.count
            case Hook():
                return world.hooks.yes(key.service, key.version, gate.name)
            case MinReady():
                return len(there) >= gate.instances
            case Soak():
                return any(now - p.since >= gate.healthy_s - 0.01 for p in there)
            case _:
                return True


@check(2)
class NobodyGoesBack(OpeningsCheck):
    """With `cut_over = "flip"`, no request is sent to a version that was replaced while its successor can serve, unless an
    operator has set a policy or promoted a version since. Over all entries of a tree, by the time of the choice."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._now: dict[Group, str] = {}
        self._replaced: dict[Group, dict[str, float]] = {}

    def on_pick(self, host: Host, key: ClaimKey) -> None:
        group, world = self.group_of(host.name, key.service), self.world
        last = self._now.get(group)
        if last == key.version:
            return
        self._now[group] = key.version
        roots = self.roots_of(host.name)
        if last is None or self.fits(roots, key.service, key.version, [last]) is not False:
            return
        replaced = self._replaced.setdefault(group, {})
        when = replaced.pop(key.version, None)
        replaced[last] = world.clock.now
        if when is None or world.orders.since(key.service, when) or self.disturbed(host.name, key.service):
            return
        if not all(world.relations.flips(root, key.service) for root in roots):
            return
        self.compared()
        for other in world.by_service.get(key.service, {}).values():
            if other.version == last and self._could(other, host):
                raise self.broken(
                    f"{host.name} sends requests to {key.version} of {key.service}, which {last} had replaced and "
                    f"{other.name} on {other.host} serves"
                )

    def _could(self, process: Process, entry: Host) -> bool:
        world = self.world
        steady = process.since < world.clock.now - LAG_S
        well = process.alive and process.wanted and process.healthy and process.renewing and not process.rejected
        above = world.shape.above(process.host)
        return well and steady and entry.name in above and not world.affected.disturbed(above)


@check(2)
class HooksRunAlone(OpeningsCheck):
    """A hook never runs twice at a time in a tree, nor again in a generation in which it answered yes. While one in the gap runs, no
    version of its service serves.

    Exempt is what follows a reverted cut-over or an order of an operator, and a root that was lost to the others.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._void_at: dict[Group, float] = {}  # when a cut-over was reverted, or a version opened

    def on_note(self, host: Host, note: ef.Note) -> None:
        if note.code in ("cutover-reverted", "gate-timeout"):
            self._void_at[self.group_of(host.name, note.fields.get("service", ""))] = self.world.clock.now

    def on_open(self, host: Host, key: ClaimKey, process: Process) -> None:
        group, roots = self.group_of(host.name, key.service), self.roots_of(host.name)
        others = [version for version in self.era.get(group, {}) if version != key.version]
        fits = self.fits(roots, key.service, key.version, others)
        if key.version not in self.era.get(group, {}):
            self._void_at[group] = self.world.clock.now
        self.opened(group, key.version, fits)
        for program in self.world.hooks.running(key.service):
            if self._in_gap(program) and self._counts(program, host.name, group):
                self.compared()
                raise self.broken(f"{process.name} on {host.name} opens while the hook {program.effect.key} runs")

    def on_hook(self, host: Host, program: Program) -> None:
        service = program.effect.service
        group = self.group_of(host.name, service)
        for other in self.world.hooks.programs:
            if other.gate != program.gate or self.group_of(other.host, service) != group:
                continue
            self.compared()
            if other.running and self._counts(other, host.name, group):
                raise self.broken(f"{host.name} calls the hook {program.effect.key} while {other.effect.key} runs")
            again = other.outcome == "yes" and other.told < 1e9 and self._counts(other, host.name, group)
            if again and not self._was_gone(program, other.told):
                raise self.broken(f"{host.name} calls the hook {program.effect.key}, which had answered yes")
        for process in list(self.world.by_service.get(service, {}).values()) if self._in_gap(program) else ():
            here = self.group_of(process.host, service) == group and self.world.is_endpoint(process)
            if here and self.world.touch.accountable(host.name, process.host) is not None:
                self.compared()
                raise self.broken(f"{host.name} calls the hook {program.effect.key} while {process.name} serves")

    def _in_gap(self, program: Program) -> bool:
        return program.effect.hook.at == "gap" and bool(program.effect.replaces)

    def _counts(self, program: Program, host: str, group: Group) -> bool:
        """Whether the root that called the program was in touch with this node, and nothing has voided the call."""
        world = self.world
        if self._void_at.get(group, -1e9) >= program.since or world.orders.since(group[1], program.since):
            return False
        if program.host != host and program.host not in self.roots_of(host):
            return self._siblings(program.host, host)
        return not self.disturbed(host, group[1]) and not world.touch.fresh(program.host)

    def _siblings(self, a: str, b: str) -> bool:
        """Whether two roots have been in touch through all nodes below them."""
        world = self.world
        if world.shape.parents[a] or world.shape.parents[b]:
            return False
        below = world.shape.below(a) | world.shape.below(b)
        return not world.affected.disturbed(below)

    def _was_gone(self, program: Program, since: float) -> bool:
        """Whether the version had no live instance meanwhile."""
        live = self.world.by_service.get(program.effect.service, {}).values()
        return not any(p.version == program.effect.version and p.since < since for p in live)
