"""Bookkeeping of forwarded calls: which parents have not answered yet, and the answers so far.

A call keeps its id on all paths, so that a root that gets it through several paths executes it once.
"""

from __future__ import annotations

from msgspec import Struct, field

from sdlb.core.messages import Answer, RootAnswer

ANSWER_TIMEOUT_S = 4.0
LATE_ANSWER_TIMEOUT_S = 1.0
"""Time that the other parents have after the first answer of a root. It is shorter than ANSWER_TIMEOUT_S, so that one root
that hangs does not make the nodes below time out without any answer."""
DONE_MAX = 256
DONE_BYTES_MAX = 1 << 20
"""Answers are kept so that a call that arrives through a second path is not executed again. Larger answers are lists of
services, which are cheap to compute again."""


class Pending(Struct):
    """A forwarded call without a complete answer. `links`: children that wait for it. `local`: the local API waits for it.
    `waiting`: parents that have not answered."""

    links: list[int]
    local: bool
    waiting: set[str]
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
        """Returns whether the call is new. If it is already under way, the sender is added to those that wait for it."""
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
        """Adds the answer of a parent. Returns whether all parents have answered."""
        pending = self.pending.get(answer.id)
        if pending is None:
            return False
        pending.waiting.discard(parent)
        for each in answer.answers:
            pending.answers[each.root] = each
        return not pending.waiting

    def lost(self, parent: str) -> list[str]:
        """The link to a parent was lost. Returns the ids of the calls that are complete without it."""
        complete: list[str] = []
        for ask_id, pending in self.pending.items():
            if parent in pending.waiting:
                pending.waiting.discard(parent)
                if not pending.waiting:
                    complete.append(ask_id)
        return complete

    def finish(self, ask_id: str, expected: set[str]) -> tuple[Pending, Answer] | None:
        """Ends a call. `expected`: names of the roots that should have answered; the answer lists those that did not."""
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
