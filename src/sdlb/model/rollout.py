"""Rollouts: the path of a service from one version to the next, as the root that owns it publishes it to all nodes.

    preparing -> rolling <-> paused        -> cutting-over (incompatible versions) -> done
                    |  \\-> halted           any of these, by abort: -> undoing -> undone
                    \\-> superseded          by another rollout

The **target** of a service is the document `Doc(TARGET, service)`: the version that its nodes shall have, and the rollout in progress. It
says what, never how: that stands in the node file of each node (`role.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from math import nextafter
from typing import Final, TypeVar

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from sdlb.model.canary import Analysis, Blocks, Figures, Step

T = TypeVar("T")
PREPARING, ROLLING, PAUSED, HALTED, CUTTING_OVER = "preparing", "rolling", "paused", "halted", "cutting-over"
UNDOING = "undoing"
DONE, UNDONE, SUPERSEDED = "done", "undone", "superseded"
ENDED: Final = (DONE, UNDONE, SUPERSEDED)
SIDE_BY_SIDE: Final = ("incompatible", "always", "never")
HISTORY_MAX = 16
TRIED_MAX = 64

# Phases of a node in a rollout, in their usual order.
CURRENT, FETCHING, PREPARED, QUEUED = "current", "fetching", "prepared", "queued"
DRAINING, STOPPING, STARTING, VERIFYING = "draining", "stopping", "starting", "verifying"
READY = "ready"
"""The new version is healthy and waits for the cut-over."""
UPDATED, FAILED, REVERTING = "done", "failed", "reverting"
HOLDING: Final = (DRAINING, STOPPING, STARTING, VERIFYING, REVERTING)
"""Phases in which a node holds a slot."""


class RolloutSpec(Struct, frozen=True):
    """How a rollout proceeds. `first`: nodes that are updated alone before any other. `soak_s`: how long a new instance has to be
    healthy. `failures_max`: failed nodes beyond which the rollout halts. `progress_s`: how long a node may take to become healthy.
    `nodes_out_max`: nodes of the tree that may be out at once, for all rollouts. `accept_gap`: the service may go below its floor."""

    side_by_side: str = "incompatible"
    first: int = 1
    soak_s: float = 30.0
    failures_max: int = 0
    progress_s: float = 600.0
    nodes_out_max: str = "10%"
    drain_s: float = 30.0
    accept_gap: bool = False
    step: tuple[Step, ...] = ()
    """Steps of a canary. After the last one, the other nodes follow."""
    analysis: Analysis | None = None
    """None: the end of each step is decided by its time alone."""
    drain_by_policy: bool = False
    """No `drain_s` was given: what happens at the deadline of a drain is decided by `drain` of the policy."""


class Part(Struct, frozen=True):
    """A rollout of a joint rollout. `rollout`: its id."""

    service: str
    rollout: str


class Zone(Struct, frozen=True):
    """A zone and its nodes that run the service. `name` "": of the nodes without one."""

    name: str
    nodes: int


class Rollout(Struct, frozen=True):
    """`before`: the version that is replaced; "": there is none. `incompatible`: `to` must not serve beside `before`. `term`: grows
    with each owner; nodes follow the highest. `cursor`: nodes whose `position` is below it may ask for a slot. `by`: the user.
    `started_s`, `ended_s`: Unix time. `undoes`: id of the rollout that this one takes back. `detail`: why it is in this state."""

    id: str
    to: str
    before: str = ""
    state: str = PREPARING
    owner: str = ""
    owner_id: str = ""
    term: int = 1
    incompatible: bool = False
    cursor: float = 0.0
    spec: RolloutSpec = RolloutSpec()
    by: str = ""
    started_s: float = 0.0
    ended_s: float = 0.0
    detail: str = ""
    undoes: str = ""
    nodes: int = 0
    """Nodes that run the service, as last counted."""
    baseline: int = 0
    """The best ready capacity of the time before it began to roll; the floor is a part of it."""
    at_step: int = 0
    """Index of the current step of `spec.step`; their number once all are over."""
    step_since: float = 0.0
    """Unix time since when the nodes of the step have the new version. 0: not all have it yet."""
    share: float | None = None
    """Percentage of new requests for `to`, at every entry; at most its part of the ready capacity. None: the policy decides."""

    one_way: bool = False
    """It is cutting over, and nodes are ready with `to`: a node that fails does not go back to `before`, which would keep them
    waiting."""
    tries: int = 1
    """Grows when it is resumed: nodes that failed try again."""
    tried_s: float = 0.0
    """Unix time since when it tries again. 0: it was not resumed."""
    turn_s: float = 0.0
    """Unix time since when it claims to be the one that takes nodes out (`core/turns.py`). 0: it has none out, and wants none."""
    joint: tuple[Part, ...] = ()
    """The rollouts that belong together, this one included, in the order in which they are carried out. Empty: it stands alone."""
    promoted: bool = False
    """It does not wait for its first nodes."""
    zones: tuple[Zone, ...] = ()
    """The zones in the order in which they are updated. Empty: all nodes are in one zone."""

    @property
    def attempt(self) -> str:
        """What a node has failed in."""
        return self.id if self.tries == 1 else f"{self.id}.{self.tries}"

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def of_rest(self) -> bool:
        """It is for the nodes that failed with this version before; all others have it."""
        return self.before == self.to


class Target(Struct, frozen=True):
    """`settled`: the version that all nodes have when no rollout is in progress; "": none yet. `releases`: of the versions that are
    named here, as a release file (`release.read_release`). `rollout`: the last one, also when it has ended. `history`: earlier
    ones, the newest first. `tried`: versions of rollouts before these, the last first."""

    service: str
    settled: str = ""
    rollout: Rollout | None = None
    releases: Mapping[str, Mapping[str, object]] = field(default_factory=dict[str, Mapping[str, object]])
    history: tuple[Rollout, ...] = ()
    tried: tuple[str, ...] = ()

    @property
    def active(self) -> Rollout | None:
        """The rollout in progress."""
        return self.rollout if self.rollout is not None and not self.rollout.ended else None


def past(target: Target) -> tuple[Rollout, ...]:
    """All known rollouts, the last first."""
    return ((target.rollout,) if target.rollout is not None else ()) + target.history


def with_history(target: Target, history: tuple[Rollout, ...]) -> Target:
    """`history`: of any length; what is too much is forgotten but for its version."""
    forgotten = (rollout.to for rollout in history[HISTORY_MAX:])
    tried = tuple(dict.fromkeys((*forgotten, *target.tried)))
    return replace(target, history=history[:HISTORY_MAX], tried=tried[:TRIED_MAX])


def target_body(target: Target) -> bytes:
    return msgspec.json.encode(target)


def read_target(body: bytes) -> Target | None:
    """None: it cannot be read, because it comes from another release or a faulty node."""
    return _read(body, Target)


def _read(body: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def position(rollout: str, node: str, zones: tuple[Zone, ...] = (), zone: str = "") -> float:
    """The place of a node in the order of a rollout, from 0 to 1. Every node knows its own, and nobody needs a list.

    Each zone has a part of the order by the number of its nodes; within it, nodes are spread by chance. A node of an unknown
    zone has its place in the last one.
    """
    spread = int.from_bytes(blake2b(f"{rollout}/{node}".encode(), digest_size=8).digest(), "big") / 2**64
    if not zones:
        return spread
    total, start = sum(each.nodes for each in zones), 0
    for each in zones[:-1]:
        if each.name == zone:
            return _within(start, each.nodes, total, spread)
        start += each.nodes
    return _within(start, zones[-1].nodes, total, spread)


def _within(start: int, nodes: int, total: int, spread: float) -> float:
    """Below the end of the part, also when rounded."""
    return min((start + nodes * spread) / total, nextafter((start + nodes) / total, 0.0))


# ---------------------------------------------------------------------- what nodes report


class SlotReport(Struct, frozen=True):
    """A node that holds a slot. `share`: the capacity that leaves with it, which is not in `RoleReport.ready`; 0 if the new version
    starts beside the old one."""

    node: str
    rollout: str
    phase: str
    share: int = 0
    detail: str = ""


class RoleReport(Struct, frozen=True):
    """The state of a service on some nodes, each counted once.

    `nodes`: those that run the service. `ready`: capacity of healthy instances that may serve, except on nodes whose slot has a
    share. `waiting`: capacity of healthy instances that wait, by version. `counts`: "ROLLOUT PHASE" -> nodes; the phase is that in
    this rollout, and FAILED that in an attempt of it. `slots`: nodes that hold a slot. `failed`: node -> what failed, of at most
    FAILED_MAX nodes. `alone`: nodes that cannot run two versions side by side. `blocks`: figures of the last blocks, while a rollout
    with an analysis is in progress.
    """

    nodes: int = 0
    alone: int = 0
    ready: int = 0
    waiting: Mapping[str, int] = field(default_factory=dict[str, int])
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    slots: tuple[SlotReport, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict[str, str])
    blocks: Blocks = field(default_factory=dict[int, Mapping[str, Figures]])
    zones: Mapping[str, int] = field(default_factory=dict[str, int])
    """Zone -> its nodes that run the service."""
    left: Mapping[str, int] = field(default_factory=dict[str, int])
    """Zone -> those of them that the last rollout has still to update."""
    back: Mapping[str, int] = field(default_factory=dict[str, int])
    """Zone -> those of them that have something of the new version of the last rollout, so that an undo has to take them back."""

    def count(self, rollout: str, *phases: str) -> int:
        return sum(self.counts.get(f"{rollout} {phase}", 0) for phase in phases)

    def failures(self, rollout: Rollout) -> int:
        """Nodes that have failed since it was last resumed."""
        return self.count(rollout.attempt, FAILED)


FAILED_MAX = 8
COUNTS_MAX = 64


def report_body(report: RoleReport) -> bytes:
    return msgspec.json.encode(report)


def read_report(body: bytes) -> RoleReport | None:
    """None: it cannot be read. Its values may be anything."""
    return _read(body, RoleReport)


# ---------------------------------------------------------------------- how a node asks for a slot

TAKE, GIVE_BACK, UNUSED, FAIL = "take", "done", "unused", "failed"


class SlotAsk(Struct, frozen=True):
    """`what`: TAKE a slot, or give it back: GIVE_BACK, the new version runs; UNUSED, it does not, and has not failed; FAIL, it
    failed. `waits`: the node has nothing else to ask for, so that the answer may take its time."""

    service: str
    rollout: str
    term: int
    node: str
    what: str
    share: int = 0
    detail: str = ""
    waits: bool = False


class SlotAnswer(Struct, frozen=True):
    """`granted` False: ask again after `retry_s`, unless the target has changed. `why`: for people."""

    granted: bool
    retry_s: float = 2.0
    why: str = ""


ASK_TEXT_CHARS_MAX = 8192
RETRY_S_MAX = 3600.0
_NAME_CHARS_MAX = 256
_NUMBER_MAX = (1 << 53) - 1


def ask_body(ask: SlotAsk) -> bytes:
    return msgspec.json.encode(replace(ask, detail=ask.detail[:ASK_TEXT_CHARS_MAX]))


def read_ask(body: bytes) -> SlotAsk | None:
    """None: it is not a request for a slot, or not within the limits."""
    ask = _read(body, SlotAsk)
    if ask is None or ask.what not in (TAKE, GIVE_BACK, UNUSED, FAIL):
        return None
    names_fit = all(0 < len(name) <= _NAME_CHARS_MAX for name in (ask.service, ask.rollout, ask.node))
    numbers_fit = 0 <= ask.share <= _NUMBER_MAX and 0 <= ask.term <= _NUMBER_MAX
    return ask if names_fit and numbers_fit and len(ask.detail) <= ASK_TEXT_CHARS_MAX else None


def answer_body(answer: SlotAnswer) -> bytes:
    return msgspec.json.encode(answer)


def read_answer(body: bytes) -> SlotAnswer | None:
    """None: it cannot be read, because it comes from another release or a faulty node."""
    answer = _read(body, SlotAnswer)
    return answer if answer is not None and 0.0 <= answer.retry_s <= RETRY_S_MAX else None
