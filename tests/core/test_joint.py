"""Joint rollouts: services that require each other get new versions together, in order, and go back together."""

# pyright: reportArgumentType=false
from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from msgspec.structs import replace

from tests.core.joint_story import APART, BIG, CATALOG, NEW, OLD, PRICING, SHARED, SPEC, Duo
from tests.core.node import Node
from tests.core.programs import Build

HOSTS = pytest.mark.parametrize("hosts", [SHARED, APART], ids=["shared", "apart"])
Hosts = Mapping[str, tuple[str, ...]]


@pytest.mark.promise(9)
@HOSTS
def test_the_required_service_is_done_before_the_other_one_is_touched(hosts: Hosts) -> None:
    duo = Duo(hosts)
    assert duo.both() == ""
    assert [duo.rollout(service)["id"] for service in (PRICING, CATALOG)] == ["r-3", "r-4"]
    duo.until(PRICING, "rolling")
    assert duo.rollout(CATALOG)["state"] == "preparing" and "waits for pricing 3.0.2 (r-3)" in duo.waited(CATALOG)
    duo.until_over()
    assert duo.states() == ("done", "done") and duo.all_run(NEW)
    assert min(duo.lowest.values()) >= len(duo.of(CATALOG)) - 1 and duo.out_most == 1


@pytest.mark.promise(9)
@HOSTS
@pytest.mark.parametrize("build", [Build(healthy=False), Build(starts="program"), Build(prepares="artifact")])
def test_a_bad_build_of_the_second_service_takes_both_back(hosts: Hosts, build: Build) -> None:
    duo = Duo(hosts)
    duo.builds(NEW[CATALOG], build)
    for host in duo.of(CATALOG):
        duo.forest[host].programs.slow_s = 3.0
    assert duo.both() == ""
    duo.until(CATALOG, "undone")
    duo.until_over()
    assert duo.all_run(OLD)
    if build.prepares:
        assert duo.states() == ("undone", "undone") and duo.lowest == {s: len(duo.of(s)) for s in OLD}
    else:
        assert duo.states() == ("done", "undone") and duo.rollout(PRICING)["undoes"] == "r-3"
        assert duo.rollout(CATALOG)["failed"]
    if not build.prepares:
        assert any("because r-4 of catalog is halted" in text for text in duo.notes("rollout-state"))


@pytest.mark.promise(9)
@pytest.mark.parametrize("cut_over", ["stopped", "flip"])
def test_incompatible_versions_go_one_after_the_other_and_back(cut_over: str) -> None:
    duo = Duo(APART, cut_over=cut_over)
    assert duo.both(BIG) == ""
    duo.until_over()
    assert duo.states() == ("done", "done") and duo.all_run(BIG)
    assert duo.verb("undo", PRICING) == ""
    assert (duo.rollout(CATALOG)["undoes"], duo.rollout(PRICING)["undoes"]) == ("r-4", "r-3")
    duo.until(CATALOG, "rolling")
    assert duo.rollout(PRICING)["state"] == "preparing"
    duo.until_over()
    assert duo.states() == ("done", "done") and duo.all_run(OLD)
    assert duo.verb("undo") == "", "an undo can be undone, the required service first"
    duo.until(PRICING, "rolling")
    assert duo.rollout(CATALOG)["state"] == "preparing"
    duo.until_over()
    assert duo.all_run(BIG)


@pytest.mark.promise(9)
@pytest.mark.parametrize("service", [PRICING, CATALOG])
@pytest.mark.parametrize("phase", ["fetching", "queued", "draining", "stopping", "starting", "verifying", "done"])
def test_an_abort_from_every_phase_of_either_service_leaves_both_as_before(service: str, phase: str) -> None:
    duo = Duo(APART if phase in ("stopping", "verifying") else SHARED)
    for host in duo.hosts:
        duo.forest[host].programs.slow_s = 0.5
    duo.both()
    duo.reach(service, phase)
    if duo.states() == ("done", "done"):
        pytest.skip("nothing is in progress any more")
    assert duo.verb("abort", PRICING if service == CATALOG else CATALOG) == "", "either name is that of the whole"
    again = duo.verb("abort", service)
    assert "no rollout" in again if phase == "fetching" else "going back already" in again
    duo.until_over()
    assert duo.all_run(OLD) and min(duo.lowest.values()) >= len(duo.of(service)) - 1
    assert "no rollout" in duo.verb("abort")


