"""The bodies and answers of the calls about releases, rollouts and roles (`node.releases`, `node.rollouts`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from sdlb.model.release import ANY, LIST_MAX
from sdlb.model.rollout import RolloutSpec
from sdlb.model.rollout_reader import COUNTS, NODES_OUT, SECONDS
from sdlb.node.schema import Amount, Count, Disagreement, Strict
from sdlb.node.schema_orders import Name
from sdlb.node.specs import Service, Version_, json_schema_pattern

SideBySide = Literal["incompatible", "always", "never"]
Verb = Literal["start", "pause", "resume", "promote", "abort", "undo", "adopt"]
VERBS: tuple[str, ...] = ("pause", "resume", "promote", "abort", "undo", "adopt")
Text = Annotated[str, Meta(max_length=2048)]
First = Annotated[int, Meta(ge=COUNTS["first"][0], le=COUNTS["first"][1])]
Failures = Annotated[int, Meta(ge=COUNTS["failures_max"][0], le=COUNTS["failures_max"][1])]
Soak = Annotated[float, Meta(ge=SECONDS["soak_s"][0], le=SECONDS["soak_s"][1])]
Progress = Annotated[float, Meta(ge=SECONDS["progress_s"][0], le=SECONDS["progress_s"][1])]
Drain = Annotated[float, Meta(ge=SECONDS["drain_s"][0], le=SECONDS["drain_s"][1])]
NodesOut = Annotated[str, Meta(max_length=8, pattern=json_schema_pattern(NODES_OUT))]
PLATFORMS: dict[str, Any] = {"propertyNames": {"pattern": f"^({ANY}|linux-[a-z0-9_]{{1,32}})$"}}
DEFAULT = RolloutSpec()


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


class RolloutStart(Strict):
    """`side_by_side`: when both versions may run on a node at once. `first`: nodes that are updated alone before any other.
    `soak_s`: how long a new instance has to be healthy. `failures_max`: failed nodes beyond which the rollout halts. `progress_s`: how
    long a node may take to become healthy. `nodes_out_max`: nodes of the tree that may be out at once, for all rollouts.
    `drain_s`: how long an instance may drain. `accept_gap`: the service may go below its floor. `supersede`: replace the rollout
    in progress. `by`: as in ReleaseBody."""

    service: Service
    version: Version_
    side_by_side: SideBySide = "incompatible"
    first: First = DEFAULT.first
    soak_s: Soak = DEFAULT.soak_s
    failures_max: Failures = DEFAULT.failures_max
    progress_s: Progress = DEFAULT.progress_s
    nodes_out_max: NodesOut = DEFAULT.nodes_out_max
    drain_s: Drain = DEFAULT.drain_s
    accept_gap: bool = DEFAULT.accept_gap
    supersede: bool = False
    by: Name = ""


class RolloutOrder(Strict):
    """`by`: as in ReleaseBody."""

    by: Name = ""


class RolloutSettings(Strict):
    """As in RolloutStart."""

    side_by_side: SideBySide
    first: Count
    soak_s: Amount
    failures_max: Count
    progress_s: Amount
    nodes_out_max: str
    drain_s: Amount
    accept_gap: bool


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


class RolloutSlot(Strict):
    """A node that is out. `share`: the capacity that it had. `since_s`: how long it has been out."""

    node: str
    phase: str
    share: Count
    since_s: Amount
    detail: str


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


class Rollout(Strict):
    """The last rollout of a service. `before`, `to`: versions. `settled`: the one that all nodes have when none is in progress.
    `owner`: the root that leads it; `owner_here`: it is the one that answered, otherwise `nodes`, `slots` and `failed` may be
    incomplete. `term`: grows with each owner. `started`, `ended`: Unix time. `undoes`: the rollout that this one takes back.
    `digest`: of the artifact of `to`; several: by platform. `failed`: what failed, by node. `next`: what comes next. `history`: all
    known ones, newest first. Of an earlier rollout, `spec` is null and nodes are not counted."""

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
    spec: RolloutSettings | None
    nodes: RolloutNodes
    capacity: RolloutCapacity
    slots: list[RolloutSlot]
    failed: dict[str, str]
    next: str
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


class RolloutPlan(Strict):
    """What a rollout would do. `batches`: groups of nodes, one after the other. `lowest`: the lowest ready capacity. `gap_s`: how long
    no version is expected to serve. `problems`: why it would be refused or halted."""

    service: str
    before: str
    to: str
    incompatible: bool
    side_by_side: bool
    nodes: Count
    batches: Count
    lowest: Count
    baseline: Count
    floor: Count
    gap_s: Amount
    problems: list[str]


class RolloutOrdered(Strict):
    """`owner`: the root that has carried it out. `objection`: with `dry_run`, why it would be refused."""

    node: str
    owner: str
    verb: Verb
    dry_run: bool
    by: str
    objection: str
    plan: RolloutPlan | None
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
