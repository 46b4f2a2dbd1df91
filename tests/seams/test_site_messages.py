"""Sites under way to an engine, message by message: whatever is lost, each site ends with its last valid
certificate."""

from __future__ import annotations

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from sdlb.adapters.engine_sites import BATCH_BYTES, EngineSites, SiteFeed
from sdlb.model.site import Site
from sdlb.node.ticket_keys import make_key
from sdlb.wire import engine_pb2 as pb

KEYS = st.sampled_from("ab")


class Wire:
    """An engine: refuses what begins with "bad", keeps what it had. What it was sent waits in `sent`."""

    def __init__(self) -> None:
        self.sent: list[pb.ToEngine] = []
        self.sites = EngineSites()
        self.feed: SiteFeed | None = None
        self.held: dict[str, bytes] = {}
        self.answers: list[tuple[pb.SitesApplied, dict[str, bytes]]] = []
        self.taken: dict[str, bytes] = {}
        """The sites that, by the last report to control, were accepted."""
        self.wanted: set[str] = set()

    def connect(self) -> None:
        self.sent.clear()
        self.answers.clear()
        self.lose()
        self.feed = self.sites.feed(self.sent.append)
        asyncio.run(self.feed.greet(self.drain))

    def lose(self) -> None:
        if self.feed is not None:
            self.sites.stop(self.feed)

    async def drain(self) -> None: ...

    def take(self) -> None:
        """The next message; its answer waits in `answers`."""
        message = self.sent.pop(0)
        if message.WhichOneof("kind") != "sites":
            return
        states: list[pb.SitesApplied.State] = []
        taken: dict[str, bytes] = {}
        for each in message.sites.put:
            pem = each.certificates[0].pem
            error = "it is bad" if pem.startswith(b"bad") else ""
            if not error:
                taken[each.key] = self.held[each.key] = pem
            states.append(pb.SitesApplied.State(key=each.key, error=error))
        if message.sites.prune:
            self.held = {key: pem for key, pem in self.held.items() if key in message.sites.keep}
        self.answers.append((pb.SitesApplied(sites=states), taken))

    def answer(self) -> None:
        answer, taken = self.answers.pop(0)
        assert self.feed is not None
        self.feed.on_applied(answer)
        self.taken.update((key, pem) for key, pem in taken.items() if key in self.wanted)

    def settle(self) -> None:
        while self.sent or self.answers:
            self.take() if self.sent else self.answer()


def named(key: str, pem: bytes) -> Site:
    return Site(key, (key,), (pem,))


class Machine(RuleBasedStateMachine):
    """`good`: what was put for a site, of that which an engine takes; `last`: what was put last, also of the other kind."""

    def __init__(self) -> None:
        super().__init__()
        self.wire = Wire()
        self.number = 0
        self.good: dict[str, list[bytes]] = {}
        self.last: dict[str, bytes] = {}
        self.wire.connect()

    @rule(key=KEYS, good=st.booleans())
    def put(self, key: str, good: bool) -> None:
        self.number += 1
        pem = b"%s %d" % (b"good" if good else b"bad", self.number)
        self.last[key] = pem
        self.wire.wanted.add(key)
        if good:
            self.good.setdefault(key, []).append(pem)
        self.wire.sites.put([named(key, pem)])

    @rule(keep=st.sets(KEYS))
    def keep(self, keep: set[str]) -> None:
        self.last = {key: pem for key, pem in self.last.items() if key in keep}
        self.wire.wanted &= keep
        self.wire.taken = {key: pem for key, pem in self.wire.taken.items() if key in keep}
        self.wire.sites.put([], keep)

    @rule(taken=st.integers(0, 5), answered=st.integers(0, 5))
    def flow(self, taken: int, answered: int) -> None:
        for _ in range(min(taken, len(self.wire.sent))):
            self.wire.take()
        for _ in range(min(answered, len(self.wire.answers))):
            self.wire.answer()

    @rule()
    def flow_off(self) -> None:
        self.wire.settle()

    @rule(engine=st.booleans(), again=st.booleans())
    def connection_is_lost(self, engine: bool, again: bool) -> None:
        """And with `engine` its process, and all that it had."""
        self.wire.lose()
        self.wire.sent.clear()
        self.wire.answers.clear()
        if engine:
            self.wire.held.clear()
        if again:
            self.wire.connect()

    def teardown(self) -> None:
        self.wire.connect()
        self.wire.settle()
        self.check()
        before = {key: self.wire.taken.get(key) for key in self.last}
        self.wire.held.clear()  # an engine that is started afresh
        self.wire.connect()
        self.wire.settle()
        self.check()
        assert self.wire.held == {key: pem for key, pem in before.items() if pem is not None}

    def check(self) -> None:
        assert set(self.wire.held) <= set(self.last), "what is not kept is deleted"
        for key, pem in self.last.items():
            held = self.wire.held.get(key)
            assert held is None or held in self.good[key]
            assert held == pem or pem.startswith(b"bad")


TestMachine = Machine.TestCase
TestMachine.settings = settings(stateful_step_count=30, max_examples=150)


def test_an_answer_that_comes_late_is_that_of_what_was_sent_then() -> None:
    world = Wire()
    world.connect()
    for pem in (b"1", b"bad 2", b"3"):
        world.sites.put([named("a", pem)])
    world.settle()
    world.held.clear()
    world.connect()
    world.settle()
    assert world.held == {"a": b"3"}


def test_what_comes_while_there_is_no_connection_is_sent_with_the_next() -> None:
    world = Wire()
    world.sites.put([named("a", b"1"), named("b", b"1")], ["a", "b"])
    world.sites.ticket_keys([make_key(1)])
    assert world.sent == []
    world.connect()
    assert [message.WhichOneof("kind") for message in world.sent] == ["ticket_keys", "sites", "sites"]
    world.settle()
    world.lose()
    world.sites.put([named("a", b"2")], ["a"])
    assert world.sent == []
    world.connect()
    world.settle()
    assert world.held == {"a": b"2"}


def test_many_sites_come_in_messages_that_fit_and_only_the_last_prunes() -> None:
    world = Wire()
    sizes = [BATCH_BYTES // 3] * 7 + [3 * BATCH_BYTES, 1]
    sites = [named(f"s{number}", b"x" * size) for number, size in enumerate(sizes)]
    world.sites.put(sites, [each.key for each in sites])
    world.connect()
    messages = [message.sites for message in world.sent]
    assert [len(message.put) for message in messages] == [3, 3, 1, 1, 1, 0]
    assert [message.prune for message in messages] == [False] * 5 + [True]
    assert len(messages[-1].keep) == len(sites)
    world.settle()
    assert len(world.held) == len(sites)
