"""Forwards calls that only the roots can answer: up to the roots, and their answers down. The calls come from the local API, and from
agents that ask the owner of a rollout for a slot. The core of a root answers the latter itself."""

from __future__ import annotations

from sdlb.core.children import Children
from sdlb.core.effects import Answered, Execute, ToChild, ToParent
from sdlb.core.events import AskDone
from sdlb.core.messages import Answer, Ask, RootAnswer
from sdlb.core.parents import Parents
from sdlb.core.relay import ANSWER_TIMEOUT_S, LATE_ANSWER_TIMEOUT_S, Relay
from sdlb.core.rollouts import Rollouts
from sdlb.core.slot_queue import HOLD_S
from sdlb.core.state import State
from sdlb.core.uplink import Phase, Uplink
from sdlb.model.rollout import SlotAnswer, SlotAsk, answer_body, ask_body, read_answer, read_ask

SLOT_METHOD, SLOT_PATH = "POST", "/v1/rollouts/slot"


class Forwarder:
    def __init__(self, state: State, children: Children, parents: Parents, rollouts: Rollouts) -> None:
        self._state = state
        self._children = children
        self._parents = parents
        self._rollouts = rollouts
        self._relay = Relay()
        self._slot_relay = Relay()  # many calls for slots do not displace the answers of other calls
        self._asked: dict[str, str] = {}  # id of a call of this node's agent -> service
        self._answers: list[tuple[str, SlotAnswer | None]] = []
        self._here = False

    def ask(self, ask: Ask, link: int | None, here: bool, now: float) -> None:
        """Handles a call. `link`: of the child that sent it; None: it comes from this node. `here`: this node is a root and
        executes the call itself."""
        state = self._state
        self._here = here
        is_slot = (ask.method, ask.path) == (SLOT_METHOD, SLOT_PATH)
        slot = read_ask(ask.body) if is_slot else None
        relay, other = self._relay, self._slot_relay
        if is_slot:
            relay, other = other, relay
        if ask.id in other.pending:
            return  # no honest node uses an id twice
        done = relay.done(ask.id)
        if done is not None:
            if link is not None:
                state.effects.append(ToChild(link, done))
            return
        links = {p: uplink for p, uplink in self._parents.links.items() if uplink.phase is Phase.UP}
        if is_slot:
            links = self._to_owner(slot, links)
        up = {"": True} if here else dict.fromkeys(links, True)
        if not relay.add(ask.id, link, set(up), now):
            return
        if up:
            hold_s = HOLD_S if slot is not None and slot.waits else 0.0
            state.set_timer(now + hold_s + ANSWER_TIMEOUT_S, "ask", ask.id)
        if here and is_slot:
            self._answer(ask.id, slot, now)
        elif here:
            state.effects.append(Execute(ask.id, ask.method, ask.path, ask.body, ask.asker))
        elif up:
            state.effects += [ToParent(parent, ask) for parent in sorted(up)]
        else:
            self.finish(ask.id)

    def _to_owner(self, slot: SlotAsk | None, links: dict[str, Uplink]) -> dict[str, Uplink]:
        """Those of the links that lead to the owner of the rollout; all, if none is known to."""
        target = self._state.targets.get(slot.service) if slot is not None else None
        owner = target.rollout.owner_id if target is not None and target.rollout is not None else ""
        return {p: uplink for p, uplink in links.items() if owner in uplink.path.root_ids} or links

    def _answer(self, ask_id: str, ask: SlotAsk | None, now: float) -> None:
        """Answers an agent that asks for a slot, unless it has to wait (`answer_waiting`)."""
        if ask is None:
            self.done_here(AskDone(ask_id, 400, b""))
            return
        answer = self._rollouts.on_ask(ask, now)
        if answer is None:
            self.done_here(AskDone(ask_id, 409, b""))
        elif not self._rollouts.hold(ask_id, ask, answer, now):
            self.done_here(AskDone(ask_id, 200, answer_body(answer)))

    def answer_waiting(self) -> None:
        """Answers the agents for which it is time."""
        for ask_id, answer in self._rollouts.queue.take_answers():
            self.done_here(AskDone(ask_id, 200, answer_body(answer)))

    def ask_owner(self, service: str, ask: SlotAsk, now: float) -> None:
        """Asks the root that owns the rollout of the service. The answer is for `Agents.on_answer` (`take_answers`)."""
        settings = self._state.settings
        ask_id = f"slot-{settings.node_id}-{self._state.next_number()}"
        self._asked[ask_id] = service
        self.ask(Ask(ask_id, SLOT_METHOD, SLOT_PATH, ask_body(ask), settings.name), None, settings.is_root, now)

    def take_answers(self) -> list[tuple[str, SlotAnswer | None]]:
        """Services of `ask_owner` and the owner's answer; None: no root has answered as the owner."""
        answers, self._answers = self._answers, []
        return answers

    def done_here(self, event: AskDone) -> None:
        answer = RootAnswer(self._state.settings.name, event.status, event.body)
        if self._relay_of(event.id).answered("", Answer(event.id, (answer,))):
            self.finish(event.id)

    def answered(self, parent: str, answer: Answer, now: float) -> None:
        relay = self._relay_of(answer.id)
        if relay.answered(parent, answer):
            self.finish(answer.id)
        elif answer.answers and answer.id in relay.pending:
            self._state.set_timer(now + LATE_ANSWER_TIMEOUT_S, "ask", answer.id)

    def on_parent_closed(self, parent: str) -> None:
        for ask_id in [*self._relay.lost(parent), *self._slot_relay.lost(parent)]:
            self.finish(ask_id)

    def finish(self, ask_id: str) -> None:
        state, links = self._state, self._parents.links.values()
        expected = {root for uplink in links for root in uplink.path.roots}
        expected |= {u.name or u.parent for u in links if not u.path.roots}
        if self._here:
            expected = {state.settings.name}
        state.clear_timer("ask", ask_id)
        finished = self._relay_of(ask_id).finish(ask_id, expected)
        if finished is None:
            return
        pending, answer = finished
        for link in pending.links:
            if link in self._children.by_link:
                state.effects.append(ToChild(link, answer))
        service = self._asked.pop(ask_id, None)
        if service is not None:
            owner = next((each for each in answer.answers if each.status == 200), None)
            self._answers.append((service, None if owner is None else read_answer(owner.body)))
            state.set_timer(state.now, "answers")  # the agent may be asking at this moment
        elif pending.local:
            state.effects.append(Answered(ask_id, answer.answers, answer.unreachable))

    def _relay_of(self, ask_id: str) -> Relay:
        return self._slot_relay if ask_id in self._slot_relay.pending else self._relay
