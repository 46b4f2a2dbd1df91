"""The documents that all nodes hold (policies), and who is believed about them.

* A root decides. What a child reports instead counts at a root only when more than half of all recorded children,
  connected or not, report the very same document: then this root is the one that missed it (a lost or older disk,
  another root that went on). The report says under which roots the document was in force. What a node brings along from
  another tree counts for nothing.
* Any other node follows its parents: in force is the newest document among those that its parents have sent. What it
  holds itself and no parent has is reported upward for a while after each connection, so that roots that lost theirs
  can learn it, and then dropped. Between, a node with children passes on what more than half of them report.
* What this release cannot read is passed on unchanged; keys that it does not know are ignored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING

from sdlb.core import saved
from sdlb.core.messages import NO_DOC, POLICY, Doc, Rank
from sdlb.model.policy import Policy
from sdlb.model.problem import Invalid

if TYPE_CHECKING:
    from sdlb.core.state import State

DOCS_MAX = 100_000
BODY_BYTES_MAX = 65536
VOTES_MAX = 10_000
"""Newer documents of one child that are counted; what it reports beyond these is ignored."""
NEWER_MAX = 1000
"""Reported documents that are kept, to be counted again later. Beyond that, only a new report can be counted."""


class Policies:
    def __init__(self, state: State) -> None:
        self._state = state
        self.docs: dict[str, Doc] = {}  # by id; in force
        self.digest = 0  # of all of them
        self.news: dict[str, None] = {}  # ids that changed since they were last passed on
        self._parsed: dict[str, Policy] = {}
        self._default = Policy()
        self._votes: dict[str, dict[str, int]] = {}  # child -> id -> digest of a document newer than ours that it holds
        self._count: Counter[tuple[str, int]] = Counter()  # (id, digest) -> children
        self._newer: dict[tuple[str, int], Doc] = {}  # (id, digest) -> a newer document that children have reported

    # ------------------------------------------------------------------ reads

    def of(self, service: str) -> Policy:
        return self._parsed.get(service, self._default)

    def doc(self, service: str) -> Doc | None:
        return self.docs.get(f"{POLICY}/{service}")

    def rank(self, doc_id: str) -> Rank:
        doc = self.docs.get(doc_id)
        return NO_DOC if doc is None else doc.rank

    # ------------------------------------------------------------------ what is in force

    def put(self, name: str, body: bytes) -> bool:
        """Set here, at a root."""
        known = self.doc(name)
        revision = known.revision + 1 if known is not None else 1
        settings = self._state.settings
        return self.adopt(Doc(POLICY, name, revision, settings.name, body, (settings.node_id,)))

    def adopt(self, doc: Doc, *, older: bool = False) -> bool:
        """Whether it is now in force: kept durably, and everything that follows from it is decided anew. `older`: also
        one that is older than what was in force."""
        state, known = self._state, self.docs.get(doc.id)
        if known is not None and known == doc:
            if not set(known.scope) >= set(doc.scope):
                self._rescope(doc)
            return False
        if known is not None and known.rank > doc.rank and not older:
            return False
        if known is None and len(self.docs) >= DOCS_MAX:
            state.note("doc-refused", f"{doc.id} was not taken: {DOCS_MAX} documents are held already", "error")
            return False
        self.docs[doc.id] = doc
        self.digest ^= hash_of(doc) ^ (hash_of(known) if known is not None else 0)
        state.persist(f"doc/{doc.id}", saved.doc_to(doc))
        self.news[doc.id] = None
        if doc.kind == POLICY:
            self._read(doc)
        return True

    def _rescope(self, doc: Doc) -> None:
        """The same document, under other roots."""
        self.docs[doc.id] = doc
        self._state.persist(f"doc/{doc.id}", saved.doc_to(doc), durable=False)

    def on_root_replaced(self, old: str, new: str) -> None:
        """A root has lost its disk and came back under another id: what was in force under it is known to be its own."""
        for doc in list(self.docs.values()):
            if old in doc.scope:
                self._rescope(replace(doc, scope=(*doc.scope, new)))

    def drop(self, doc_id: str) -> None:
        doc = self.docs.pop(doc_id, None)
        if doc is None:
            return
        self.digest ^= hash_of(doc)
        self._state.persist(f"doc/{doc_id}", None)
        self.news[doc_id] = None
        if doc.kind == POLICY:
            self._parsed.pop(doc.name, None)
            self._applied(doc.name, Policy())

    def _read(self, doc: Doc) -> None:
        state = self._state
        try:
            policy = Policy.from_json(text(doc), where=f"policy of {doc.name}", lenient=True)
        except Invalid as problem:
            state.note(
                "policy-unreadable", f"from {doc.origin}, passed on unread: {problem}", "error", service=doc.name
            )
            return
        self._parsed[doc.name] = policy
        self._applied(doc.name, policy)

    def _applied(self, service: str, policy: Policy) -> None:
        state = self._state
        state.table.set_service(service, policy.traffic)
        for key in state.by_service.get(service, ()):
            state.touch(key)
        state.dirty_services[service] = None
        state.changed_services[service] = None

    def load(self, doc_id: str, value: object) -> None:
        self.adopt(saved.doc_from(doc_id, value))

    # ------------------------------------------------------------------ what children report

    def reported(self, child: str, doc: Doc, children: int) -> bool:
        """A child holds this document; whether more than half of `children` do and it is newer than ours.

        `children`: all recorded ones, connected or not. After a restart, the first child that connects is not a majority.
        """
        votes = self._votes.setdefault(child, {})
        self._withdraw(doc.id, votes)
        if doc.rank <= self.rank(doc.id) or len(doc.body) > BODY_BYTES_MAX or len(votes) >= VOTES_MAX:
            return False
        digest = hash_of(doc)
        votes[doc.id] = digest
        self._count[doc.id, digest] += 1
        if len(self._newer) < NEWER_MAX:
            self._newer[doc.id, digest] = doc
        return self._count[doc.id, digest] * 2 > children

    def held_by_most(self, children: int) -> list[Doc]:
        """The newer documents that more than half of the children have, after the number of children or the roots that
        they hear have changed."""
        for key in [key for key, doc in self._newer.items() if doc.rank <= self.rank(doc.id)]:
            del self._newer[key]
        return [doc for key, doc in self._newer.items() if self._count[key] * 2 > children]

    def forget_child(self, child: str) -> None:
        votes = self._votes.pop(child, {})
        for doc_id in list(votes):
            self._withdraw(doc_id, votes)

    def _withdraw(self, doc_id: str, votes: dict[str, int]) -> None:
        digest = votes.pop(doc_id, None)
        if digest is not None:
            self._count[doc_id, digest] -= 1
            if not self._count[doc_id, digest]:
                del self._count[doc_id, digest]
                self._newer.pop((doc_id, digest), None)

    def take_changed(self) -> Iterator[str]:
        """Each is taken out once it was passed on: a fault in one leaves the others."""
        while self.news:
            doc_id = next(iter(self.news))
            yield doc_id
            del self.news[doc_id]


def hash_of(doc: Doc) -> int:
    return int.from_bytes(blake2b(repr(doc).encode(), digest_size=8).digest(), "big")


def text(doc: Doc) -> str:
    return doc.body.decode("utf-8", "replace")
