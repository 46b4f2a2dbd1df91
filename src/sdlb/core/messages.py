"""What nodes send each other, as plain values.

The same objects travel through gRPC (`sdlb.wire` turns them into `proto/tree.proto` and back) and, unchanged, through
the simulator's network. Field meanings are those of `proto/tree.proto`. All are frozen: a message that was handed out
never changes afterwards.

A child says what it has, never what was decided. Numbers that stand for decisions (`generation`, `stamp`, `granted`)
carry the `scope` that they belong to: the ids of the roots that decided. An authority decides what they are worth.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from sdlb.model.reason import Asking, Reason

PROTOCOL_MIN, PROTOCOL_MAX = 1, 2
"""Range of protocol versions that this release speaks. 1: withdrawals have no cause, decisions have no scope."""
FEATURES = ("causes", "scopes")
"""What protocol 2 adds, by name, for people who read a Hello."""
HOSTS_MAX = 5


class ClaimKey(NamedTuple):
    """One service version on one route: the unit of everything that travels up and down the tree."""

    service: str
    version: str
    route: str


class Cause(IntEnum):
    """Why something is no longer claimed; the larger, the less is known. Only STOPPED opens the next version at once."""

    STOPPED = 0  # drained, or its process is gone: its host says so
    PRESUMED = 1  # its lease and its host's lease ran out, and a fence time is over
    LEFT = 2  # the node between left the tree; what is below may still serve
    UNKNOWN = 3  # a full state did not mention it


class Stage(IntEnum):
    """How far a claim has come, somewhere in the subtree that reports it."""

    SILENT = 0  # everything of it is silent and only presumed to have stopped: it may be open
    WAITING = 1  # gets no requests
    OPEN = 2  # may get new requests, or has some in flight


@dataclass(frozen=True, slots=True)
class Claim:
    """What a child has of one `ClaimKey`, as one aggregate (never instances). See `Claim` in tree.proto.

    `lease_s`: the longest instance lease below. `hosts`: the first HOSTS_MAX names; `hosts_digest`: of all of them.
    `scope`: ids of the roots whose `generation` it is; `granted`: of those that say ACTIVE now; `refused`: of those that say
    REFUSED. `doubted`: a newer generation that too few below report to be believed; 0: none. `why`: the reason of one
    instance while `capacity` is 0, for people.
    """

    key: ClaimKey
    capacity: int = 0
    count: int = 0
    hosts: tuple[str, ...] = ()
    hosts_digest: int = 0
    compatible: tuple[str, ...] = ()
    stage: Stage = Stage.WAITING
    opening: bool = False
    stamp: int = 0
    generation: int = 0
    scope: tuple[str, ...] = ()
    granted: tuple[str, ...] = ()
    leaving: int = 0
    seen: int = 0
    lease_s: int = 0
    doubted: int = 0
    refused: tuple[str, ...] = ()
    why: str = field(default="", repr=False)  # no part of the digest


WAITING, ACTIVE, REFUSED = "waiting", "active", "refused"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a parent says about one `ClaimKey`: `state` is one of WAITING, ACTIVE, REFUSED.

    `stamp`: seniority as the authority gave it, microseconds; 0: none yet.
    """

    key: ClaimKey
    state: str
    reason: Reason = Asking()
    decided_by: str = ""
    generation: int = 0
    scope: tuple[str, ...] = ()
    stamp: int = 0
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class DrainAck:
    """The parent has taken the child out for `key`; nothing is in flight through it. Answers `Claim.leaving`."""

    key: ClaimKey
    leaving: int


Rank = tuple[int, str, bytes]
NO_DOC: Rank = (0, "", b"")
POLICY = "policy"


@dataclass(frozen=True, slots=True)
class Doc:
    """A document that travels through the whole tree. The core passes on what it cannot read, unchanged.

    `kind`: "policy" (others come with later releases). `rank` decides which of two is newer. `scope`: ids of the roots
    under which it was in force where it comes from; two that differ in this only are one document.
    """

    kind: str
    name: str
    revision: int
    origin: str
    body: bytes
    scope: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def id(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def rank(self) -> Rank:
        """The body too: a root that lost its disk counts revisions from the start again."""
        return self.revision, self.origin, self.body


@dataclass(frozen=True, slots=True)
class Beat:
    """`has_say` False: from a root that cannot write its decisions, or from a node that is cut off from every root."""

    sent: int
    received: int
    has_say: bool = True


# ------------------------------------------------------------------ child -> parent


@dataclass(frozen=True, slots=True)
class Hello:
    """`nonce`: random for each start of control; tells a reconnect from a second process with the same state folder.
    `docs_digest`: of the documents that it holds.
    """

    node: str
    node_id: str
    incarnation: int
    data_address: str
    claims_digest: int = 0
    labels: tuple[str, ...] = ()
    protocol: int = PROTOCOL_MIN
    protocol_max: int = PROTOCOL_MAX
    nonce: str = ""
    verdicts_digest: int = 0
    features: tuple[str, ...] = FEATURES
    docs_digest: int = 0


class Gone(NamedTuple):
    key: ClaimKey
    cause: Cause


@dataclass(frozen=True, slots=True)
class UpState:
    """`roots`: ids of the roots that the child hears, by any of its parents; None: as before."""

    seq: int
    full: bool = False
    claims: tuple[Claim, ...] = ()
    withdrawn: tuple[Gone, ...] = ()
    docs: tuple[Doc, ...] = ()
    roots: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """`asker`: name of the node that was asked first."""

    id: str
    method: str
    path: str
    body: bytes = b""
    asker: str = ""


@dataclass(frozen=True, slots=True)
class Bye:
    """The child leaves for good. What it claimed has stopped, except `left`: nodes below it may still serve these."""

    left: tuple[ClaimKey, ...] = ()


# ------------------------------------------------------------------ parent -> child


@dataclass(frozen=True, slots=True)
class Path:
    """Where a node stands: all nodes above (itself included), the names and the ids of all roots above."""

    ancestors: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    root_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Welcome:
    """`verdicts_kept`: the child's `verdicts_digest` is that of what it was last sent, so nothing is sent again. `docs_kept`:
    its `docs_digest` is that of the parent's own documents, so none is sent.
    """

    node: str
    node_id: str
    incarnation: int
    path: Path
    claims_digest: int
    nonce: str = ""
    protocol: int = PROTOCOL_MAX
    verdicts_kept: bool = False
    docs_kept: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """`incarnation`: with code "older-incarnation", the newest one that the parent knows of this node."""

    code: str
    detail: str
    incarnation: int = 0


@dataclass(frozen=True, slots=True)
class DownState:
    """`received`: the last UpState that was taken into account. `dropped`: ids of documents that are no longer in force."""

    seq: int
    full: bool = False
    verdicts: tuple[Verdict, ...] = ()
    drained: tuple[DrainAck, ...] = ()
    docs: tuple[Doc, ...] = ()
    path: Path = Path()
    received: int = 0
    dropped: tuple[str, ...] = ()


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
