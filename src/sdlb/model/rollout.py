"""Rollouts: the path of a service from one version to the next, as the root that owns it publishes it to all nodes.

    preparing -> rolling <-> paused        -> cutting-over (incompatible versions) -> done
                    |  \\-> halted           any of these, by abort: -> undoing -> undone
                    \\-> superseded          by another rollout

The **target** of a service is the document `Doc(TARGET, service)`: the version that its nodes shall have, and the rollout in progress. It
says what, never how: that stands in the node file of each node (`role.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Final, TypeVar

import msgspec

T = TypeVar("T")
PREPARING, ROLLING, PAUSED, HALTED, CUTTING_OVER = "preparing", "rolling", "paused", "halted", "cutting-over"
UNDOING = "undoing"
DONE, UNDONE, SUPERSEDED = "done", "undone", "superseded"
ENDED: Final = (DONE, UNDONE, SUPERSEDED)
SIDE_BY_SIDE: Final = ("incompatible", "always", "never")
HISTORY_MAX = 16

# Phases of a node in a rollout, in their usual order.
CURRENT, FETCHING, PREPARED, QUEUED = "current", "fetching", "prepared", "queued"
DRAINING, STOPPING, STARTING, VERIFYING = "draining", "stopping", "starting", "verifying"
READY = "ready"
"""The new version is healthy and waits for the cut-over."""
UPDATED, FAILED, REVERTING = "done", "failed", "reverting"
HOLDING: Final = (DRAINING, STOPPING, STARTING, VERIFYING, REVERTING)
"""Phases in which a node holds a slot."""


@dataclass(frozen=True, slots=True)
class RolloutSpec:
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


@dataclass(frozen=True, slots=True)
class Rollout:
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

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class Target:
    """`settled`: the version that all nodes have when no rollout is in progress; "": none yet. `releases`: of the versions that are
    named here, as a release file (`release.read_release`). `rollout`: the last one, also when it has ended. `history`: earlier
    ones, the newest first."""

    service: str
    settled: str = ""
    rollout: Rollout | None = None
    releases: Mapping[str, Mapping[str, object]] = field(default_factory=dict[str, Mapping[str, object]])
    history: tuple[Rollout, ...] = ()

    @property
    def active(self) -> Rollout | None:
        """The rollout in progress."""
        return self.rollout if self.rollout is not None and not self.rollout.ended else None


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


def position(rollout: str, node: str) -> float:
    """The place of a node in the order of a rollout, from 0 to 1. Every node knows its own, and nobody needs a list."""
    return int.from_bytes(blake2b(f"{rollout}/{node}".encode(), digest_size=8).digest(), "big") / 2**64


# ---------------------------------------------------------------------- what nodes report


@dataclass(frozen=True, slots=True)
class SlotReport:
    """A node that holds a slot. `share`: the capacity that leaves with it, which is not in `RoleReport.ready`; 0 if the new version
    starts beside the old one."""

    node: str
    rollout: str
    phase: str
    share: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RoleReport:
    """The state of a service on some nodes, each counted once.

    `nodes`: those that run the service. `ready`: capacity of healthy instances that may serve, except on nodes whose slot has a
    share. `waiting`: capacity of healthy instances that wait, by version. `counts`: "ROLLOUT PHASE" -> nodes; the phase is that in
    this rollout. `slots`: nodes that hold a slot. `failed`: node -> what failed, of at most FAILED_MAX nodes. `alone`: nodes that
    cannot run two versions side by side.
    """

    nodes: int = 0
    alone: int = 0
    ready: int = 0
    waiting: Mapping[str, int] = field(default_factory=dict[str, int])
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    slots: tuple[SlotReport, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict[str, str])

    def count(self, rollout: str, *phases: str) -> int:
        return sum(self.counts.get(f"{rollout} {phase}", 0) for phase in phases)


FAILED_MAX = 8
COUNTS_MAX = 64


def report_body(report: RoleReport) -> bytes:
    return msgspec.json.encode(report)


def read_report(body: bytes) -> RoleReport | None:
    """None: it cannot be read. Its values may be anything."""
    return _read(body, RoleReport)


# ---------------------------------------------------------------------- how a node asks for a slot

TAKE, GIVE_BACK, UNUSED, FAIL = "take", "done", "unused", "failed"


@dataclass(frozen=True, slots=True)
class SlotAsk:
    """`what`: TAKE a slot, or give it back: GIVE_BACK, the new version runs; UNUSED, it does not, and has not failed; FAIL, it
    failed."""

    service: str
    rollout: str
    term: int
    node: str
    what: str
    share: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class SlotAnswer:
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