@pytest.mark.promise(9)
@pytest.mark.parametrize("how", [Node.restart, Node.reboot], ids=["killed", "rebooted"])
@pytest.mark.parametrize("bad", [False, True], ids=["good", "bad"])
@pytest.mark.parametrize("phase", ["preparing", "prepared", "draining", "starting", "verifying"])
def test_the_owner_is_lost_for_a_moment_in_the_second_service(
    phase: str, bad: bool, how: Callable[[Node], None]
) -> None:
    duo = Duo()
    duo.builds(NEW[CATALOG], Build(healthy=not bad))
    for host in duo.hosts:
        duo.forest[host].programs.slow_s = 0.5
    duo.both()
    duo.until(PRICING, "done")
    if phase != "preparing":
        duo.reach(CATALOG, phase)
    how(duo.forest["edge-1"])
    duo.until(CATALOG, "undone" if bad else "done")
    duo.until_over()
    assert duo.all_run(OLD if bad else NEW) and min(duo.lowest.values()) >= 2


@pytest.mark.promise(9)
def test_the_owner_is_lost_while_both_go_back() -> None:
    duo = Duo()
    duo.builds(NEW[CATALOG], Build(healthy=False))
    duo.both()
    duo.until(CATALOG, "undoing")
    duo.forest["edge-1"].restart()
    duo.until(CATALOG, "undone")
    duo.forest["edge-1"].restart()
    duo.until_over()
    assert duo.all_run(OLD)


@pytest.mark.promise(9)
@pytest.mark.parametrize("bad", [False, True], ids=["good", "bad"])
def test_another_root_adopts_all_of_it(bad: bool) -> None:
    duo = Duo(roots=2)
    duo.builds(NEW[CATALOG], Build(healthy=not bad))
    assert duo.both() == ""
    duo.until(PRICING, "done")
    duo.reach(CATALOG, "verifying")
    duo.forest["edge-1"].kill()
    duo.forest.run(60.0)
    assert duo.verb("adopt", PRICING, at="edge-2") == ""
    assert [duo.rollout(service, "edge-2")["owner"] for service in OLD] == ["edge-2", "edge-2"]
    duo.until_over("edge-2")
    assert duo.all_run(OLD if bad else NEW)


@pytest.mark.promise(9)
def test_services_that_do_not_require_each_other_go_in_the_given_order_and_back_in_reverse() -> None:
    duo = Duo()
    assert duo.release(CATALOG, "1.0.5") == ""
    assert duo.start((PRICING, NEW[PRICING]), (CATALOG, "1.0.5")) == ""
    duo.until(PRICING, "rolling")
    assert duo.rollout(CATALOG)["state"] == "preparing"
    duo.reach(CATALOG, "done")
    assert duo.verb("abort") == ""
    duo.until(CATALOG, "undone")
    assert "waits for catalog 1.0.1 (r-4)" in duo.waited(PRICING)
    duo.until_over()
    assert duo.all_run(OLD)


def test_pause_and_resume_are_of_the_whole() -> None:
    duo = Duo()
    duo.both()
    duo.reach(PRICING, "verifying")
    assert duo.verb("pause", CATALOG) == ""
    assert duo.states() == ("paused", "paused")
    duo.forest.run(60.0)
    assert duo.rollout(PRICING)["nodes"]["done"] == 1
    assert duo.verb("resume", PRICING) == ""
    duo.until_over()
    assert duo.all_run(NEW)


