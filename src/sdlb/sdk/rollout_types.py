"""What the local API answers about releases, rollouts and roles, as typed values (as `sdlb.sdk.types`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import field

from sdlb.model.record import broken
from sdlb.sdk.types import Disagreement, Value


class Artifact(Value, frozen=True):
    """`platform`: "linux-x86_64" and the like, or "any"."""

    platform: str = ""
    url: str = ""
    sha256: str = ""
    signature: str = ""


class Release(Value, frozen=True):
    """`withdrawn`: no rollout to it can start."""

    name: str = ""
    service: str = ""
    version: str = ""
    withdrawn: bool = False
    requires: tuple[str, ...] = ()
    artifacts: tuple[Artifact, ...] = ()


class Releases(Value, frozen=True):
    roots: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()
    disagree: tuple[Disagreement, ...] = ()
    releases: tuple[Release, ...] = ()


class ReleaseChanged(Value, frozen=True):
    """`changed` False: it was known as it is. `by`: the recorded name."""

    roots: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()
    changed: bool = False
    by: str = ""
    release: Release = Release()


class StepSettings(Value, frozen=True):
    nodes: str = ""
    share: float = 0.0
    for_s: float = 0.0


class QuerySettings(Value, frozen=True):
    name: str = ""
    source: str = ""
    bad: str = ""
    total: str = ""
    value: str = ""
    max_value: float | None = None
    min_value: float | None = None


class AnalysisSettings(Value, frozen=True):
    tolerate: float = 0.0
    alpha: float = 0.0
    requests_min: int = 0
    warm_up_s: float = 0.0
    queries: tuple[QuerySettings, ...] = ()
    hook: str = ""
    hook_each: str = "step"


class RolloutSettings(Value, frozen=True):
    side_by_side: str = ""
    first: int = 0
    soak_s: float = 0.0
    failures_max: int = 0
    progress_s: float = 0.0
    nodes_out_max: str = ""
    drain_s: float = 0.0
    drain_by_policy: bool = False
    accept_gap: bool = False
    step: tuple[StepSettings, ...] = ()
    analysis: AnalysisSettings | None = None


class RolloutNodes(Value, frozen=True):
    """Numbers of nodes. `out`: they hold a slot; `ready`: the new version is healthy and waits for the cut-over; `waiting`: all that are
    neither done nor failed nor out."""

    all: int = 0
    done: int = 0
    out: int = 0
    queued: int = 0
    ready: int = 0
    failed: int = 0
    prepared: int = 0
    waiting: int = 0


class RolloutCapacity(Value, frozen=True):
    ready: int = 0
    baseline: int = 0
    floor: int = 0


class RolloutStep(Value, frozen=True):
    """The step of a canary. `number` 0: there are no steps, or they are over. `since`: Unix time since when its nodes have the new
    version; 0: not all have it yet. `left_s`: of its time. `share`: percentage of new requests; None: the policy decides."""

    number: int = 0
    of: int = 0
    nodes: str = ""
    for_s: float = 0.0
    since: float = 0.0
    left_s: float = 0.0
    share: float | None = None


class MetricAnalysis(Value, frozen=True):
    """A metric fails when `evidence` reaches `limit`. Rates are parts of 1. `detectable`: ratio of rates that the step would have found in
    nine of ten cases; None: none."""

    evidence: float = 0.0
    limit: float = 0.0
    old_rate: float = 0.0
    new_rate: float = 0.0
    old_requests: float = 0.0
    new_requests: float = 0.0
    old_bad: float = 0.0
    new_bad: float = 0.0
    dispersion: float = 1.0
    detectable: float | None = None
    detectable_rate: float | None = None


class RolloutAnalysis(Value, frozen=True):
    """The analysis of the current step. `result`: "running", "pass", "fail" or "inconclusive". `metric`: the one that `text` is about."""

    result: str = ""
    metric: str = ""
    text: str = ""
    requests: int = 0
    requests_old: int = 0
    refused: float = 0.0
    refused_old: float = 0.0
    metrics: dict[str, MetricAnalysis] = msgspec.field(default_factory=dict[str, MetricAnalysis])


class RolloutSlot(Value, frozen=True):
    """A node that is out. `share`: the capacity that it had."""

    node: str = ""
    phase: str = ""
    share: int = 0
    since_s: float = 0.0
    detail: str = ""


class RolloutPart(Value, frozen=True):
    """A rollout of a joint rollout."""

    service: str = ""
    id: str = ""
    before: str = ""
    to: str = ""
    state: str = ""


class PastRollout(Value, frozen=True):
    """`started`, `ended`: Unix time; `ended` 0: in progress. `joint`: the rollouts that belong together, this one included, in order;
    empty: it stands alone."""

    id: str = ""
    before: str = ""
    to: str = ""
    state: str = ""
    by: str = ""
    started: float = 0.0
    ended: float = 0.0
    undoes: str = ""
    digest: str = ""
    joint: tuple[RolloutPart, ...] = ()


class RolloutZone(Value, frozen=True):
    """A zone of the nodes that run the service (label `zone`), and how many of them are still to be updated."""

    zone: str = ""
    nodes: int = 0
    left: int = 0


class Rollout(PastRollout, frozen=True):
    """The last rollout of a service, as its `owner` has it (`owner_here`), else as another root has it. `settled`: the version of all
    nodes when no rollout is in progress. `history`: all known ones, newest first.
    Of an earlier rollout, `spec` is None and nodes are not counted."""

    service: str = ""
    settled: str = ""
    owner: str = ""
    owner_here: bool = False
    term: int = 0
    detail: str = ""
    incompatible: bool = False
    spec: RolloutSettings | None = None
    nodes: RolloutNodes = RolloutNodes()
    capacity: RolloutCapacity = RolloutCapacity()
    step: RolloutStep | None = None
    analysis: RolloutAnalysis | None = None
    slots: tuple[RolloutSlot, ...] = ()
    failed: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    next: str = ""
    zones: tuple[RolloutZone, ...] = ()
    history: tuple[PastRollout, ...] = ()


class Rollouts(Value, frozen=True):
    roots: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()
    rollouts: tuple[Rollout, ...] = ()


class RolloutFound(Value, frozen=True):
    roots: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()
    rollout: Rollout = Rollout()


class RolloutRecord(Value, frozen=True):
    """The record of a rollout at `root`. `number`, `head`: number and SHA-256 of the last entry. Each entry has that of the one
    before in `previous`."""

    root: str = ""
    service: str = ""
    rollout: str = ""
    number: int = 0
    head: str = ""
    entries: tuple[dict[str, Any], ...] = ()

    def broken(self) -> tuple[int, str]:
        """Number of the first entry that does not continue the chain, and why. (0, ""): the chain is whole."""
        return broken(self.entries)


class RolloutRecords(Value, frozen=True):
    roots: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()
    records: tuple[RolloutRecord, ...] = ()


class RolloutGroup(Value, frozen=True):
    """Nodes that run the service below the same `parents`; empty: below the roots. `hosts`: names of some of them. `zones`: zone ->
    nodes in it."""

    parents: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    nodes: int = 0
    capacity: int = 0
    zones: Mapping[str, int] = field(default_factory=dict[str, int])


class RolloutTree(Value, frozen=True):
    """The tree as the root that would own the rollout knows it. `side_by_side`: all nodes can run two versions at once."""

    root: str = ""
    roots: tuple[str, ...] = ()
    groups: tuple[RolloutGroup, ...] = ()
    routes: tuple[str, ...] = ()
    side_by_side: bool = True
    beat_s: float = 2.0
    lease_s: float = 10.0
    fence_s: float = 10.0


class RolloutPlan(Value, frozen=True):
    """What a rollout would do. `lowest`: the lowest ready capacity; `gap_s`: how long no version is expected to serve;
    `gap_max_s`: the same if requests in flight last as long as they may."""

    service: str = ""
    before: str = ""
    to: str = ""
    incompatible: bool = False
    side_by_side: bool = False
    nodes: int = 0
    zones: tuple[RolloutZone, ...] = ()
    batches: int = 0
    lowest: int = 0
    baseline: int = 0
    floor: int = 0
    gap_s: float = 0.0
    gap_max_s: float = 0.0
    problems: tuple[str, ...] = ()
    settings: RolloutSettings | None = None
    tree: RolloutTree | None = None


class RolloutOrdered(Value, frozen=True):
    """`owner`: the root that has carried it out. `objection`: with a dry run, why it would be refused. `joint`: the plans of all services
    of a joint rollout, in order."""

    owner: str = ""
    verb: str = ""
    dry_run: bool = False
    by: str = ""
    objection: str = ""
    plan: RolloutPlan | None = None
    joint: tuple[RolloutPlan, ...] = ()
    rollout: Rollout | None = None


class AgentSlot(Value, frozen=True):
    """One of the two places for a version on a node. `status`: of its process."""

    version: str = ""
    status: str = ""
    pid: int = 0
    port: int = 0


class AgentRole(Value, frozen=True):
    """A service of the roles of this node. `version`: the one that serves, else the one that runs; `target`: the one that it shall have.
    `phase`: of the node in the rollout, since the Unix time `since`."""

    role: str = ""
    service: str = ""
    version: str = ""
    phase: str = ""
    rollout: str = ""
    target: str = ""
    slots: dict[str, AgentSlot] = msgspec.field(default_factory=dict[str, AgentSlot])
    since: float = 0.0
    detail: str = ""
    log: tuple[str, ...] = ()


class Agent(Value, frozen=True):
    node: str = ""
    roles: tuple[AgentRole, ...] = ()


class TreeRole(Value, frozen=True):
    """A service that nodes of the tree run as one of their roles. `version`: the one that all have when no rollout is in progress."""

    service: str = ""
    version: str = ""
    rollout: str = ""
    state: str = ""
    to: str = ""
    nodes: int = 0
    ready: int = 0
    waiting: dict[str, int] = msgspec.field(default_factory=dict[str, int])


class Roles(Value, frozen=True):
    roots: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()
    roles: tuple[TreeRole, ...] = ()
