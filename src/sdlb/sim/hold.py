"""Effects that a node holds back while its disk cannot be written, as `sdlb.node.held_effects` does in production.

After the first durable decision that could not be written, deltas for the engine and numbered messages wait in order.
Heartbeats pass and count only the messages that were really sent. The simulator may not import `sdlb.node`, so this is its
own model.
"""

from __future__ import annotations

from collections import deque

from msgspec.structs import replace

from sdlb.core import effects as ef
from sdlb.core.messages import Beat, DownState, UpState
from sdlb.sim import bridge

Link = str | int


class Hold:
    def __init__(self) -> None:
        self.on = False
        self.released = False  # nothing is held back, though the disk still takes nothing
        self.unwritten: dict[str, object] = {}
        self._held: deque[ef.Effect] = deque()
        self._first: dict[Link, int] = {}  # the number of the first message that is held

    def sift(self, effect: ef.Effect) -> ef.Effect | None:
        """The effect if it may be carried out now. None: it is held back."""
        match effect:
            case ef.Apply():
                self._held.append(effect)
                return None
            case ef.ToParent(link, UpState(seq)) | ef.ToChild(link, DownState(seq)):
                self._first.setdefault(link, seq)
                self._held.append(effect)
                return None
            case ef.ToParent(link, Beat() as beat):
                return replace(effect, message=self._counted(link, beat))
            case ef.ToChild(link, Beat() as beat):
                return replace(effect, message=self._counted(link, beat))
            case ef.Dial(link) | ef.HangUp(link) | ef.DropChild(link):
                if self._first.pop(link, None) is not None:
                    self._held = deque(each for each in self._held if _link(each) != link)
                return effect
            case _:
                return effect

    def _counted(self, link: Link, beat: Beat) -> Beat:
        first = self._first.get(link)
        return beat if first is None else bridge.beat_of(beat, first - 1)

    def forget_deltas(self) -> None:
        """Drops held deltas of an engine that was lost or attached again: it gets the whole table."""
        self._held = deque(each for each in self._held if not isinstance(each, ef.Apply))

    def release(self) -> list[ef.Effect]:
        """Returns all held effects in order. From now on none are held."""
        held, self._held = list(self._held), deque()
        self._first.clear()
        self.unwritten = {}
        self.on = self.released = False
        return held

    def let_go(self) -> list[ef.Effect]:
        """Returns all held effects in order. Later ones are not held either until the disk can be written again."""
        held, self._held = list(self._held), deque()
        self._first.clear()
        self.released = True
        return held


def _link(effect: ef.Effect) -> Link | None:
    match effect:
        case ef.ToParent(parent):
            return parent
        case ef.ToChild(link):
            return link
        case _:
            return None
