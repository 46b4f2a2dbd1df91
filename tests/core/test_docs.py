"""Documents (policies): the root decides, a majority of children can teach it, one child cannot. Unknown ones are
forwarded."""

from __future__ import annotations

import pytest

from sdlb.core import events as ev
from sdlb.core.messages import Doc, UpState
from tests.core.forest import Forest, interruptions, key_of
from tests.core.node import Node

HOSTS = ("host-1", "host-2", "host-3")
TREE: dict[str, tuple[str, ...]] = {"edge": (), "rack": ("edge",), **dict.fromkeys(HOSTS, ("rack",))}
WAIT = b'{"on_silence": "wait"}'
ANY = b'{"compatibility": {"rule": "any"}}'


def body(forest: Forest, node: str, service: str = "catalog") -> bytes | None:
    doc = forest[node].balancer.view.policy(service)
    return None if doc is None else doc.body


def bodies(forest: Forest) -> set[bytes | None]:
    return {body(forest, name) for name in forest.nodes}


def linked(forest: Forest) -> list[str]:
    return [link.name for link in forest["edge"].balancer.view.child_links() if link.state == "connected"]


def reports(forest: Forest, child: str, parent: str, doc: Doc) -> None:
    """The child sends this document, whatever it holds itself."""
    node = forest[child]
    uplink = node.balancer._parents.links[parent]
    message = uplink.state([], [], [doc], ("id-edge",))
    assert isinstance(message, UpState)
    forest.send_up(node, parent, message)
    forest.settle()


def test_a_policy_reaches_every_node_and_outlives_every_restart() -> None:
    forest = Forest(TREE)
    forest.policy("edge", WAIT.decode())
    assert bodies(forest) == {WAIT}
    for name in forest.nodes:
        forest[name].restart()
        forest.run(4.0)
        assert bodies(forest) == {WAIT}
    late = forest.add("late", "rack")
    late.start()
    forest.run(2.0)
    assert body(forest, "late") == WAIT


@pytest.mark.promise(6)
@pytest.mark.parametrize("hosts", [2, 3, 5])
def test_one_child_sets_no_policy(hosts: int) -> None:
    names = [f"host-{number}" for number in range(1, hosts + 1)]
    forest = Forest({"edge": (), **dict.fromkeys(names, ("edge",))})
    forest.policy("edge", WAIT.decode())
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "2.0.0")
    reports(forest, "host-1", "edge", Doc("policy", "catalog", 1000, "host-1", ANY))
    forest.run(60.0)
    assert bodies(forest) == {WAIT}
    assert forest["host-2"].state("b") == "waiting"


@pytest.mark.promise(6)
def test_one_child_that_reports_it_repeatedly_is_still_one() -> None:
    forest = Forest({"edge": (), **dict.fromkeys(HOSTS, ("edge",))})
    for revision in range(1, 6):
        for _ in range(3):
            reports(forest, "host-1", "edge", Doc("policy", "catalog", revision, "host-1", ANY))
        forest["host-1"].restart()
        forest.run(6.0)
    assert body(forest, "edge") is None


@pytest.mark.promise(6)
def test_two_of_three_children_teach_a_root_what_it_lost() -> None:
    forest = Forest({"edge": (), **dict.fromkeys(HOSTS, ("edge",))})
    doc = Doc("policy", "catalog", 7, "edge", WAIT)
    reports(forest, "host-1", "edge", doc)
    assert body(forest, "edge") is None
    reports(forest, "host-2", "edge", doc)
    assert body(forest, "edge") == WAIT
    forest.run(1.0)
    assert bodies(forest) == {WAIT}
    assert "doc-learnt" in forest["edge"].codes()


