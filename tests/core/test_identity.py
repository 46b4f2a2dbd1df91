"""State folders that are older copies, copies that run twice, and two addresses of one parent."""

from __future__ import annotations

from random import Random

import pytest

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.balancer import Balancer
from sdlb.core.messages import Hello
from sdlb.core.settings import Settings
from tests.core.forest import Forest, key_of

ONE = {"edge": (), "rack": ("edge",), "host-1": ("rack",), "host-2": ("rack",)}
OLD, NEW = key_of("1.0.1"), key_of("2.0.0")


def rollout() -> tuple[Forest, dict[str, object]]:
    """A backup of every node while 1.0.1 served; now 2.0.0 does."""
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    for name in ("edge", "rack"):
        forest[name].restart()
        forest.run(3.0)
    backups: dict[str, object] = {name: node.snapshot() for name, node in forest.nodes.items()}
    forest.put("host-2", "b", "2.0.0")
    forest.remove("host-1", "a")
    for name in forest.nodes:
        for _ in range(3):
            forest[name].restart()
            forest.run(6.0)
    assert forest["edge"].versions() == {"2.0.0": "active"}
    return forest, backups


# ---------------------------------------------------------------------- restored


@pytest.mark.promise(5)
@pytest.mark.parametrize("rebooted", [True, False])
@pytest.mark.parametrize("names", [("host-1",), ("rack",), ("edge",), ("edge", "rack", "host-1"), ("host-1", "host-2")])
def test_a_restored_node_rejoins_and_brings_nothing_back(names: tuple[str, ...], rebooted: bool) -> None:
    forest, backups = rollout()
    for name in names:
        forest[name].restore(backups[name], rebooted=rebooted)  # type: ignore[arg-type]
    if len(names) < 3:  # otherwise only host-2 knows it, and its report must arrive first
        forest.watch.append(forest.one_generation)
    if "host-2" in names:
        forest.put("host-2", "b", "2.0.0")  # its process runs on and is registered again
    forest.run(60.0)
    for name, node in forest.nodes.items():
        assert all(parent["state"] == "connected" for parent in node.balancer.view.tree()["parents"]), name
    assert forest["host-1"].serves(OLD) == set() or forest["edge"].versions() == {"1.0.1": "active", "2.0.0": "waiting"}
    forest.one_generation()
    active = [version for version, state in forest["edge"].versions().items() if state == "active"]
    assert len(active) == 1
    assert forest.endpoints("edge", key_of(active[0]))


@pytest.mark.promise(1)
@pytest.mark.parametrize("rebooted", [True, False])
def test_a_restored_host_opens_what_its_disk_has_only_when_it_is_confirmed(rebooted: bool) -> None:
    forest, backups = rollout()
    forest.watch.append(forest.one_generation)
    forest["host-1"].restore(backups["host-1"], rebooted=rebooted)  # type: ignore[arg-type]
    for _ in range(60):
        forest.run(1.0)
        assert forest["host-1"].serves(OLD) == set()
    assert forest["host-1"].state("a") == "waiting"
    assert forest["edge"].versions() == {"1.0.1": "waiting", "2.0.0": "active"}


@pytest.mark.parametrize("host", ["host-1", "host-2"])
def test_a_host_restored_under_its_engine_opens_nothing_though_it_was_not_restarted_since(host: str) -> None:
    """Its next incarnation is a new number, so only the engine shows that the state folder is an older copy."""
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    backup = forest["host-1"].snapshot()
    forest.put(host, "b", "2.0.0")
    forest.remove("host-1", "a")
    assert forest["edge"].versions() == {"2.0.0": "active"}
    forest.watch.append(forest.one_generation)
    forest["host-1"].restore(backup, rebooted=False)
    forest.run(2.0)
    assert forest["host-1"].serves(OLD) == set()
    assert forest["edge"].versions()["2.0.0"] == "active"


