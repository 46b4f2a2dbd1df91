"""The targets that a node holds, each read once for each of its documents."""

from __future__ import annotations

from collections.abc import Iterator

from sdlb.core.messages import TARGET, Rank
from sdlb.core.policies import Policies
from sdlb.model.rollout import Target, read_target


class Targets:
    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self._read: dict[str, tuple[Rank, Target | None]] = {}  # service -> rank of the document, and what it says

    def get(self, service: str) -> Target | None:
        """None: the service has no target, or none that this release can read."""
        doc = self._policies.docs.get(f"{TARGET}/{service}")
        if doc is None:
            self._read.pop(service, None)
            return None
        known = self._read.get(service)
        if known is None or known[0] != doc.rank:
            known = self._read[service] = (doc.rank, read_target(doc.body))
        return known[1]

    def all(self) -> Iterator[Target]:
        for service in list(self._policies.names(TARGET)):
            if (target := self.get(service)) is not None:
                yield target