@pytest.mark.promise(6)
@pytest.mark.parametrize("after", ["a restart", "a break of all links"])
def test_the_first_child_that_comes_back_is_not_most_of_them(after: str) -> None:
    forest = Forest({"edge": (), **dict.fromkeys(HOSTS, ("edge",))})
    forest.policy("edge", WAIT.decode())
    forest.run(2.0)
    for host in HOSTS[1:]:
        forest.part(host, "edge")
    if after == "a restart":
        forest["edge"].restart()
    forest.break_links("edge")
    forest.run(3.0)
    assert linked(forest) == ["host-1"]
    reports(forest, "host-1", "edge", Doc("policy", "catalog", 1000, "edge", ANY))
    assert body(forest, "edge") == WAIT


@pytest.mark.promise(5)
def test_a_document_is_learnt_when_those_that_lack_it_are_not_on_record_any_more() -> None:
    forest = Forest({"edge": (), **dict.fromkeys(HOSTS, ("edge",))})
    doc = Doc("policy", "catalog", 7, "edge", WAIT)
    reports(forest, "host-1", "edge", doc)
    for host in HOSTS[1:]:
        forest.part(host, "edge")
    forest.run(12.0)
    for host in HOSTS[1:]:
        assert body(forest, "edge") is None
        forest["edge"].handle(ev.ForgetChild(host))
    forest.settle()
    assert body(forest, "edge") == WAIT


@pytest.mark.promise(5)
def test_a_document_that_came_before_the_root_was_known_is_learnt_later() -> None:
    """A document of another root counts as soon as the child reports that it reaches that root."""
    forest = Forest({"edge-1": (), "edge-2": (), "host-1": ("edge-1", "edge-2")})
    forest.part("host-1", "edge-2")
    forest.run(30.0)
    host = forest["host-1"]
    uplink = host.balancer._parents.links["edge-1"]
    before = uplink.state([], [], [Doc("policy", "catalog", 7, "edge-2", WAIT, ("id-edge-2",))], ("id-edge-1",))
    after = uplink.state([], [], [], ("id-edge-1", "id-edge-2"))
    assert isinstance(before, UpState) and isinstance(after, UpState)
    forest.send_up(host, "edge-1", before)
    forest.settle()
    assert body(forest, "edge-1") is None, "of another tree, as far as it knows"
    forest.send_up(host, "edge-1", after)
    forest.settle()
    assert body(forest, "edge-1") == WAIT


@pytest.mark.promise(6)
def test_two_children_with_different_reports_teach_nothing() -> None:
    forest = Forest({"edge": (), **dict.fromkeys(HOSTS, ("edge",))})
    reports(forest, "host-1", "edge", Doc("policy", "catalog", 7, "edge", WAIT))
    reports(forest, "host-2", "edge", Doc("policy", "catalog", 8, "edge", ANY))
    assert body(forest, "edge") is None


@pytest.mark.promise(5)
@pytest.mark.parametrize("topology", [TREE, {"edge": (), **dict.fromkeys(HOSTS, ("edge",))}])
def test_a_root_that_lost_its_disk_learns_its_policies_back(topology: dict[str, tuple[str, ...]]) -> None:
    forest = Forest(topology)
    forest.policy("edge", WAIT.decode())
    forest.policy("edge", ANY.decode(), "shop")
    forest.run(2.0)
    forest["edge"].lose_disk()
    forest.run(60.0)
    assert bodies(forest) == {WAIT}
    assert {body(forest, name, "shop") for name in forest.nodes} == {ANY}


@pytest.mark.promise(5)
@pytest.mark.parametrize("victim", list(TREE))
def test_a_root_learns_its_policies_back_while_a_node_restarts(victim: str) -> None:
    def story() -> Forest:
        forest = Forest(TREE)
        forest.policy("edge", WAIT.decode())
        forest.run(2.0)
        return forest

    for where, forest in interruptions(story, lambda f: f["edge"].lose_disk(), [victim]):
        forest.run(40.0)
        assert bodies(forest) == {WAIT}, where


@pytest.mark.promise(8)
def test_a_policy_that_was_set_is_durable_before_it_is_sent() -> None:
    forest = Forest(TREE)
    forest["edge"].inbox.append(ev.PolicyPut("catalog", WAIT))
    forest.step()
    while body(forest, "rack") is None:
        assert forest.step()
    forest["edge"].power_cut()
    forest["edge"].start()
    forest.run(10.0)
    assert bodies(forest) == {WAIT}


