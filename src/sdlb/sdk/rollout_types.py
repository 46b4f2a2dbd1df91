"""What the local API answers about releases, rollouts and roles, as typed values (as `sdlb.sdk.types`)."""

from __future__ import annotations

import msgspec

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


class RolloutSettings(Value, frozen=True):
    side_by_side: str = ""
    first: int = 0
    soak_s: float = 0.0
    failures_max: int = 0
    progress_s: float = 0.0
    nodes_out_max: str = ""
    drain_s: float = 0.0
    accept_gap: bool = False


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


class RolloutSlot(Value, frozen=True):
    """A node that is out. `share`: the capacity that it had."""

    node: str = ""
    phase: str = ""
    share: int = 0
    since_s: float = 0.0
    detail: str = ""


class PastRollout(Value, frozen=True):
    """`started`, `ended`: Unix time; `ended` 0: in progress."""

    id: str = ""
    before: str = ""
    to: str = ""
    state: str = ""
    by: str = ""
    started: float = 0.0
    ended: float = 0.0
    undoes: str = ""
    digest: str = ""


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
    slots: tuple[RolloutSlot, ...] = ()
    failed: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    next: str = ""
    history: tuple[PastRollout, ...] = ()


class Rollouts(Value, frozen=True):
    roots: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()
    rollouts: tuple[Rollout, ...] = ()


class RolloutFound(Value, frozen=True):
    roots: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()
    rollout: Rollout = Rollout()


class RolloutPlan(Value, frozen=True):
    """What a rollout would do. `lowest`: the lowest ready capacity; `gap_s`: how long no version is expected to serve."""

    service: str = ""
    before: str = ""
    to: str = ""
    incompatible: bool = False
    side_by_side: bool = False
    nodes: int = 0
    batches: int = 0
    lowest: int = 0
    baseline: int = 0
    floor: int = 0
    gap_s: float = 0.0
    problems: tuple[str, ...] = ()


class RolloutOrdered(Value, frozen=True):
    """`owner`: the root that has carried it out. `objection`: with a dry run, why it would be refused."""

    owner: str = ""
    verb: str = ""
    dry_run: bool = False
    by: str = ""
    objection: str = ""
    plan: RolloutPlan | None = None
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
