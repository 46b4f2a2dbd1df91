"""A parent as its child sees it: the state of the link, the parent's decisions, and what was sent to it.

    idle --Dial--> dialing --connected, Hello--> greeting --Welcome--> up --closed, gap, silence--> idle (with back-off)
                                                     \\--same node as another address--> duplicate

A parent is *in touch* until `lease_s` after its last message, with or without a link. So a link that breaks and comes back
changes nothing. A parent that was never heard counts as in touch for the first `lease_s`, so that a node that starts does
not take silence for consent.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from sdlb.core.digest import claims_digest, verdicts_digest
from sdlb.core.messages import Beat, Bye, Cause, Claim, ClaimKey, Doc, Gone, Path, Rank, UpState, Verdict, Welcome
from sdlb.core.settings import BACKOFF_S_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from random import Random

    from sdlb.model.rollout import RoleReport

BACKOFF_S_MIN = 0.1


class Phase(Enum):
    IDLE = "idle"
    DIALING = "dialing"
    GREETING = "greeting"
    UP = "up"
    REFUSED = "refused"
    DUPLICATE = "duplicate"  # the parent at this address is already connected through another address


class Withdrawn(Struct):
    """A withdrawn claim. `seq`: number of the message on this link that reported it; 0: not reported yet."""

    cause: Cause
    seq: int = 0


class Uplink:
    def __init__(self, parent: str, started_at: float, lease_s: float) -> None:
        self.parent = parent
        self.phase = Phase.IDLE
        self.heard_at = started_at
        self.ever_heard = False
        self.name = ""
        self.node_id = ""
        self.known_id = ""  # id of the last node at this address, also from before a restart
        self.nonce = ""
        self.protocol = 1
        self.path = Path()
        self.no_say_since: float | None = None  # the parent reports that it has no say
        self.welcomed_at = started_at
        self.detail = "not connected yet"
        self.dial_at = started_at
        self.verdicts: dict[ClaimKey, Verdict] = {}
        self.sent: dict[ClaimKey, Claim] = {}
        self.gone: dict[ClaimKey, Withdrawn] = {}  # withdrawn claims of which the parent may not know the cause yet
        self.docs: dict[str, Doc] = {}  # documents that the parent has sent
        self.sent_docs: dict[str, Rank] = {}
        self._offered: dict[str, Doc] = {}  # in force here at the time of the Hello
        self.dirty: dict[ClaimKey, None] = {}
        self.dirty_docs: dict[str, None] = {}
        self.reported: dict[str, RoleReport] = {}  # service -> what the parent counts, with the nodes below
        self.counts_until = started_at  # until then, nodes above may count what was reported before
        self._since: dict[
            ClaimKey, int
        ] = {}  # claim in `sent` -> number of the message that first claimed it; 0: before this link
        self._sent_roots: tuple[str, ...] | None = None
        self._sent_lost: tuple[str, ...] | None = None
        self._lease_s = lease_s
        self._failures = 0
        self._seq_out = 0
        self._seq_in = 0
        self._full = True

    def in_touch(self, now: float) -> bool:
        return self.phase not in (Phase.REFUSED, Phase.DUPLICATE) and now < self.heard_at + self._lease_s

    @property
    def lost_at(self) -> float:
        """Time at which the lease expires if no further message arrives."""
        return self.heard_at + self._lease_s

    @property
    def is_root(self) -> bool:
        return bool(self.node_id) and self.path.root_ids == (self.node_id,)

    def say_ends_at(self, silence_s: float) -> float | None:
        """Time from which on the parent has no say although it is in touch. None: it has a say.

        A node that is cut off has none immediately; a root that cannot write has none after `silence_s`.
        """
        if self.no_say_since is None:
            return None
        return self.no_say_since + silence_s if self.is_root else self.no_say_since

    # ------------------------------------------------------------------ the link

    def closed(self, now: float, rng: Random, detail: str, phase: Phase = Phase.IDLE) -> None:
        """The link is closed. Sets the time of the next dial, with jitter so that many children do not return at once."""
        pause = min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        self.phase = phase
        self.detail = detail
        self.dial_at = now + (pause if phase is Phase.IDLE else BACKOFF_S_MAX) * rng.uniform(0.5, 1.0)

    def greet(self, docs: Mapping[str, Doc]) -> tuple[int, int]:
        """The stream is open. Returns the digests of the claims last sent and of the parent's verdicts, for the Hello."""
        self.phase = Phase.GREETING
        self._offered = dict(docs)
        self._seq_out = 0
        self._seq_in = 0
        return claims_digest(self.sent.values()), verdicts_digest(self.verdicts.values())

    def welcome(self, message: Welcome, now: float) -> bool:
        """Handles Welcome. Returns whether the parent still holds exactly the claims last sent, so that only changes are sent."""
        self.phase = Phase.UP
        self.heard(now)
        self.no_say_since = None
        self.welcomed_at = now
        self._failures = 0
        self.detail = "connected"
        self.name, self.node_id, self.nonce = message.node, message.node_id, message.nonce
        self.path, self.protocol = message.path, message.protocol
        self.docs = self._offered if message.docs_kept else {}
        self.sent_docs = {doc.id: doc.rank for doc in self.docs.values()}
        self._offered = {}
        self._sent_roots = self._sent_lost = None
        self.reported.clear()  # a parent drops reports with their link
        self.counts_until = now
        same = message.claims_digest == claims_digest(self.sent.values())
        self._full = not same
        for withdrawn in self.gone.values():
            withdrawn.seq = 0
        if same:  # the messages of the last link have arrived
            self.gone = {key: each for key, each in self.gone.items() if key in self.sent}
        if not message.verdicts_kept:
            self.verdicts.clear()  # the parent sends them again
        return same

    def start_over(self) -> None:
        """The parent holds other claims than were sent: all are sent again."""
        self.sent.clear()
        self._since = {}

    def go_on(self) -> None:
        """The parent holds the claims that were sent on an earlier link."""
        self._since = dict.fromkeys(self.sent, 0)

    def heard(self, now: float) -> None:
        self.heard_at = now
        self.ever_heard = True

    def received(self, seq: int) -> bool:
        """Counts a message. False: an earlier one was lost, and the link must start over."""
        if seq != self._seq_in + 1:
            return False
        self._seq_in = seq
        return True

    def forget(self, key: ClaimKey, cause: Cause) -> None:
        """Nothing below claims the key any more. The cause is kept until the parent has received it, also over reconnects."""
        self.verdicts.pop(key, None)
        if key in self.sent:
            self.gone[key] = Withdrawn(cause)

    def acknowledge(self, received: int) -> None:
        """The parent has received the messages up to this number."""
        for key in [key for key, each in self.gone.items() if 0 < each.seq <= received]:
            del self.gone[key]

    def decide(self, verdicts: tuple[Verdict, ...], received: int) -> list[ClaimKey]:
        """Records verdicts and returns their keys. Verdicts about a claim that was withdrawn meanwhile are ignored."""
        self.acknowledge(received)
        current = [v for v in verdicts if v.key in self._since and self._since[v.key] <= received]
        for verdict in current:
            self.verdicts[verdict.key] = verdict
            self.dirty[verdict.key] = None
        return [verdict.key for verdict in current]

    def behind(self, beat: Beat) -> bool:
        """Whether a message of the parent was lost: it has sent more than has arrived, although the link keeps order."""
        return beat.sent != self._seq_in

    def beat(self) -> Beat:
        return Beat(self._seq_out, self._seq_in)

    # ------------------------------------------------------------------ sending

    def state(
        self,
        claims: list[Claim],
        gone: list[Gone],
        docs: list[Doc],
        roots: tuple[str, ...],
        lost: tuple[str, ...] = (),
        root_names: tuple[str, ...] = (),
        reports: Sequence[tuple[str, bytes]] = (),
    ) -> UpState | None:
        full = self._full
        new_roots = roots if roots != self._sent_roots else None
        new_lost = lost if lost != self._sent_lost else None
        changed = new_roots is not None or new_lost is not None
        if not (full or claims or gone or docs or reports or changed or not self._seq_out):
            return None  # the first message is sent even if it is empty: it makes the state of this node complete
        self._full = False
        self._sent_roots, self._sent_lost = roots, lost
        self._seq_out += 1
        for claim in claims:
            self.sent[claim.key] = claim
            self._since.setdefault(claim.key, self._seq_out)
            self.gone.pop(claim.key, None)
        for key, cause in gone:
            self.gone.setdefault(key, Withdrawn(cause)).seq = self._seq_out
            self.sent.pop(key, None)
            self._since.pop(key, None)
            self.verdicts.pop(key, None)
        for doc in docs:
            self.sent_docs[doc.id] = doc.rank
        if self.protocol < 2:
            gone = [Gone(key, Cause.STOPPED) for key, _ in gone]  # protocol 1 has no causes
        return UpState(
            self._seq_out,
            full,
            tuple(claims),
            tuple(gone),
            tuple(docs),
            new_roots,
            new_lost,
            root_names if new_roots is not None else (),
            tuple(reports),
        )

    def bye(self, left: tuple[ClaimKey, ...]) -> Bye:
        return Bye(left if self.protocol > 1 else ())

    @staticmethod
    def minor(old: Claim, new: Claim) -> bool:
        """Whether a change may wait for the next heartbeat: capacity by less than a tenth, or only host names."""
        same = {"capacity": old.capacity, "count": old.count, "able": old.able, "healthy": old.healthy}
        if (
            replace(new, **same, hosts=old.hosts, hosts_digest=old.hosts_digest) != old
            or abs(new.able - old.able) * 10 > old.able
        ):
            return False
        if not old.capacity or not new.capacity:
            return old.capacity == new.capacity and old.count == new.count
        return abs(new.capacity - old.capacity) * 10 < old.capacity