@pytest.mark.promise(6)
def test_a_moved_host_leaves_its_policies_behind() -> None:
    forest = Forest({"edge": (), "host-1": ("edge",), "host-2": ("edge",), "lab": (), "guest": ("lab",)})
    forest.policy("edge", WAIT.decode())
    for revision in range(5):
        forest.policy("lab", f'{{"compatibility": {{"rule": "any"}}, "shares": {{"1.0.{revision}": 5}}}}')
        forest.policy("lab", ANY.decode(), "only-there")
    assert b"any" in (body(forest, "guest") or b"")
    forest["guest"].move("edge")
    forest.run(60.0)
    for name in ("edge", "host-1", "host-2", "guest"):
        assert body(forest, name) == WAIT, name
        assert body(forest, name, "only-there") is None, name


def test_of_two_roots_the_newer_policy_holds_everywhere() -> None:
    forest = Forest({"edge-1": (), "edge-2": (), "rack": ("edge-1", "edge-2"), "host": ("rack",)})
    forest.policy("edge-1", ANY.decode())
    forest.policy("edge-2", ANY.decode())
    forest["edge-2"].kill()
    forest.policy("edge-1", WAIT.decode())
    forest["edge-2"].start()
    forest.run(60.0)
    assert {body(forest, name) for name in ("edge-1", "rack", "host")} == {WAIT}
    assert body(forest, "edge-2") == WAIT


# ---------------------------------------------------------------------- what this release does not know


def unknown_is_passed_on(forest: Forest, doc: Doc) -> None:
    for host in HOSTS[:2]:
        reports(forest, host, "rack", doc)
    forest.run(1.0)
    for name, node in forest.nodes.items():
        assert node.balancer._state.policies.docs.get(doc.id) == doc, name
    for name in forest.nodes:
        forest[name].restart()
        forest.run(4.0)
    for name, node in forest.nodes.items():
        assert node.balancer._state.policies.docs.get(doc.id) == doc, name


def test_keys_of_a_newer_release_are_kept_and_the_known_ones_hold() -> None:
    forest = Forest(TREE)
    text = b'{"on_silence": "wait", "later": {"keys": [1, 2]}, "rate":   5}'
    unknown_is_passed_on(forest, Doc("policy", "catalog", 3, "edge", text))
    assert forest["edge"].balancer._state.policy("catalog").on_silence == "wait"


@pytest.mark.parametrize("text", [b'{"on_silence": "perhaps"}', b"[]", b"\xff\xfe not text", b"{"])
def test_what_cannot_be_read_is_passed_on_unread(text: bytes) -> None:
    forest = Forest(TREE)
    unknown_is_passed_on(forest, Doc("policy", "catalog", 3, "edge", text))


def test_a_kind_of_a_newer_release_is_passed_on() -> None:
    forest = Forest(TREE)
    unknown_is_passed_on(forest, Doc("rollout", "catalog", 3, "edge", bytes(range(256))))


def test_a_document_without_end_is_not_taken() -> None:
    forest = Forest(TREE)
    for host in HOSTS:
        reports(forest, host, "rack", Doc("policy", "catalog", 3, "edge", b" " * 100_000))
    assert body(forest, "rack") is None


@pytest.mark.parametrize("node", ["rack", "host-1"])
def test_a_replaced_node_gets_what_holds(node: str) -> None:
    forest = Forest(TREE)
    forest.policy("edge", WAIT.decode())
    forest[node].kill()
    forest.run(11.0)
    Node.replace(forest[node])
    forest.run(10.0)
    assert bodies(forest) == {WAIT}


def test_the_policy_that_was_lost_does_not_let_anything_in_meanwhile() -> None:
    """A root returns with an empty disk. Its `deny` is not in force until the root learns it, but no version opens
    because of that."""
    forest = Forest({"edge": (), **dict.fromkeys(HOSTS, ("edge",))})
    forest.policy("edge", '{"compatibility": {"deny": [["1.0.1", "1.0.2"]]}}')
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "1.0.2")
    assert forest["host-2"].state("b") == "waiting"
    forest["edge"].lose_disk()
    for _ in range(60):
        forest.run(1.0)
        assert forest["host-2"].serves(key_of("1.0.2")) == set()
    assert forest["host-2"].state("b") == "waiting"


