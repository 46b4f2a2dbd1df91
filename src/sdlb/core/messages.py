"""What nodes say to each other, as plain values.

The same objects travel through gRPC (`sdlb.wire` turns them into `proto/tree.proto` and back) and, as they are, through
the simulator's network. Field meanings are those of `proto/tree.proto`. All are frozen, so a message that was handed
out never changes afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class ClaimKey(NamedTuple):
    """One service version on one route: the grain of everything that travels up and down the tree."""

    service: str
    version: str
    route: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What a child has of one `ClaimKey`, as one aggregate (never instances). See `Claim` in tree.proto."""

    key: ClaimKey
    capacity: int = 0
    count: int = 0
    hosts: tuple[str, ...] = ()
    compatible: tuple[str, ...] = ()
    stamp: int = 0
    open: bool = False
    generation: int = 0
    leaving: int = 0
    seen: int = 0
    presumed: bool = False
    opening: bool = False
    granted: bool = False


WAITING, ACTIVE, REFUSED = "waiting", "active", "refused"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a parent says about one `ClaimKey`: `state` is one of WAITING, ACTIVE, REFUSED."""

    key: ClaimKey
    state: str
    reason_code: str = ""
    reason: str = ""
    decided_by: str = ""
    generation: int = 0
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class DrainAck:
    """The parent has taken the child out for `key`; nothing is in flight through it. Answers `Claim.leaving`."""

    key: ClaimKey
    leaving: int


Rank = tuple[int, str, str]
NO_POLICY: Rank = (0, "", "")


@dataclass(frozen=True, slots=True)
class PolicyDoc:
    """A policy as it travels: `json` is the document, `rank` decides which of two is newer."""

    service: str
    revision: int
    origin: str
    json: str

    @property
    def rank(self) -> Rank:
        """The text too: a root that lost its disk counts revisions from the start again."""
        return self.revision, self.origin, self.json


@dataclass(frozen=True, slots=True)
class Beat:
    sent: int
    received: int


# ------------------------------------------------------------------ child -> parent


@dataclass(frozen=True, slots=True)
class Hello:
    node: str
    node_id: str
    incarnation: int
    data_address: str
    claims_digest: int = 0
    labels: tuple[str, ...] = ()
    protocol: int = 1


@dataclass(frozen=True, slots=True)
class UpState:
    seq: int
    full: bool = False
    claims: tuple[Claim, ...] = ()
    withdrawn: tuple[ClaimKey, ...] = ()
    policies: tuple[PolicyDoc, ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    id: str
    method: str
    path: str
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Bye:
    """The child stops for good: everything it claimed has stopped, and that is known."""


# ------------------------------------------------------------------ parent -> child


@dataclass(frozen=True, slots=True)
class Welcome:
    node: str
    node_id: str
    incarnation: int
    ancestors: tuple[str, ...]
    claims_digest: int
    lease_ms: int
    roots: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class DownState:
    seq: int
    full: bool = False
    verdicts: tuple[Verdict, ...] = ()
    forgotten: tuple[ClaimKey, ...] = ()
    drained: tuple[DrainAck, ...] = ()
    policies: tuple[PolicyDoc, ...] = ()
    ancestors: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    received: int = 0  # the last UpState that was taken into account


@dataclass(frozen=True, slots=True)
class RootAnswer:
    root: str
    status: int
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    id: str
    answers: tuple[RootAnswer, ...] = ()
    unreachable: tuple[str, ...] = ()


UpMessage = Hello | UpState | Beat | Ask | Bye
DownMessage = Welcome | Refused | DownState | Beat | Answer