@pytest.mark.promise(1, 2)
@pytest.mark.parametrize("after_s", [0.0, 0.5, 5.0])
def test_a_restored_copy_is_still_one_after_another_restart(after_s: float) -> None:
    """The first start after a restore has written its own numbers, but the folder still counts as an older copy after a
    second start."""
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    backup = forest["host-1"].snapshot()
    forest.put("host-1", "b", "2.0.0")
    forest.remove("host-1", "a")
    assert forest["host-1"].serves(NEW)
    forest.watch.append(forest.one_generation)
    lost: list[str] = []
    forest.part("host-1", "rack")
    forest["host-1"].restore(backup, rebooted=False)
    forest.run(after_s)
    forest.watch.append(lambda: None if forest["host-1"].serves(NEW) else lost.append("2.0.0"))
    forest["host-1"].restart()
    forest.run(2.0)
    assert forest["host-1"].serves(OLD) == set(), "only a parent can say so"
    assert not lost, "what the engine has stays until the parents have been asked"
    assert forest["host-1"].codes().count("restored") == 2


@pytest.mark.promise(2, 3)
def test_a_restored_host_knows_that_its_engine_still_carries_what_its_state_folder_does_not_know() -> None:
    """A program that retries its removal must not get the answer that it is unknown, and exit, before its last request."""
    forest = Forest(ONE)
    backup = forest["host-1"].snapshot()
    forest.put("host-1", "a", "1.0.1")
    member = ev.EndpointKey(OLD, "i:a")
    forest["host-1"].engine.in_flight[member] = 1
    forest.remove("host-1", "a", 300.0)
    forest["host-1"].restore(backup, rebooted=False)
    for after_s in (0.0, 1.0, 60.0):
        forest.run(after_s)
        view = forest["host-1"].balancer.view
        assert view.instance("a") is None and view.may_carry("a")
    assert not view.may_carry("b")
    forest.finish("host-1", member)
    assert not view.may_carry("a")


def restored_without_a_root() -> Forest:
    """The rack's state folder is from before 1.0.1, its engine serves 1.0.1, and the edge is down."""
    forest = Forest(ONE)
    backup = forest["rack"].snapshot()
    forest.put("host-1", "a", "1.0.1")
    forest["edge"].kill()
    forest["rack"].restore(backup, rebooted=False)
    return forest


@pytest.mark.promise(4)
def test_a_restored_node_that_no_root_reaches_closes_nothing() -> None:
    """Its state folder is older than the table of its engine, and no root can confirm anything."""
    forest = restored_without_a_root()
    forest.run(100.0)
    assert forest["rack"].serves(OLD)
    forest["edge"].start()
    forest.run(30.0)
    assert forest["rack"].serves(OLD) and forest["edge"].serves(OLD)


@pytest.mark.promise(3, 4)
def test_a_restored_host_below_a_rack_that_is_cut_off_closes_nothing() -> None:
    """Its parent answers, but no root has reached that parent. So its engine keeps what it serves, and an instance that
    leaves is not drained while the engine has its last request in flight."""
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    backup = forest["host-1"].snapshot()
    forest.put("host-1", "b", "1.0.1")
    forest["edge"].kill()
    forest.run(30.0)
    endpoint = ev.EndpointKey(OLD, "i:a")
    forest["host-1"].engine.in_flight[endpoint] = 1
    forest["host-1"].restore(backup, rebooted=False)
    forest.remove("host-1", "a", 300.0)
    forest.run(60.0)
    assert forest["host-1"].serves(OLD) and forest["host-1"].state("a") == "draining"
    forest["edge"].start()
    forest.run(30.0)
    assert not forest["host-1"].serves(OLD) and forest["host-1"].state("a") == "draining"
    forest.finish("host-1", endpoint)
    assert forest["host-1"].state("a") == "gone"


