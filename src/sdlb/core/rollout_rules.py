"""The rules of a rollout's owner as pure functions: when a node gets a slot, and when the rollout takes its next step.

The capacity rule (promise 9): after each grant, the capacity that is ready, less what was promised to nodes that still serve, is at
least the floor. Three exceptions: a node that serves nothing costs nothing; one node may always be out while nothing else is; and a
sole instance, or the last step of an incompatible version that cannot run beside the old one, if the operator accepts the gap.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from sdlb.core import canary_steps as canaries
from sdlb.core import zone_order
from sdlb.core.canary_analysis import AnalysisState
from sdlb.core.canary_steps import Canary
from sdlb.model.rollout import (
    CURRENT,
    CUTTING_OVER,
    DONE,
    HALTED,
    HOLDING,
    PAUSED,
    PREPARED,
    PREPARING,
    QUEUED,
    READY,
    ROLLING,
    UNDOING,
    UNDONE,
    UPDATED,
    RoleReport,
    Rollout,
)

CHUNK_MIN = 8
"""Nodes by which the cursor moves at least: small trees need one document only."""
MOVES_MAX = 16
"""Each move of the cursor costs every node of the tree one message."""


class Held(Struct, frozen=True):
    """A slot. `share`: capacity that its node had when it asked. `since`: Unix time."""

    share: int = 0
    since: float = 0.0


class Owned(Struct, frozen=True):
    """What only the owner of a rollout knows. `slots`: by node. `failed`: node -> what failed. `taken`, `updated`: slots that were
    granted, and given back with success. `analysis`: what the analysis of a canary has found so far. `served`: the new version of a
    canary has had capacity since the rollout began or was resumed."""

    rollout: str = ""
    slots: Mapping[str, Held] = field(default_factory=dict[str, Held])
    failed: Mapping[str, str] = field(default_factory=dict[str, str])
    taken: int = 0
    updated: int = 0
    analysis: AnalysisState | None = None
    served: bool = False


class Capacity(Struct, frozen=True):
    """`promised`: capacity that is still counted in `ready`, of nodes that have a slot and will leave."""

    baseline: int
    floor: int
    ready: int
    promised: int

    @property
    def left(self) -> int:
        return self.ready - self.promised


class HeldBack(Struct, frozen=True):
    """A node was refused a slot while none was out: its `share`, and `why`. `short`: for want of capacity. Nothing: none was."""

    share: int = 0
    why: str = ""
    short: bool = False


class Conditions(Struct, frozen=True):
    """`learning`: some nodes may not have reported yet. `best`: the best ready capacity of the last minutes. `objection`: why the
    old version must not be stopped yet (gates, policy); "": it may. `flips`: the policy replaces versions by a flip. `active`: the
    new version is active. `reverted`: why its flip was reverted. `held`: a node was refused for want of capacity while none was
    out. `asking`: nodes that wait for a slot. `turn`: what has to happen before the first node is touched; "": nothing. `begun`: another
    part of the joint rollout has begun, so that nothing but its turn is waited for. `turn_s`: Unix time since when it is its turn; 0: since
    it started. `after`: the gate after the cut-over that is not open yet; "": none."""

    wall_s: float
    floor: int
    learning: bool = False
    best: int = 0
    objection: str = ""
    flips: bool = False
    active: bool = False
    reverted: str = ""
    held: bool = False
    asking: int = 0
    canary: Canary = Canary()
    turn: str = ""
    begun: bool = False
    turn_s: float = 0.0
    after: str = ""


# ---------------------------------------------------------------------- slots


def capacity_of(rollout: Rollout, owned: Owned, report: RoleReport, floor: int) -> Capacity:
    """`floor`: of the baseline of the rollout."""
    gone = {slot.node for slot in report.slots}
    promised = sum(held.share for node, held in owned.slots.items() if node not in gone)
    return Capacity(rollout.baseline, floor, report.ready, promised)


def slot_objection(
    rollout: Rollout,
    owned: Owned,
    now: Capacity,
    share: int,
    *,
    limit: str,
    out: int,
    nodes: int,
    learning: bool,
) -> str:
    """Why a node gets no slot now; "": it gets one. `limit`: why the current step of a canary takes no more nodes.
    `out`: nodes that are out for all rollouts. `nodes`: of the tree."""
    spec = rollout.spec
    if rollout.state not in (ROLLING, UNDOING, DONE):  # when it is done, nodes that were away ask
        return f"the rollout is {rollout.state}"
    if learning:
        return "the root does not know yet what all nodes do"
    if rollout.state == ROLLING and _first_open(rollout, owned) and len(owned.slots) >= spec.first:
        return f"the first {spec.first} nodes are updated alone"
    if rollout.state == ROLLING and limit:
        return limit
    if share and out >= nodes_out_max(spec.nodes_out_max, nodes):
        return f"{out} nodes are out already (nodes_out_max {spec.nodes_out_max})"
    return capacity_objection(now, share, alone=not owned.slots, accept_gap=spec.accept_gap)


def _first_open(rollout: Rollout, owned: Owned) -> bool:
    """Whether the first nodes are not updated yet, and others wait for them."""
    return not rollout.promoted and owned.updated < rollout.spec.first


def capacity_objection(now: Capacity, share: int, *, alone: bool, accept_gap: bool) -> str:
    """`alone`: no other node has a slot."""
    left = now.left - share
    if not share or left >= now.floor:
        return ""
    whole = alone and now.left >= now.baseline
    if whole and (left > 0 or accept_gap):
        return ""
    return f"a capacity of {max(0, left)} would be left of {now.baseline}, and the floor is {now.floor}"


def missing_capacity(now: Capacity, share: int) -> int:
    """What has to become ready before a node with this share gets a slot, while no other has one. 0: capacity is no obstacle."""
    return max(0, min(now.floor + share, now.baseline) - now.left) if share else 0


def nodes_out_max(text: str, nodes: int) -> int:
    """At least one."""
    return max(1, int(nodes * float(text[:-1]) / 100) if text.endswith("%") else int(text))


def next_slot_s(owned: Owned, took_s: float, before: int, wall_s: float) -> float:
    """Time in which a node need not ask again, because no slot can become free for it unless a node fails. `took_s`: how long a node has
    a slot at least; `before`: nodes that wait longer. 0: no slot is open."""
    first = min((held.since + took_s - wall_s for held in owned.slots.values()), default=0.0)
    rounds = before // max(1, len(owned.slots)) if owned.slots else 0
    return max(0.0, first) + rounds * took_s


def granted(owned: Owned, node: str, share: int, wall_s: float) -> Owned:
    if node in owned.slots:
        return owned
    return replace(owned, slots={**owned.slots, node: Held(share, wall_s)}, taken=owned.taken + 1)


def given_back(owned: Owned, node: str, failed: str | None, *, updated: bool = True) -> Owned:
    """`failed`: why the node went back to the old version. None: it did not fail. `updated`: then it has the new version."""
    slots = {name: held for name, held in owned.slots.items() if name != node}
    if failed is not None:
        return replace(owned, slots=slots, failed={**owned.failed, node: failed})
    return replace(owned, slots=slots, updated=owned.updated + (updated and node in owned.slots))


# ---------------------------------------------------------------------- steps


def advance(rollout: Rollout, owned: Owned, report: RoleReport, c: Conditions) -> Rollout:
    """The rollout after its next step, or as it is."""
    found = replace(rollout, nodes=report.nodes) if report.nodes and not c.learning else rollout
    match rollout.state:
        case "preparing":
            return _prepare(found, report, c)
        case "rolling":
            return _roll(found, owned, report, c)
        case "cutting-over":
            return _to(found, DONE, c) if _is_done(found, owned, report, c) else replace(found, detail=c.after)
        case "undoing":
            left = report.nodes - report.count(rollout.id, CURRENT) - report.failures(rollout)
            if not c.learning and not owned.slots and (left <= 0 or not owned.taken):
                return _to(found, UNDONE, c)
            return _moved(found, owned, report, c)
        case _:
            return found


def _to(rollout: Rollout, state: str, c: Conditions, detail: str = "") -> Rollout:
    ended = c.wall_s if state in (DONE, UNDONE) else 0.0
    return replace(rollout, state=state, detail=detail, ended_s=ended)


def _prepare(rollout: Rollout, report: RoleReport, c: Conditions) -> Rollout:
    failed = report.failures(rollout)
    if c.turn and c.begun:
        return replace(rollout, detail=c.turn)
    if failed:
        return _to(rollout, HALTED, c, _first(report.failed) or f"{failed} nodes cannot prepare {rollout.to}")
    if c.learning or not report.nodes:
        return replace(rollout, detail="waiting for the reports of all nodes")
    ready = prepared(rollout, report)
    if ready < report.nodes:
        if c.wall_s - max(rollout.started_s, rollout.tried_s, c.turn_s) > rollout.spec.progress_s:
            detail = f"only {ready} of {report.nodes} nodes have fetched {rollout.to} in {rollout.spec.progress_s:g} s"
            return _to(rollout, HALTED, c, detail)
        return replace(rollout, detail=f"{ready} of {report.nodes} nodes have fetched {rollout.to}")
    if c.turn:
        return replace(rollout, detail=c.turn)
    start = replace(rollout, baseline=max(c.best, report.ready), zones=zone_order.zones_of(report))
    cursor = zone_order.limited(start, report, _chunk(rollout.spec.first, report.nodes))
    return _to(replace(start, cursor=cursor), ROLLING, c)


def prepared(rollout: Rollout, report: RoleReport) -> int:
    """Nodes that have fetched the new version."""
    return report.count(rollout.id, PREPARED, QUEUED, READY, UPDATED, *HOLDING)


def _roll(rollout: Rollout, owned: Owned, report: RoleReport, c: Conditions) -> Rollout:
    if len(owned.failed) > rollout.spec.failures_max:
        return _to(rollout, HALTED, c, _first(owned.failed))
    if canaries.current(rollout) is not None and not c.learning:
        done = canaries.updated(owned.updated, rollout, report)
        stepped = canaries.stepped(rollout, len(owned.slots), done, report, c.canary, c.wall_s)
        if stepped != rollout:
            return stepped
        if canaries.limit_objection(rollout, done + len(owned.slots), report.nodes):
            return rollout
    if canaries.current(rollout) is None and _is_done(rollout, owned, report, c):
        return _to(rollout, DONE, c)
    if rollout.incompatible and c.reverted:
        return _to(rollout, PAUSED, c, c.reverted)
    if rollout.incompatible and c.active:
        return _cut_over(rollout, owned, report, c)
    if rollout.incompatible and not c.flips and not c.learning and not owned.slots:
        whole = report.count(rollout.id, READY, UPDATED) + report.failures(rollout) >= report.nodes
        enough = report.waiting.get(rollout.to, 0) >= c.floor
        only_failed = owned.failed and not _has_ready(rollout, owned, report)
        if (whole and enough) or (c.held and rollout.spec.accept_gap and not only_failed):
            return replace(rollout, detail=c.objection) if c.objection else _cut_over(rollout, owned, report, c)
        if whole:
            return replace(
                rollout,
                detail=f"a capacity of {report.waiting.get(rollout.to, 0)} of {rollout.to} is ready, "
                f"and the floor is {c.floor}",
            )
    return _moved(replace(rollout, detail=c.after), owned, report, c)


def _cut_over(rollout: Rollout, owned: Owned, report: RoleReport, c: Conditions) -> Rollout:
    return replace(_to(rollout, CUTTING_OVER, c), one_way=_has_ready(rollout, owned, report))


def _has_ready(rollout: Rollout, owned: Owned, report: RoleReport) -> bool:
    """Whether a node is known to be ready with the new version, perhaps from its slot alone."""
    return owned.updated > 0 or report.count(rollout.id, READY, UPDATED) > 0


def _is_done(rollout: Rollout, owned: Owned, report: RoleReport, c: Conditions) -> bool:
    updated = report.count(rollout.id, UPDATED)
    return bool(
        updated
        and not c.after
        and not c.learning
        and not owned.slots
        and updated + report.failures(rollout) >= report.nodes
    )


def _moved(rollout: Rollout, owned: Owned, report: RoleReport, c: Conditions) -> Rollout:
    """More nodes may ask, if too few do."""
    parallel = max(1, len(owned.slots))
    first_open = _first_open(rollout, owned) and not zone_order.at_end(rollout, report)
    enough = first_open or c.asking >= parallel
    undoes = rollout.state == UNDOING
    if rollout.cursor >= 1 or (enough and not undoes):
        return rollout
    if rollout.zones and c.learning:
        return rollout  # a node that has not reported may be left in an earlier zone
    wanted = 1.0 if undoes else min(1.0, rollout.cursor + _chunk(3 * parallel, rollout.nodes))
    return replace(rollout, cursor=max(rollout.cursor, zone_order.limited(rollout, report, wanted)))


def _chunk(wanted: int, nodes: int) -> float:
    return min(1.0, max(wanted, CHUNK_MIN, nodes / MOVES_MAX) / max(1, nodes))


def _first(failed: Mapping[str, str]) -> str:
    return next((f"{node}: {text}" for node, text in sorted(failed.items())), "")


def can_wait(before: Rollout, after: Rollout) -> bool:
    """Whether a step may wait for the heartbeat of the root: it stops nothing, leaves all shares as they are, and ends no cut-over."""
    names = ("state", "cursor", "baseline", "zones", "nodes", "detail", "ended_s", "turn_s")
    rest = replace(after, **{name: getattr(before, name) for name in names})
    unhurried = rest == before and after.state in (before.state, ROLLING, DONE, UNDONE)
    return unhurried and before.state != CUTTING_OVER


def is_waiting(rollout: Rollout) -> bool:
    """Whether time alone may change its state."""
    return rollout.state in (PREPARING, ROLLING, CUTTING_OVER, UNDOING)
