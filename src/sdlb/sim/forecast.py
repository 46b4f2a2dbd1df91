"""Plays a rollout on today's tree before it starts: the real core in virtual time, with nodes that are lost in the middle.

A first run has no loss and finds the moments at which one would be worst: the first nodes are out, the least capacity is ready, the
cut-over begins. Each further run loses the nodes at one of them. Nodes stay lost. Gates count as open, and programs start as quickly as
in the simulator: durations are estimates, capacity and states are what the core decides.

Of a large tree a smaller one is played, with the same proportions and hosts that stand for several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Final

from msgspec import Struct, field

from sdlb.core.events import RolloutOrder
from sdlb.model.rollout import CUTTING_OVER, DONE, HALTED, PAUSED, RolloutSpec
from sdlb.sim.stage import Stage
from sdlb.sim.topology import Shape
from sdlb.sim.world import World

HOSTS_MAX: Final = 16
"""Hosts that are played."""
MOMENTS_MAX: Final = 3
LOOK_S: Final = 0.5
STALLED_S: Final = 180.0
"""Without progress for this time beyond what its steps take, a rollout holds."""
END_S: Final = 4 * 3600.0
FINISHES, HOLDS, HALTS = "finishes", "holds", "halts"
RANK: Final = {FINISHES: 0, HOLDS: 1, HALTS: 2}


class Group(Struct, frozen=True):
    """Hosts below the same nodes; `parents` empty: below the roots. `hosts`: names of some of them. `zones`: zone -> its hosts; which
    of several zones a host is in is not known, and they are played in their order."""

    parents: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    nodes: int = 1
    capacity: int = 100
    zones: Mapping[str, int] = field(default_factory=dict[str, int])

    def zone(self, place: int, count: int) -> str:
        """That of host number `place` of `count` that are played."""
        at, end = (place + 0.5) / count * sum(self.zones.values()), 0
        for name, nodes in sorted(self.zones.items()):
            end += nodes
            if at < end:
                return name
        return ""


class Tree(Struct, frozen=True):
    """`root`: the one that owns the rollout. `policies`: documents that apply to the service, the most general first."""

    root: str
    roots: tuple[str, ...]
    groups: tuple[Group, ...]
    routes: tuple[str, ...]
    service: str
    before: str
    to: str
    spec: RolloutSpec = RolloutSpec()
    side_by_side: bool = True
    policies: Mapping[str, Mapping[str, object]] = field(default_factory=dict[str, Mapping[str, object]])
    beat_s: float = 2.0
    lease_s: float = 10.0
    fence_s: float = 10.0

    @property
    def known(self) -> list[str]:
        """Nodes that can be lost."""
        return sorted({name for group in self.groups for name in (*group.parents, *group.hosts)})

    @property
    def nodes(self) -> int:
        return sum(group.nodes for group in self.groups)


class Forecast(Struct, frozen=True):
    """What would happen. `lost`: nodes that are lost `at` a moment. `result`: FINISHES, HOLDS or HALTS, `why`. `lowest`: ready capacity
    outside a gap. `took_s`, `gap_s`: from the start to the end, and the longest time without a version. `stuck`: nodes without the new
    version at the end. `played`: hosts in the simulation."""

    lost: tuple[str, ...]
    at: str
    at_s: float
    result: str
    why: str
    lowest: int
    baseline: int
    floor: int
    took_s: float
    gap_s: float
    stuck: tuple[str, ...]
    played: int
    moments: tuple[tuple[str, float], ...] = ()


def forecasts(tree: Tree, lose: Sequence[str] = ()) -> list[Forecast]:
    """Without a loss, and with these nodes lost at each of the worst moments. Raises ValueError: it cannot be played, and why."""
    unknown = [name for name in lose if name not in tree.known]
    if unknown:
        known = ", ".join(tree.known[:20]) or "none"
        raise ValueError(
            f"{tree.root} knows no node {', '.join(unknown)} that runs {tree.service} or is above it; it knows {known}"
        )
    if not tree.before or not tree.groups:
        raise ValueError(
            f"no node runs a version of {tree.service} that a rollout replaces, so there is nothing to play"
        )
    whole = _play(tree, (), "", 0.0)
    return [whole, *(_play(tree, tuple(lose), what, at_s) for what, at_s in whole.moments if lose)]


def worst(found: Sequence[Forecast]) -> Forecast:
    return max(found, key=lambda each: (RANK[each.result], -each.lowest, each.gap_s, each.took_s))


# ---------------------------------------------------------------------- the tree that is played


class _Small(Struct, frozen=True):
    parents: dict[str, tuple[str, ...]]
    capacity: dict[str, int]
    zones: dict[str, str]
    routes: tuple[str, ...]


def _small(tree: Tree, lose: Sequence[str]) -> _Small:
    parents: dict[str, tuple[str, ...]] = dict.fromkeys(tree.roots, ())
    capacity: dict[str, int] = {}
    zones: dict[str, str] = {}
    for group in tree.groups:
        parents.update(dict.fromkeys(group.parents, tree.roots))
    for number, group in enumerate(tree.groups):
        count = min(group.nodes, max(1, HOSTS_MAX * group.nodes // max(HOSTS_MAX, tree.nodes)))
        named = sorted(group.hosts, key=lambda name: name not in lose)[:count]
        label = group.parents[0] if group.parents else f"group-{number + 1}"
        names = sorted([*named, *(f"{label[:48]}.{n}" for n in range(len(named) + 1, count + 1))])
        for place, name in enumerate(names):
            share = group.capacity * (place + 1) // count - group.capacity * place // count
            if name in tree.roots:
                name = _beside(name)
            parents[name], capacity[name] = group.parents or tree.roots, max(1, share)
            zones[name] = group.zone(place, count)
    return _Small(parents, capacity, zones, tree.routes or ("*/*",))


def _beside(root: str) -> str:
    """The host that is played for the programs on the machine of a root."""
    return f"{root[:48]}.host"


# ---------------------------------------------------------------------- one run


def _play(tree: Tree, lose: tuple[str, ...], moment: str, at_s: float) -> Forecast:
    small = _small(tree, lose)
    timing = {"beat_s": tree.beat_s, "lease_s": tree.lease_s, "fence_s": tree.fence_s}
    world = World(Shape(small.parents, **timing), Random(f"{tree.service} {tree.before} {tree.to}"))
    world.watch(())
    stage = Stage(world, Random(1))
    for name, share in small.capacity.items():
        stage.roles(name, service=tree.service, route=small.routes[0], capacity=share, side_by_side=tree.side_by_side)
        stage[name].zone = small.zones[name]
    for host in list(world.hosts.values()):
        host.start()
    world.clock.after(1.0, world.every_second)
    _deploy(stage, tree)
    return _Run(stage, tree, lose, moment, at_s, len(small.capacity)).play()


def _deploy(stage: Stage, tree: Tree) -> None:
    """The old version runs on all hosts."""
    stage.run(2 * tree.beat_s)
    free: dict[str, object] = {"max_unavailable": "100%"}
    for root in stage.roots():
        stage.acts.policy(root, tree.service, free)
    stage.release(tree.before, tree.to, service=tree.service)
    quick: dict[str, Any] = {"soak_s": 0.0, "first": 1000, "accept_gap": True, "nodes_out_max": "100%"}
    stage.run(tree.lease_s + 3 * tree.beat_s)
    why = stage.roll(tree.before, tree.root, service=tree.service, **quick)
    if why:
        raise ValueError(f"{tree.service}-{tree.before} cannot be played: {why}")
    stage.rolls(DONE, 600.0, tree.root, tree.service)
    stage.acts.policy(tree.root, tree.service, {})
    for root in stage.roots():
        for name, document in tree.policies.items():
            stage.acts.policy(root, name, {key: value for key, value in document.items() if key != "gate"})
    stage.run(tree.lease_s + 5 * tree.beat_s)


class _Run:
    def __init__(self, stage: Stage, tree: Tree, lose: tuple[str, ...], moment: str, at_s: float, played: int) -> None:
        self._stage = stage
        self._tree = tree
        self._lose = lose
        self._at = moment
        self._at_s = at_s
        self._is_lost = not lose
        self._played = played
        self._lowest = self._baseline = self._capacity()
        self._moments: dict[str, float] = {}
        self._empty_since: float | None = None

    def play(self) -> Forecast:
        stage, tree = self._stage, self._tree
        order = RolloutOrder(tree.service, "start", "operator-a", tree.to, tree.spec)
        why = stage.acts.rollout(tree.root, order)
        if why:
            raise ValueError(f"the rollout of {tree.to} cannot start: {why}")
        began = moved = stage.now
        spec, last = tree.spec, ""
        patience_s = (
            STALLED_S + 2 * (spec.soak_s + spec.drain_s) + max((step.for_s for step in spec.step), default=0.0) * 3
        )
        while True:
            stage.run(LOOK_S)
            spent = stage.now - began
            if not self._is_lost and spent >= self._at_s:
                self._is_lost = True
                self._power_off()
            now = stage.rollout(tree.root, tree.service)
            self._look(now, spent)
            step = repr((now["state"], now["nodes"], now.get("step", {}).get("number")))
            moved, last = (stage.now, step) if step != last else (moved, last)
            ended = now["state"] in (DONE, HALTED, PAUSED) and self._empty_since is None
            if ended or stage.now - moved > patience_s or spent > END_S:
                return self._forecast(now, (stage.now if ended else moved) - began)

    def _power_off(self) -> None:
        for name in self._lose:
            for each in (name, _beside(name)) if name in self._tree.roots else (name,):
                if (host := self._stage.world.hosts.get(each)) is not None:
                    self._stage.acts.power_off(host)

    def _look(self, now: Mapping[str, Any], spent: float) -> None:
        capacity = self._capacity()
        if not capacity and (now["state"] in (CUTTING_OVER, DONE) or self._tree.spec.accept_gap):
            self._empty_since = self._stage.now if self._empty_since is None else self._empty_since
            return
        self._empty_since = None
        if now["slots"]:
            self._moments.setdefault("while the first nodes are out", spent)
        if now["nodes"]["done"] * 2 >= now["nodes"]["all"] and now["slots"]:
            self._moments.setdefault("when half of the nodes are done", spent)
        if now["state"] == CUTTING_OVER:  # what is missing then is the gap
            self._moments.setdefault("when the cut-over begins", spent)
        elif capacity < self._lowest:
            self._moments["at the lowest capacity"] = spent
            self._lowest = capacity

    def _capacity(self) -> int:
        """Of the versions that serve, as the root's engine has it."""
        found = self._stage[self._tree.root].view.service(self._tree.service)
        versions: list[dict[str, Any]] = found["versions"] if found is not None else []
        return sum(int(each["capacity"]) for each in versions if each["state"] == "active")

    def _forecast(self, now: Mapping[str, Any], took_s: float) -> Forecast:
        state, stage, tree = now["state"], self._stage, self._tree
        result = FINISHES if state == DONE else HALTS if state in (HALTED, PAUSED) else HOLDS
        slots = ", ".join(str(slot["node"]) for slot in now["slots"])
        reasons = (
            now["detail"],
            next(iter(now["failed"].values()), ""),
            f"{slots} has a slot" if slots else now["next"],
        )
        why = "" if state == DONE else next((str(each) for each in reasons if each), "")
        stuck = [host.name for host in stage.world.hosts.values() if host.roles and not self._has(host.name)]
        records = stage[tree.root].view.record(tree.service)
        gaps = [each["gap_ms"] / 1000 for each in records[0]["entries"] if each["kind"] == "opened"] if records else []
        gaps += [stage.now - self._empty_since] if self._empty_since is not None else []
        moments = sorted(self._moments.items(), key=lambda each: each[1])
        return Forecast(
            self._lose,
            self._at,
            self._at_s,
            result,
            why,
            self._lowest,
            self._baseline,
            int(now["capacity"]["floor"]),
            round(took_s, 1),
            round(max(gaps, default=0.0), 2),
            tuple(stuck),
            self._played,
            tuple(moments[:MOMENTS_MAX]),
        )

    def _has(self, name: str) -> bool:
        host = self._stage[name]
        return host.powered and self._tree.to in self._stage.runs(name, self._tree.service)