@pytest.mark.promise(4)
def test_a_restored_host_below_a_rack_that_is_cut_off_stays_in_its_table() -> None:
    """A restored host that does not know yet what its engine serves stays in the table of its rack. The rack sends it
    requests as before, also when a root is back."""
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    backup = forest["host-1"].snapshot()
    forest.put("host-1", "b", "1.0.2")
    forest.remove("host-1", "b")
    forest["edge"].kill()
    forest.run(30.0)
    forest["host-1"].restore(backup, rebooted=False)

    def look() -> None:
        assert forest["rack"].serves(OLD)

    forest.watch.append(look)
    forest.run(40.0)
    forest["edge"].start()
    forest.run(30.0)
    assert forest["edge"].serves(OLD)


@pytest.mark.promise(1, 4)
def test_a_restored_host_gets_nothing_for_a_version_that_was_recalled_meanwhile() -> None:
    """A restored host opens nothing by the record that it reports: its rack knows that the version was given up."""
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    backup = forest["host-1"].snapshot()
    forest.put("host-2", "b", "2.0.0")
    forest.remove("host-1", "a")
    assert forest["edge"].serves(NEW)
    forest["edge"].kill()
    forest.run(30.0)
    forest["host-1"].restore(backup, rebooted=False)

    def look() -> None:
        assert not forest["rack"].serves(OLD) and not forest["host-1"].serves(OLD)

    forest.watch.append(look)
    forest.run(40.0)
    forest["edge"].start()
    forest.run(30.0)


@pytest.mark.promise(4)
def test_a_restored_rack_keeps_the_endpoint_of_a_host_that_it_has_on_record_and_that_is_silent() -> None:
    """As long as its claims would count: the control of the host is down, and its engine serves."""
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    backup = forest["rack"].snapshot()
    forest.remove("host-1", "a")
    forest.put("host-1", "b", "2.0.0")
    forest["host-1"].kill()
    forest["rack"].restore(backup, rebooted=False)
    forest.run(15.0)
    assert forest["rack"].serves(NEW)
    forest["host-1"].start()
    for _ in range(30):
        forest.run(1.0)
        assert forest["rack"].serves(NEW)


def test_a_retry_of_a_delta_does_not_extend_the_time_in_which_nothing_is_deleted() -> None:
    forest = restored_without_a_root()
    forest.run(3.0)
    table = forest["rack"].balancer._state.table  # pyright: ignore[reportPrivateUsage]
    until = table.keep_until
    assert until is not None
    forest["rack"].handle(ev.EngineRejected(table.epoch, "no memory"))
    forest.run(3.0)
    assert table.keep_until == until


def test_a_restored_copy_counts_as_current_once_its_parents_have_confirmed_it() -> None:
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    backup = forest["host-1"].snapshot()
    forest.put("host-1", "c", "1.0.1")
    forest["host-1"].restore(backup, rebooted=False)
    forest.run(30.0)
    forest.put("host-1", "b", "1.0.2")
    forest["host-1"].restart()
    forest.run(2.0)
    assert forest["host-1"].codes().count("restored") == 1


def test_a_root_restored_under_its_engine_keeps_the_endpoints_until_its_children_have_reported() -> None:
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    backup = forest["edge"].snapshot()
    forest.put("host-2", "b", "2.0.0")
    forest.remove("host-1", "a")
    lost: list[str] = []
    forest.watch.append(lambda: None if forest["edge"].serves(NEW) else lost.append("2.0.0"))
    forest["edge"].restore(backup, rebooted=False)
    forest.run(30.0)
    assert not lost
    assert forest["edge"].versions() == {"2.0.0": "active"}


def test_a_control_whose_last_delta_did_not_reach_the_engine_is_no_older_copy() -> None:
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    for _ in range(2):
        forest["rack"].restart()
        forest.run(3.0)
    assert "restored" not in forest["rack"].codes()


