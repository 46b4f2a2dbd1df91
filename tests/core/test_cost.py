"""The cost of a change, in messages and visited keys, is never more than what it concerns."""

# pyright: basic
from __future__ import annotations

from random import Random

import pytest

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.balancer import Balancer
from sdlb.core.messages import Beat, ClaimKey, DownMessage, DownState, Hello, UpMessage, UpState
from sdlb.core.settings import Settings
from sdlb.core.state import TIMERS_MAX
from tests.core.forest import Forest, key_of

HOSTS = [f"host-{number:02}" for number in range(50)]
FLAT: dict[str, tuple[str, ...]] = {"edge": (), **dict.fromkeys(HOSTS, ("edge",))}
RACKS = ["rack-1", "rack-2", "rack-3"]
TIERS: dict[str, tuple[str, ...]] = {
    "edge": (),
    **dict.fromkeys(RACKS, ("edge",)),
    **{host: (RACKS[number % 3],) for number, host in enumerate(HOSTS[:12])},
}
OLD, NEW = key_of("1.0.1"), key_of("2.0.0")
MESSAGES_MAX = 5  # a child, in one cut-over


class Traffic:
    """Counts messages from here on, without heartbeats: (sender, receiver) -> number."""

    def __init__(self, forest: Forest) -> None:
        self.down: dict[tuple[str, str], list[DownMessage]] = {}
        self.up: dict[tuple[str, str], list[UpMessage]] = {}
        down, up = forest.send_down, forest.send_up

        def send_down(parent: object, link: int, message: DownMessage) -> None:
            if not isinstance(message, Beat):
                child, name = forest.links[link]
                self.down.setdefault((name, child), []).append(message)
            down(parent, link, message)  # type: ignore[arg-type]

        def send_up(child: object, parent: str, message: UpMessage) -> None:
            if not isinstance(message, Beat):
                self.up.setdefault((child.address, parent), []).append(message)  # type: ignore[attr-defined]
            up(child, parent, message)  # type: ignore[arg-type]

        forest.send_down, forest.send_up = send_down, send_up  # type: ignore[method-assign,assignment]

    def clear(self) -> None:
        self.down.clear()
        self.up.clear()

    def all(self) -> list[DownMessage | UpMessage]:
        return [message for said in (*self.down.values(), *self.up.values()) for message in said]


def most(said: dict[tuple[str, str], list[DownMessage]] | dict[tuple[str, str], list[UpMessage]]) -> int:
    return max((len(messages) for messages in said.values()), default=0)


# ---------------------------------------------------------------------- a cut-over


def rollout(topology: dict[str, tuple[str, ...]], hosts: list[str]) -> Forest:
    """The old version on all hosts, the new one waits there."""
    forest = Forest(topology)
    for host in hosts:
        forest.put(host, "a", "1.0.1", settle=False)
    forest.settle()
    for host in hosts:
        forest.put(host, "b", "2.0.0", settle=False)
    forest.settle()
    forest.run(5.0)
    assert forest["edge"].versions() == {"1.0.1": "active", "2.0.0": "waiting"}
    return forest


def cut_over(forest: Forest, hosts: list[str], at_once: bool) -> None:
    for host in hosts:
        forest.remove(host, "a", settle=not at_once)
    forest.settle()
    assert all(forest[host].state("b") == "active" for host in hosts)
    assert forest.endpoints("edge", NEW) == {f"{host}/i:b" for host in hosts}


@pytest.mark.promise(7)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_cut_over_on_fifty_children_costs_each_a_few_messages(at_once: bool) -> None:
    forest = rollout(FLAT, HOSTS)
    traffic = Traffic(forest)
    cut_over(forest, HOSTS, at_once)
    assert most(traffic.down) <= MESSAGES_MAX
    assert most(traffic.up) <= MESSAGES_MAX + 1
    assert set(traffic.down) == {("edge", host) for host in HOSTS}
    assert sum(map(len, traffic.down.values())) <= MESSAGES_MAX * len(HOSTS)


@pytest.mark.promise(7)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_cut_over_costs_no_more_than_that_below_racks(at_once: bool) -> None:
    hosts = HOSTS[:12]
    forest = rollout(TIERS, hosts)
    traffic = Traffic(forest)
    cut_over(forest, hosts, at_once)
    assert max(len(said) for (_, child), said in traffic.down.items() if child in hosts) <= MESSAGES_MAX


