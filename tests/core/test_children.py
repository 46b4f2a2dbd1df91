"""Children of a node: which are accepted, when one is silent, and what is kept of it. Without nodes around."""

from __future__ import annotations

from random import Random

import pytest

from sdlb.core import events as ev
from sdlb.core.children import Children
from sdlb.core.downlink import Downlink
from sdlb.core.effects import ToChild
from sdlb.core.messages import Beat, Cause, Claim, Gone, Hello, Path, Refused, Stage, UpState, Welcome
from sdlb.core.settings import Settings
from sdlb.core.slot import digest_of
from sdlb.core.source import Source, Standing, Step
from sdlb.core.state import State
from tests.core.forest import Forest, key_of

KEY = key_of("1.0.1")
EDGE = Path(("edge", "top"), ("top",), ("id-top",))


class Bench:
    def __init__(self, *names: str, share: float = 0.5) -> None:
        self.state = State(Settings("edge", "id-edge", 1, guard_share=share), Random(0))
        self.children = Children(self.state)
        self.links = 0
        for name in names:
            self.connect(name)

    def connect(self, name: str, now: float = 0.0, **hello: object) -> Welcome | Refused:
        fields: dict[str, object] = {"node_id": f"id-{name}", "incarnation": 2, "nonce": "first", **hello}
        self.links += 1
        greeting = Hello(name, data_address="10.0.0.1:80", **fields)  # type: ignore[arg-type]
        self.children.on_connected(ev.ChildConnected(self.links, greeting), now, EDGE, True)
        answers = [e.message for e in self.state.effects if isinstance(e, ToChild) and e.link == self.links]
        answer = answers[0]
        assert isinstance(answer, Welcome | Refused)
        return answer

    def refused(self, name: str, now: float = 0.0, **hello: object) -> str:
        answer = self.connect(name, now, **hello)
        return answer.code if isinstance(answer, Refused) else ""

    def child(self, name: str) -> Downlink:
        return self.children.by_name[name]

    def report(
        self, name: str, *claims: Claim, gone: tuple[Gone, ...] = (), full: bool = False, now: float = 0.0
    ) -> None:
        child = self.child(name)
        child._seq_in += 1  # pyright: ignore[reportPrivateUsage]
        seq = child._seq_in  # pyright: ignore[reportPrivateUsage]
        child._seq_in -= 1  # pyright: ignore[reportPrivateUsage]
        self.children.on_state(child, UpState(seq, full, claims, gone), now)

    def wait(self) -> None:
        self.state.policies.layers.put("catalog", {"on_silence": "wait"})

    def sources(self) -> dict[str, Source]:
        slot = self.state.slots.get(KEY)
        return dict(slot.sources) if slot is not None else {}

    def run(self, until: float) -> None:
        """All timers until then."""
        while (at := self.state.next_timer()) is not None and at <= until:
            for kind, name in self.state.due_timers(at):
                if kind == "child":
                    self.children.check(name, at)
                elif kind == "remnant":
                    self.children.remnants.check(name, at)


def claim_of(*hosts: str, count: int = 1, lease_s: int = 0, stage: Stage = Stage.OPEN) -> Claim:
    digest = 0
    for host in hosts:
        digest ^= digest_of(host)
    return Claim(KEY, 8, count, hosts, digest, stage=stage, lease_s=lease_s)


# ---------------------------------------------------------------------- accepted and refused children


def test_a_node_that_is_itself_above_is_refused() -> None:
    assert Bench().refused("top") == "cycle"


@pytest.mark.parametrize(
    ("lowest", "highest", "code"), [(1, 1, ""), (1, 2, ""), (2, 9, ""), (3, 9, "protocol"), (0, 0, "protocol")]
)
def test_ranges_of_protocol_versions_have_to_meet(lowest: int, highest: int, code: str) -> None:
    assert Bench().refused("host", protocol=lowest, protocol_max=highest) == code


def test_another_node_of_a_name_is_refused_while_the_first_ones_lease_runs() -> None:
    bench = Bench("host")
    assert bench.refused("host", 9.9, node_id="id-other") == "name-taken"
    assert bench.refused("host", 10.0, node_id="id-other") == ""


def test_an_older_incarnation_is_refused_with_the_number_that_is_known() -> None:
    bench = Bench("host")
    answer = bench.connect("host", incarnation=1)
    assert isinstance(answer, Refused)
    assert (answer.code, answer.incarnation) == ("older-incarnation", 2)


def test_a_second_process_is_a_clone_only_if_the_first_answers_a_heartbeat() -> None:
    bench = Bench("host")
    first = bench.child("host")
    assert bench.refused("host", 1.0, nonce="second") == "still-connected"
    assert [e.message for e in bench.state.effects if isinstance(e, ToChild) and e.link == 1][-1] == Beat(0, 0)
    bench.children.heard(first, 1.5)
    assert bench.refused("host", 1.6, nonce="second") == "still-connected", "that was under way already"
    bench.children.heard(first, 2.0)
    assert bench.refused("host", 2.1, nonce="second") == "cloned"
    assert first.link == 1