def test_a_connection_to_the_engine_that_breaks_is_no_older_copy() -> None:
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    node = forest["host-1"]
    node.inbox.extend((ev.EngineLost(), node.engine.attached()))
    forest.remove("host-1", "a")
    assert forest["host-1"].state("a") == "gone"
    assert "restored" not in node.codes()


def test_a_restored_node_reports_it_and_continues_above_all_used_incarnations() -> None:
    forest, backups = rollout()
    node = forest["host-1"]
    newest = node.incarnation
    node.restore(backups["host-1"])  # type: ignore[arg-type]
    assert node.incarnation < newest
    forest.run(20.0)
    assert node.incarnation > newest
    assert "restored" in node.codes()
    again = node.incarnation
    node.restart()
    forest.run(10.0)
    assert node.incarnation == again + 1
    assert node.balancer.view.tree()["parents"][0]["state"] == "connected"


@pytest.mark.promise(1)
@pytest.mark.promise(8)
def test_a_restored_root_adopts_what_its_children_serve() -> None:
    forest, backups = rollout()
    forest.watch.append(forest.one_generation)
    forest["edge"].restore(backups["edge"])  # type: ignore[arg-type]
    forest.put("host-1", "c", "1.0.1")
    for _ in range(60):
        forest.run(1.0)
        assert forest["host-2"].state("b") == "active"
        assert forest["host-1"].serves(OLD) == set()
    assert forest["edge"].generation() >= 2


@pytest.mark.promise(8)
def test_a_root_that_lost_its_disk_goes_on_above_the_generations_that_were_used() -> None:
    forest, _ = rollout()
    generation = forest["edge"].generation()
    forest["edge"].kill()
    forest["edge"].lose_disk()
    forest.run(60.0)
    assert forest["host-2"].state("b") == "active"
    assert forest["edge"].generation() >= generation


@pytest.mark.promise(4, 8)
@pytest.mark.parametrize("down_s", [0.5, 1.5, 2.0, 20.0])
@pytest.mark.parametrize("lease_s", [1.5, 10.0])
@pytest.mark.parametrize("node", ["edge", "rack"])
def test_a_node_that_lost_its_disk_keeps_what_its_engine_serves_until_its_children_dial_again(
    node: str, lease_s: float, down_s: float
) -> None:
    """However short the lease: a child waits up to five seconds before it dials."""
    forest = Forest(ONE, lease_s=lease_s, fence_s=lease_s, beat_s=0.25)
    forest.put("host-1", "a", "1.0.1")
    forest[node].kill()
    forest.run(down_s)
    lost: list[float] = []
    forest[node].lose_disk()
    forest.watch.append(lambda: None if forest[node].serves(OLD) else lost.append(forest.now))
    forest.run(30.0)
    assert not lost


# ---------------------------------------------------------------------- cloned


@pytest.mark.promise(1)
def test_a_clone_is_found_and_stays_out() -> None:
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-1", "n", "2.0.0")
    copy = forest.clone("host-1", "copy")
    forest.watch.append(forest.one_generation)
    forest.run(60.0)
    assert forest["host-1"].state("a") == "active"
    assert copy.serves(OLD) == set()
    assert "refused-cloned" in copy.codes()
    assert any("copied" in note.text for note in copy.notes)
    assert forest["host-1"].balancer.view.tree()["parents"][0]["state"] == "connected"
    assert forest.endpoints("rack", OLD) == {"host-1/i:a"}


@pytest.mark.promise(1)
def test_a_clone_with_a_higher_incarnation_does_not_push_the_original_out() -> None:
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    copy = forest.clone("host-1", "copy")
    for _ in range(5):
        forest.run(4.0)
        copy.restart()
    forest.watch.append(lambda: _serves(forest))
    forest.run(30.0)
    assert "refused-cloned" in copy.codes()


def _serves(forest: Forest) -> None:
    assert forest.endpoints("rack", OLD) == {"host-1/i:a"}