def test_a_cut_over_costs_the_engine_of_the_entry_a_few_deltas_a_child() -> None:
    forest = rollout(FLAT, HOSTS)
    epoch = forest["edge"].engine.epoch
    cut_over(forest, HOSTS, at_once=True)
    assert forest["edge"].engine.epoch - epoch <= 3 * len(HOSTS)


# ---------------------------------------------------------------------- one change


@pytest.mark.promise(7)
def test_a_change_of_one_child_sends_nothing_to_the_others() -> None:
    forest = rollout(FLAT, HOSTS)
    traffic = Traffic(forest)
    first = HOSTS[0]
    steps = {
        "another instance": lambda: forest.put(first, "c", "1.0.1"),
        "less capacity": lambda: forest.put(first, "c", "1.0.1", capacity=3),
        "not healthy": lambda: forest[first].inbox.append(ev.InstanceHealth("c", healthy=False)),
        "healthy again": lambda: forest[first].inbox.append(ev.InstanceHealth("c", healthy=True)),
        "a declaration that changes nothing": lambda: forest.put(first, "c", "1.0.1", compatible=("9.0.0",)),
        "a drain": lambda: forest[first].inbox.append(ev.InstanceDrain("c", 5.0)),
        "it leaves": lambda: forest.remove(first, "c"),
        "its last one leaves": lambda: forest.remove(first, "a"),
        "another service": lambda: forest.put(first, "o", "1.0.0", route="other.example/*", service="other"),
        "a link that breaks": lambda: forest.part(first, "edge"),
    }
    for what, change in steps.items():
        traffic.clear()
        change()
        forest.settle()
        assert {child for _, child in traffic.down} <= {first}, what
        assert {child for child, _ in traffic.up} <= {first}, what


@pytest.mark.promise(7)
def test_a_further_host_costs_the_others_nothing() -> None:
    forest = rollout(FLAT, HOSTS)
    forest.add("guest", "edge").start()
    traffic = Traffic(forest)
    forest.run(3.0)
    forest.put("guest", "a", "1.0.1")
    assert forest["guest"].state("a") == "active"
    others = {child for _, child in traffic.down} - {"guest"}
    waiting = {
        verdict.key
        for (_, child), said in traffic.down.items()
        if child != "guest"
        for message in said
        if isinstance(message, DownState)
        for verdict in message.verdicts
    }
    assert others == set() and waiting == set()


def test_a_change_of_one_child_visits_that_child_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost does not depend on how many other children have the service."""
    forest = rollout(FLAT, HOSTS)
    endpoints = forest["edge"].balancer._endpoints
    looked: list[str] = []
    real = endpoints._part
    monkeypatch.setattr(endpoints, "_part", lambda slot, source: looked.append(source.target) or real(slot, source))
    forest.put(HOSTS[7], "c", "1.0.1")
    assert set(looked) == {f"n:{HOSTS[7]}"}
    assert len(looked) < 25


def flushed(forest: Forest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The children of the edge for which it is looked at whether they are owed anything."""
    children = forest["edge"].balancer._children
    names: list[str] = []
    real = children._flush_one
    monkeypatch.setattr(children, "_flush_one", lambda child, *rest: names.append(child.name) or real(child, *rest))
    return names


def test_a_change_of_one_child_computes_messages_for_that_child_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """That also holds if the change alters a count in the reason that all other children have."""
    forest = rollout(FLAT, HOSTS)
    names = flushed(forest, monkeypatch)
    forest.put(HOSTS[7], "c", "1.0.1")
    assert set(names) == {HOSTS[7]}
    names.clear()
    forest.put(HOSTS[7], "c", "1.0.1", capacity=5)
    assert set(names) == {HOSTS[7]}


# ---------------------------------------------------------------------- counts


