"""Nodes that wait for a slot of a rollout: the owner keeps their requests open until a slot can be free for them.

The owner does not grant a slot to a node that waits. It answers that it is the node's turn, and the node asks once more. So a slot goes
only to a node that is there at that moment, with the capacity that it has then. A node that does not ask in its turn is passed over.

Nothing of this is saved. A node whose request is lost, or whose owner restarts, asks again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from sdlb.core.rollout_rules import Owned, granted
from sdlb.model.rollout import SlotAnswer

if TYPE_CHECKING:
    from sdlb.model.rollout import Rollout, SlotAsk

HOLD_S: Final = 120.0
"""A request is answered after this time at the latest: the owner and the nodes between may have lost it."""
TURN_S: Final = 3.0
"""Time in which a node has to ask when it is its turn."""


class _Waiting(Struct, frozen=True):
    id: str
    ask: SlotAsk
    until: float


class _Turn(Struct, frozen=True):
    share: int
    until: float


class SlotQueue:
    def __init__(self) -> None:
        self._waiting: dict[str, dict[str, _Waiting]] = {}  # service -> node, in the order in which they asked
        self._turns: dict[str, dict[str, _Turn]] = {}  # service -> node whose turn it is
        self._answers: list[tuple[str, SlotAnswer]] = []

    def services(self) -> list[str]:
        return list(self._waiting)

    def waits(self, service: str) -> int:
        return len(self._waiting.get(service, ()))

    def take_answers(self) -> list[tuple[str, SlotAnswer]]:
        """Ids of requests, and their answers."""
        answers, self._answers = self._answers, []
        return answers

    def hold(self, id: str, ask: SlotAsk, now: float) -> None:
        waiting = self._waiting.setdefault(ask.service, {})
        if (former := waiting.pop(ask.node, None)) is not None:  # the node has given it up
            self._answers.append((former.id, SlotAnswer(False, why="another request of the node has arrived")))
        waiting[ask.node] = _Waiting(id, ask, now + HOLD_S)

    def asked(self, service: str, node: str) -> None:
        """It is no longer the node's turn: it asks."""
        self._turns.get(service, {}).pop(node, None)

    def with_turns(self, service: str, owned: Owned, now: float, wall_s: float) -> Owned:
        """As if the nodes whose turn it is had their slots."""
        turns = {node: turn for node, turn in self._turns.get(service, {}).items() if turn.until > now}
        self._turns[service] = turns
        if not turns:
            del self._turns[service]
        for node, turn in turns.items():
            owned = granted(owned, node, turn.share, wall_s)
        return owned

    def call(
        self, service: str, owned: Owned, objection: Callable[[SlotAsk, Owned], str], now: float, wall_s: float
    ) -> None:
        """Calls as many nodes as could get a slot. `objection`: why one would not. While no slot is open, none is returned, so no node
        waits: the owner has to hear the requests to see that capacity is short."""
        owned = self.with_turns(service, owned, now, wall_s)
        for node, each in list(self._waiting.get(service, {}).items()):
            why = objection(each.ask, owned)
            if not why:
                owned = granted(owned, node, each.ask.share, wall_s)
                self._turns.setdefault(service, {})[node] = _Turn(each.ask.share, now + TURN_S)
                self._answer(service, node, 0.0, "a slot is free")
            elif each.until <= now or not owned.slots:
                self._answer(service, node, 0.0, why)

    def drop(self, service: str, rollout: Rollout | None, why: str) -> None:
        """Answers those who wait for another rollout; None: all."""
        for node, each in list(self._waiting.get(service, {}).items()):
            if rollout is None or each.ask.rollout != rollout.id or each.ask.term > rollout.term:
                self._answer(service, node, SlotAnswer(False).retry_s, why)

    def _answer(self, service: str, node: str, retry_s: float, why: str) -> None:
        waiting = self._waiting[service]
        self._answers.append((waiting.pop(node).id, SlotAnswer(False, retry_s, why)))
        if not waiting:
            del self._waiting[service]
