"""An agent asks the root that owns a rollout for a slot: the core of the root answers, and the owner's answer comes back."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

import pytest
from msgspec.structs import replace

from sdlb.core import events as ev
from sdlb.core.effects import Answered, Execute, ToChild
from sdlb.core.messages import TARGET, Answer, Ask
from sdlb.model.rollout import (
    GIVE_BACK,
    TAKE,
    Rollout,
    SlotAnswer,
    SlotAsk,
    Target,
    ask_body,
    read_answer,
    read_ask,
    target_body,
)
from tests.core.forest import Forest
from tests.core.node import Node

SERVICE = "catalog"
TREE: dict[str, tuple[str, ...]] = {
    "edge-1": (),
    "edge-2": (),
    "rack-1": ("edge-1", "edge-2"),
    "rack-2": ("edge-1", "edge-2"),
    "host": ("rack-1", "rack-2"),
}
ASK = SlotAsk(SERVICE, "r-1", 1, "host", GIVE_BACK)


class Asking:
    """`asked`: what each root was asked, and `answers` what the agent of each node got."""

    def __init__(self, owner: str = "", tree: dict[str, tuple[str, ...]] | None = None) -> None:
        self.forest = Forest(TREE if tree is None else tree)
        self.asked: list[tuple[str, SlotAsk]] = []
        self.answers: list[tuple[str, SlotAnswer | None]] = []
        for name, node in self.forest.nodes.items():
            self.record(name, node)
        if owner:
            self.publish(owner)
            self.forest[owner].inbox.append(ev.Tick())
            self.forest.settle()

    def publish(self, owner: str) -> None:
        """The others hear of it when the node handles its next event."""
        rollout = Rollout("r-1", "2", "1", "paused", owner, f"id-{owner}", baseline=1)
        policies = self.forest[owner].balancer._state.policies
        policies.put_doc(TARGET, SERVICE, target_body(Target(SERVICE, "1", rollout)))

    def record(self, name: str, node: Node) -> None:
        balancer = node.balancer
        on_ask = balancer._rollouts.on_ask

        def asked(ask: SlotAsk, now: float) -> SlotAnswer | None:
            self.asked.append((name, ask))
            return on_ask(ask, now)

        def on_answer(service: str, answer: SlotAnswer | None, now: float) -> None:
            assert service == SERVICE
            self.answers.append((name, answer))

        balancer._rollouts.on_ask = asked  # type: ignore[method-assign]
        balancer._agents.on_answer = on_answer  # type: ignore[method-assign]

    def ask(self, name: str = "host", ask: SlotAsk = ASK) -> None:
        node = self.forest[name]
        node.balancer._forwarder.ask_owner(SERVICE, ask, self.forest.now)
        node.inbox.append(ev.Tick())
        self.forest.settle()


@pytest.mark.parametrize("owner", ["edge-1", "edge-2"])
def test_the_owner_answers_and_no_root_executes_a_call(owner: str) -> None:
    asking = Asking(owner)
    for node in asking.forest.nodes.values():
        node.listen()
    asking.ask()
    assert asking.answers == [("host", SlotAnswer(True))]
    assert asking.forest["host"].answered == [], "the local API asked nothing"
    kinds = [type(message) for message in asking.forest[owner].sent if isinstance(message, Answer)]
    assert kinds == [Answer, Answer], "to each rack"
    assert asking.asked == [(owner, ASK)], "the other root is not asked"


@pytest.mark.parametrize("owner", ["edge-1", "edge-2"])
def test_of_all_roots_that_are_asked_the_owner_answers(owner: str) -> None:
    """The node does not know yet which root owns the rollout."""
    asking = Asking()
    asking.publish(owner)
    asking.ask()
    assert sorted(asking.asked) == [("edge-1", ASK), ("edge-2", ASK)]
    assert asking.answers == [("host", SlotAnswer(True))]


def test_what_arrives_through_two_racks_is_handled_once() -> None:
    asking = Asking("edge-2")
    asking.ask()
    assert asking.asked == [("edge-2", ASK)]
    asking.ask()
    assert len(asking.asked) == 2, "another request is another call"


def test_without_an_owner_the_agent_hears_so() -> None:
    asking = Asking()
    asking.ask()
    assert asking.answers == [("host", None)] and len(asking.asked) == 2


def test_without_a_parent_the_agent_hears_so() -> None:
    asking = Asking("edge-1")
    for rack in ("rack-1", "rack-2"):
        asking.forest.part("host", rack)
    asking.forest.settle()
    asking.ask()
    assert asking.answers == [("host", None)] and asking.asked == []


def test_an_owner_that_does_not_answer_is_not_waited_for_long() -> None:
    asking = Asking("edge-2")
    for rack in ("rack-1", "rack-2"):
        asking.forest.cut.add(frozenset((rack, "edge-2")))  # the links stay open, and nothing comes through
    asking.ask()
    assert asking.answers == []
    asking.forest.run(6.0)
    assert asking.answers == [("host", None)]


def test_one_rack_that_hangs_does_not_hide_the_answer() -> None:
    asking = Asking("edge-2")
    asking.forest.cut.add(frozenset(("host", "rack-1")))
    asking.ask()
    asking.forest.run(2.0)
    assert asking.answers == [("host", SlotAnswer(True))]


@pytest.mark.parametrize("owner", ["edge", ""])
def test_a_root_asks_itself(owner: str) -> None:
    asking = Asking(owner, {"edge": ()})
    balancer, now = asking.forest["edge"].balancer, asking.forest.now
    balancer._forwarder.ask_owner(SERVICE, ASK, now)
    assert asking.answers == [], "not while the agent is asking"
    assert balancer.wake_at() == now
    effects = balancer.handle_all((), now)
    assert asking.answers == [("edge", SlotAnswer(True) if owner else None)]
    assert not any(isinstance(effect, Execute | Answered) for effect in effects)


def test_an_agent_that_asks_while_its_root_settles_gets_the_answer_with_the_next_event() -> None:
    asking = Asking("edge", {"edge": ()})
    balancer, now = asking.forest["edge"].balancer, asking.forest.now
    due = [replace(ASK, what=TAKE)]

    def settle(now: float) -> None:
        while due:
            balancer._forwarder.ask_owner(SERVICE, due.pop(), now)

    balancer._agents.settle = settle  # type: ignore[method-assign]
    balancer.handle_all((), now)
    assert asking.answers == [] and balancer.wake_at() == now
    balancer.handle_all((), now)
    ((_, answer),) = asking.answers
    assert answer is not None and not answer.granted, "the rollout is paused"
    assert balancer.wake_at() != now


def test_the_ids_of_requests_are_unique_over_restarts() -> None:
    asking = Asking("edge-1")
    host = asking.forest["host"]
    ids: list[str] = []
    for _ in range(3):
        sent = host.listen()
        asking.ask()
        asking.ask()
        ids += [message.id for message in sent if isinstance(message, Ask)]
        host.restart()
        asking.forest.run(2.0)
        asking.record("host", host)
    assert len(ids) == 12 and len(set(ids)) == 6, "each to both racks"


BAD = {
    "no JSON": b"{",
    "another value": b"[]",
    "without a node": b'{"service":"catalog","rollout":"r-1","term":1,"node":"","what":"take"}',
    "of another kind": b'{"service":"catalog","rollout":"r-1","term":1,"node":"host","what":"keep"}',
    "a negative share": ask_body(SlotAsk(SERVICE, "r-1", 1, "host", TAKE, share=-1)),
    "a huge share": ask_body(SlotAsk(SERVICE, "r-1", 1, "host", TAKE, share=1 << 60)),
    "a long name": ask_body(SlotAsk(SERVICE, "r-1", 1, "h" * 999, TAKE)),
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_a_request_that_cannot_be_read_is_refused(body: bytes) -> None:
    asking = Asking("edge-1")
    edge = asking.forest["edge-1"]
    sent = edge.listen()
    link = next(link for link, ends in asking.forest.links.items() if ends == ("rack-1", "edge-1"))
    edge.handle(ev.ChildMessage(link, Ask("1", "POST", "/v1/rollouts/slot", body, "host")))
    (answer,) = [message for message in sent if isinstance(message, Answer)]
    assert [each.status for each in answer.answers] == [400] and asking.asked == []


def test_requests_for_slots_do_not_displace_answers_of_other_calls() -> None:
    asking = Asking("edge-1")
    forwarder, state = asking.forest["edge-1"].balancer._forwarder, asking.forest["edge-1"].balancer._state
    links = [link for link, (_, parent) in asking.forest.links.items() if parent == "edge-1"]
    forwarder.ask(Ask("1", "PUT", "/x"), links[0], True, 0.0)
    forwarder.done_here(ev.AskDone("1", 200, b""))
    for number in range(1000):
        forwarder.ask(Ask(f"s{number}", "POST", "/v1/rollouts/slot", ask_body(ASK)), links[0], True, 0.0)
    state.effects.clear()
    forwarder.ask(Ask("1", "PUT", "/x"), links[1], True, 0.0)
    assert [type(effect) for effect in state.effects] == [ToChild], "answered, not executed again"


def test_an_id_that_is_in_use_for_another_kind_of_call_is_ignored() -> None:
    """Otherwise a faulty child could leave calls behind that never end."""
    asking = Asking("edge-1")
    asking.forest.cut.add(frozenset(("rack-1", "edge-1")))
    rack = asking.forest["rack-1"].balancer
    link = next(link for link, ends in asking.forest.links.items() if ends == ("host", "rack-1"))
    rack._forwarder.ask(Ask("1", "GET", "/x"), link, False, asking.forest.now)
    rack._forwarder.ask(Ask("1", "POST", "/v1/rollouts/slot"), link, False, asking.forest.now)
    asking.forest.run(10.0)
    assert not rack._forwarder._relay.pending and not rack._forwarder._slot_relay.pending


def test_texts_and_values_that_are_sent_can_be_read() -> None:
    ask = SlotAsk(SERVICE, "r-1", 1, "host", "failed", 7, "x" * 10_000)
    read = read_ask(ask_body(ask))
    assert read is not None and read.detail == "x" * 8192
    for body in (b'{"granted":true,"retry_s":-1}', b'{"granted":true,"retry_s":1e9}', b"{}", b"\xff"):
        assert read_answer(body) is None