def test_counts_in_reasons_travel_with_the_next_beat_only() -> None:
    forest = Forest({"edge": (), **dict.fromkeys(HOSTS[:4], ("edge",))})
    for host in HOSTS[:2]:
        forest.put(host, "a", "1.0.1")
    forest.put(HOSTS[3], "b", "2.0.0")
    forest.run(5.0)
    waiting = forest[HOSTS[3]]
    before = waiting.reason("b")
    assert HOSTS[0] in before and HOSTS[1] in before and HOSTS[2] not in before
    forest.run(2.0 - (forest.now - 1000.0) % 2.0 + 0.25)  # just after a heartbeat
    traffic = Traffic(forest)
    forest.put(HOSTS[2], "a", "1.0.1")
    forest.run(1.0)
    assert ("edge", HOSTS[3]) not in traffic.down
    assert waiting.reason("b") == before
    forest.run(1.5)
    (message,) = traffic.down["edge", HOSTS[3]]
    assert isinstance(message, DownState)
    assert [verdict.key for verdict in message.verdicts] == [NEW]
    assert HOSTS[2] in waiting.reason("b")
    traffic.clear()
    forest.run(10.0)
    assert ("edge", HOSTS[3]) not in traffic.down, "once"


def test_a_changed_count_is_not_sent_along_with_the_child_s_own_change() -> None:
    """A waiting child reports a change while a count changes. Its verdict differs only in the count, so it is
    not sent."""
    forest = Forest({"edge": (), **dict.fromkeys(HOSTS[:3], ("edge",))})
    forest.put(HOSTS[0], "a", "1.0.1")
    forest.put(HOSTS[2], "b", "2.0.0")
    forest.run(5.0)
    forest.run(2.0 - (forest.now - 1000.0) % 2.0 + 0.25)
    traffic = Traffic(forest)
    for number in range(3):
        forest.put(HOSTS[1], f"a{number}", "1.0.1")
        forest.put(HOSTS[2], f"b{number}", "2.0.0")
    assert len(traffic.up[HOSTS[2], "edge"]) == 3
    assert ("edge", HOSTS[2]) not in traffic.down
    forest.run(2.5)
    assert len(traffic.down["edge", HOSTS[2]]) == 1


def test_many_changed_counts_cost_one_message_a_beat() -> None:
    forest = Forest({"edge": (), **dict.fromkeys(HOSTS[:3], ("edge",))})
    forest.put(HOSTS[0], "a", "1.0.1")
    forest.put(HOSTS[2], "b", "2.0.0")
    forest.run(5.0)
    traffic = Traffic(forest)
    for number in range(100):
        forest.put(HOSTS[1], f"a{number}", "1.0.1")
    forest.run(5.0)
    assert len(traffic.down["edge", HOSTS[2]]) <= 3
    assert "101" in forest[HOSTS[2]].reason("b")


def test_a_change_that_is_more_than_a_count_waits_for_no_beat() -> None:
    forest = Forest({"edge": (), **dict.fromkeys(HOSTS[:4], ("edge",))})
    for host in HOSTS[:2]:
        forest.put(host, "a", "1.0.1")
    forest.put(HOSTS[3], "b", "2.0.0")
    forest.run(5.0)
    for host in HOSTS[:2]:
        forest.remove(host, "a")
    assert forest[HOSTS[3]].state("b") == "active"


# ---------------------------------------------------------------------- routes that are held back


def held_back(wider: str, narrow: int) -> Forest:
    """One host: a route that serves, and many more specific ones that never have."""
    forest = Forest({"edge": (), "host": ("edge",)})
    forest.put("host", "w", "1.0.0", route=f"{wider}/*")
    for number in range(narrow):
        forest.put("host", f"n{number}", "1.0.0", route=f"{wider}/{number}/*", capacity=0, settle=False)
    forest.settle()
    assert set(forest["edge"].engine.routes) == {f"{wider}/*"}, "the others are held back"
    return forest


