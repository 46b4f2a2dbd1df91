"""One parent, as its child sees it: the link's life, what the parent said, what it was sent.

    idle --Dial--> dialing --connected, Hello--> greeting --Welcome--> up --closed, gap, silence--> idle (with back-off)

A parent is *in touch* until `lease_s` after it was last heard, link or no link: a link that breaks and comes back
changes nothing. One that was never heard counts as in touch for the first `lease_s`, so that a node that starts does
not take silence for consent.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

from sdlb.core.digest import claims_digest
from sdlb.core.messages import Beat, Claim, ClaimKey, PolicyDoc, Rank, UpState, Verdict, Welcome

if TYPE_CHECKING:
    from random import Random

BACKOFF_S_MIN = 0.1
BACKOFF_S_MAX = 5.0


class Phase(Enum):
    IDLE = "idle"
    DIALING = "dialing"
    GREETING = "greeting"
    UP = "up"
    REFUSED = "refused"


class Uplink:
    def __init__(self, parent: str, started_at: float, lease_s: float) -> None:
        self.parent = parent
        self.phase = Phase.IDLE
        self.heard_at = started_at
        self.ever_heard = False
        self.name = ""
        self.ancestors: tuple[str, ...] = ()
        self.roots: tuple[str, ...] = ()
        self.detail = "not connected yet"
        self.dial_at = started_at
        self.verdicts: dict[ClaimKey, Verdict] = {}
        self.sent: dict[ClaimKey, Claim] = {}
        self.sent_policies: dict[str, Rank] = {}
        self.dirty: dict[ClaimKey, None] = {}
        self.dirty_policies: dict[str, None] = {}
        self._since: dict[
            ClaimKey, int
        ] = {}  # of `sent`: seq of the message that first claimed it; 0: before this link
        self._lease_s = lease_s
        self._failures = 0
        self._seq_out = 0
        self._seq_in = 0
        self._full = True

    def in_touch(self, now: float) -> bool:
        return self.phase is not Phase.REFUSED and now < self.heard_at + self._lease_s

    @property
    def lost_at(self) -> float:
        return self.heard_at + self._lease_s

    # ------------------------------------------------------------------ the link

    def closed(self, now: float, rng: Random, detail: str, phase: Phase = Phase.IDLE) -> None:
        """The link is gone: when to dial again. Jitter keeps a thousand children from coming back at once."""
        pause = min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        self.phase = phase
        self.detail = detail
        self.dial_at = now + (BACKOFF_S_MAX if phase is Phase.REFUSED else pause) * rng.uniform(0.5, 1.0)

    def greet(self) -> int:
        """The stream is open. The digest of what is believed to be at the parent goes into the Hello."""
        self.phase = Phase.GREETING
        self._seq_out = 0
        self._seq_in = 0
        return claims_digest(self.sent.values())

    def welcome(self, message: Welcome, now: float) -> bool:
        """Whether the parent still holds exactly what was last sent (then differences suffice)."""
        self.phase = Phase.UP
        self.heard(now)
        self._failures = 0
        self.detail = "connected"
        self.name, self.ancestors, self.roots = message.node, message.ancestors, message.roots
        self.sent_policies.clear()
        same = message.claims_digest == claims_digest(self.sent.values())
        self._full = not same
        if not same:
            self.sent.clear()
        self._since = dict.fromkeys(self.sent, 0)
        self.verdicts.clear()  # a parent says it again; until then unknown
        return same

    def heard(self, now: float) -> None:
        self.heard_at = now
        self.ever_heard = True

    def received(self, seq: int) -> bool:
        """False: a message was lost, the link must start over."""
        if seq != self._seq_in + 1:
            return False
        self._seq_in = seq
        return True

    def decide(self, verdicts: tuple[Verdict, ...], received: int) -> list[ClaimKey]:
        """Takes verdicts in; which keys they are about. What crossed a withdrawal is about a claim of the past."""
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

    def state(self, claims: list[Claim], withdrawn: list[ClaimKey], policies: list[PolicyDoc]) -> UpState | None:
        full = self._full
        if not (full or claims or withdrawn or policies or not self._seq_out):
            return None  # the first one is sent even if it is empty: it says that the parent now knows everything
        self._full = False
        self._seq_out += 1
        for claim in claims:
            self.sent[claim.key] = claim
            self._since.setdefault(claim.key, self._seq_out)
        for key in withdrawn:
            self.sent.pop(key, None)
            self._since.pop(key, None)
            self.verdicts.pop(key, None)
        for doc in policies:
            self.sent_policies[doc.service] = doc.rank
        return UpState(self._seq_out, full, tuple(claims), tuple(withdrawn), tuple(policies))

    @staticmethod
    def minor(old: Claim, new: Claim) -> bool:
        """A change so small that it may wait for the next beat: capacity by less than a tenth, other host names."""
        if replace(new, capacity=old.capacity, count=old.count, hosts=old.hosts) != old:
            return False
        if not old.capacity or not new.capacity:
            return old.capacity == new.capacity and old.count == new.count
        return abs(new.capacity - old.capacity) * 10 < old.capacity