def test_what_a_joint_rollout_would_do_and_what_it_is() -> None:
    duo = Duo()
    from sdlb.core import events as ev

    also = (ev.RolloutOrder(PRICING, "start", "a", NEW[PRICING], SPEC),)
    order = ev.RolloutOrder(CATALOG, "start", "a", NEW[CATALOG], SPEC, also=also)
    assert [plan["service"] for plan in duo.view().joint_plans(order)] == [PRICING, CATALOG]
    duo.both()
    for service in OLD:
        assert [(part["service"], part["id"], part["to"]) for part in duo.rollout(service)["joint"]] == [
            (PRICING, "r-3", "3.0.2"),
            (CATALOG, "r-4", "1.0.2"),
        ]
    assert any("together with pricing" in text for text in duo.notes("rollout-state"))
    duo.until_over()
    undo = ev.RolloutOrder(PRICING, "undo", "a")
    assert [(p["service"], p["to"]) for p in duo.view().joint_plans(undo)] == [(CATALOG, "1.0.1"), (PRICING, "3.0.1")]


# ---------------------------------------------------------------------- what is refused


def test_a_start_whose_requirement_is_not_active_is_refused_and_says_what_to_do() -> None:
    duo = Duo()
    why = duo.start((CATALOG, NEW[CATALOG]))
    assert why == (
        "catalog-1.0.2 requires pricing>=3.0.2, and pricing 3.0.1 is active; roll out pricing 4.1.0 first, "
        "or all together: sdlb rollout start catalog 1.0.2 pricing 4.1.0"
    )
    assert duo.start((PRICING, NEW[PRICING])) == ""
    duo.reach(PRICING, "verifying")
    assert "pricing 3.0.1 is active" in duo.start((CATALOG, NEW[CATALOG])), "the old one serves still"
    duo.until(PRICING, "done")
    assert duo.start((CATALOG, NEW[CATALOG])) == ""
    duo.until(CATALOG, "done")
    assert duo.all_run(NEW)


def test_what_another_service_requires_is_not_taken_away() -> None:
    duo = Duo()
    duo.both()
    duo.until_over()
    why = "catalog-1.0.2, which is active, requires pricing>=3.0.2, and"
    assert duo.start((PRICING, OLD[PRICING])).startswith(f"{why} pricing-3.0.1 would break it")
    assert duo.release(PRICING, NEW[PRICING], withdrawn=True).startswith(f"{why} uses pricing-3.0.2")
    assert duo.start((CATALOG, "1.0.3")).startswith("there is no release")
    assert duo.release(CATALOG, "1.0.3", "pricing>=3.0.2") == ""
    assert duo.start((CATALOG, "1.0.3")) == ""
    duo.until(CATALOG, "done")
    assert duo.verb("undo", PRICING).startswith("catalog-1.0.3, which is active, requires pricing>=3.0.2")
    assert duo.verb("undo", CATALOG) == ""
    duo.until(CATALOG, "done")
    assert duo.all_run(NEW)


def test_a_part_takes_no_other_orders() -> None:
    duo = Duo()
    duo.both()
    assert "takes part in the joint rollout of pricing (r-3), catalog (r-4)" in duo.start(
        (PRICING, BIG[PRICING]), supersede=True
    )
    duo.until(PRICING, "done")
    assert "takes part" in duo.start((PRICING, BIG[PRICING])), "also once it is done"
    duo.until_over()


def test_orders_of_several_services_that_cannot_be_carried_out_say_why() -> None:
    duo = Duo()
    assert duo.start((CATALOG, "1.0.2"), (CATALOG, "2.5.1")) == "catalog is named twice; give each service once"
    assert duo.start((CATALOG, NEW[CATALOG]), (PRICING, OLD[PRICING])).startswith(
        "pricing-3.0.1 is what all nodes have"
    )
    assert duo.start((CATALOG, BIG[CATALOG]), (PRICING, NEW[PRICING])).startswith(
        "catalog-2.5.1 requires pricing>=4.1, and pricing would get 3.0.2; choose versions that fit: pricing>=4.1"
    )
    assert "there is no release pricing-9" in duo.start((CATALOG, NEW[CATALOG]), (PRICING, "9"))