def test_the_clone_takes_the_place_of_a_dead_original() -> None:
    """A machine was moved by copying its disk, and the original is off: the copy is accepted."""
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    forest["host-1"].kill()
    forest["host-1"].engine.endpoints.clear()
    copy = forest.clone("host-1", "copy")
    forest.run(30.0)
    assert copy.balancer.view.tree()["parents"][0]["state"] == "connected"
    assert copy.state("a") == "active"


def test_a_restart_whose_old_link_was_not_seen_to_break_is_back_soon() -> None:
    """A restart is not taken for a clone, because the old process does not answer."""
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    node = forest["host-1"]
    node.alive = False
    node.inbox.clear()
    node.up.clear()  # the rack still believes in the old link
    node.start()
    forest.run(8.0)
    assert node.balancer.view.tree()["parents"][0]["state"] == "connected"
    assert "refused-cloned" not in node.codes()
    assert forest["rack"].serves(OLD) == {"n:host-1"}


def test_another_node_of_the_same_name_is_refused_while_the_first_is_alive() -> None:
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    other = forest.add("other", "rack")
    other.name = "host-1"
    other.start()
    forest.run(20.0)
    assert "refused-name-taken" in other.codes()
    assert forest["rack"].serves(OLD) == {"n:host-1"}
    forest["host-1"].kill()
    forest.run(30.0)
    assert other.balancer.view.tree()["parents"][0]["state"] == "connected"


@pytest.mark.promise(1)
def test_a_cloned_rack_does_not_cover_the_hosts_of_the_original() -> None:
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "2.0.0")
    copy = forest.clone("rack", "copy")
    forest.watch.append(forest.one_generation)
    forest.run(60.0)
    assert "refused-cloned" in copy.codes()
    assert forest["host-1"].state("a") == "active"
    assert forest["host-2"].state("b") == "waiting"


# ---------------------------------------------------------------------- two addresses of one parent


@pytest.mark.promise(5)
def test_two_addresses_of_one_parent_make_one_link() -> None:
    forest = Forest({"edge": ()})
    forest.also["edge.example"] = "edge"
    host = forest.add("host", "edge", "edge.example")
    host.start()
    forest.run(1.0)
    forest.put("host", "a", "1.0.1")
    links = forest._count  # pyright: ignore[reportPrivateUsage]
    for _ in range(120):
        forest.run(0.5)
        assert host.state("a") == "active"
    assert forest._count - links <= 12, "not one link a second"  # pyright: ignore[reportPrivateUsage]
    assert "parent-twice" in host.codes()
    assert forest["edge"].serves(OLD) == {"n:host"}


@pytest.mark.promise(3)
def test_when_the_connected_address_breaks_the_other_one_is_used() -> None:
    forest = Forest({"edge": ()})
    forest.also["edge.example"] = "edge"
    host = forest.add("host", "edge", "edge.example")
    host.start()
    forest.run(1.0)
    forest.put("host", "a", "1.0.1")
    forest.run(20.0)
    for address in ("edge", "edge.example"):
        forest.cut = {frozenset(("host", address))}
        for link, (_, dialled) in list(forest.links.items()):
            if dialled == address:
                forest.close(link, told="")
        for _ in range(120):
            forest.run(0.5)
            assert host.state("a") == "active"
        assert not host.balancer.view.cut_off()


def test_a_hello_with_a_number_from_the_future_is_one_of_a_later_start() -> None:
    """A Hello with a higher incarnation than recorded is accepted."""
    forest = Forest(ONE)
    node = forest["host-1"]
    node.kill()
    node.incarnation += 1000
    node.start()
    forest.run(5.0)
    assert node.balancer.view.tree()["parents"][0]["state"] == "connected"
    hellos = [message for message in node.sent if isinstance(message, Hello)]
    assert hellos[-1].incarnation == node.incarnation


