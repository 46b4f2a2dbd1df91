"""The bodies and answers of the calls about releases, rollouts and roles (`node.releases`, `node.rollouts`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType, field

from sdlb.model.release import ANY, LIST_MAX
from sdlb.node.schema import Amount, Count, Disagreement, Strict
from sdlb.node.schema_orders import Name
from sdlb.node.schema_spec import CanaryAnalysis, Drain, Failures, First, NodesOut, Progress, SideBySide, Soak, Steps
from sdlb.node.schema_spec import CanaryStep as CanaryStep  # re-exported beside CanaryAnalysis
from sdlb.node.specs import Service, Version_

Verb = Literal["start", "pause", "resume", "promote", "abort", "undo", "adopt"]
VERBS: tuple[str, ...] = ("pause", "resume", "promote", "abort", "undo", "adopt")
Text = Annotated[str, Meta(max_length=2048)]
PLATFORMS: dict[str, Any] = {"propertyNames": {"pattern": f"^({ANY}|linux-[a-z0-9_]{{1,32}})$"}}


# ---------------------------------------------------------------------- releases


class ReleaseArtifact(Strict):
    """`sha256`: of the file; for an OCI layout, of the image manifest. `signature`: where the minisign signature is."""

    url: Text
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    signature: Text = ""


class ReleaseBody(Strict):
    """As a release file. `artifact`: by platform, `linux-x86_64` and the like, or `any`. `by`: another name than that of the user; only
    root and the user of the node may give one."""

    service: Service
    version: Version_
    requires: Annotated[list[Text], Meta(max_length=LIST_MAX)] = field(default_factory=list[str])
    artifact: Annotated[dict[str, ReleaseArtifact], Meta(max_length=LIST_MAX, extra_json_schema=PLATFORMS)] = field(
        default_factory=dict[str, ReleaseArtifact]
    )
    by: Name = ""


class Artifact(Strict):
    platform: str
    url: str
    sha256: str
    signature: str


class Release(Strict):
    """`withdrawn`: no rollout to it can start."""

    name: str
    service: str
    version: str
    withdrawn: bool
    requires: list[str]
    artifacts: list[Artifact]


class Releases(Strict):
    node: str
    roots: list[str]
    unreachable: list[str]
    disagree: list[Disagreement]
    releases: list[Release]


class ReleaseChanged(Strict):
    """`roots`: each of them has recorded it. `changed` false: it was known as it is. `by`: the recorded name."""

    node: str
    roots: list[str]
    unreachable: list[str]
    changed: bool
    by: str
    release: Release


# ---------------------------------------------------------------------- rollouts


class RolloutAlso(Strict):
    """Another service of a joint rollout. Settings that the rollout does not give come from the policy of this service."""

    service: Service
    version: Version_


class RolloutStart(Strict):
    """A key that is left out counts as the policy of the service has it (`rollout`); its default is given here. `side_by_side`: when
    both versions may run on a node at once (incompatible). `first`: nodes that are updated alone before any other (1). `soak_s`: how
    long a new instance has to be healthy (30). `failures_max`: failed nodes beyond which the rollout halts (0). `progress_s`: how
    long a node may take to become healthy (600). `nodes_out_max`: nodes of the tree that may be out at once, for all rollouts (10%).
    `drain_s`: how long an instance may drain; left out: as `drain` of the policy has it. `accept_gap`: the service may go below its
    floor. `step`: steps of a canary.
    `analysis`: how the new version is compared in each. `supersede`: replace the rollout in progress. `also`: other services that are
    rolled out together with this one, in order of what their releases require. `by`: as in ReleaseBody."""

    service: Service
    version: Version_
    side_by_side: SideBySide | UnsetType = UNSET
    first: First | UnsetType = UNSET
    soak_s: Soak | UnsetType = UNSET
    failures_max: Failures | UnsetType = UNSET
    progress_s: Progress | UnsetType = UNSET
    nodes_out_max: NodesOut | UnsetType = UNSET
    drain_s: Drain | UnsetType = UNSET
    accept_gap: bool = False
    step: Steps | UnsetType = UNSET
    analysis: CanaryAnalysis | UnsetType | None = UNSET
    supersede: bool = False
    also: Annotated[list[RolloutAlso], Meta(max_length=LIST_MAX)] = field(default_factory=list[RolloutAlso])
    by: Name = ""


class RolloutOrder(Strict):
    """`by`: as in ReleaseBody."""

    by: Name = ""


class StepSettings(Strict):
    """As in CanaryStep, with `for` in seconds."""

    nodes: str
    share: Amount
    for_s: Amount


class QuerySettings(Strict):
    """As in CanaryQuery."""

    name: str
    source: str
    bad: str
    total: str
    value: str
    max_value: float | None
    min_value: float | None


class AnalysisSettings(Strict):
    """As in CanaryAnalysis."""

    tolerate: Amount
    alpha: Amount
    requests_min: Count
    warm_up_s: Amount
    queries: list[QuerySettings]
    hook: str
    hook_each: str


class RolloutSettings(Strict):
    """As in RolloutStart. `drain_by_policy`: no `drain_s` was given, so at the deadline `drain.then` of the policy decides."""

    side_by_side: SideBySide
    first: Count
    soak_s: Amount
    failures_max: Count
    progress_s: Amount
    nodes_out_max: str
    drain_s: Amount
    drain_by_policy: bool
    accept_gap: bool
    step: list[StepSettings]
    analysis: AnalysisSettings | None


class RolloutNodes(Strict):
    """Numbers of nodes. `out`: they hold a slot. `ready`: the new version is healthy and waits for the cut-over. `waiting`: all that
    are neither done nor failed nor out."""

    all: Count
    done: Count
    out: Count
    queued: Count
    ready: Count
    failed: Count
    prepared: Count
    waiting: Count


class RolloutCapacity(Strict):
    """`baseline`: the ready capacity at the start. `floor`: below it, no more slots are granted."""

    ready: Count
    baseline: Count
    floor: Count


class RolloutStep(Strict):
    """The step of a canary. `number` 0: there are no steps, or they are over. `since`: Unix time since when its nodes have the new version;
    0: not all have it yet. `left_s`: of its time `for_s`. `share`: percentage of new requests for the new version; null: the policy
    decides."""

    number: Count
    of: Count
    nodes: str
    for_s: Amount
    since: Amount
    left_s: Amount
    share: Amount | None


class MetricAnalysis(Strict):
    """A metric fails when `evidence` reaches `limit`. Rates are parts of 1, of the old and the new version. `detectable_rate`: of the new
    version, that this step would have found in nine of ten cases; `detectable`: as a ratio to the old rate; null: none."""

    evidence: Amount
    limit: Amount
    old_rate: Amount
    new_rate: Amount
    old_requests: Amount
    new_requests: Amount
    old_bad: Amount
    new_bad: Amount
    dispersion: Amount
    detectable: Amount | None
    detectable_rate: Amount | None


class RolloutAnalysis(Strict):
    """The analysis of the current step. `metric`: the one that `text` is about. `requests`, `requests_old`: in this step, to the new
    and the old version. `refused`, `refused_old`: their parts that were answered with 4xx, which are not compared."""

    result: Literal["running", "pass", "fail", "inconclusive"]
    metric: str
    text: str
    requests: Count
    requests_old: Count
    refused: Amount
    refused_old: Amount
    metrics: dict[str, MetricAnalysis]


class RolloutSlot(Strict):
    """A node that is out. `share`: the capacity that it had. `since_s`: how long it has been out."""

    node: str
    phase: str
    share: Count
    since_s: Amount
    detail: str


class RolloutPart(Strict):
    """A rollout of a joint rollout. The keys are as in Rollout."""

    service: str
    id: str
    before: str
    to: str
    state: str


class PastRollout(Strict):
    """As Rollout."""

    id: str
    before: str
    to: str
    state: str
    by: str
    started: Amount
    ended: Amount
    undoes: str
    digest: str
    joint: list[RolloutPart]


class RolloutZone(Strict):
    """`left`: nodes that are still to be updated."""

    zone: str
    nodes: Count
    left: Count


class Rollout(Strict):
    """The last rollout of a service. `before`, `to`: versions. `settled`: the one that all nodes have when none is in progress.
    `owner`: the root that leads it; `owner_here`: it is the one that answered, otherwise `nodes`, `slots` and `failed` may be
    incomplete. `term`: grows with each owner. `started`, `ended`: Unix time. `undoes`: the rollout that this one takes back.
    `digest`: of the artifact of `to`; several: by platform. `joint`: the rollouts that belong together, this one included, in the order in
    which they are carried out; empty: it stands alone. `failed`: what failed, by node. `next`: what comes next. `zones`: in the order
    in which they are updated; empty: the nodes are in one. `history`: all known ones, newest first. Of an earlier
    rollout, `spec`, `step` and `analysis` are null and nodes are not counted."""

    service: str
    settled: str
    id: str
    state: str
    before: str
    to: str
    by: str
    owner: str
    owner_here: bool
    term: Count
    started: Amount
    ended: Amount
    detail: str
    incompatible: bool
    undoes: str
    digest: str
    joint: list[RolloutPart]
    spec: RolloutSettings | None
    nodes: RolloutNodes
    capacity: RolloutCapacity
    step: RolloutStep | None
    analysis: RolloutAnalysis | None
    slots: list[RolloutSlot]
    failed: dict[str, str]
    next: str
    zones: list[RolloutZone]
    history: list[PastRollout]


class Rollouts(Strict):
    node: str
    roots: list[str]
    unreachable: list[str]
    rollouts: list[Rollout]


class RolloutFound(Strict):
    node: str
    roots: list[str]
    unreachable: list[str]
    rollout: Rollout


class RolloutRecord(Strict):
    """The record at `root`. `number`, `head`: number and SHA-256 of the last entry. Each entry has `number`, `previous` (the SHA-256 of
    the entry before, in the canonical form of RFC 8785), `kind`, `at_ms` (Unix time in ms), and what belongs to its kind."""

    root: str
    service: str
    rollout: str
    number: Count
    head: str
    entries: list[dict[str, Any]]


class RolloutRecords(Strict):
    node: str
    roots: list[str]
    unreachable: list[str]
    records: list[RolloutRecord]


class RolloutGroup(Strict):
    """Nodes that run the service below the same `parents`; empty: below the roots. `hosts`: names of some of them. `zones`: zone ->
    nodes in it."""

    parents: list[str]
    hosts: list[str]
    nodes: Count
    capacity: Count
    zones: dict[str, Count]


class RolloutTree(Strict):
    """The tree as the root that would own the rollout knows it. `side_by_side`: all nodes can run two versions at once."""

    root: str
    roots: list[str]
    groups: list[RolloutGroup]
    routes: list[str]
    side_by_side: bool
    beat_s: Amount
    lease_s: Amount
    fence_s: Amount


class PlannedZone(Strict):
    zone: str
    nodes: Count


class RolloutPlan(Strict):
    """What a rollout would do. `zones`: those of the nodes (label `zone`), in the order in which they are
    updated; empty: they are in one. `batches`: groups of nodes, one after the other. `lowest`: the lowest ready capacity. `gap_s`: how long
    no version is expected to serve; `gap_max_s`: the same if requests in flight last as long as they may. `problems`: why it would be
    refused or halted. `settings`: of this rollout."""

    service: str
    before: str
    to: str
    incompatible: bool
    side_by_side: bool
    nodes: Count
    zones: list[PlannedZone]
    batches: Count
    lowest: Count
    baseline: Count
    floor: Count
    gap_s: Amount
    gap_max_s: Amount
    problems: list[str]
    settings: RolloutSettings | None
    tree: RolloutTree | None


class RolloutOrdered(Strict):
    """`owner`: the root that has carried it out. `objection`: with `dry_run`, why it would be refused. `joint`: the plans of all services
    of a joint rollout, in order; empty: the order is about one service."""

    node: str
    owner: str
    verb: Verb
    dry_run: bool
    by: str
    objection: str
    plan: RolloutPlan | None
    joint: list[RolloutPlan]
    rollout: Rollout | None


# ---------------------------------------------------------------------- roles


class TreeRole(Strict):
    """A service that nodes of the tree run as one of their roles. `version`: the one that all have when no rollout is in progress.
    `rollout`, `state`, `to`: of the last rollout. `ready`: capacity of healthy instances that may serve; `waiting`: that of healthy ones
    that wait, by version."""

    service: str
    version: str
    rollout: str
    state: str
    to: str
    nodes: Count
    ready: Count
    waiting: dict[str, int]


class AgentSlot(Strict):
    """One of the two places for a version on a node. `status`: of its process."""

    version: str
    status: str
    pid: Count
    port: Count


class AgentRole(Strict):
    """A service of the roles of this node. `version`: the one that serves, else the one that runs. `target`: the one that it shall have.
    `phase`: of the node in the rollout, since the Unix time `since`. `log`: the last lines of a version that failed."""

    role: str
    service: str
    version: str
    phase: str
    rollout: str
    target: str
    slots: dict[str, AgentSlot]
    since: Amount
    detail: str
    log: list[str]


class Agent(Strict):
    node: str
    roles: list[AgentRole]


class Roles(Strict):
    node: str
    roots: list[str]
    unreachable: list[str]
    roles: list[TreeRole]
