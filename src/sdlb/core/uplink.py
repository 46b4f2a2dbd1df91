"""One parent, as its child sees it: the link's life, what the parent said, what it was sent.

    idle --Dial--> dialing --connected, Hello--> greeting --Welcome--> up --closed, gap, silence--> idle (with back-off)
                                                     \\--the node of another address--> double

A parent is *in touch* until `lease_s` after it was last heard, link or no link: a link that breaks and comes back
changes nothing. One that was never heard counts as in touch for the first `lease_s`, so that a node that starts does
not take silence for consent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from sdlb.core.digest import claims_digest, verdicts_digest
from sdlb.core.messages import Beat, Bye, Cause, Claim, ClaimKey, Doc, Gone, Path, Rank, UpState, Verdict, Welcome

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

BACKOFF_S_MIN = 0.1
BACKOFF_S_MAX = 5.0


class Phase(Enum):
    IDLE = "idle"
    DIALING = "dialing"
    GREETING = "greeting"
    UP = "up"
    REFUSED = "refused"
    DUPLICATE = "double"  # this address leads to a parent that is connected by another one


@dataclass(slots=True)
class Withdrawn:
    """`seq`: of the message of this link that says so; 0: of none yet."""

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
        self.known_id = ""  # the last that was at this address, also before a restart
        self.nonce = ""
        self.protocol = 1
        self.path = Path()
        self.no_say_since: float | None = None  # it says that it has no say
        self.welcomed_at = started_at
        self.detail = "not connected yet"
        self.dial_at = started_at
        self.verdicts: dict[ClaimKey, Verdict] = {}
        self.sent: dict[ClaimKey, Claim] = {}
        self.gone: dict[ClaimKey, Withdrawn] = {}  # claimed before, and the parent may not know why no longer
        self.docs: dict[str, Doc] = {}  # that it has sent
        self.sent_docs: dict[str, Rank] = {}
        self._offered: dict[str, Doc] = {}  # in force here at the time of the Hello
        self.dirty: dict[ClaimKey, None] = {}
        self.dirty_docs: dict[str, None] = {}
        self._since: dict[
            ClaimKey, int
        ] = {}  # of `sent`: seq of the message that first claimed it; 0: before this link
        self._sent_roots: tuple[str, ...] | None = None
        self._lease_s = lease_s
        self._failures = 0
        self._seq_out = 0
        self._seq_in = 0
        self._full = True

    def in_touch(self, now: float) -> bool:
        return self.phase not in (Phase.REFUSED, Phase.DUPLICATE) and now < self.heard_at + self._lease_s

    @property
    def lost_at(self) -> float:
        return self.heard_at + self._lease_s

    @property
    def is_root(self) -> bool:
        return bool(self.node_id) and self.path.root_ids == (self.node_id,)

    def say_ends_at(self, silence_s: float) -> float | None:
        """From when on it has no say, though it is in touch: a node between that is cut off itself at once, a root that
        cannot write after `silence_s`."""
        if self.no_say_since is None:
            return None
        return self.no_say_since + silence_s if self.is_root else self.no_say_since

    # ------------------------------------------------------------------ the link

    def closed(self, now: float, rng: Random, detail: str, phase: Phase = Phase.IDLE) -> None:
        """The link is gone: when to dial again. Jitter keeps a thousand children from coming back at once."""
        pause = min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        self.phase = phase
        self.detail = detail
        self.dial_at = now + (pause if phase is Phase.IDLE else BACKOFF_S_MAX) * rng.uniform(0.5, 1.0)

    def greet(self, docs: Mapping[str, Doc]) -> tuple[int, int]:
        """The stream is open. The digests of what is believed to be at the parent, and of what it has said."""
        self.phase = Phase.GREETING
        self._offered = dict(docs)
        self._seq_out = 0
        self._seq_in = 0
        return claims_digest(self.sent.values()), verdicts_digest(self.verdicts.values())

    def welcome(self, message: Welcome, now: float) -> bool:
        """Whether the parent still holds exactly what was last sent (then differences suffice)."""
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
        self._sent_roots = None
        same = message.claims_digest == claims_digest(self.sent.values())
        self._full = not same
        for withdrawn in self.gone.values():
            withdrawn.seq = 0
        if same:  # what was sent on the last link has arrived
            self.gone = {key: each for key, each in self.gone.items() if key in self.sent}
        if not message.verdicts_kept:
            self.verdicts.clear()  # a parent says it again; until then unknown
        return same

    def start_over(self) -> None:
        """The parent holds something else than was sent: all goes again."""
        self.sent.clear()
        self._since = {}

    def go_on(self) -> None:
        self._since = dict.fromkeys(self.sent, 0)

    def heard(self, now: float) -> None:
        self.heard_at = now
        self.ever_heard = True

    def received(self, seq: int) -> bool:
        """False: a message was lost, the link must start over."""
        if seq != self._seq_in + 1:
            return False
        self._seq_in = seq
        return True

    def forget(self, key: ClaimKey, cause: Cause) -> None:
        """Nothing below claims it any more. Why is kept until the parent has received it: also over a link that breaks."""
        self.verdicts.pop(key, None)
        if key in self.sent:
            self.gone[key] = Withdrawn(cause)

    def acknowledge(self, received: int) -> None:
        """The parent has taken in the messages up to this one."""
        for key in [key for key, each in self.gone.items() if 0 < each.seq <= received]:
            del self.gone[key]

    def decide(self, verdicts: tuple[Verdict, ...], received: int) -> list[ClaimKey]:
        """Takes verdicts in; which keys they are about. What crossed a withdrawal is about a claim of the past."""
        self.acknowledge(received)
        current = [v for v in verdicts if v.key in self._since and self._since[v.key] <= received]
        for verdict in current:
            self.verdicts[verdict.key] = verdict
            self.dirty[verdict.key] = None
        return [verdict.key for verdict in current]

    def behind(self, beat: Beat) -> bool:
        """The parent has sent more than has arrived, and the link keeps order: something was lost."""
        return beat.sent != self._seq_in

    def beat(self) -> Beat:
        return Beat(self._seq_out, self._seq_in)

    # ------------------------------------------------------------------ what it is sent

    def state(self, claims: list[Claim], gone: list[Gone], docs: list[Doc], roots: tuple[str, ...]) -> UpState | None:
        full = self._full
        new_roots = roots if roots != self._sent_roots else None
        if not (full or claims or gone or docs or new_roots is not None or not self._seq_out):
            return None  # the first one is sent even if it is empty: it says that the parent now knows everything
        self._full = False
        self._sent_roots = roots
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
            gone = [Gone(key, Cause.STOPPED) for key, _ in gone]  # it knows of no causes
        return UpState(self._seq_out, full, tuple(claims), tuple(gone), tuple(docs), new_roots)

    def bye(self, left: tuple[ClaimKey, ...]) -> Bye:
        return Bye(left if self.protocol > 1 else ())

    @staticmethod
    def minor(old: Claim, new: Claim) -> bool:
        """A change so small that it may wait for the next beat: capacity by less than a tenth, other host names."""
        if replace(new, capacity=old.capacity, count=old.count, hosts=old.hosts, hosts_digest=old.hosts_digest) != old:
            return False
        if not old.capacity or not new.capacity:
            return old.capacity == new.capacity and old.count == new.count
        return abs(new.capacity - old.capacity) * 10 < old.capacity
