"""Messages between nodes, as frozen values.

`sdlb.wire` converts them to and from `proto/tree.proto`, which defines the fields; the simulator's network passes the same
objects. The digests of claims and verdicts use `repr`, so the names of their classes and fields must not change.

A child reports what it has and does not decide. Values that come from decisions (`generation`, `stamp`, `granted`) have a
`scope`, the ids of the roots that decided. The authority weighs them against its own records.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from msgspec import Struct

from sdlb.model.reason import Asking, Reason

PROTOCOL_MIN, PROTOCOL_MAX = 1, 2
"""Protocol versions that this release speaks. In protocol 1, withdrawals have no cause and decisions have no scope."""
FEATURES = ("causes", "scopes")
"""Names of what protocol 2 adds, for people who read a Hello."""
HOSTS_MAX = 5


class ClaimKey(NamedTuple):
    """A service version on a route: the unit of claims and decisions."""

    service: str
    version: str
    route: str


class Cause(IntEnum):
    """Why a claim was withdrawn; a greater value means that less is known. Only STOPPED opens the next version immediately."""

    STOPPED = 0  # drained, or its process has exited, as its host reports
    PRESUMED = 1  # its lease and the lease of its host expired, and the fence time after that
    LEFT = 2  # the node between left the tree; instances below may still serve
    UNKNOWN = 3  # a full state did not mention it


class Stage(IntEnum):
    """The furthest state of a claim anywhere in the subtree that reports it."""

    SILENT = 0  # all of it is silent and only presumed to have stopped: it may be open
    WAITING = 1  # gets no requests
    OPEN = 2  # may get new requests, or has some in flight


class Claim(Struct, frozen=True):
    """What a child has of one `ClaimKey`, as one aggregate over its instances. See `Claim` in tree.proto.

    `lease_s`: the longest lease of an instance below. `hosts`: the first HOSTS_MAX names; `hosts_digest`: of all names.
    `scope`: ids of the roots that decided `generation`. `granted`, `refused`: ids of the roots whose decision is ACTIVE or
    REFUSED now. `doubted`: a newer generation that too few nodes below report; 0: none. `why`: the reason of one instance
    while `capacity` is 0, for people. `able`, `healthy`: capacity and number of healthy instances, also of those that may not
    serve. `joined`: "ROOT-ID/TICKET" for each root whose decision carries a ticket (`Verdict.joined`).
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
    able: int = 0
    healthy: int = 0
    joined: tuple[str, ...] = ()
    why: str = ""  # not part of the digest


WAITING, ACTIVE, REFUSED = "waiting", "active", "refused"


class Verdict(Struct, frozen=True):
    """A parent's decision about one `ClaimKey`. `state`: WAITING, ACTIVE or REFUSED.

    `stamp`: seniority given by the authority, in microseconds; 0: none yet. `joined`: the ticket of the opening that the deciding
    root follows.
    """

    key: ClaimKey
    state: str
    reason: Reason = Asking()
    decided_by: str = ""
    generation: int = 0
    scope: tuple[str, ...] = ()
    stamp: int = 0
    epoch: int = 0
    joined: str = ""


class DrainAck(Struct, frozen=True):
    """The parent has removed the child's endpoint for `key` and has nothing in flight to it. It answers `Claim.leaving`."""

    key: ClaimKey
    leaving: int


Rank = tuple[int, str, bytes]
NO_DOC: Rank = (0, "", b"")
POLICY, OPENING, TRANSFER, RELEASE, TARGET = "policy", "opening", "transfer", "release", "target"


class Doc(Struct, frozen=True, eq=False):
    """A document for the whole tree. The core forwards documents that it cannot read unchanged.

    `kind`: POLICY, OPENING, TRANSFER, RELEASE or TARGET; later releases may have others. `rank`: the greater one is newer.
    `scope`: ids of the roots under which it is in force at the sender; documents that differ only in this are equal.
    """

    kind: str
    name: str
    revision: int
    origin: str
    body: bytes
    scope: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Doc) and self._facts == other._facts

    def __hash__(self) -> int:
        return hash(self._facts)

    @property
    def _facts(self) -> tuple[object, ...]:
        return self.kind, self.name, self.revision, self.origin, self.body

    @property
    def id(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def rank(self) -> Rank:
        """Includes the body, because a root that lost its disk counts revisions from 1 again."""
        return self.revision, self.origin, self.body


class Beat(Struct, frozen=True):
    """Heartbeat. `sent`, `received`: last sequence numbers. `has_say` False: the sender is a root that cannot write its
    decisions, or a node that is cut off from every root."""

    sent: int
    received: int
    has_say: bool = True


# ------------------------------------------------------------------ child -> parent


class Hello(Struct, frozen=True):
    """First message of a child. `nonce`: random for each start of control; it distinguishes a reconnect from a second process
    with the same state folder. The digests are those of what the child holds."""

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
    """A withdrawn claim."""

    key: ClaimKey
    cause: Cause


class UpState(Struct, frozen=True):
    """State of a child: changes, or everything (`full`). `roots`: ids of the roots that it reaches through any parent. `lost`:
    those of them that no parent in touch leads to. None: unchanged. `root_names`: "ID/NAME" of roots that are its parents.
    `reports`: (service, RoleReport as JSON) of services whose report has changed; an empty report: none any more."""

    seq: int
    full: bool = False
    claims: tuple[Claim, ...] = ()
    withdrawn: tuple[Gone, ...] = ()
    docs: tuple[Doc, ...] = ()
    roots: tuple[str, ...] | None = None
    lost: tuple[str, ...] | None = None
    root_names: tuple[str, ...] = ()
    reports: tuple[tuple[str, bytes], ...] = ()


class Ask(Struct, frozen=True):
    """A forwarded API call. `asker`: name of the node whose local API got it."""

    id: str
    method: str
    path: str
    body: bytes = b""
    asker: str = ""


class Bye(Struct, frozen=True):
    """The child leaves permanently. Its claims have stopped, except `left`, which nodes below may still serve."""

    left: tuple[ClaimKey, ...] = ()


# ------------------------------------------------------------------ parent -> child


class Path(Struct, frozen=True):
    """A node's position in the tree: names of all nodes above and its own, names and ids of all roots above."""

    ancestors: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    root_ids: tuple[str, ...] = ()


class Welcome(Struct, frozen=True):
    """First message of a parent. `verdicts_kept`: the child's `verdicts_digest` matches the verdicts last sent, so they are not
    sent again. `docs_kept`: its `docs_digest` matches the parent's documents, so none are sent.
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


class Refused(Struct, frozen=True):
    """The parent refuses the link. `incarnation`: with code "older-incarnation", the newest one that the parent knows."""

    code: str
    detail: str
    incarnation: int = 0


class DownState(Struct, frozen=True):
    """State of a parent: changes, or everything (`full`). `received`: number of the last UpState that it takes into account.
    `dropped`: ids of documents that are no longer in force."""

    seq: int
    full: bool = False
    verdicts: tuple[Verdict, ...] = ()
    drained: tuple[DrainAck, ...] = ()
    docs: tuple[Doc, ...] = ()
    path: Path = Path()
    received: int = 0
    dropped: tuple[str, ...] = ()


class RootAnswer(Struct, frozen=True):
    root: str
    status: int
    body: bytes = b""


class Answer(Struct, frozen=True):
    id: str
    answers: tuple[RootAnswer, ...] = ()
    unreachable: tuple[str, ...] = ()


UpMessage = Hello | UpState | Beat | Ask | Bye
DownMessage = Welcome | Refused | DownState | Beat | Answer