def test_a_second_process_replaces_one_that_does_not_answer() -> None:
    bench = Bench("host")
    assert bench.refused("host", 1.0, nonce="second") == "still-connected"
    assert bench.refused("host", 4.9, nonce="second") == "still-connected"
    assert bench.refused("host", 5.0, nonce="second") == ""
    assert bench.child("host").restarted


# ---------------------------------------------------------------------- silence


def test_a_child_is_suspect_when_its_lease_is_over_and_gone_after_the_fence() -> None:
    bench = Bench("host", "other", "third")
    bench.report("host", claim_of("host"))
    bench.sources()["n:host"].step(Step.ADMIT)
    bench.children.on_closed(ev.ChildClosed(1))
    for name in ("other", "third"):
        bench.children.heard(bench.child(name), 30.0)
    bench.run(9.9)
    assert not bench.child("host").suspect
    bench.run(19.9)
    assert bench.child("host").suspect and bench.sources()["n:host"].suspect
    bench.run(20.0)
    assert "host" not in bench.children.by_name
    assert bench.state.slots[KEY].cause == Cause.PRESUMED


@pytest.mark.promise(2)
def test_the_longest_lease_below_is_waited_for() -> None:
    bench = Bench("host", "other", "third")
    bench.report("host", claim_of("host", lease_s=3600))
    for name in ("other", "third"):
        bench.children.heard(bench.child(name), 4000.0)
    bench.run(3609.0)
    assert "n:host" in bench.sources()
    bench.run(3610.0)
    assert not bench.sources()


@pytest.mark.promise(4)
@pytest.mark.parametrize(
    ("children", "silent", "guarded"),
    [(1, 1, False), (2, 1, False), (2, 2, True), (3, 1, False), (3, 2, True), (4, 2, False)],
)
def test_when_more_than_half_are_silent_none_is_presumed_to_have_stopped(
    children: int, silent: int, guarded: bool
) -> None:
    names = [f"host-{number}" for number in range(children)]
    bench = Bench(*names)
    for name in names[silent:]:
        bench.children.heard(bench.child(name), 60.0)
    bench.run(40.0)
    assert bench.children.guarded is guarded
    assert (names[0] in bench.children.by_name) is guarded


def test_the_share_that_guards_can_be_set() -> None:
    bench = Bench("a", "b", "c", "d", share=0.2)
    for name in "bcd":
        bench.children.heard(bench.child(name), 60.0)
    bench.run(40.0)
    assert "a" in bench.children.by_name


def test_the_guard_is_lifted_when_enough_are_back_or_forgotten() -> None:
    bench = Bench("a", "b", "c")
    bench.children.heard(bench.child("c"), 60.0)
    bench.run(30.0)
    assert bench.children.guarded
    bench.children.on_forget(ev.ForgetChild("a"))
    assert not bench.children.guarded
    assert bench.state.puts["child/a"] is None and bench.state.durable


def test_time_that_this_control_did_not_run_is_no_silence() -> None:
    bench = Bench("a", "b", "c")
    bench.children.shift(30.0)
    bench.run(39.9)
    assert not any(child.suspect for child in bench.children.by_name.values())


def test_a_child_in_touch_cannot_be_forgotten() -> None:
    bench = Bench("a")
    bench.children.on_forget(ev.ForgetChild("a"))
    assert "a" in bench.children.by_name


# ---------------------------------------------------------------------- what is kept


@pytest.mark.promise(1, 2)
@pytest.mark.parametrize(
    ("cause", "wait", "kept"),
    [
        (Cause.STOPPED, True, False),
        (Cause.PRESUMED, False, False),
        (Cause.PRESUMED, True, True),
        (Cause.LEFT, False, True),
        (Cause.UNKNOWN, False, True),
    ],
)
def test_what_is_withdrawn_is_kept_unless_it_has_stopped(cause: Cause, wait: bool, kept: bool) -> None:
    bench = Bench("rack")
    if wait:
        bench.wait()
    bench.report("rack", claim_of("host-1"))
    bench.report("rack", gone=(Gone(KEY, cause),))
    assert (list(bench.sources()) == ["r:rack#1"]) is kept
    assert not bench.sources() or kept


def test_what_a_full_state_does_not_mention_is_kept_and_not_claimed() -> None:
    bench = Bench("rack")
    bench.report("rack", claim_of("host-1"))
    bench.report("rack", full=True)
    remnant = bench.sources()["r:rack#1"]
    assert (remnant.standing, remnant.claim.capacity, remnant.claim.stage) == (Standing.REMNANT, 0, Stage.OPEN)
    assert any(name.startswith("remnant/r:rack#1/") for name in bench.state.puts)
    bench.run(19.9)
    assert list(bench.sources()) == ["r:rack#1"]
    bench.run(20.0)
    assert not bench.sources()


