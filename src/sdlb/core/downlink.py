"""A child as its parent sees it: its link, its lease, its claims, and what was sent to it.

    linked --closed--> unlinked --lease expired--> suspect --fence passed--> presumed stopped (removed)

The endpoints of a suspect child stay in the engine as a last resort: its control may be down while its engine serves.
"""

from __future__ import annotations

from collections.abc import Sequence

from sdlb.core.digest import claims_digest, verdicts_digest
from sdlb.core.messages import Beat, Claim, ClaimKey, Doc, DownState, DrainAck, Hello, Path, Rank, Verdict


class Downlink:
    def __init__(self, name: str, node_id: str, incarnation: int, address: str, now: float) -> None:
        self.name = name
        self.node_id = node_id
        self.incarnation = incarnation
        self.nonce: str = ""
        self.address = address
        self.labels: tuple[str, ...] = ()
        self.protocol = 1
        self.link: int | None = None
        self.heard_at = now
        self.suspect = False
        self.rival: Rival | None = None
        self.claims_due = False  # no verdicts are sent before its next full state
        self.restarted = False  # its next full state comes from a process that may have lost state
        self.keys: dict[ClaimKey, None] = {}
        self.roots: tuple[str, ...] = ()  # ids of the roots that it reaches
        self.lost_roots: tuple[str, ...] = ()  # those of them that it is out of touch with
        self.sent: dict[ClaimKey, Verdict] = {}
        self.acked: dict[ClaimKey, int] = {}
        self.sent_docs: dict[str, Rank] = {}
        self.dirty: dict[ClaimKey, None] = {}
        self.lagging: dict[ClaimKey, None] = {}  # only counts of the verdict have changed: sent with the next heartbeat
        self.due: dict[ClaimKey, None] = {}  # changed counts are sent now
        self.dirty_docs: dict[str, None] = {}
        self.told_say = True  # whether this node has a say, as the last heartbeat reported
        self._sent_path: Path | None = None
        self._seq_out = 0
        self._seq_in = 0
        self._full = True

    @property
    def target(self) -> str:
        return f"n:{self.name}"

    def newer(self, hello: Hello) -> bool:
        """Whether `hello` is of the same node and not of an older incarnation."""
        return hello.node_id == self.node_id and hello.incarnation >= self.incarnation

    def linked(self, link: int, hello: Hello, digest: int, now: float) -> bool:
        """A new link. `digest`: of its claims as recorded here; if its claims differ, it reports them before it gets verdicts.

        Returns whether the child still has all verdicts that were sent to it.
        """
        self.restarted = self.restarted or (bool(self.nonce) and hello.nonce != self.nonce)
        self.link = link
        self.node_id, self.incarnation, self.address = hello.node_id, hello.incarnation, hello.data_address
        self.nonce, self.labels, self.rival = hello.nonce, hello.labels, None
        self.protocol = hello.protocol_max
        self.heard_at = now
        self._seq_out = self._seq_in = 0
        self.told_say = True
        self._full = True
        self._sent_path = None
        self.claims_due = hello.claims_digest != digest
        kept = bool(self.sent) and hello.verdicts_digest == verdicts_digest(self.sent.values())
        if not kept:
            self.sent.clear()
        self.acked.clear()
        self.sent_docs.clear()  # the child may have lost its disk
        return kept

    @staticmethod
    def digest(claims: list[Claim]) -> int:
        return claims_digest(claims)

    def received(self, seq: int) -> bool:
        """Counts a message. False: an earlier one was lost."""
        if seq != self._seq_in + 1:
            return False
        self._seq_in = seq
        return True

    def behind(self, beat: Beat) -> bool:
        """Whether the child has sent a message that did not arrive before its heartbeat."""
        return beat.sent != self._seq_in

    def beat(self, has_say: bool) -> Beat:
        self.told_say = has_say
        return Beat(self._seq_out, self._seq_in, has_say)

    def forget(self, key: ClaimKey) -> None:
        for each in (self.keys, self.sent, self.acked, self.dirty, self.lagging, self.due):
            each.pop(key, None)

    def state(
        self,
        verdicts: list[Verdict],
        drained: list[DrainAck],
        docs: list[Doc],
        path: Path,
        dropped: Sequence[str] = (),
    ) -> DownState | None:
        full = self._full
        if not (full or verdicts or drained or docs or dropped or path != self._sent_path):
            return None
        self._full = False
        self._sent_path = path
        self._seq_out += 1
        for verdict in verdicts:
            self.sent[verdict.key] = verdict
        for ack in drained:
            self.acked[ack.key] = ack.leaving
        for doc in docs:
            self.sent_docs[doc.id] = doc.rank
        for doc_id in dropped:
            del self.sent_docs[doc_id]
        return DownState(
            self._seq_out, full, tuple(verdicts), tuple(drained), tuple(docs), path, self._seq_in, tuple(dropped)
        )


class Rival:
    """A second process with the identity of a linked child. The parent waits until `until` for a sign of life of the first."""

    def __init__(self, nonce: str, now: float, wait_s: float) -> None:
        self.nonce = nonce
        self.since = now
        self.until = now + wait_s
        self.answered = False  # the linked process sent a message long enough after `since` that it is alive
