"""The effects that wait, in order, while a decision cannot be written to disk.

The held effects are deltas for the engine and the numbered messages between nodes (claims, verdicts, acknowledgements): everything
that carries out the decision or a later one. The others pass: dials and greetings, calls to the roots and their
answers, events, and beats, which carry the leases. So a node with a full disk does not look stopped, and its engine and links keep their
state.

A beat carries the number of messages sent before it. A beat that overtakes held messages must not count them, or the
other side would count them as lost; it counts up to the first held one.

Effects for a closed link are dropped: the next link starts with the full state. The same holds for a lost engine. Past
the bound all held messages are dropped; once messages flow again, the other side sees the gap and resynchronises.
"""

from __future__ import annotations

from collections import deque

from msgspec.structs import replace

from sdlb.core import effects as ef
from sdlb.core.events import EngineAttached, EngineLost, Event
from sdlb.core.messages import Beat, DownState, UpState

MESSAGES_MAX = 10_000
Link = str | int
"""A parent's address, or the number of a child's link."""


class HeldEffects:
    def __init__(self, messages_max: int = MESSAGES_MAX) -> None:
        self.on = False
        self._messages_max = messages_max
        self._held: deque[ef.Effect] = deque()
        self._first: dict[Link, int] = {}  # the number of the first message that was held

    def __len__(self) -> int:
        return len(self._held)

    def event(self, event: Event) -> None:
        """Handles an event that arrives while effects are held, before the core does."""
        if self.on and isinstance(event, EngineLost | EngineAttached):
            self._held = deque(each for each in self._held if not isinstance(each, ef.Apply))

    def pass_or_hold(self, effect: ef.Effect) -> ef.Effect | None:
        """The effect to carry out now, perhaps changed; None: it is held."""
        match effect:
            case ef.Apply() | ef.RunHook() | ef.AskMetrics():  # a hook runs after its intent is on disk
                self._held.append(effect)
                return None
            case ef.ToParent(parent, UpState(seq)):
                return self._keep(effect, parent, seq)
            case ef.ToChild(link, DownState(seq)):
                return self._keep(effect, link, seq)
            case ef.ToParent(parent, Beat() as beat):
                return replace(effect, message=replace(beat, sent=self._sent_before_held(parent, beat.sent)))
            case ef.ToChild(link, Beat() as beat):
                return replace(effect, message=replace(beat, sent=self._sent_before_held(link, beat.sent)))
            case ef.Dial(link) | ef.HangUp(link) | ef.DropChild(link):
                self._drop_link(link)
                return effect
            case _:
                return effect

    def _keep(self, effect: ef.Effect, link: Link, seq: int) -> None:
        if len(self._held) >= self._messages_max:
            self._held = deque(each for each in self._held if _link(each) is None)
        self._first.setdefault(link, seq)
        self._held.append(effect)

    def _sent_before_held(self, link: Link, sent: int) -> int:
        first = self._first.get(link)
        return sent if first is None else first - 1

    def _drop_link(self, link: Link) -> None:
        if self._first.pop(link, None) is not None:
            self._held = deque(each for each in self._held if _link(each) != link)

    def pop(self) -> ef.Effect | None:
        """The next held effect to carry out; None: there is none left, and holding ends."""
        if self._held:
            return self._held.popleft()
        self._first.clear()
        self.on = False
        return None


def _link(effect: ef.Effect) -> Link | None:
    match effect:
        case ef.ToParent(parent):
            return parent
        case ef.ToChild(link):
            return link
        case _:
            return None