def test_what_a_restarted_child_reports_less_of_is_kept_too() -> None:
    bench = Bench("rack")
    bench.report("rack", claim_of("host-1", "host-2", count=2), full=True)
    bench.children.on_closed(ev.ChildClosed(1))
    bench.connect("rack", 1.0, nonce="second", incarnation=3)
    bench.report("rack", claim_of("host-1"), full=True)
    assert sorted(bench.sources()) == ["n:rack", "r:rack#1"]


def test_the_same_process_that_reports_less_knows_why() -> None:
    bench = Bench("rack")
    bench.report("rack", claim_of("host-1", "host-2", count=2), full=True)
    bench.children.on_closed(ev.ChildClosed(1))
    bench.connect("rack", 1.0)
    bench.report("rack", claim_of("host-1"), full=True)
    assert sorted(bench.sources()) == ["n:rack"]


def test_a_second_remnant_of_a_child_is_kept_beside_the_first() -> None:
    bench = Bench("rack")
    for host in ("host-1", "host-2"):
        bench.report("rack", claim_of(host))
        bench.report("rack", full=True)
    assert sorted(bench.sources()) == ["r:rack#1", "r:rack#2"]
    assert bench.children.remnants.forget("rack")
    assert not bench.sources()


def test_a_host_that_is_back_without_its_claim_counts_when_it_has_a_link() -> None:
    for linked in (True, False):
        bench = Bench("host")
        bench.wait()
        bench.report("host", claim_of("host"))
        bench.report("host", full=True)
        if not linked:
            bench.children.on_closed(ev.ChildClosed(1))
        bench.children.heard(bench.child("host"), 15.0)
        bench.run(20.0)
        assert bool(bench.sources()) is not linked


def test_a_remnant_waits_for_the_longest_lease_below() -> None:
    bench = Bench("rack")
    bench.report("rack", claim_of("host-1", "host-2", lease_s=60))
    bench.report("rack", full=True)
    bench.run(69.0)
    assert list(bench.sources()) == ["r:rack#1"]
    bench.run(70.0)
    assert not bench.sources()


def test_under_wait_a_remnant_stays_until_the_policy_changes() -> None:
    bench = Bench("rack")
    bench.wait()
    bench.report("rack", claim_of("host-1"))
    bench.report("rack", full=True)
    bench.run(500.0)
    assert bench.sources()["r:rack#1"].standing is Standing.PRESUMED
    bench.children.remnants.recheck("catalog")
    assert bench.sources()
    bench.state.policies.layers.put("catalog", {})
    bench.children.remnants.recheck("catalog")
    assert not bench.sources()


@pytest.mark.parametrize(("votes", "counts"), [(1, False), (2, True), (3, True)])
def test_a_root_that_more_than_half_of_the_children_hear_decides_too(votes: int, counts: bool) -> None:
    bench = Bench("a", "b", "c")
    for name in "abc"[:votes]:
        bench.children.on_state(bench.child(name), UpState(1, roots=("id-other",)), 0.0)
    assert (bench.children.other_roots() == {"id-other"}) is counts


def test_a_lost_message_starts_the_link_over() -> None:
    for message in (UpState(1), UpState(3)):
        bench = Bench("a")
        bench.children.on_state(bench.child("a"), UpState(1), 0.0)
        bench.children.on_state(bench.child("a"), message, 0.0)
        assert not bench.children.is_linked("a")
    bench = Bench("a")
    bench.children.on_beat(bench.child("a"), Beat(1, 0))
    assert not bench.children.is_linked("a")


# ---------------------------------------------------------------------- the disk of a node


@pytest.mark.promise(1, 2)
def test_a_permit_stays_on_disk_until_its_recall_is_through() -> None:
    forest = Forest({"edge": (), "host-1": ("edge",), "host-2": ("edge",)})
    forest.put("host-1", "a", "1.0.0")
    forest.put("host-2", "b", "1.0.1")
    name, endpoint = f"permit/{' '.join(KEY)}", ev.EndpointKey(KEY, "i:b")
    host = forest["host-2"]
    assert name in host.disk
    host.engine.in_flight[endpoint] = 1
    forest.policy("edge", '{"compatibility": {"deny": [["1.0.0", "1.0.1"]]}}')
    forest.run(5.0)
    assert host.state("b") != "active" and name in host.disk
    forest.finish("host-2", endpoint)
    forest.run(5.0)
    assert name not in host.disk


@pytest.mark.promise(1, 2)
@pytest.mark.parametrize("silent", [False, True])
def test_a_remnant_is_dropped_when_another_live_child_covers_its_hosts(silent: bool) -> None:
    bench = Bench("rack-1", "rack-2")
    for name in ("rack-1", "rack-2"):
        bench.report(name, claim_of("host-1", lease_s=60))
    bench.report("rack-1", full=True)
    for name in ("rack-1", "rack-2"):
        bench.children.heard(bench.child(name), 60.0)
    if silent:
        bench.sources()["n:rack-2"].standing = Standing.SUSPECT
    bench.run(25.0)
    assert ("r:rack-1#1" in bench.sources()) is silent
