"""One child, as its parent sees it: its link, its lease, what it claims, what it was told.

    linked --closed--> unlinked --lease over--> suspect --fence over--> presumed stopped (forgotten)

A suspect child's members stay in the engine as a last resort: its control may be down while its engine serves.
Two nodes with one name: the higher incarnation of the same node id is the newer; another node id is refused as long
as the first one's lease runs.
"""

from __future__ import annotations

from sdlb.core.digest import claims_digest
from sdlb.core.messages import Beat, Claim, ClaimKey, DownState, DrainAck, Hello, PolicyDoc, Rank, Verdict


class Downlink:
    def __init__(self, name: str, node_id: str, incarnation: int, address: str, now: float) -> None:
        self.name = name
        self.node_id = node_id
        self.incarnation = incarnation
        self.address = address
        self.labels: tuple[str, ...] = ()
        self.link: int | None = None
        self.heard_at = now
        self.suspect = False
        self.claims_due = False  # all of its claims are to come first
        self.synced = False  # has told its full state since this control started
        self.keys: dict[ClaimKey, None] = {}
        self.sent: dict[ClaimKey, Verdict] = {}
        self.acked: dict[ClaimKey, int] = {}
        self.sent_policies: dict[str, Rank] = {}
        self.policies: dict[str, Rank] = {}  # that the child has shown to hold
        self.dirty: dict[ClaimKey, None] = {}
        self.dirty_policies: dict[str, None] = {}
        self._sent_path: tuple[tuple[str, ...], tuple[str, ...]] | None = None
        self._seq_out = 0
        self._seq_in = 0
        self._full = True

    @property
    def target(self) -> str:
        return f"n:{self.name}"

    def newer(self, hello: Hello) -> bool:
        return hello.node_id == self.node_id and hello.incarnation >= self.incarnation

    def linked(self, link: int, hello: Hello, digest: int, now: float) -> None:
        """`digest`: of what we believe that it claims; if it claims other things, it first says so, then hears of them."""
        self.link = link
        self.node_id, self.incarnation, self.address = hello.node_id, hello.incarnation, hello.data_address
        self.labels = hello.labels
        self.heard_at = now
        self._seq_out = self._seq_in = 0
        self._full = True
        self._sent_path = None
        self.claims_due = hello.claims_digest != digest
        self.sent.clear()
        self.acked.clear()
        self.sent_policies.clear()
        self.policies.clear()  # it may have lost its disk

    @staticmethod
    def digest(claims: list[Claim]) -> int:
        return claims_digest(claims)

    def received(self, seq: int) -> bool:
        if seq != self._seq_in + 1:
            return False
        self._seq_in = seq
        return True

    def behind(self, beat: Beat) -> bool:
        return beat.sent != self._seq_in

    def beat(self) -> Beat:
        return Beat(self._seq_out, self._seq_in)

    def state(
        self,
        verdicts: list[Verdict],
        forgotten: list[ClaimKey],
        drained: list[DrainAck],
        policies: list[PolicyDoc],
        path: tuple[tuple[str, ...], tuple[str, ...]],
    ) -> DownState | None:
        full = self._full
        new_path = path != self._sent_path
        if not (full or verdicts or forgotten or drained or policies or new_path):
            return None
        self._full = False
        self._sent_path = path
        self._seq_out += 1
        for verdict in verdicts:
            self.sent[verdict.key] = verdict
        for key in forgotten:
            self.sent.pop(key, None)
        for ack in drained:
            self.acked[ack.key] = ack.leaving
        for doc in policies:
            self.sent_policies[doc.service] = doc.rank
        ancestors, roots = path
        return DownState(
            self._seq_out,
            full,
            tuple(verdicts),
            tuple(forgotten),
            tuple(drained),
            tuple(policies),
            ancestors,
            roots,
            self._seq_in,
        )
