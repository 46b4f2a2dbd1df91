"""Gates and cut-overs on real trees: which version serves when, what a restart keeps, and that all roots agree."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sdlb.core import events as ev
from sdlb.core.messages import DownState
from tests.core.forest import ROUTE, Forest, key_of

OLD, NEW = key_of("1.0.2"), key_of("2.5.1")
ONE = {"edge-1": (), "host-1": ("edge-1",), "host-2": ("edge-1",)}
TWO = {"edge-1": (), "edge-2": (), "host-1": ("edge-1", "edge-2"), "host-2": ("edge-1", "edge-2")}
RACKS = {
    "edge-1": (),
    "edge-2": (),
    "rack-1": ("edge-1", "edge-2"),
    "rack-2": ("edge-1", "edge-2"),
    "host-1": ("rack-1", "rack-2"),
    "host-2": ("rack-1", "rack-2"),
}
TREES = pytest.mark.parametrize("tree", [ONE, TWO, RACKS], ids=["one", "two", "racks"])
APPROVAL = {"name": "sign-off", "kind": "approval", "by": ["operator-a", "release-bot"]}
MIGRATE = {"name": "migrate", "kind": "hook", "at": "gap", "run": "migrate"}


def roots(forest: Forest) -> list[str]:
    return [name for name, node in forest.nodes.items() if not node.parents]


def entries(forest: Forest) -> list[set[str]]:
    """The versions of catalog that new requests reach at each root."""
    return [_reached(forest, root) for root in roots(forest)]


def _reached(forest: Forest, root: str) -> set[str]:
    route = forest[root].engine.routes.get(ROUTE)
    picks = route.picks if route is not None and route.service == "catalog" else ()
    return {pick.version for pick in picks if forest.endpoints(root, key_of(pick.version))}


def parks(forest: Forest) -> bool:
    return all(forest[root].engine.routes[ROUTE].park_requests_max for root in roots(forest))


class Story:
    """A tree with a policy that is set at every root, as the API does it."""

    def __init__(self, tree: dict[str, tuple[str, ...]], **policy: Any) -> None:
        self.forest = Forest(tree)
        self.policy(**policy)
        self.seen: list[set[str]] = []
        self.fits: set[str] = set()  # versions that declare that they are compatible with all
        self.forest.watch.append(self._look)

    def policy(self, **policy: Any) -> None:
        for root in roots(self.forest):
            self.forest[root].inbox.append(ev.PolicyPut("catalog", json.dumps(policy).encode()))
        self.forest.run(1.0)

    def _look(self) -> None:
        """Promise 1 at every step, over all entries: never two incompatible versions."""
        serving = {version for versions in entries(self.forest) for version in versions} - self.fits
        assert len({version.split(".")[0] for version in serving}) <= 1, serving
        if not self.seen or self.seen[-1] != serving:
            self.seen.append(serving)

    def put(self, version: str, *hosts: str, **spec: Any) -> None:
        for host in hosts or ("host-1", "host-2"):
            self.forest.put(host, f"{host}-{version}", version, **spec)
        self.forest.run(1.0)

    def remove(self, version: str, *hosts: str) -> None:
        for host in hosts or ("host-1", "host-2"):
            self.forest.remove(host, f"{host}-{version}")
        self.forest.run(1.0)

    def order(self, event: ev.Event, seconds: float = 1.0) -> None:
        for root in roots(self.forest):
            self.forest[root].inbox.append(event)
        self.forest.run(seconds)

    @property
    def conductor(self) -> str:
        record = self.opening()
        assert record is not None
        return record["conductor"]

    def opening(self, at: str = "edge-1") -> dict[str, Any] | None:
        return self.forest[at].balancer.view.opening("catalog")

    def gate(self, version: str = "2.5.1", name: str = "") -> dict[str, Any]:
        record = self.opening()
        assert record is not None
        gates = record["versions"][version]["gates"]
        return next(gate for gate in gates if not name or gate["name"] == name)

    def reason(self, version: str = "2.5.1") -> str:
        found = self.forest["edge-1"].balancer.view.service("catalog")
        assert found is not None
        return next(each["reason"] for each in found["versions"] if each["version"] == version)

    def hooks(self) -> list[str]:
        return [hook.key for root in roots(self.forest) for hook in self.forest[root].hooks]

    def answer(self, outcome: str, detail: str = "") -> None:
        """The last hook that was called answers."""
        node = self.forest[self.conductor]
        node.inbox.append(ev.HookDone(node.hooks[-1].key, outcome, detail))
        self.forest.run(1.0)

    def serve(self) -> list[set[str]]:
        return entries(self.forest)

    def all_serve(self, *versions: str) -> bool:
        return all(each == set(versions) for each in self.serve())


# ---------------------------------------------------------------------- hold, pin, floor


@TREES
def test_a_version_on_hold_waits_until_it_is_released(tree: dict[str, tuple[str, ...]]) -> None:
    story = Story(tree, hold=["1.0.3"])
    story.put("1.0.2")
    story.put("1.0.3")
    assert story.all_serve("1.0.2") and "hold" in story.reason("1.0.3")
    story.policy(hold=[])
    assert story.all_serve("1.0.2", "1.0.3")


def test_hold_of_everything_lets_back_what_was_active_in_this_generation() -> None:
    story = Story(ONE)
    story.put("1.0.2")
    story.policy(hold=["*"])
    story.remove("1.0.2")
    story.put("1.0.3")
    assert story.all_serve()
    story.put("1.0.2")
    assert story.all_serve("1.0.2")


@pytest.mark.parametrize(("rule", "word"), [({"pin": [">=1.0.2"]}, "pins"), ({"never_below": "1.0.2"}, "below 1.0.2")])
def test_pin_and_floor_keep_versions_out_also_after_a_restart(rule: dict[str, Any], word: str) -> None:
    story = Story(TWO)
    story.put("1.0.1")
    story.put("1.0.2")
    story.policy(**rule)
    assert story.all_serve("1.0.1", "1.0.2")  # what is active stays
    story.remove("1.0.1")
    story.put("1.0.1")
    assert story.all_serve("1.0.2") and word in story.reason("1.0.1")


def test_a_held_version_does_not_keep_others_waiting() -> None:
    story = Story(ONE, hold=["2.5.1"])
    story.put("2.5.1", "host-1")
    story.put("1.0.2", "host-2")
    assert story.all_serve("1.0.2")


# ---------------------------------------------------------------------- gates


@TREES
def test_an_approval_opens_the_gate_and_every_node_shows_it(tree: dict[str, tuple[str, ...]]) -> None:
    story = Story(tree, gate=[APPROVAL])
    story.put("1.0.2")
    story.put("2.5.1")
    for node in story.forest.nodes.values():
        record = node.balancer.view.opening("catalog")
        assert record is not None and record["versions"]["2.5.1"]["gates"][0]["state"] == "waiting"
    story.remove("1.0.2")
    assert story.all_serve() and "operator-a" in story.reason()
    view = story.forest[story.conductor].balancer.view
    assert "operator-a and release-bot may" in view.approval_objection("catalog", "2.5.1", "sign-off", "operator-b")
    story.order(ev.Approve("catalog", "2.5.1", "sign-off", "operator-b"))
    assert story.all_serve()
    story.order(ev.Approve("catalog", "2.5.1", "sign-off", "operator-a"))
    assert story.all_serve("2.5.1")


@TREES
def test_an_approval_survives_a_restart_and_a_restart_asks_no_gate_again(tree: dict[str, tuple[str, ...]]) -> None:
    story = Story(tree, gate=[APPROVAL])
    story.put("1.0.2")
    story.put("2.5.1")
    story.order(ev.Approve("catalog", "2.5.1", "sign-off", "operator-a"))
    for root in roots(story.forest):
        story.forest[root].reboot()
    story.forest.run(30.0)
    assert story.gate()["state"] == "open"
    story.remove("1.0.2")
    assert story.all_serve("2.5.1")
    story.remove("2.5.1")
    story.forest.run(30.0)
    story.put("2.5.1")
    assert story.all_serve("2.5.1")


@TREES
@pytest.mark.parametrize("since", ["the start", "later"])
def test_a_restart_waits_for_no_level_gate_again(tree: dict[str, tuple[str, ...]], since: str) -> None:
    quiet = {"gate": [{"name": "quiet", "kind": "soak", "healthy_s": 60, "for": "every"}]}
    story = Story(tree, **(quiet if since == "the start" else {}))
    for version in ("1.0.1", "1.0.2"):
        story.put(version)
        assert (version in story.seen[-1]) == (since == "later")
        story.forest.run(65.0)
    story.policy(**quiet)
    story.remove("1.0.2")
    story.forest.run(30.0)
    assert story.all_serve("1.0.1")
    story.put("1.0.2")
    assert story.all_serve("1.0.1", "1.0.2")


def test_two_of_three_have_to_approve() -> None:
    story = Story(TWO, gate=[{**APPROVAL, "by": ["a", "b", "c"], "count": 2}])
    story.put("1.0.2")
    story.put("2.5.1")
    story.remove("1.0.2")
    for name in ("a", "a"):
        story.order(ev.Approve("catalog", "2.5.1", "sign-off", name))
    assert story.all_serve() and story.gate()["by"] == ["a"]
    story.order(ev.Approve("catalog", "2.5.1", "sign-off", "c"))
    assert story.all_serve("2.5.1")


def test_a_gate_for_incompatible_versions_lets_a_patch_through_and_one_for_every_does_not() -> None:
    story = Story(ONE, gate=[APPROVAL])
    story.put("1.0.2")
    story.put("1.0.3")
    assert story.all_serve("1.0.2", "1.0.3")
    story.policy(gate=[{**APPROVAL, "for": "every"}])
    story.put("1.0.4")
    assert story.all_serve("1.0.2", "1.0.3")
    story.order(ev.Approve("catalog", "1.0.4", "sign-off", "operator-a"))
    assert story.all_serve("1.0.2", "1.0.3", "1.0.4")


def test_the_first_version_of_a_service_replaces_nothing_and_passes() -> None:
    story = Story(TWO, gate=[APPROVAL])
    story.put("1.0.2")
    assert story.all_serve("1.0.2")


@TREES
def test_min_ready_waits_for_instances_and_for_a_share_of_the_old_capacity(tree: dict[str, tuple[str, ...]]) -> None:
    story = Story(tree, gate=[{"name": "ready", "kind": "min_ready", "instances": 2, "percent": 75}])
    story.put("1.0.2", capacity=100)
    story.put("2.5.1", "host-1", capacity=100)
    story.remove("1.0.2")
    assert story.all_serve() and "1 of 2" in story.reason()
    story.put("2.5.1", "host-2", capacity=40)
    assert story.all_serve() and "140 is ready, of 150" in story.reason()
    story.forest["host-2"].inbox.append(ev.InstanceRemove("host-2-2.5.1", 1.0))
    story.put("2.5.1", "host-2", capacity=60)
    assert story.all_serve("2.5.1")


def test_counts_in_the_texts_of_gates_are_sent_with_the_heartbeat() -> None:
    """A new version on many hosts changes them with each instance."""
    hosts = [f"host-{number}" for number in range(1, 21)]
    forest = {"edge-1": (), **dict.fromkeys(hosts, ("edge-1",))}
    story = Story(forest, gate=[{"name": "ready", "kind": "min_ready", "instances": 20}])
    story.put("1.0.2", hosts[0])
    story.forest.put(hosts[0], "new-0", "2.5.1")
    sent = story.forest["edge-1"].listen()
    for host in hosts[1:]:
        story.forest.put(host, f"{host}-new", "2.5.1")
    docs = [message for message in sent if isinstance(message, DownState) and message.docs]
    assert len(docs) <= 2 * len(hosts)
    story.remove("1.0.2", hosts[0])
    assert story.all_serve("2.5.1")


def test_soak_counts_only_the_time_in_which_all_instances_are_healthy() -> None:
    story = Story(TWO, gate=[{"name": "soak", "kind": "soak", "healthy_s": 20}])
    story.put("1.0.2")
    story.put("2.5.1")
    story.remove("1.0.2")
    story.forest.run(15.0)
    story.forest["host-1"].inbox.append(ev.InstanceHealth("host-1-2.5.1", False, "no answer"))
    story.forest.run(5.0)
    assert story.all_serve()
    story.forest["host-1"].inbox.append(ev.InstanceHealth("host-1-2.5.1", True))
    story.forest.run(18.0)
    assert story.all_serve()
    story.forest.run(5.0)
    assert story.all_serve("2.5.1")


def test_a_window_opens_at_its_time_and_not_before() -> None:
    story = Story(TWO, gate=[{"name": "office", "kind": "window", "days": ["thu"], "hours": "00:20-01:00"}])
    story.put("1.0.2")
    story.put("2.5.1")
    story.remove("1.0.2")
    story.forest.run(1199.0 - story.forest.now)  # the forest begins on a Thursday at 00:16:40
    assert story.all_serve()
    story.forest.run(2.0)
    assert story.all_serve("2.5.1")


def test_a_version_waits_for_another_service() -> None:
    story = Story(TWO, gate=[{"name": "pricing", "kind": "depends_on", "service": "pricing", "version": ">=3.1"}])
    story.put("1.0.2")
    story.put("2.5.1")
    story.remove("1.0.2")
    assert story.all_serve() and "pricing" in story.reason()
    story.forest.put("host-1", "p", "3.1.4", "example.com/pricing*", service="pricing")
    story.forest.run(1.0)
    assert story.all_serve("2.5.1")


def test_a_gate_that_timed_out_stays_so_until_the_version_is_promoted() -> None:
    story = Story(TWO, gate=[{**APPROVAL, "timeout_s": 10}])
    story.put("1.0.2")
    story.put("2.5.1")
    story.forest.run(12.0)
    assert story.gate()["state"] == "timed-out"
    story.order(ev.Approve("catalog", "2.5.1", "sign-off", "operator-a"))
    assert story.gate()["state"] == "timed-out"
    story.order(ev.Promote("catalog", "2.5.1", "operator-a"))
    story.order(ev.Approve("catalog", "2.5.1", "sign-off", "operator-a"))
    story.remove("1.0.2")
    assert story.all_serve("2.5.1")


def test_promotion_without_gates_names_its_reason() -> None:
    story = Story(TWO, gate=[APPROVAL])
    story.put("1.0.2")
    story.put("2.5.1")
    story.order(ev.Promote("catalog", "2.5.1", "operator-a", no_gates="the site is down"))
    story.remove("1.0.2")
    assert story.all_serve("2.5.1")
    notes = [note.text for note in story.forest["edge-2"].notes if note.code == "version-promoted"]
    notes += [note.text for note in story.forest["edge-1"].notes if note.code == "version-promoted"]
    assert any("the site is down" in text for text in notes)


@pytest.mark.parametrize(
    ("rule", "word"), [({"never_below": "2"}, "below 2"), ({"pin": ["2.5.1"]}, "pins"), ({"hold": ["1.0.2"]}, "hold")]
)
def test_what_the_policy_keeps_out_is_not_promoted(rule: dict[str, Any], word: str) -> None:
    story = Story(TWO, cut_over="flip")
    story.put("1.0.2")
    story.put("2.5.1")
    story.policy(cut_over="flip", **rule)
    view = story.forest[story.conductor].balancer.view
    assert word in view.promotion_objection("catalog", "1.0.2")
    story.order(ev.Promote("catalog", "1.0.2", "operator-a"), 5.0)
    assert story.all_serve("2.5.1")
    assert all("version-promoted" not in story.forest[root].codes() for root in roots(story.forest))


# ---------------------------------------------------------------------- hooks


@TREES
def test_a_hook_in_the_gap_runs_once_while_nothing_serves(tree: dict[str, tuple[str, ...]]) -> None:
    story = Story(tree, gate=[MIGRATE])
    story.put("1.0.2")
    story.put("2.5.1")
    assert story.hooks() == [] and story.all_serve("1.0.2")
    story.remove("1.0.2")
    assert len(story.hooks()) == 1 and story.all_serve() and parks(story.forest)
    story.put("1.0.2")  # the old version comes back during the migration
    assert story.all_serve()
    story.answer("yes")
    assert story.all_serve("2.5.1") and len(story.hooks()) == 1


def test_there_is_no_gap_beside_a_compatible_version_that_serves() -> None:
    """1.1.0 declares that it goes with both. When 1.0.2 has stopped, 2.5.1 opens beside it: its gates come before that."""
    story = Story(TWO, gate=[MIGRATE])
    story.fits.add("1.1.0")
    story.put("1.0.2")
    story.put("1.1.0", compatible=(">=1.0",))
    story.put("2.5.1")
    assert story.hooks() == [] and story.all_serve("1.0.2", "1.1.0")
    story.remove("1.0.2")
    assert len(story.hooks()) == 1 and story.all_serve("1.1.0")
    story.put("1.0.3", "host-1")
    assert "1.0.3" in story.serve()[0]  # no cut-over keeps it out
    story.answer("yes")
    story.remove("1.0.3", "host-1")
    assert story.all_serve("1.1.0", "2.5.1")


def test_a_hook_before_runs_while_the_old_version_serves_and_after_the_gates_before_it() -> None:
    story = Story(TWO, gate=[APPROVAL, {**MIGRATE, "at": "before"}])
    story.put("1.0.2")
    story.put("2.5.1")
    assert story.hooks() == []
    story.order(ev.Approve("catalog", "2.5.1", "sign-off", "operator-a"))
    assert len(story.hooks()) == 1 and story.all_serve("1.0.2")
    story.answer("no", "the schema is locked")
    story.remove("1.0.2")
    assert story.all_serve() and "the schema is locked" in story.reason()


def test_a_hook_that_has_not_decided_is_called_again_with_the_same_key() -> None:
    story = Story(TWO, gate=[MIGRATE])
    story.put("1.0.2")
    story.put("2.5.1")
    story.remove("1.0.2")
    for outcome in ("later", "failed"):
        story.answer(outcome, "not yet")
        story.forest.run(2.0)
    assert len(story.hooks()) == 3 and len(set(story.hooks())) == 1
    assert story.gate()["attempts"] == 3
    story.answer("yes")
    assert story.all_serve("2.5.1")


def test_a_hook_whose_root_was_killed_is_called_again_with_the_same_key() -> None:
    story = Story(TWO, gate=[MIGRATE])
    story.put("1.0.2")
    story.put("2.5.1")
    story.remove("1.0.2")
    story.forest[story.conductor].restart()
    story.forest.run(5.0)
    assert len(story.hooks()) == 2 and len(set(story.hooks())) == 1
    story.answer("yes")
    assert story.all_serve("2.5.1")


def test_a_root_that_takes_over_calls_a_hook_with_the_same_key() -> None:
    story = Story(TWO, gate=[{**MIGRATE, "at": "before"}])
    story.put("1.0.2")
    story.put("2.5.1")
    lost = story.conductor
    story.forest[lost].kill()
    story.forest.run(30.0)
    left = next(root for root in roots(story.forest) if root != lost)
    assert len(story.forest[left].hooks) == 1 and len(set(story.hooks())) == 1


def test_a_hook_is_not_called_twice_at_once_when_its_version_was_away() -> None:
    story = Story(TWO, gate=[{**MIGRATE, "at": "before"}])
    story.put("1.0.2")
    story.put("2.5.1")
    story.remove("2.5.1")
    story.put("2.5.1")
    assert len(story.hooks()) == 1
    story.answer("yes")
    story.remove("1.0.2")
    assert story.all_serve("2.5.1")


def test_the_wall_clock_does_not_prolong_a_flip() -> None:
    story = Story(TWO, cut_over="flip", park={"timeout_s": 20})
    story.put("1.0.2")
    story.forest["host-1"].engine.in_flight[ev.EndpointKey(OLD, "i:host-1-1.0.2")] = 1
    story.put("2.5.1")
    for node in story.forest.nodes.values():
        node.wall_ahead_s = -3600.0
    story.forest.run(17.0)
    assert story.all_serve("1.0.2")


def test_another_root_takes_over_when_the_conductor_has_left_the_tree() -> None:
    """It is no parent of any host any more. A host that has just started and reports only one root is no proof of that."""
    story = Story(TWO, gate=[APPROVAL])
    story.put("1.0.2")
    story.put("2.5.1")
    gone = story.conductor
    left = next(root for root in roots(story.forest) if root != gone)
    story.forest.run(60.0)
    for host in ("host-1", "host-2"):
        story.forest[host].move(left)
    story.forest.run(15.0)
    assert story.opening(left)["conductor"] == gone  # type: ignore[index]
    story.forest.run(10.0)
    assert story.opening(left)["conductor"] == left  # type: ignore[index]


def test_another_root_takes_over_when_the_conductor_is_lost() -> None:
    story = Story(TWO, gate=[APPROVAL])
    story.put("1.0.2")
    story.put("2.5.1")
    lost = story.conductor
    story.forest[lost].kill()
    story.forest.run(30.0)
    left = next(root for root in roots(story.forest) if root != lost)
    record = story.opening(left)
    assert record is not None and record["conductor"] == left
    story.forest[left].inbox.append(ev.Approve("catalog", "2.5.1", "sign-off", "operator-a"))
    story.remove("1.0.2")
    assert story.forest[left].versions()["2.5.1"] == "active"


# ---------------------------------------------------------------------- after the opening

SMOKE = {"name": "smoke", "kind": "hook", "at": "after", "run": "smoke"}


@TREES
def test_a_gate_after_a_flip_returns_to_the_old_version_when_it_fails(tree: dict[str, tuple[str, ...]]) -> None:
    story = Story(tree, cut_over="flip", gate=[SMOKE, APPROVAL])
    story.put("1.0.2")
    story.put("2.5.1")
    story.order(ev.Approve("catalog", "2.5.1", "sign-off", "operator-a"))
    assert story.all_serve("2.5.1") and len(story.hooks()) == 1
    assert story.gate(name="smoke")["state"] == "running"
    story.answer("no", "the shop has no prices")
    story.forest.run(5.0)
    assert story.all_serve("1.0.2")
    story.forest.run(60.0)
    assert story.all_serve("1.0.2") and len(story.hooks()) == 1


@TREES
def test_a_gate_after_the_opening_that_opens_completes_it(tree: dict[str, tuple[str, ...]]) -> None:
    story = Story(tree, cut_over="flip", gate=[SMOKE])
    story.put("1.0.2")
    story.put("2.5.1")
    story.forest[story.conductor].restart()
    story.forest.run(5.0)
    assert len(story.hooks()) == 2 and len(set(story.hooks())) == 1
    story.answer("yes")
    story.remove("1.0.2")
    story.forest.run(30.0)
    assert story.all_serve("2.5.1") and story.opening() is None


def test_a_gate_after_the_opening_without_an_old_version_reports_and_serves_on() -> None:
    story = Story(TWO, gate=[SMOKE])
    story.put("1.0.2")
    story.put("2.5.1")
    story.remove("1.0.2")
    assert story.all_serve("2.5.1")
    conductor = story.conductor
    story.answer("no", "the shop has no prices")
    story.forest.run(5.0)
    assert story.all_serve("2.5.1") and "cutover-stuck" in story.forest[conductor].codes()


# ---------------------------------------------------------------------- flip


@TREES
def test_a_flip_replaces_the_old_version_without_an_overlap(tree: dict[str, tuple[str, ...]]) -> None:
    story = Story(tree, cut_over="flip")
    story.put("1.0.2")
    assert story.all_serve("1.0.2")
    story.put("2.5.1", "host-1")
    assert story.all_serve("1.0.2") and "needs" in story.reason()  # half of the capacity
    story.put("2.5.1", "host-2")
    assert story.all_serve("2.5.1")
    assert [sorted(each) for each in story.seen if each] == [["1.0.2"], ["2.5.1"]]


@TREES
def test_a_flip_to_a_version_on_another_host(tree: dict[str, tuple[str, ...]]) -> None:
    """The host of the old version tells a root of the next generation before the host of the new one does."""
    story = Story(tree, cut_over="flip")
    story.put("1.0.2", "host-1")
    story.put("2.5.1", "host-2")
    assert story.all_serve("2.5.1")
    story.order(ev.Promote("catalog", "1.0.2", "operator-a"), 3.0)
    assert story.all_serve("1.0.2")


@TREES
def test_a_flip_waits_for_what_is_in_flight(tree: dict[str, tuple[str, ...]]) -> None:
    story = Story(tree, cut_over="flip")
    story.put("1.0.2")
    endpoint = ev.EndpointKey(OLD, "i:host-1-1.0.2")
    story.forest["host-1"].engine.in_flight[endpoint] = 1
    story.put("2.5.1")
    assert story.all_serve() and parks(story.forest)
    story.forest.finish("host-1", endpoint)
    story.forest.run(1.0)
    assert story.all_serve("2.5.1")


@TREES
def test_a_flip_that_takes_too_long_is_reverted_in_the_same_generation(tree: dict[str, tuple[str, ...]]) -> None:
    story = Story(tree, cut_over="flip", park={"timeout_s": 20})
    story.put("1.0.2")
    generation = story.forest["edge-1"].generation()
    story.forest["host-1"].engine.in_flight[ev.EndpointKey(OLD, "i:host-1-1.0.2")] = 1
    story.put("2.5.1")
    story.forest.run(13.0)
    assert story.all_serve()
    story.forest.run(4.0)
    assert story.all_serve("1.0.2") and story.forest["edge-1"].generation() == generation
    assert "reverted" in story.reason()
    story.forest.run(60.0)
    assert story.all_serve("1.0.2")  # not tried again by itself
    story.forest.finish("host-1", ev.EndpointKey(OLD, "i:host-1-1.0.2"))
    story.order(ev.Promote("catalog", "2.5.1", "operator-a"))
    assert story.all_serve("2.5.1")


@TREES
@pytest.mark.parametrize("back", [True, False])
def test_a_gap_gate_that_fails_reverts_a_flip_unless_the_hook_cannot_be_undone(
    tree: dict[str, tuple[str, ...]], back: bool
) -> None:
    story = Story(tree, cut_over="flip", gate=[{**MIGRATE, "back": back}])
    story.put("1.0.2")
    story.put("2.5.1")
    assert story.all_serve() and len(story.hooks()) == 1
    story.answer("no", "out of space")
    story.forest.run(60.0)
    if back:
        assert story.all_serve("1.0.2") and "out of space" in story.reason()
        story.order(ev.Promote("catalog", "2.5.1", "operator-a"))
        assert len(set(story.hooks())) == 2  # another attempt
    else:
        assert story.all_serve()
        assert "cutover-stuck" in story.forest[story.conductor].codes()
        story.order(ev.Promote("catalog", "2.5.1", "operator-a"))
    story.answer("yes")
    assert story.all_serve("2.5.1")


def test_a_flip_begins_only_when_every_root_answers() -> None:
    story = Story(TWO, cut_over="flip")
    story.put("1.0.2")
    story.forest["edge-2"].kill()
    story.put("2.5.1")
    story.forest.run(30.0)
    record = story.opening()
    assert record is not None and "edge-2" in record["detail"]
    assert story.forest["edge-1"].versions() == {"1.0.2": "active", "2.5.1": "waiting"}
    story.forest["edge-2"].start()
    story.forest.run(15.0)
    assert story.all_serve("2.5.1")


@TREES
def test_after_a_flip_the_old_version_comes_back_only_when_promoted(tree: dict[str, tuple[str, ...]]) -> None:
    story = Story(tree, cut_over="flip")
    story.put("1.0.2")
    story.put("2.5.1")
    story.remove("1.0.2")
    story.seen.clear()
    story.put("1.0.2")  # restarted by its supervisor
    story.forest.run(30.0)
    assert story.seen == [{"2.5.1"}] and "promoted" in story.reason("1.0.2")
    for version in ("1.0.2", "2.5.1", "1.0.2"):
        story.order(ev.Promote("catalog", version, "operator-a"), 3.0)
        assert story.all_serve(version)


@TREES
@pytest.mark.parametrize("phase", ["closing", "gap"])
def test_a_root_that_is_killed_during_a_cut_over_goes_on(tree: dict[str, tuple[str, ...]], phase: str) -> None:
    story = Story(tree, cut_over="flip", gate=[MIGRATE], park={"timeout_s": 600})
    story.put("1.0.2")
    endpoint = ev.EndpointKey(OLD, "i:host-1-1.0.2")
    if phase == "closing":
        story.forest["host-1"].engine.in_flight[endpoint] = 1
    story.put("2.5.1")
    record = story.opening()
    assert record is not None and record["phase"] == phase
    for root in roots(story.forest):
        story.forest[root].reboot()
        story.forest.run(2.0)
    story.forest.finish("host-1", endpoint)
    story.forest.run(30.0)
    story.answer("yes")
    story.forest.run(5.0)
    assert story.all_serve("2.5.1")


@pytest.mark.parametrize("victim", ["edge-1", "edge-2", "host-1"])
@pytest.mark.parametrize("how", ["restart", "reboot"])
def test_interrupted_anywhere_a_flip_ends_with_the_new_version(victim: str, how: str) -> None:
    """A node is stopped after each step of a flip in turn, and starts again. `_look` checks promise 1 after every step."""
    steps, done = 0, False
    while not done:
        story = Story(TWO, cut_over="flip")
        story.put("1.0.2")
        for host in ("host-1", "host-2"):
            story.forest.put(host, f"{host}-2.5.1", "2.5.1", settle=False)
        done = not all(story.forest.step() for _ in range(steps))
        if how == "restart":
            story.forest[victim].restart()
        else:
            story.forest[victim].reboot()
        if victim == "host-1":  # the programs renew their registrations
            for version in ("1.0.2", "2.5.1"):
                story.forest.put(victim, f"{victim}-{version}", version, settle=False)
        story.forest.run(60.0)
        assert story.all_serve("2.5.1"), (steps, story.serve(), story.opening())
        steps += 5
    assert steps > 60


# ---------------------------------------------------------------------- route transfer


@TREES
def test_a_route_is_transferred_and_no_root_gives_it_back(tree: dict[str, tuple[str, ...]]) -> None:
    story = Story(tree)
    story.put("1.0.2")
    for host in ("host-1", "host-2"):
        story.forest.put(host, f"{host}-shop", "7.0.0", service="shop")
    story.forest.run(1.0)
    assert story.forest["edge-1"].versions("shop") == {"7.0.0": "refused"}
    root = story.forest["edge-1"]
    assert "does not claim" in root.balancer.view.transfer_objection(ROUTE, "basket")
    story.order(ev.RouteTransfer(ROUTE, "shop", "operator-a"))
    assert [story.forest[each].engine.routes[ROUTE].service for each in roots(story.forest)] == ["shop"] * len(
        roots(story.forest)
    )
    assert story.forest["edge-1"].versions("shop") == {"7.0.0": "active"}
    for each in roots(story.forest):
        story.forest[each].reboot()
    story.forest.run(40.0)
    assert story.forest["edge-1"].versions("shop") == {"7.0.0": "active"}
    assert story.forest["edge-1"].versions("catalog") == {"1.0.2": "refused"}