@pytest.mark.promise(6)
@pytest.mark.parametrize("move", [True, False])
def test_what_a_node_brings_along_from_another_tree_is_no_policy_here(move: bool) -> None:
    """A document of another tree is not adopted, even if the node is the only child and thus the majority."""
    forest = Forest({"edge": (), "other": (), "host-1": ("other",), "host-2": ("other",)})
    forest.policy("other", WAIT.decode())
    forest.policy("edge", ANY.decode(), "shop")
    for _ in range(3):  # a higher revision than any here
        forest.policy("other", WAIT.decode(), "shop")
        forest.policy("other", ANY.decode(), "shop")
    if move:
        forest["host-1"].move("edge")
    else:
        forest["other"].move("edge")
    forest.run(60.0)
    assert body(forest, "edge") is None
    assert body(forest, "edge", "shop") == ANY
    assert forest["edge"].balancer.view.policy("shop").origin == "edge"  # type: ignore[union-attr]
    assert body(forest, "host-1") is None


@pytest.mark.promise(6)
def test_a_document_of_another_tree_does_not_become_one_of_this_tree_below_a_moved_node() -> None:
    """A moved rack still holds a document of its former tree. A host that moves from the rack to the root does not
    spread it."""
    forest = Forest({"edge": (), "other": (), "rack": ("other",), "host-1": ("rack",), "host-2": ("edge",)})
    forest.policy("other", WAIT.decode())
    forest["rack"].move("edge")
    forest.run(3.0)
    late = forest.add("late", "rack")
    late.start()
    forest.run(2.0)
    for host in ("host-1", "late"):
        forest[host].move("edge")
    forest.run(60.0)
    assert bodies(forest) - {body(forest, "other")} == {None}
    assert body(forest, "edge") is None


@pytest.mark.promise(5, 6)
def test_all_nodes_below_a_moved_one_go_over_to_the_policy_of_its_new_tree() -> None:
    """All nodes below a moved node use the policy of the new tree, even with a lower revision."""
    forest = Forest({"edge": (), "other": (), "rack": ("other",), "host-1": ("rack",), "host-2": ("host-1",)})
    forest.policy("edge", WAIT.decode())
    for _ in range(3):
        forest.policy("other", WAIT.decode())
        forest.policy("other", ANY.decode())
    forest.run(2.0)
    assert body(forest, "host-2") == ANY
    forest["rack"].move("edge")
    forest.run(120.0)
    assert {body(forest, name) for name in ("edge", "rack", "host-1", "host-2")} == {WAIT}


@pytest.mark.promise(5)
def test_a_root_that_was_promoted_learns_its_policies_back() -> None:
    """Documents that a node held as a child are in force under it after its promotion, and its children know that."""
    forest = Forest(TREE)
    forest.policy("edge", WAIT.decode())
    forest.run(2.0)
    forest["rack"].move()
    forest.run(30.0)
    assert body(forest, "host-1") == WAIT
    late = forest.add("late", "rack")
    late.start()
    forest.run(5.0)
    for host in HOSTS:  # only the late one can teach it
        forest[host].kill()
        forest["rack"].handle(ev.ForgetChild(host))
    forest.run(30.0)
    forest["rack"].replace()
    forest.run(60.0)
    assert {body(forest, name) for name in ("rack", "late")} == {WAIT}


@pytest.mark.promise(5)
def test_a_root_that_was_promoted_and_replaced_learns_its_policies_back() -> None:
    forest = Forest(TREE)
    forest.policy("edge", WAIT.decode())
    forest.run(2.0)
    forest["rack"].move()
    forest.run(30.0)
    forest["rack"].replace()
    forest.run(60.0)
    assert {body(forest, name) for name in ("rack", *HOSTS)} == {WAIT}


