"""Forwards calls of the local API that only the roots can answer: up to the roots, and their answers down."""

from __future__ import annotations

from sdlb.core.children import Children
from sdlb.core.effects import Answered, Execute, ToChild, ToParent
from sdlb.core.events import AskDone
from sdlb.core.messages import Answer, Ask, RootAnswer
from sdlb.core.parents import Parents
from sdlb.core.relay import ANSWER_TIMEOUT_S, LATE_ANSWER_TIMEOUT_S, Relay
from sdlb.core.state import State
from sdlb.core.uplink import Phase
from sdlb.model.rollout import SlotAsk


class Forwarder:
    def __init__(self, state: State, children: Children, parents: Parents) -> None:
        self._state = state
        self._children = children
        self._parents = parents
        self._relay = Relay()
        self._here = False

    def ask(self, ask: Ask, link: int | None, here: bool, now: float) -> None:
        """Handles a call. `link`: of the child that sent it; None: it comes from the local API. `here`: this node is a root and
        executes the call itself."""
        state = self._state
        self._here = here
        done = self._relay.done(ask.id)
        if done is not None:
            if link is not None:
                state.effects.append(ToChild(link, done))
            return
        up = {"": True} if here else {p: True for p, uplink in self._parents.links.items() if uplink.phase is Phase.UP}
        if not self._relay.add(ask.id, link, set(up), now):
            return
        if here:
            state.effects.append(Execute(ask.id, ask.method, ask.path, ask.body, ask.asker))
        else:
            state.effects += [ToParent(parent, ask) for parent in sorted(up)]
        if up:
            state.set_timer(now + ANSWER_TIMEOUT_S, "ask", ask.id)
        else:
            self.finish(ask.id)

    def ask_owner(self, service: str, ask: SlotAsk, now: float) -> None:
        """Asks the root that owns the rollout of the service. The answer comes to `Agents.on_answer`."""

    def done_here(self, event: AskDone) -> None:
        answer = RootAnswer(self._state.settings.name, event.status, event.body)
        if self._relay.answered("", Answer(event.id, (answer,))):
            self.finish(event.id)

    def answered(self, parent: str, answer: Answer, now: float) -> None:
        if self._relay.answered(parent, answer):
            self.finish(answer.id)
        elif answer.answers and answer.id in self._relay.pending:
            self._state.set_timer(now + LATE_ANSWER_TIMEOUT_S, "ask", answer.id)

    def on_parent_closed(self, parent: str) -> None:
        for ask_id in self._relay.lost(parent):
            self.finish(ask_id)

    def finish(self, ask_id: str) -> None:
        state, links = self._state, self._parents.links.values()
        expected = {root for uplink in links for root in uplink.path.roots}
        expected |= {u.name or u.parent for u in links if not u.path.roots}
        if self._here:
            expected = {state.settings.name}
        state.clear_timer("ask", ask_id)
        finished = self._relay.finish(ask_id, expected)
        if finished is None:
            return
        pending, answer = finished
        for link in pending.links:
            if link in self._children.by_link:
                state.effects.append(ToChild(link, answer))
        if pending.local:
            state.effects.append(Answered(ask_id, answer.answers, answer.unreachable))
