"""Reports of nodes about their services: how they are summed up, and that every node is counted once at the owner's root."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from sdlb.core import events as ev
from sdlb.core import reports as limits
from sdlb.core.messages import TARGET, Beat, UpState
from sdlb.core.reports import BODY_BYTES_MAX, CHILD_BYTES_MAX, SERVICES_MAX, SLOTS_MAX, Reports
from sdlb.model.canary import Figures
from sdlb.model.rollout import (
    COUNTS_MAX,
    FAILED_MAX,
    PAUSED,
    RoleReport,
    Rollout,
    SlotReport,
    Target,
    read_report,
    report_body,
    target_body,
)
from tests.core.forest import Forest

SERVICE = "catalog"
HOSTS = ("host-1", "host-2", "host-3")
TREE: dict[str, tuple[str, ...]] = {
    "edge-1": (),
    "edge-2": (),
    "rack-1": ("edge-1", "edge-2"),
    "rack-2": ("edge-1", "edge-2"),
    **dict.fromkeys(HOSTS, ("rack-1", "rack-2")),
}
WAIT_S = 13.0
"""A lease and a heartbeat, and the time of the messages."""


# ---------------------------------------------------------------------- sums


NAMES = st.sampled_from(["a", "b", "c"])
NUMBERS = st.dictionaries(NAMES, st.integers(0, 9), max_size=3)
SLOTS = st.builds(SlotReport, NAMES, st.just("r-1"), st.sampled_from(["draining", "starting"]), st.integers(0, 9))
FIGURES = st.builds(
    Figures,
    *(st.integers(0, 9) for _ in range(3)),
    st.dictionaries(st.integers(0, 3), st.integers(1, 9), max_size=2),
    *(st.integers(0, 9) for _ in range(3)),
)
BLOCKS = st.dictionaries(st.integers(7, 10), st.dictionaries(NAMES, FIGURES, min_size=1, max_size=2), max_size=3)
REPORTS = st.builds(
    RoleReport,
    st.integers(0, 5),
    st.integers(0, 5),
    st.integers(0, 9),
    NUMBERS,
    NUMBERS,
    st.lists(SLOTS, max_size=2).map(tuple),
    st.dictionaries(NAMES, NAMES, max_size=2),
    BLOCKS,
)
ACTS = st.lists(
    st.tuples(st.sampled_from(["own", "c1", "c2", "c3"]), st.sampled_from(["web", SERVICE]), REPORTS | st.none())
    | st.tuples(st.sampled_from(["c1", "c2", "c3"])),
    max_size=20,
)


def plain_sum(reports: Iterable[RoleReport]) -> tuple[Any, ...]:
    waiting, counts = Counter[str](), Counter[str]()
    nodes = alone = ready = 0
    slots: list[SlotReport] = []
    failed: set[str] = set()
    blocks: dict[int, dict[str, Figures]] = {}
    for report in reports:
        for number, versions in report.blocks.items():
            there = blocks.setdefault(number, {})
            for version, figures in versions.items():
                there[version] = there.get(version, Figures()).plus(figures)
        nodes, alone, ready = nodes + report.nodes, alone + report.alone, ready + report.ready
        waiting.update(report.waiting)
        counts.update(report.counts)
        slots += report.slots
        failed |= set(report.failed)
    return nodes, alone, ready, dict(+waiting), dict(+counts), sorted(slots, key=repr), failed, blocks


def parts(report: RoleReport) -> tuple[Any, ...]:
    return plain_sum([report])


@given(ACTS)
def test_the_sum_is_that_of_the_reports_at_any_time(acts: list[tuple[Any, ...]]) -> None:
    reports = Reports()
    plain: dict[tuple[str, str], RoleReport] = {}
    for source, *rest in acts:
        reports.changed.clear()
        before = {service: reports.total(service) for service in ("web", SERVICE)}
        if not rest:
            reports.drop_child(source)
            plain = {place: report for place, report in plain.items() if place[0] != source}
        else:
            service, report = rest
            if source == "own":
                reports.put_own(service, report)
            else:
                reports.put_child(source, service, b"" if report is None else report_body(report))
            plain.pop((source, service), None)
            if report not in (None, RoleReport()):
                plain[source, service] = report
        for service in ("web", SERVICE):
            assert parts(reports.total(service)) == plain_sum(r for place, r in plain.items() if place[1] == service)
            assert service in reports.changed or reports.total(service) == before[service]
        assert reports.services() == tuple(sorted({place[1] for place in plain}))
    for child in ("c1", "c2", "c3"):
        reports.drop_child(child)
    for service in ("web", SERVICE):
        reports.put_own(service, None)
    assert not (reports._sums or reports._reports or reports._bytes or reports._child_bytes), "nothing is left"


def test_a_change_of_one_child_does_not_look_at_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    reports = Reports()
    for child in range(500):
        reports.put_child(f"c{child}", SERVICE, report_body(RoleReport(1, ready=10, counts={"r-1 done": 1})))
    assert reports.total(SERVICE).ready == 5000
    touched: list[int] = []
    add = limits._Tally.add

    def counting(tally: limits._Tally, values: Mapping[str, int], sign: int) -> None:
        touched.append(len(values))
        add(tally, values, sign)

    monkeypatch.setattr(limits._Tally, "add", counting)
    reports.put_child("c7", SERVICE, report_body(RoleReport(1, ready=9, counts={"r-1 failed": 1})))
    assert reports.total(SERVICE).ready == 4999
    assert len(touched) == 10, "five tallies, once without the old and once with the new report"


# ---------------------------------------------------------------------- what a child may send

LIES: dict[str, bytes] = {
    "no JSON": b"{",
    "not UTF-8": b'{"nodes":\xff}',
    "a list": b"[]",
    "nested": b"[" * 30_000,
    "a negative number": b'{"nodes":1,"ready":-1}',
    "a negative count": b'{"nodes":1,"counts":{"r-1 done":-1}}',
    "a negative share": b'{"nodes":1,"slots":[{"node":"a","rollout":"r","phase":"p","share":-1}]}',
    "a fraction": b'{"nodes":1.5}',
    "a huge number": b'{"nodes":' + b"9" * 40 + b"}",
    "a number that is too large": b'{"nodes":9007199254740992}',
    "a control character": b'{"nodes":1,"counts":{"a\\u0000":1}}',
    "half a character": b'{"nodes":1,"failed":{"a":"\\ud800"}}',
    "a negative figure": b'{"nodes":1,"blocks":{"7":{"1.0.1":{"asked":-1}}}}',
    "a figure that is too large": b'{"nodes":1,"blocks":{"7":{"1.0.1":{"head":{"1":9007199254740992}}}}}',
    "a negative block": b'{"nodes":1,"blocks":{"-7":{"1.0.1":{"asked":1}}}}',
    "a block without a number": b'{"nodes":1,"blocks":{"x":{"1.0.1":{"asked":1}}}}',
    "a long version": b'{"nodes":1,"blocks":{"7":{"' + b"x" * 300 + b'":{"asked":1}}}}',
    "a long name": b'{"nodes":1,"waiting":{"' + b"x" * 300 + b'":1}}',
    "a huge text": report_body(RoleReport(1, failed={"a": "x" * BODY_BYTES_MAX})),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_report_that_cannot_be_read_counts_as_none(lie: bytes) -> None:
    reports = Reports()
    reports.put_child("a", SERVICE, report_body(RoleReport(2, ready=20)))
    reports.put_child("liar", SERVICE, report_body(RoleReport(1, ready=10)))
    reports.put_child("liar", SERVICE, lie)
    assert reports.total(SERVICE) == RoleReport(2, ready=20)


@given(st.binary(max_size=100) | REPORTS.map(report_body), st.data())
def test_no_bytes_of_a_child_raise(body: bytes, data: st.DataObject) -> None:
    raw = bytearray(body)
    if raw:
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    reports = Reports()
    reports.put_child("liar", SERVICE, bytes(raw))
    reports.body(SERVICE)
    reports.drop_child("liar")
    assert reports.services() == ()


def test_what_a_child_reports_is_bounded() -> None:
    most = RoleReport(
        1,
        counts={f"r-{n} done": 1 for n in range(2 * COUNTS_MAX)},
        waiting={str(n): 1 for n in range(2 * COUNTS_MAX)},
        slots=tuple(SlotReport(f"h{n}", "r-1", "draining", detail="x") for n in range(SLOTS_MAX + 9)),
        failed={f"h{n}": "x" * 2500 for n in range(FAILED_MAX + 2)},
    )
    reports = Reports()
    reports.put_child("liar", SERVICE, report_body(most))
    kept = reports._reports["liar"][SERVICE]
    sizes = [len(each) for each in (kept.counts, kept.waiting, kept.slots, kept.failed)]
    assert sizes == [COUNTS_MAX, COUNTS_MAX, SLOTS_MAX, FAILED_MAX]
    assert max(map(len, kept.failed.values())) == limits.FAILED_CHARS_MAX


def test_services_and_bytes_of_a_child_are_bounded() -> None:
    reports = Reports()
    for number in range(SERVICES_MAX + 9):
        reports.put_child("liar", f"s{number}", report_body(RoleReport(1)))
    reports.put_child("liar", "no service", report_body(RoleReport(1)))
    assert len(reports.services()) == SERVICES_MAX
    reports.put_child("liar", "s0", b"")
    reports.put_child("liar", "another", report_body(RoleReport(1)))
    assert "another" in reports.services() and "s0" not in reports.services()
    reports.drop_child("liar")
    large = report_body(RoleReport(1, slots=tuple(SlotReport("h", "r-1", "x" * 200) for _ in range(200))))
    for number in range(2 * CHILD_BYTES_MAX // len(large)):
        reports.put_child("liar", f"s{number}", large)
    assert len(reports.services()) == CHILD_BYTES_MAX // len(large)


def test_names_that_only_one_child_reports_do_not_displace_those_of_the_others() -> None:
    reports = Reports()
    reports.put_child(
        "liar", SERVICE, report_body(RoleReport(1, counts={f"a-{n} x": 10**9 for n in range(COUNTS_MAX)}))
    )
    for child in ("c1", "c2"):
        reports.put_child(child, SERVICE, report_body(RoleReport(1, counts={"r-1 done": 1})))
    total = reports.total(SERVICE)
    assert total.count("r-1", "done") == 2 and len(total.counts) == COUNTS_MAX


def test_a_sum_can_always_be_sent_on() -> None:
    """Many children with the most that one may report, and numbers that are as large as they may be."""
    reports = Reports()
    for child in range(40):
        slots = tuple(SlotReport(f"h-{child}-{n}", "r-1", "draining", detail="é" * 500) for n in range(40))
        counts = {f"{child}-{n}{'x' * 200}": limits.NUMBER_MAX for n in range(COUNTS_MAX)}
        report = RoleReport(limits.NUMBER_MAX, slots=slots, counts=counts)
        reports.put_child(f"c{child}", SERVICE, report_body(report))
    above = Reports()
    above.put_child("rack", SERVICE, reports.body(SERVICE))
    assert above.total(SERVICE).nodes == limits.NUMBER_MAX
    assert above.total(SERVICE).slots, "as many as there is space for"


# ---------------------------------------------------------------------- one parent


class Counted:
    """A forest whose hosts all run the service. A count for each host tells how often a root counts it."""

    def __init__(self, tree: dict[str, tuple[str, ...]] | None = None, owner: str = "") -> None:
        self.forest = Forest(TREE if tree is None else tree)
        self.hosts = [name for name in self.forest.nodes if name.startswith("host")]
        if owner:
            self.own(owner)
        self.report_all()
        self.forest.run(WAIT_S)
        self.forest.watch.append(self.never_twice)

    def own(self, owner: str, term: int = 1) -> None:
        """A rollout that `owner` owns. It is paused, so the owner itself changes nothing."""
        rollout = Rollout("r-1", "2", "1", PAUSED, owner, f"id-{owner}", term=term, baseline=1)
        node = self.forest[owner]
        node.balancer._state.policies.put_doc(TARGET, SERVICE, target_body(Target(SERVICE, "1", rollout)))
        node.inbox.append(ev.Tick())
        self.forest.settle()

    def report(self, host: str, **values: Any) -> None:
        node = self.forest[host]
        report = replace(RoleReport(1, ready=10, counts={host: 1}), **values)
        node.balancer._state.reports.put_own(SERVICE, report)
        node.inbox.append(ev.Tick())

    def report_all(self) -> None:
        for host in self.hosts:
            if self.forest[host].alive:
                self.report(host)

    def total(self, root: str) -> RoleReport:
        return self.forest[root].balancer._state.reports.total(SERVICE)

    def counts(self, root: str) -> dict[str, int]:
        return dict(self.total(root).counts)

    def lose_link(self, child: str, parent: str) -> None:
        """The link is gone, and the parent does not notice."""
        links = self.forest.links
        for link in [link for link, ends in links.items() if ends == (child, parent)]:
            del links[link]

    def never_twice(self) -> None:
        for root in ("edge-1", "edge-2"):
            if root in self.forest.nodes and self.forest[root].alive:
                assert all(count == 1 for count in self.counts(root).values()), f"{root} counts {self.counts(root)}"


ONCE = dict.fromkeys(HOSTS, 1)


@pytest.mark.parametrize("owner", ["edge-1", "edge-2"])
def test_each_node_is_counted_once_at_the_root_that_owns_the_rollout(owner: str) -> None:
    counted = Counted(owner=owner)
    other = "edge-2" if owner == "edge-1" else "edge-1"
    assert (counted.counts(owner), counted.counts(other)) == (ONCE, {})
    assert counted.total(owner).nodes == 3 and counted.total(owner).ready == 30


def test_without_a_rollout_the_first_parent_counts() -> None:
    counted = Counted()
    assert (counted.counts("edge-1"), counted.counts("edge-2")) == (ONCE, {})


def test_when_another_root_takes_the_rollout_it_counts_the_nodes_at_once() -> None:
    counted = Counted(owner="edge-1")
    counted.own("edge-2", term=2)
    assert (counted.counts("edge-1"), counted.counts("edge-2")) == ({}, ONCE)


def test_the_order_of_the_node_file_decides() -> None:
    counted = Counted({**TREE, "host-1": ("rack-2", "rack-1")})
    below = {rack: counted.counts(rack) for rack in ("rack-1", "rack-2")}
    assert below == {"rack-1": {"host-2": 1, "host-3": 1}, "rack-2": {"host-1": 1}}


def test_a_node_whose_link_breaks_is_not_counted_for_a_lease_and_then_through_another_parent() -> None:
    counted = Counted(owner="edge-1")
    counted.forest.part("host-1", "rack-1")
    counted.forest.run(11.0)
    assert "host-1" not in counted.counts("edge-1")
    counted.forest.run(3.0)
    assert counted.counts("edge-1") == ONCE and counted.counts("rack-2") == {"host-1": 1}


def test_a_node_whose_link_comes_back_is_counted_at_once() -> None:
    counted = Counted(owner="edge-1")
    counted.forest.part("host-1", "rack-1")
    counted.forest.cut.clear()
    counted.forest.run(1.0)
    assert counted.counts("edge-1") == ONCE and not counted.counts("rack-2")


def test_a_parent_that_comes_back_is_no_reason_to_change_if_that_takes_a_wait() -> None:
    counted = Counted(owner="edge-1")
    counted.forest.part("host-1", "rack-1")
    counted.forest.run(WAIT_S + 1)
    counted.forest.cut.clear()
    for _ in range(40):
        counted.forest.run(0.5)
        assert counted.counts("edge-1") == ONCE


def test_between_parents_of_different_roots_a_node_changes_without_a_wait() -> None:
    counted = Counted()
    counted.forest.part("rack-1", "edge-1")
    counted.forest.settle()
    assert counted.counts("edge-2") == ONCE and not counted.counts("edge-1")
    counted.forest.cut.clear()
    counted.forest.run(6.0)
    assert counted.counts("edge-1") == ONCE and not counted.counts("edge-2")


def test_the_nodes_below_a_rack_that_is_cut_off_are_counted_through_another_rack() -> None:
    counted = Counted({**TREE, "rack-1": ("edge-1",)}, owner="edge-1")
    counted.forest.cut.add(frozenset(("rack-1", "edge-1")))
    counted.forest.run(40.0)
    assert counted.counts("edge-1") == ONCE and counted.counts("rack-1") == {}


def test_a_node_that_starts_waits_for_the_parents_that_may_have_counted_it() -> None:
    counted = Counted(owner="edge-1")
    host = counted.forest["host-1"]
    counted.forest.cut.add(frozenset(("host-1", "rack-1")))
    counted.lose_link("host-1", "rack-1")
    host.restart()
    counted.report("host-1")
    counted.forest.run(20.0)
    assert counted.counts("edge-1") == ONCE and counted.counts("rack-2") == {"host-1": 1}


def test_a_node_that_moves_to_another_rack_waits_too() -> None:
    counted = Counted({**TREE, "host-1": ("rack-1",)}, owner="edge-1")
    counted.forest.cut.add(frozenset(("host-1", "rack-1")))
    counted.lose_link("host-1", "rack-1")
    counted.forest["host-1"].move("rack-2")
    counted.report("host-1")
    counted.forest.run(WAIT_S + 2)
    assert counted.counts("edge-1") == ONCE and counted.counts("rack-2") == {"host-1": 1}


def test_a_moved_node_is_counted_in_its_new_tree() -> None:
    counted = Counted({"edge-1": (), "edge-2": (), "host-1": ("edge-1",)})
    counted.forest["host-1"].move("edge-2")
    counted.report("host-1")
    counted.forest.run(WAIT_S)
    assert (counted.counts("edge-1"), counted.counts("edge-2")) == ({}, {"host-1": 1})


def test_a_child_that_is_silent_is_not_counted() -> None:
    counted = Counted(owner="edge-1")
    counted.forest["host-1"].alive = False  # no link closes
    counted.forest.run(16.0)
    assert "host-1" not in counted.counts("edge-1")


def test_a_service_that_a_node_no_longer_runs_is_no_longer_counted() -> None:
    counted = Counted(owner="edge-1")
    node = counted.forest["host-1"]
    node.balancer._state.reports.put_own(SERVICE, None)
    node.inbox.append(ev.Tick())
    counted.forest.settle()
    assert counted.counts("edge-1") == {"host-2": 1, "host-3": 1}
    counted.report("host-1")
    counted.forest.settle()
    assert counted.counts("edge-1") == ONCE


def test_a_full_state_replaces_all_reports() -> None:
    counted = Counted(owner="edge-1")
    rack = counted.forest["rack-1"].balancer
    child = rack._children.by_name["host-1"]
    body = report_body(RoleReport(1))
    rack._children.on_state(child, UpState(child._seq_in + 1, True, reports=(("web", body),)), counted.forest.now)
    assert rack._state.reports.total("web").nodes == 1 and "host-1" not in counted.counts("rack-1")


FAULTS = ["part", "heal", "restart", "cut", "move", "own-1", "own-2", "leave"]


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(FAULTS),
            st.sampled_from([*HOSTS, "rack-1", "rack-2"]),
            st.integers(0, 1),
            st.integers(0, 60),
        ),
        max_size=8,
    )
)
def test_no_root_ever_counts_a_node_twice(acts: list[tuple[str, str, int, int]]) -> None:
    """Links break with and without notice, racks are parted, nodes restart and move, the owner changes. After all is healed, each
    node is counted once."""
    counted = Counted(owner="edge-1")
    forest, term = counted.forest, 1
    silent = False
    for fault, name, which, quarters in acts:
        parent = forest[name].parents[which % len(forest[name].parents)]
        match fault:
            case "part":
                forest.part(name, parent)
            case "cut" if not silent:  # a second silent fault during the wait is not covered
                silent = True
                forest.cut.add(frozenset((name, parent)))
            case "heal":
                silent = False
                forest.cut.clear()
            case "restart":
                forest[name].restart()
            case "move" if name.startswith("host"):
                forest[name].move(*(("rack-1", "rack-2") if len(forest[name].parents) == 1 else (parent,)))
            case "own-1" | "own-2":
                term += 1
                counted.own("edge-1" if fault == "own-1" else "edge-2", term)
            case _:
                pass
        counted.report_all()
        forest.run(quarters / 4)
    forest.cut.clear()
    forest.run(60.0)
    counted.report_all()
    forest.run(2.0)
    owners = [counted.counts(root) for root in ("edge-1", "edge-2")]
    assert sorted(owners, key=len) == [{}, ONCE]


# ---------------------------------------------------------------------- when it is sent


def reported(sent: list[object]) -> list[RoleReport | None]:
    states = [message for message in sent if isinstance(message, UpState)]
    return [read_report(body) if body else None for state in states for _, body in state.reports]


def test_counts_figures_and_growing_capacity_wait_for_the_heartbeat() -> None:
    counted = Counted(owner="edge-1")
    sent = counted.forest["host-1"].listen()
    counted.report("host-1", counts={"host-1": 1, "r-1 fetching": 1}, blocks={7: {"1.0.2": Figures(5)}})
    blocks = {7: {"1.0.2": Figures(5)}, 8: {"1.0.2": Figures(6)}}
    counted.report("host-1", ready=11, counts={"host-1": 1, "r-1 prepared": 1}, blocks=blocks)
    counted.forest.settle()
    assert reported(sent) == []
    counted.forest.run(2.5)
    (report,) = reported(sent)
    assert report is not None and report.ready == 11 and report.count("r-1", "prepared") == 1
    assert report.blocks == blocks
    first = [type(message) for message in sent if isinstance(message, UpState | Beat)]
    assert first[:2] == [Beat, Beat] and UpState in first, "with the heartbeat"
    counted.forest.run(60.0)
    assert counted.total("edge-1").blocks == blocks
    assert len(reported(sent)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"ready": 9},
        {"slots": (SlotReport("host-1", "r-1", "draining"),)},
        {"failed": {"host-1": "it does not start"}},
        {"waiting": {"2": 10}},
        {"alone": 1},
    ],
    ids=["ready falls", "slots", "failed", "waiting", "alone"],
)
def test_what_the_owner_decides_by_arrives_at_once(change: dict[str, Any]) -> None:
    counted = Counted(owner="edge-1")
    counted.report("host-1", **change)
    counted.forest.settle()
    (name, value), total = next(iter(change.items())), counted.total("edge-1")
    assert getattr(total, name) == (29 if name == "ready" else value)


def test_the_phases_of_a_node_with_a_slot_wait_for_the_heartbeat() -> None:
    counted = Counted(owner="edge-1")
    counted.report("host-1", slots=(SlotReport("host-1", "r-1", "draining", 10),))
    counted.forest.settle()
    sent = counted.forest["host-1"].listen()
    for phase in ("stopping", "starting"):
        counted.report("host-1", slots=(SlotReport("host-1", "r-1", phase, 10),))
        counted.forest.settle()
    assert reported(sent) == []
    counted.forest.run(2.5)
    (report,) = reported(sent)
    assert report is not None and [slot.phase for slot in report.slots] == ["starting"]
    counted.report("host-1", slots=(SlotReport("host-1", "r-1", "starting", 0),))
    counted.forest.settle()
    assert len(reported(sent)) == 2, "its share has changed"


def test_a_slot_that_is_no_longer_held_is_reported_at_once_with_its_capacity() -> None:
    """Other nodes wait for it: with the next heartbeat, half of those that may be out at once were."""
    counted = Counted(owner="edge-1")
    counted.report("host-1", ready=0, slots=(SlotReport("host-1", "r-1", "verifying", 10),))
    counted.forest.run(2.5)
    sent = counted.forest["host-1"].listen()
    counted.report("host-1", ready=10, slots=())
    counted.forest.settle()
    assert [(report.ready, report.slots) for report in reported(sent) if report is not None] == [(10, ())]


def test_heartbeats_repeat_no_report() -> None:
    counted = Counted(owner="edge-1")
    sent = [node.listen() for node in counted.forest.nodes.values()]
    counted.forest.run(60.0)
    assert [reported(each) for each in sent] == [[]] * len(sent)


def test_a_large_number_of_reports_is_sent_in_several_messages() -> None:
    forest = Forest({"edge-1": (), "rack": ("edge-1",)})
    reports, sent = forest["rack"].balancer._state.reports, forest["rack"].listen()
    slots = tuple(SlotReport(f"h{n}", "r-1", "x" * 100, detail="y" * 100) for n in range(200))
    for number in range(120):
        reports.put_own(f"s{number}", RoleReport(1, slots=slots))
    forest["rack"].inbox.append(ev.Tick())
    forest.run(3.0)
    sizes = [sum(len(body) for _, body in m.reports) for m in sent if isinstance(m, UpState) and m.reports]
    assert len(sizes) > 1 and max(sizes) <= (1 << 22) + BODY_BYTES_MAX
    above = forest["edge-1"].balancer._state.reports
    assert len(above.services()) == CHILD_BYTES_MAX // len(reports.body("s0"))


def test_a_lying_child_breaks_nothing_above() -> None:
    counted = Counted(owner="edge-1")
    random = Random(1)
    lies = [*LIES.values(), *(random.randbytes(40) for _ in range(50))]

    def forge(message: Any) -> Any:
        if isinstance(message, UpState):
            reports = tuple((f"s{n}", lie) for n, lie in enumerate(lies))
            return UpState(message.seq, message.full, message.claims, message.withdrawn, reports=reports)
        return message

    liar = counted.forest["host-1"]
    liar.forge = forge
    liar.restart()
    counted.forest.run(20.0)
    assert counted.counts("edge-1") == {"host-2": 1, "host-3": 1}
    assert counted.forest["edge-1"].balancer._state.reports.services() == (SERVICE,)
