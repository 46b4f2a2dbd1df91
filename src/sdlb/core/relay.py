"""Requests that only the roots can answer: passed to every parent, answers gathered and handed back.

An ask keeps its id on the whole way, so that a root that is reached by several paths runs it once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sdlb.core.messages import Answer, RootAnswer

ANSWER_TIMEOUT_S = 4.0
LATE_ANSWER_TIMEOUT_S = 1.0
"""How long the others are waited for once a root has answered: a root that hangs must not make those below run out of
patience, who would then have no answer at all."""
DONE_MAX = 256
DONE_BYTES_MAX = 1 << 20
"""Answers are kept so that an ask that comes by a second path is not carried out twice. What is larger than this is a
list of services: to make it again costs less than to keep it."""


@dataclass(slots=True)
class Pending:
    links: list[int]  # children that asked; empty and `local`: asked here
    local: bool
    waiting: set[str]  # parents that have not answered
    answers: dict[str, RootAnswer] = field(default_factory=dict[str, RootAnswer])
    deadline: float = 0.0


class Relay:
    def __init__(self) -> None:
        self.pending: dict[str, Pending] = {}
        self._done: dict[str, Answer] = {}
        self._done_bytes = 0

    def done(self, ask_id: str) -> Answer | None:
        return self._done.get(ask_id)

    def add(self, ask_id: str, link: int | None, parents: set[str], now: float) -> bool:
        """Whether this is the first time; False: it is already under way and the asker has been added."""
        pending = self.pending.get(ask_id)
        if pending is not None:
            if link is None:
                pending.local = True
            elif link not in pending.links:
                pending.links.append(link)
            return False
        links = [] if link is None else [link]
        self.pending[ask_id] = Pending(links, link is None, set(parents), deadline=now + ANSWER_TIMEOUT_S)
        return True

    def answered(self, parent: str, answer: Answer) -> bool:
        """Whether all parents have answered now."""
        pending = self.pending.get(answer.id)
        if pending is None:
            return False
        pending.waiting.discard(parent)
        for each in answer.answers:
            pending.answers[each.root] = each
        return not pending.waiting

    def lost(self, parent: str) -> list[str]:
        """The link to a parent broke: the asks that are complete without it."""
        complete: list[str] = []
        for ask_id, pending in self.pending.items():
            if parent in pending.waiting:
                pending.waiting.discard(parent)
                if not pending.waiting:
                    complete.append(ask_id)
        return complete

    def finish(self, ask_id: str, expected: set[str]) -> tuple[Pending, Answer] | None:
        """`expected`: names of all roots that should have answered; those that did not are named in the answer."""
        pending = self.pending.pop(ask_id, None)
        if pending is None:
            return None
        answers = tuple(pending.answers[root] for root in sorted(pending.answers))
        answer = Answer(ask_id, answers, tuple(sorted(expected - set(pending.answers))))
        self._done[ask_id] = answer
        self._done_bytes += _size(answer)
        while len(self._done) > DONE_MAX or self._done_bytes > DONE_BYTES_MAX:
            oldest = next(iter(self._done))
            self._done_bytes -= _size(self._done.pop(oldest))
        return pending, answer


def _size(answer: Answer) -> int:
    return sum(len(each.body) for each in answer.answers)