@pytest.mark.promise(5)
def test_a_node_that_is_cut_off_passes_on_what_is_in_force() -> None:
    forest = Forest(TREE)
    forest.policy("edge", WAIT.decode())
    forest.part("rack", "edge")
    forest.run(20.0)
    forest["rack"].restart()
    late = forest.add("late", "rack")
    late.start()
    forest.run(5.0)
    assert body(forest, "late") == WAIT
    forest["edge"].lose_disk()
    late.move("edge")
    for host in HOSTS:
        forest[host].move("edge")
    forest.run(30.0)
    assert body(forest, "edge") == WAIT, "it is known to be of this tree"


@pytest.mark.promise(5)
@pytest.mark.parametrize("rebooted", [True, False])
def test_a_root_that_was_replaced_learns_its_policies_back(rebooted: bool) -> None:
    """Another machine at the same address gets the documents of the former root, also over a restart of its
    children."""
    forest = Forest(TREE)
    forest.policy("edge", WAIT.decode())
    forest.run(2.0)
    forest["edge"].kill()
    if rebooted:
        forest["rack"].restart()
    forest["edge"].replace()
    forest.run(60.0)
    assert bodies(forest) == {WAIT}


@pytest.mark.promise(5, 6)
def test_a_root_learns_what_another_root_of_its_tree_decided() -> None:
    forest = Forest({"edge-1": (), "edge-2": (), **dict.fromkeys(HOSTS, ("edge-1", "edge-2"))})
    forest.policy("edge-1", WAIT.decode())
    forest.run(5.0)
    assert bodies(forest) == {WAIT}


def told_documents(forest: Forest, act: object) -> int:
    """Number of documents sent by all nodes."""
    sent = [forest[name].listen() for name in forest.nodes]
    act()  # type: ignore[operator]
    forest.run(30.0)
    return sum(len(getattr(message, "docs", ())) for each in sent for message in each)


def test_a_reconnect_of_nodes_that_hold_the_same_documents_sends_none() -> None:
    forest = Forest(TREE)
    forest.policy("edge", WAIT.decode())
    forest.policy("edge", ANY.decode(), "shop")
    assert told_documents(forest, forest["rack"].restart) == 0
    assert told_documents(forest, forest["edge"].restart) == 0
    assert bodies(forest) == {WAIT}
    late = forest.add("late", "rack")
    assert told_documents(forest, late.start) > 0
    assert body(forest, "late") == WAIT


@pytest.mark.promise(5)
def test_a_document_that_changes_while_a_link_is_made_is_in_force_everywhere() -> None:
    """`docs_kept` refers to the documents that the child had at its Hello; one that changes later is still sent."""
    for steps in range(40):
        forest = Forest({"edge-1": (), "edge-2": (), "host-1": ("edge-1", "edge-2"), "host-2": ("edge-1", "edge-2")})
        forest.policy("edge-1", WAIT.decode())
        forest.run(1.0)
        forest.part("host-1", "edge-2")
        forest.cut.clear()
        forest["edge-1"].inbox.append(ev.PolicyPut("catalog", ANY))
        forest.now += 8.0
        forest["host-1"].handle(ev.Tick())
        for _ in range(steps):
            forest.step()
        forest["edge-1"].inbox.append(ev.PolicyPut("shop", WAIT))
        forest.run(60.0)
        assert bodies(forest) == {ANY}, steps
        assert {body(forest, name, "shop") for name in forest.nodes} == {WAIT}, steps


@pytest.mark.promise(5)
def test_documents_that_a_parent_dropped_go_below_too() -> None:
    forest = Forest({"edge": (), "other": (), "rack": ("other",), "host-1": ("rack",)})
    forest.policy("other", WAIT.decode())
    forest.run(25.0)
    forest["rack"].move("edge")
    forest.run(30.0)
    assert {body(forest, name) for name in ("edge", "rack", "host-1")} == {None}
    forest["host-1"].restart()
    forest.run(2.0)
    assert body(forest, "host-1") is None