def test_releases_in_a_cycle_are_refused() -> None:
    duo = Duo()
    assert duo.release("stock", "1.0", "catalog>=5") == "", "such a catalog may come later"
    why = duo.release(CATALOG, "5.0", "stock>=1")
    assert why == (
        "release catalog-5.0 is part of a cycle: catalog-5.0 requires stock-1.0 requires catalog-5.0; "
        "remove one of these requirements; none could be first"
    )
    assert duo.view().release("catalog-5.0") is None
    assert duo.release("stock", "1.1") == "" and duo.release(CATALOG, "5.0", "stock>=1") == "", "1.1 can be first"
    assert duo.release(PRICING, "4.2.0", "catalog>=2.5") == "", "after pricing 4.1.0 and catalog 2.5.1"
    why = duo.start((CATALOG, BIG[CATALOG]), (PRICING, "4.2.0"))
    assert "catalog-2.5.1, pricing-4.2.0 require each other in a cycle, so none of them can be first" in why


def test_a_compatible_release_that_starts_automatically_waits_for_what_it_requires() -> None:
    duo = Duo(APART)
    duo.policy(CATALOG, auto="compatible", rollout={"soak_s": 2.0, "drain_s": 5.0})
    duo.forest.run(20.0)
    assert duo.rollout(CATALOG)["id"] == "r-2"
    assert any("requires pricing>=3.0.2" in text for text in duo.notes("auto-held"))
    assert duo.start((PRICING, NEW[PRICING])) == ""
    duo.until(PRICING, "done")
    duo.forest.run(30.0)
    assert duo.rollout(CATALOG)["state"] == "done" and duo.all_run(NEW)


def test_a_required_service_that_keeps_an_old_node_holds_the_other_one() -> None:
    """A rollout may be done although a node has failed. Its old version serves still."""
    duo = Duo(APART)
    duo.forest["host-4"].programs.builds[NEW[PRICING]] = Build(starts="program")
    assert duo.both(spec=replace(SPEC, failures_max=1)) == ""
    duo.until(PRICING, "done")
    duo.forest.run(30.0)
    assert duo.rollout(CATALOG)["state"] == "preparing"
    assert "requires pricing>=3.0.2, and pricing 3.0.1 is active" in duo.rollout(CATALOG)["detail"]
    assert duo.verb("abort") == ""
    duo.until_over()
    assert duo.all_run(OLD)


def test_a_part_that_cannot_go_back_stays_and_says_so() -> None:
    duo = Duo(APART)
    duo.both()
    duo.until(PRICING, "done")
    duo.policy(PRICING, never_below="3.0.2")
    assert duo.verb("abort") == ""
    duo.until(CATALOG, "undone")
    duo.forest.run(20.0)
    assert duo.all_run({CATALOG: OLD[CATALOG], PRICING: NEW[PRICING]})
    assert any("pricing stays at 3.0.2" in text for text in duo.notes("rollout-state"))


@pytest.mark.promise(9)
def test_nodes_out_count_over_all_rollouts() -> None:
    """Two rollouts of their own: together they take out no more nodes than each of them may."""
    hosts = {**{f"host-{n}": (CATALOG,) for n in range(1, 5)}, **{f"host-{n}": (PRICING,) for n in range(5, 9)}}
    duo = Duo(hosts, max_unavailable="50%")
    most = 0

    def look() -> None:
        nonlocal most
        agents = [agent for host in hosts for agent in duo.forest[host].balancer.view.agent()]
        most = max(most, sum(a["phase"] in ("draining", "stopping", "starting", "verifying") for a in agents))

    duo.forest.watch.append(look)
    assert duo.release(CATALOG, "1.0.5") == ""
    spec = replace(SPEC, first=4, nodes_out_max="2")
    assert duo.start((CATALOG, "1.0.5"), spec=spec) == "" and duo.start((PRICING, NEW[PRICING]), spec=spec) == ""
    duo.until_over()
    assert most == 2