def settled(forest: Forest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    routes = forest["edge"].balancer._routes
    looked: list[str] = []
    real = routes.settle

    def settle(route: str) -> None:
        looked.append(route)
        real(route)

    monkeypatch.setattr(routes, "settle", settle)
    return looked


@pytest.mark.promise(7)
def test_a_withdrawn_route_among_many_held_back_looks_at_its_own_only(monkeypatch: pytest.MonkeyPatch) -> None:
    forest = held_back("a.example", 200)
    forest.put("host", "other", "1.0.0", route="b.example/*")
    looked = settled(forest, monkeypatch)
    forest.remove("host", "n17")
    assert set(looked) == {"a.example/17/*"}
    looked.clear()
    forest.remove("host", "other")
    assert set(looked) == {"b.example/*"}
    assert forest["edge"].engine.routes["b.example/*"].recent


def test_what_a_withdrawn_route_held_back_is_looked_at_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    forest = held_back("a.example", 20)
    forest.put("host", "w2", "1.0.0", route="b.example/*")
    for number in range(20):
        forest.put("host", f"m{number}", "1.0.0", route=f"b.example/{number}/*", capacity=0)
    assert set(forest["edge"].engine.routes) == {"a.example/*", "b.example/*"}
    looked = settled(forest, monkeypatch)
    forest.remove("host", "w2")
    assert set(looked) == {"b.example/*", *(f"b.example/{number}/*" for number in range(20))}
    assert len(looked) < 100
    held = {f"b.example/{number}/*" for number in range(20)}
    assert set(forest["edge"].engine.routes) == {"a.example/*", "b.example/*", *held}, (
        "nothing else serves these: parked"
    )


# ---------------------------------------------------------------------- timers


def lapsing(children: int) -> Balancer:
    """A root whose children all fall silent at the same moment."""
    root = Balancer(Settings("root", "id", 1, lease_s=10.0, fence_s=10.0), {}, Random(1))
    root.start(0.0)
    for number in range(children):
        root.handle(ev.ChildConnected(number + 1, Hello(f"c{number}", f"id-{number}", 1, "10.0.0.1:80")), 0.0)
    for now in (2.0, 4.0, 6.0, 8.0):
        root.handle(ev.Tick(), now)
    return root


@pytest.mark.promise(7)
@pytest.mark.parametrize("children", [1, TIMERS_MAX - 1, TIMERS_MAX, TIMERS_MAX + 1, 3 * TIMERS_MAX + 7])
def test_an_iteration_handles_a_bounded_number_of_timers_and_the_rest_follow_at_once(children: int) -> None:
    root = lapsing(children)
    silent: list[int] = []
    for _ in range(children // TIMERS_MAX + 2):
        effects = root.handle(ev.Tick(), 10.0)
        codes = [effect.code for effect in effects if isinstance(effect, ef.Note)]
        silent.append(codes.count("child-silent"))
        assert silent[-1] <= TIMERS_MAX
        wake_at = root.wake_at()
        assert wake_at is not None
        if sum(silent) < children:
            assert wake_at <= 10.0, "what is left is due at once"
    assert sum(silent) == children
    assert wake_at > 10.0


def test_what_arrives_meanwhile_waits_for_one_iteration_of_timers_only() -> None:
    root = lapsing(4 * TIMERS_MAX)
    root.handle(ev.Tick(), 10.0)
    hello = Hello("late", "id-late", 1, "10.0.0.1:80")
    effects = root.handle(ev.ChildConnected(99_999, hello), 10.0)
    assert [e for e in effects if isinstance(e, ef.ToChild) and e.link == 99_999]
    assert sum(isinstance(e, ef.Note) and e.code == "child-silent" for e in effects) <= TIMERS_MAX


def test_a_child_that_is_heard_in_time_keeps_its_lease_however_many_timers_are_due() -> None:
    """The timer of the child is behind those of many silent children, but its message is handled in time."""
    root = lapsing(3 * TIMERS_MAX)
    last = 3 * TIMERS_MAX
    root.handle(ev.ChildMessage(last, UpState(1, True)), 9.5)
    for _ in range(8):
        root.handle(ev.Tick(), 10.0)
    child = root.view.child(f"c{last - 1}")
    assert child is not None and child["state"] == "connected"
    assert sum(each["state"] == "suspect" for each in root.view.tree()["children"]) == last - 1


def test_keys_are_not_looked_at_without_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten minutes of heartbeats cause no work on any key."""
    forest = rollout(TIERS, HOSTS[:12])
    forest.run(30.0)
    looked: list[ClaimKey] = []
    for node in forest.nodes.values():
        real = node.balancer._settle_permit
        monkeypatch.setattr(
            node.balancer, "_settle_permit", lambda key, *rest, real=real: looked.append(key) or real(key, *rest)
        )
    traffic = Traffic(forest)
    forest.run(600.0)
    assert looked == []
    assert traffic.all() == []
