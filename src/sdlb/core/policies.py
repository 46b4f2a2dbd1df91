"""The documents that all nodes hold (policies), and which reports about them count.

* A root decides. It adopts a document from children only when more than half of all recorded children, connected or not,
  report the same newer document. Then this root has missed it, because its disk was lost or is older, or another root
  continued. A report has the roots under which the document was in force; documents of another tree do not count.
* Any other node follows its parents: the newest document that its parents have sent is in force. A document that no parent
  has is reported upward for a while after each connection, so that roots that lost theirs can learn it, and is then
  dropped. A node between forwards what more than half of its children report.
* A document that this release cannot read is forwarded unchanged. Unknown keys of a document are ignored.
* A document may apply to many services (`model.policy_layers`). Its change costs as much as those that exist, and a scan of
  the names of all services.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sdlb.core import saved
from sdlb.core.digest import doc_digest
from sdlb.core.messages import NO_DOC, OPENING, POLICY, TARGET, TRANSFER, Doc, Rank
from sdlb.model import policy_layers
from sdlb.model.policy import Policy
from sdlb.model.policy_layers import Layers, covers, is_pattern
from sdlb.model.problem import Invalid
from sdlb.model.traffic import Traffic

if TYPE_CHECKING:
    from sdlb.core.state import State

DOCS_MAX = 100_000
BODY_BYTES_MAX = 65536
VOTES_MAX = 10_000
"""Newer documents of one child that are counted; further ones are ignored."""
NEWER_MAX = 1000
"""Reported documents that are kept to be counted again later. Above that, only a new report is counted."""
GONE_MAX = 1000
"""Services without a claim that keep the traffic settings of a pattern, because requests for them may still be parked."""


class Policies:
    def __init__(self, state: State) -> None:
        self._state = state
        self.docs: dict[str, Doc] = {}  # id -> the document in force
        self.digest = 0  # of all documents in force
        self.changed: dict[str, None] = {}  # ids of documents that still have to be sent on
        self.layers = Layers()  # the readable ones
        self._names: dict[str, dict[str, None]] = {}  # kind -> names of its documents
        self._gone: dict[str, None] = {}
        self._votes: dict[str, dict[str, int]] = {}  # child -> id -> digest of the newer document that it reports
        self._count: Counter[tuple[str, int]] = Counter()  # (id, digest) -> number of children that report it
        self._newer: dict[tuple[str, int], Doc] = {}  # (id, digest) -> the reported document

    # ------------------------------------------------------------------ reads

    def names(self, kind: str) -> Collection[str]:
        """Of all documents of this kind."""
        return self._names.get(kind, {})

    def of(self, service: str) -> Policy:
        return self.layers.of(service)

    def doc(self, service: str) -> Doc | None:
        return self.docs.get(f"{POLICY}/{service}")

    def rank(self, doc_id: str) -> Rank:
        doc = self.docs.get(doc_id)
        return NO_DOC if doc is None else doc.rank

    def affected(self, name: str) -> list[str]:
        """The services to which the document `name` applies: those with a claim and those with a document of their own."""
        if not is_pattern(name):
            return [name]
        named = dict.fromkeys((*self._state.by_service, *self._gone, *self.layers.documents))
        return [each for each in named if not is_pattern(each) and covers(name, each)]

    # ------------------------------------------------------------------ documents in force

    def put(self, puts: Sequence[tuple[str, bytes]]) -> list[str]:
        """Sets policies (name, body) at this node, which is a root: all of them or none. Returns the names of those that
        changed."""
        new = {name for name, _ in puts if self.doc(name) is None}
        if len(self.docs) + len(new) > DOCS_MAX:
            text = f"{len(new)} new policies were refused: this node holds at most {DOCS_MAX} documents"
            self._state.note("doc-refused", text, "error")
            return []
        return [name for name, body in puts if self.put_doc(POLICY, name, body)]

    def put_doc(self, kind: str, name: str, body: bytes, *, ahead: int = 1) -> bool:
        """Sets a document at this node, which is a root. Returns whether it is now in force.

        `ahead`: how much greater its revision is than that of the one in force.
        """
        known = self.docs.get(f"{kind}/{name}")
        revision = known.revision + ahead if known is not None else 1
        settings = self._state.settings
        return self.adopt(Doc(kind, name, revision, settings.name, body, (settings.node_id,)))

    def adopt(self, doc: Doc, *, older: bool = False) -> bool:
        """Puts a document in force and saves it durably, unless a newer one is in force. Returns whether that changed anything.

        `older`: a document that is older than the one in force is adopted too.
        """
        state, known = self._state, self.docs.get(doc.id)
        if known is not None and known == doc:
            if not set(known.scope) >= set(doc.scope):
                self._rescope(doc)
            return False
        if known is not None and known.rank > doc.rank and not older:
            return False
        if known is None and len(self.docs) >= DOCS_MAX:
            state.note("doc-refused", f"{doc.id} was refused: this node already holds {DOCS_MAX} documents", "error")
            return False
        self.docs[doc.id] = doc
        self._names.setdefault(doc.kind, {})[doc.name] = None
        self.digest ^= doc_digest(doc) ^ (doc_digest(known) if known is not None else 0)
        state.persist(f"doc/{doc.id}", saved.doc_to(doc))
        self.changed[doc.id] = None
        if doc.kind == POLICY:
            self._read(doc)
        elif doc.kind == OPENING:
            state.dirty_services[doc.name] = None
            state.changed_services[doc.name] = None
        elif doc.kind == TARGET:  # its rollout may give the new version another share
            state.dirty_routes.update(dict.fromkeys(key.route for key in state.by_service.get(doc.name, ())))
        elif doc.kind == TRANSFER:
            state.dirty_routes[doc.name] = None
        return True

    def _rescope(self, doc: Doc) -> None:
        """The same document is in force under other roots."""
        self.docs[doc.id] = doc
        self._state.persist(f"doc/{doc.id}", saved.doc_to(doc), durable=False)

    def on_root_replaced(self, old: str, new: str) -> None:
        """A root returned under another id, because it lost its disk: its documents are in force under the new id too."""
        for doc in list(self.docs.values()):
            if old in doc.scope:
                self._rescope(replace(doc, scope=(*doc.scope, new)))

    def drop(self, doc_id: str) -> None:
        doc = self.docs.pop(doc_id, None)
        if doc is None:
            return
        self._forget_name(doc)
        self.digest ^= doc_digest(doc)
        self._state.persist(f"doc/{doc_id}", None)
        self.changed[doc_id] = None
        if doc.kind == POLICY:
            self.layers.put(doc.name, {})
            self._applied(doc.name)

    def _forget_name(self, doc: Doc) -> None:
        names = self._names[doc.kind]
        del names[doc.name]
        if not names:
            del self._names[doc.kind]

    def _read(self, doc: Doc) -> None:
        try:
            document = policy_layers.read(text(doc), f"policy of {doc.name}")
        except Invalid as problem:
            message = f"{problem} (set at {doc.origin}; forwarded, but not applied here)"
            self._state.note("policy-unreadable", message, "error", service=doc.name)
            return
        self.layers.put(doc.name, document)
        self._applied(doc.name)

    def _applied(self, name: str) -> None:
        state = self._state
        for service in self.affected(name):
            state.table.set_service(service, self.of(service).traffic)
            for key in state.by_service.get(service, ()):
                state.touch(key)
            state.dirty_services[service] = None
            state.changed_services[service] = None

    def service_appeared(self, service: str) -> None:
        """The service has its first claim: a pattern may apply to it."""
        self._gone.pop(service, None)
        self._state.table.set_service(service, self.of(service).traffic)

    def service_gone(self, service: str) -> None:
        """The service has no claim any more. With a document of its own it keeps its traffic settings."""
        if service in self.layers.documents or self.of(service).traffic == Traffic():
            return
        self._gone[service] = None
        if len(self._gone) > GONE_MAX:
            oldest = next(iter(self._gone))
            del self._gone[oldest]
            if oldest not in self.layers.documents:
                self._state.table.set_service(oldest, Traffic())

    def load(self, doc_id: str, value: object) -> None:
        self.adopt(saved.doc_from(doc_id, value))

    # ------------------------------------------------------------------ reports of children

    def reported(self, child: str, doc: Doc, children: int) -> bool:
        """Counts the report of a child. Returns whether the document is newer and more than half of the children report it.

        `children`: number of all recorded children, connected or not, so that after a restart the first child that connects
        is not a majority.
        """
        votes = self._votes.setdefault(child, {})
        self._withdraw(doc.id, votes)
        if doc.rank <= self.rank(doc.id) or len(doc.body) > BODY_BYTES_MAX or len(votes) >= VOTES_MAX:
            return False
        digest = doc_digest(doc)
        votes[doc.id] = digest
        self._count[doc.id, digest] += 1
        if len(self._newer) < NEWER_MAX:
            self._newer[doc.id, digest] = doc
        return self._count[doc.id, digest] * 2 > children

    def held_by_most(self, children: int) -> list[Doc]:
        """The newer documents that more than half of the children report. Called when the number of children, or the roots
        that they reach, have changed."""
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
        """The ids in `changed`. Each is removed after the caller has handled it, so an exception does not lose the others."""
        while self.changed:
            doc_id = next(iter(self.changed))
            yield doc_id
            del self.changed[doc_id]


def text(doc: Doc) -> str:
    return doc.body.decode("utf-8", "replace")