@pytest.mark.promise(3)
@pytest.mark.parametrize("name", ["rack", "host-1"])
def test_a_restored_node_whose_engine_ran_on_loses_no_request(name: str) -> None:
    """While the node waits for its parent's confirmation, the parent parks requests and does not start a drain."""
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    forest[name].kill()
    backup = forest[name].snapshot()
    for _ in range(2):
        forest[name].start()
        forest.run(3.0)
        forest[name].kill()
    forest.watch.append(lambda: _serves_or_parks(forest))
    forest[name].restore(backup, rebooted=False)
    forest.run(30.0)
    assert forest["edge"].serves(OLD) == {"n:rack"}
    assert forest["host-1"].state("a") == "active"


def _serves_or_parks(forest: Forest) -> None:
    for name in ("edge", "rack"):
        (route,) = forest[name].engine.routes.values()
        assert forest[name].serves(OLD) or route.park_requests_max


@pytest.mark.promise(2)
def test_a_restored_node_whose_version_was_replaced_meanwhile_still_drains_it() -> None:
    """If the parent has decided otherwise meanwhile, the old version is closed by an ordinary drain."""
    forest, backups = rollout()
    forest["host-1"].restore(backups["host-1"], rebooted=False)  # type: ignore[arg-type]
    forest.watch.append(forest.one_generation)
    forest.run(30.0)
    assert (forest["host-1"].state("a"), forest["host-2"].state("b")) == ("waiting", "active")
    assert forest["host-1"].engine.endpoints == {}
    forest.remove("host-1", "a")
    forest.run(2.0)
    assert forest["host-1"].state("a") == "gone"


@pytest.mark.promise(3)
@pytest.mark.parametrize("lease_s", [1.5, 10.0, 60.0])
def test_a_node_that_waits_for_those_below_dials_before_its_own_lease_is_over(lease_s: float) -> None:
    """Its engine had a later control, so its children report first. Its parents must not lose it meanwhile."""
    settings = Settings("host", "id-host", 1, ("rack",), lease_s=lease_s, fence_s=lease_s, nonce="1")
    balancer = Balancer(settings, {}, Random(1))
    effects = balancer.start(0.0)
    effects += balancer.handle(ev.EngineAttached("boot", 5 << 32, 3), 0.0)
    assert ef.Dial("rack") not in effects
    dialled = balancer.handle(ev.Tick(), min(5.0, lease_s / 2))
    assert ef.Dial("rack") in dialled


@pytest.mark.promise(5)
def test_a_drain_ends_once_it_is_known_again_what_the_engine_has() -> None:
    """A root from an older state folder keeps the endpoints of its engine for a lease. After that, drains that the
    engine has already done are acknowledged."""
    forest = Forest({"edge": (), "host-1": ("edge",), "host-2": ("edge",)})
    forest.put("host-1", "a", "1.0.1")
    backup = forest["edge"].snapshot()
    forest.put("host-2", "b", "2.0.0")
    forest["edge"].restart()
    forest.run(3.0)
    forest["edge"].restore(backup, rebooted=False)
    forest.remove("host-1", "a", 300.0)
    forest.run(15.0)
    assert forest["host-1"].state("a") == "gone"
    assert forest["host-2"].state("b") == "active"


@pytest.mark.promise(5)
def test_a_drain_that_is_over_before_it_is_known_what_the_engine_has_ends_then() -> None:
    """The endpoint is deleted while the table counts as unknown. At the end of that time the engine has nothing to delete."""
    forest = Forest({"edge": (), "host-1": ("edge",), "host-2": ("edge",)})
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "2.0.0")
    edge = forest["edge"]
    edge.kill()
    edge.disk.clear()
    edge.start()
    forest.run(3.0)
    forest.remove("host-1", "a", 300.0)
    forest.run(1.0)
    assert edge.engine.endpoints == {} and forest["host-1"].state("a") != "gone"
    forest.run(15.0)
    assert forest["host-1"].state("a") == "gone"
    assert forest["host-2"].state("b") == "active"
