"""Q: rollouts of roles: their owner, its agents and drivers fail at each step, and so do the new versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sdlb.model.canary import BLOCK_S, Analysis, Figures, block_of
from sdlb.model.rollout import FAILED
from sdlb.sim.drivers import Flaw
from sdlb.sim.stage import Stage, scenario

TREE = {
    "root_1": "",
    "root_2": "",
    "rack_1": "root-1 root-2",
    "rack_2": "root-1 root-2",
    "host_1": "rack-1",
    "host_2": "rack-1",
    "host_3": "rack-2",
    "host_4": "rack-2",
}
ONE_HOST = {"root_1": "", "host_1": "root-1"}
HOSTS = ("host-1", "host-2", "host-3", "host-4")
OLD, NEW, NEWER, OTHER = "1.0.1", "1.0.2", "1.0.3", "2.0.0"
FINE_S = 0.01


def serves_old(stage: Stage, *hosts: str, policy: dict[str, object] | None = None, **how: Any) -> None:
    """1.0.1 was rolled out to the hosts, and requests arrive at all roots."""
    hosts = hosts or HOSTS
    stage.roles(*hosts, **how)
    stage.run(4.0)
    if policy is not None:
        stage.everywhere(**policy)
    stage.release(OLD, NEW, NEWER, OTHER)
    starts(stage, OLD, soak_s=1.0)
    stage.rolls("done")
    all_run(stage, OLD, *hosts)
    stage.run(15.0)
    stage.requests(20.0)
    stage.run(2.0)


def starts(stage: Stage, version: str = NEW, **how: Any) -> None:
    why = stage.roll(version, **how)
    stage.expect(5, f"the rollout starts: {why}", not why)
    stage.run(0.1)


def obeys(stage: Stage, verb: str, at: str = "root-1") -> None:
    why = stage.order(verb, at)
    stage.expect(5, f"the rollout obeys {verb}: {why}", not why)
    stage.run(0.1)


def all_run(stage: Stage, version: str, *hosts: str) -> None:
    for host in hosts or HOSTS:
        there = stage.runs(host)
        stage.expect(5, f"{host} runs {version} alone: {sorted(there)}", there == {version})


def _lost(stage: Stage) -> dict[str, int]:
    return {why: n for why, n in stage.world.traffic.outcomes.items() if why != "answered"}


def nothing_lost(stage: Stage) -> None:
    stage.expect(3, f"no request was lost: {_lost(stage)}", not _lost(stage))


def in_phase(stage: Stage, phase: str, within_s: float = 60.0) -> str:
    """Runs until an agent is in this phase. Returns its host."""

    def there() -> list[str]:
        return [host for host in HOSTS if stage[host].running and stage[host].roles and stage.phase(host) == phase]

    stage.until(5, f"an agent is {phase}", lambda: bool(there()), within_s, FINE_S)
    return there()[0]


def slow(stage: Stage, *versions: str) -> None:
    """Calls of drivers take long enough to fail in the middle."""
    for version in versions:
        stage.world.drivers.flaws["", version] = Flaw(slow_s=0.6)


def _each(
    promises: tuple[int, ...], cases: tuple[str, ...], name: str, title: str
) -> Callable[[Callable[[Stage, str], None]], Callable[[Stage, str], None]]:
    """Registers a script once for each case: `{}` in name and title."""

    def register(script: Callable[[Stage, str], None]) -> Callable[[Stage, str], None]:
        for case in cases:

            def play(stage: Stage, case: str = case) -> None:
                script(stage, case)

            play.__name__ = name.format(case.replace("-", "_"))
            play.__doc__ = title.format(case)
            scenario("Q", *promises, **TREE)(play)
        return script

    return register


# ---------------------------------------------------------------------- what rollouts are for


@scenario("Q", 3, 5, 9, **TREE)
def rollout_of_a_patch(stage: Stage) -> None:
    """A patch is shipped to four hosts, one after the other, and no request is lost."""
    serves_old(stage)
    starts(stage)
    stage.rolls("done")
    all_run(stage, NEW)
    nothing_lost(stage)
    stage.settle(30.0)


@scenario("Q", 3, 5, 9, **TREE)
def rollout_of_a_patch_side_by_side(stage: Stage) -> None:
    """Where two versions may run at once, each host starts the new one first."""
    serves_old(stage)
    starts(stage, side_by_side="always")
    stage.rolls("done")
    all_run(stage, NEW)
    nothing_lost(stage)
    stage.settle(30.0)


@scenario("Q", 3, 5, 9, **TREE)
def rollout_with_long_requests(stage: Stage) -> None:
    """Requests take longer than most steps: drains wait for them."""
    serves_old(stage)
    stage.requests(4.0, hold_s=3.0)
    starts(stage)
    stage.rolls("done")
    nothing_lost(stage)
    stage.settle(30.0)


@scenario("Q", 3, 5, 9, root_1="", host_1="root-1", host_2="root-1", host_3="root-1", host_4="root-1")
def rollout_in_batches(stage: Stage) -> None:
    """The policy allows half of the capacity to be away: two hosts leave at a time, after the first one alone."""
    serves_old(stage, policy={"max_unavailable": "50%"})
    starts(stage)
    out: list[int] = []

    def done() -> bool:
        out.append(len(stage.rollout()["slots"]))
        return bool(stage.rollout()["state"] == "done")

    stage.until(5, "the rollout is done", done, 120.0)
    stage.expect(9, f"two hosts were out at once: {max(out)}", max(out) == 2)
    nothing_lost(stage)
    stage.settle(30.0)


@scenario("Q", 2, 3, 5, 9, **TREE)
def rollout_incompatible_stopped(stage: Stage) -> None:
    """An incompatible version starts beside the old one, and takes over when all hosts have it."""
    serves_old(stage)
    starts(stage, OTHER)
    stage.rolls("cutting-over")
    stage.rolls("done")
    all_run(stage, OTHER)
    nothing_lost(stage)
    stage.settle(30.0)


@scenario("Q", 2, 3, 5, 9, **TREE)
def rollout_incompatible_flip(stage: Stage) -> None:
    """The same with a flip: the old version serves until the new one takes over at once."""
    serves_old(stage, policy={"cut_over": "flip", "park": {"timeout_s": 60}})
    starts(stage, OTHER)
    stage.rolls("done")
    all_run(stage, OTHER)
    nothing_lost(stage)
    stage.settle(30.0)


@scenario("Q", 2, 5, 9, **TREE)
def rollout_incompatible_without_room(stage: Stage) -> None:
    """The hosts cannot run two versions at once: the rollout needs consent for the gap, and then goes through it."""
    serves_old(stage, side_by_side=False)
    stage.expect(9, "it needs consent", "--accept-gap" in stage.roll(OTHER))
    starts(stage, OTHER, accept_gap=True)
    stage.rolls("done")
    all_run(stage, OTHER)
    stage.settle(40.0)


@scenario("Q", 3, 5, 9, **ONE_HOST)
def rollout_of_a_single_instance(stage: Stage) -> None:
    """The only instance is never taken out without consent. Beside the old one, the new one starts without a gap."""
    serves_old(stage, "host-1")
    stage.expect(9, "it needs consent", "--accept-gap" in stage.roll(NEW))
    starts(stage, side_by_side="always")
    stage.rolls("done")
    all_run(stage, NEW, "host-1")
    nothing_lost(stage)
    starts(stage, NEWER, accept_gap=True)
    stage.rolls("done")
    all_run(stage, NEWER, "host-1")
    stage.settle(30.0)


@scenario("Q", 5, 9, **TREE)
def rollouts_of_two_services(stage: Stage) -> None:
    """Two services of the same hosts are rolled out at once: no host is out for both."""
    stage.roles(*HOSTS, service="pricing", route="example.com/pricing*")
    serves_old(stage)
    stage.release(OLD, NEW, service="pricing")
    stage.expect(5, "pricing starts", not stage.roll(OLD, service="pricing"))
    stage.rolls("done", service="pricing")
    stage.expect(5, "pricing starts again", not stage.roll(NEW, service="pricing"))
    starts(stage)
    stage.rolls("done")
    stage.rolls("done", service="pricing")
    nothing_lost(stage)
    stage.settle(30.0)


# ---------------------------------------------------------------------- bad builds

BAD = {
    "never-healthy": Flaw(ill=True),
    "crashing": Flaw(dies_s=3.0),
    "not-starting": Flaw(start="exit code 127"),
}


@_each(
    (5, 9),
    tuple(BAD),
    "rollout_of_a_build_{}",
    "A build that is {}: one host meets it and goes back, and the rollout halts.",
)
def _bad_build(stage: Stage, case: str) -> None:
    serves_old(stage)
    stage.world.drivers.flaws["", NEW] = BAD[case]
    starts(stage)
    stage.rolls("halted")
    stage.run(1.0)
    failed = [host for host in HOSTS if stage.phase(host) == FAILED]
    stage.expect(9, f"one host has met it: {failed}", len(failed) == 1)
    stage.run(20.0)
    all_run(stage, OLD)
    obeys(stage, "abort")
    stage.rolls("undone")
    all_run(stage, OLD)
    stage.settle(50.0)


@scenario("Q", 3, 5, 9, **TREE)
def rollout_with_a_wrong_digest(stage: Stage) -> None:
    """An artifact has the wrong digest on one host: that is found before any host is touched."""
    serves_old(stage)
    stage.world.drivers.flaws["host-3", NEW] = Flaw(prepare="the SHA-256 is another one")
    starts(stage)
    stage.rolls("halted")
    all_run(stage, OLD)
    stage.expect(9, "no slot was granted", not stage.rollout()["slots"])
    obeys(stage, "abort")
    stage.rolls("undone")
    nothing_lost(stage)
    stage.settle(30.0)


@scenario("Q", 3, 5, 9, **TREE)
def rollout_while_a_stop_hangs(stage: Stage) -> None:
    """The old version takes long to stop on one host."""
    serves_old(stage)
    stage.world.drivers.flaws["host-2", OLD] = Flaw(hangs_s=15.0)
    starts(stage)
    stage.rolls("done")
    all_run(stage, NEW)
    nothing_lost(stage)
    stage.settle(30.0)


@scenario("Q", 5, 9, **TREE)
def rollout_bad_on_one_host(stage: Stage) -> None:
    """One failed node is allowed: that host goes back, all others are updated."""
    serves_old(stage)
    stage.world.drivers.flaws["host-3", NEW] = Flaw(ill=True)
    starts(stage, failures_max=1, progress_s=15.0)
    stage.rolls("done")
    all_run(stage, NEW, "host-1", "host-2", "host-4")
    all_run(stage, OLD, "host-3")
    stage.settle(50.0)


# ---------------------------------------------------------------------- orders


@scenario("Q", 3, 5, 9, **TREE)
def rollout_paused_and_resumed(stage: Stage) -> None:
    """While it is paused, what has begun ends, and nothing begins."""
    serves_old(stage)
    starts(stage)
    in_phase(stage, "draining")
    obeys(stage, "pause")
    stage.run(30.0)
    updated = [host for host in HOSTS if stage.runs(host) == {NEW}]
    stage.expect(9, f"one host was updated: {updated}", len(updated) == 1)
    obeys(stage, "resume")
    stage.rolls("done")
    all_run(stage, NEW)
    nothing_lost(stage)
    stage.settle(30.0)


PHASES = ("fetching", "queued", "draining", "stopping", "starting", "verifying")


@_each(
    (3, 5, 9),
    PHASES,
    "rollout_aborted_while_{}",
    "The rollout is aborted while a host is {}: all go back to the old version.",
)
def _aborted(stage: Stage, case: str) -> None:
    serves_old(stage)
    slow(stage, NEW)
    starts(stage)
    in_phase(stage, case)
    obeys(stage, "abort")
    stage.rolls("undone")
    stage.run(5.0)
    all_run(stage, OLD)
    nothing_lost(stage)
    stage.settle(40.0)


@scenario("Q", 3, 5, 9, **TREE)
def rollout_aborted_when_half_is_done(stage: Stage) -> None:
    """Two hosts are updated when the rollout is aborted: they go back, one after the other."""
    serves_old(stage)
    starts(stage)
    stage.until(5, "two hosts are done", lambda: stage.rollout()["nodes"].get("done", 0) >= 2, 60.0)
    obeys(stage, "abort")
    stage.rolls("undone")
    all_run(stage, OLD)
    nothing_lost(stage)
    stage.settle(30.0)


@scenario("Q", 2, 5, 9, **TREE)
def rollout_incompatible_aborted(stage: Stage) -> None:
    """An incompatible version that waits beside the old one is removed again."""
    serves_old(stage)
    starts(stage, OTHER)
    stage.until(5, "it runs on two hosts", lambda: sum(OTHER in stage.runs(host) for host in HOSTS) >= 2, 60.0)
    obeys(stage, "abort")
    stage.rolls("undone")
    all_run(stage, OLD)
    nothing_lost(stage)
    stage.settle(30.0)


@scenario("Q", 3, 5, 9, **TREE)
def rollout_superseded(stage: Stage) -> None:
    """A newer patch replaces a rollout half-way."""
    serves_old(stage)
    starts(stage)
    stage.until(5, "two hosts are done", lambda: stage.rollout()["nodes"].get("done", 0) >= 2, 60.0)
    stage.expect(5, "it needs consent", "--supersede" in stage.roll(NEWER))
    starts(stage, NEWER, supersede=True)
    stage.rolls("done")
    all_run(stage, NEWER)
    nothing_lost(stage)
    stage.settle(30.0)


@scenario("Q", 5, 9, **TREE)
def rollout_superseded_by_a_bad_build(stage: Stage) -> None:
    """The slot of the rollout that was replaced is given back: that does not count as a first node of the next one."""
    serves_old(stage, policy={"max_unavailable": "50%"})
    stage.world.drivers.flaws["", NEWER] = Flaw(ill=True)
    starts(stage)
    in_phase(stage, "verifying")
    starts(stage, NEWER, supersede=True, progress_s=10.0)
    stage.rolls("halted")
    stage.run(1.0)
    failed = [host for host in HOSTS if stage.phase(host) == FAILED]
    stage.expect(9, f"one host has met it: {failed}", len(failed) == 1)
    stage.settle(60.0)


@scenario("Q", 2, 3, 5, 9, **TREE)
def rollout_undone(stage: Stage) -> None:
    """A finished rollout is undone, and that is undone again."""
    serves_old(stage)
    starts(stage)
    stage.rolls("done")
    obeys(stage, "undo")
    stage.rolls("preparing", 10.0)
    stage.rolls("done")
    all_run(stage, OLD)
    obeys(stage, "undo")
    stage.run(3.0)
    stage.rolls("done")
    all_run(stage, NEW)
    nothing_lost(stage)
    stage.settle(30.0)


# ---------------------------------------------------------------------- hosts fail


@_each(
    (3, 5, 8, 9),
    PHASES,
    "rollout_control_killed_while_{}",
    "Control of a host is killed while it is {}, and goes on from there.",
)
def _control_killed(stage: Stage, case: str) -> None:
    serves_old(stage)
    slow(stage, OLD, NEW)
    starts(stage)
    host = stage[in_phase(stage, case)]
    stage.acts.kill(host)
    stage.run(3.0)
    stage.acts.start(host)
    stage.rolls("done")
    all_run(stage, NEW)
    nothing_lost(stage)
    stage.settle(40.0)


@_each(
    (5, 8, 9),
    PHASES,
    "rollout_host_off_while_{}",
    "A host loses power while it is {}, and finishes its step when it is back.",
)
def _host_off(stage: Stage, case: str) -> None:
    serves_old(stage)
    slow(stage, OLD, NEW)
    starts(stage)
    host = stage[in_phase(stage, case)]
    stage.acts.power_off(host)
    stage.run(45.0)
    stage.acts.power_on(host)
    stage.rolls("done")
    all_run(stage, NEW)
    stage.settle(60.0)


@_each(
    (5, 9),
    PHASES,
    "rollout_disk_full_while_{}",
    "The disk of a host is full while it is {}: nothing begins there until it has space.",
)
def _disk_full(stage: Stage, case: str) -> None:
    serves_old(stage)
    slow(stage, OLD, NEW)
    starts(stage)
    host = stage[in_phase(stage, case)]
    stage.acts.fill_disk(host)
    stage.run(30.0)
    stage.acts.free_disk(host)
    stage.rolls("done")
    all_run(stage, NEW)
    stage.settle(60.0)


@scenario("Q", 5, 9, **TREE)
def rollout_control_killed_while_reverting(stage: Stage) -> None:
    """Control is killed while its host goes back to the old version."""
    serves_old(stage)
    stage.world.drivers.flaws["", NEW] = Flaw(ill=True, slow_s=0.6)
    starts(stage, progress_s=5.0)
    host = stage[in_phase(stage, "reverting")]
    stage.acts.kill(host)
    stage.run(3.0)
    stage.acts.start(host)
    stage.rolls("halted")
    stage.run(10.0)
    all_run(stage, OLD)
    stage.settle(50.0)


# ---------------------------------------------------------------------- rollouts that start by themselves

BY_ITSELF: dict[str, object] = {
    "auto": "compatible",
    "rollout": {"soak_s": 4, "drain_s": 10, "progress_s": 40, "nodes_out_max": "100%"},
}


def _ids(stage: Stage, at: str = "root-1") -> list[str]:
    return [str(each["id"]) for each in stage.rollout(at).get("history", [])]


@scenario("Q", 3, 5, 9, **TREE)
def rollout_by_itself(stage: Stage) -> None:
    """A release is added while a rollout is in progress. It starts afterwards, once. An older one does not start any more."""
    serves_old(stage)
    stage.everywhere(**BY_ITSELF)
    stage.until(5, "the newest release starts", lambda: stage.rollout()["to"] == NEWER, 20.0)
    stage.release("1.0.4", "1.0.5", "2.0.1")
    stage.rolls("done")
    stage.until(5, "the newest release starts", lambda: stage.rollout()["to"] == "1.0.5", 20.0)
    stage.rolls("done")
    all_run(stage, "1.0.5")
    stage.run(30.0)
    stage.expect(5, f"nothing else starts: {_ids(stage)}", _ids(stage) == ["r-3", "r-2", "r-1"])
    nothing_lost(stage)
    stage.settle(30.0)


@scenario("Q", 3, 5, 9, **TREE)
def rollout_by_itself_that_halts(stage: Stage) -> None:
    """A bad build starts by itself, halts, and is aborted: neither it nor an older one starts again, also after restarts."""
    serves_old(stage)
    stage.world.drivers.flaws["", NEWER] = Flaw(ill=True)
    stage.everywhere(**BY_ITSELF)
    stage.rolls("halted")
    obeys(stage, "abort")
    stage.rolls("undone")
    for root in stage.roots():
        stage.acts.kill(stage[root])
        stage.run(1.0)
        stage.acts.start(stage[root])
    stage.run(60.0)
    all_run(stage, OLD)
    stage.expect(5, f"nothing else starts: {_ids(stage)}", _ids(stage) == ["r-2", "r-1"])
    stage.settle(30.0)


@scenario("Q", 3, 5, 9, **TREE)
def rollout_by_itself_at_another_root(stage: Stage) -> None:
    """The first root is off: the other one starts the rollout, and the first one does not repeat it."""
    serves_old(stage)
    stage.everywhere(auto="off")
    stage.no_more_requests()
    stage.acts.power_off(stage["root-1"])
    stage.run(60.0)
    stage.policy(BY_ITSELF, root="root-2")
    stage.until(5, "the other root starts it", lambda: stage.rollout("root-2")["to"] == NEWER, 60.0)
    stage.acts.power_on(stage["root-1"])
    stage.rolls("done", at="root-2")
    stage.run(40.0)
    all_run(stage, NEWER)
    for root in stage.roots():
        stage.expect(5, f"it started once: {_ids(stage, root)}", _ids(stage, root) == ["r-2", "r-1"])
    stage.settle(60.0)


@scenario("Q", 5, 9, **TREE)
def rollout_without_a_host(stage: Stage) -> None:
    """A host is off for the whole rollout: it updates when it is back, without a slot."""
    serves_old(stage, policy={"max_unavailable": "50%"})
    stage.acts.power_off(stage["host-4"])
    stage.run(50.0)
    starts(stage)
    stage.rolls("done")
    all_run(stage, NEW, "host-1", "host-2", "host-3")
    stage.acts.power_on(stage["host-4"])
    stage.until(5, "the host has updated", lambda: stage.runs("host-4") == {NEW}, 60.0)
    stage.settle(60.0)


@scenario("Q", 5, 9, **TREE)
def rollout_while_a_machine_starts(stage: Stage) -> None:
    """A machine starts again. Before its program is seen to run, no other host gets a slot for it."""
    serves_old(stage)
    stage.world.drivers.flaws["host-4", OLD] = Flaw(slow_s=5.0)
    stage.acts.power_off(stage["host-4"])
    stage.run(50.0)
    starts(stage, soak_s=1.0)
    stage.run(20.0)
    stage.expect(9, "no host has a slot", not stage.rollout()["slots"])
    stage.acts.power_on(stage["host-4"])
    stage.rolls("done")
    stage.until(5, "all run the new version", lambda: all(stage.runs(host) == {NEW} for host in HOSTS), 60.0)
    stage.settle(60.0)


@scenario("Q", 5, 9, **TREE)
def rollout_while_a_rack_is_parted(stage: Stage) -> None:
    """A rack is cut off from the roots: its hosts begin no step, and the others none that the floor forbids."""
    serves_old(stage)
    starts(stage)
    stage.until(5, "a host is done", lambda: stage.rollout()["nodes"].get("done", 0) >= 1, 60.0)
    stage.acts.isolate(stage["rack-2"], 40.0)
    stage.run(45.0)
    stage.rolls("done")
    stage.until(5, "all run the new version", lambda: all(stage.runs(host) == {NEW} for host in HOSTS), 60.0)
    stage.settle(60.0)


@scenario("Q", 5, 9, **TREE)
def rollout_while_capacity_is_lost(stage: Stage) -> None:
    """A host goes down during the rollout: no other one is taken out until it is back."""
    serves_old(stage)
    starts(stage, soak_s=25.0)
    first = in_phase(stage, "verifying")
    lost = next(host for host in HOSTS if host != first)
    stage.acts.power_off(stage[lost])
    stage.run(60.0)
    updated = [host for host in HOSTS if NEW in stage.runs(host)]
    stage.expect(9, f"only the first host was updated: {updated}", updated == [first])
    stage.acts.power_on(stage[lost])
    stage.rolls("done", 200.0)
    all_run(stage, NEW)
    stage.settle(60.0)


# ---------------------------------------------------------------------- the owner fails

STATES = ("preparing", "rolling", "paused", "halted", "undoing", "cutting-over")


def _at_state(stage: Stage, state: str) -> str:
    """A rollout that has come to this state. Returns the version that it ends with."""
    policy: dict[str, object] = {"park": {"timeout_s": 120}}
    serves_old(stage, policy=policy)
    slow(stage, OLD, NEW, OTHER)
    if state == "halted":
        stage.world.drivers.flaws["", NEW] = Flaw(ill=True)
    starts(stage, OTHER if state == "cutting-over" else NEW, progress_s=300.0 if state != "halted" else 10.0)
    if state in ("paused", "undoing"):
        in_phase(stage, "draining")
        obeys(stage, "pause" if state == "paused" else "abort")
    stage.until(5, f"the rollout is {state}", lambda: stage.rollout()["state"] == state, 120.0, FINE_S)
    if state == "rolling":
        in_phase(stage, "draining")
    return {"halted": OLD, "undoing": OLD, "cutting-over": OTHER}.get(state, NEW)


def _goes_on(stage: Stage, state: str, version: str, at: str) -> None:
    if state == "paused":
        obeys(stage, "resume", at)
    if state == "halted":
        obeys(stage, "abort", at)
    stage.rolls("undone" if version == OLD else "done", 200.0, at)
    all_run(stage, version)


@_each(
    (5, 8, 9),
    STATES,
    "rollout_owner_killed_while_{}",
    "The owner is killed while its rollout is {}, and goes on when it is back.",
)
def _owner_killed(stage: Stage, case: str) -> None:
    version = _at_state(stage, case)
    stage.acts.kill(stage["root-1"])
    stage.run(20.0)
    stage.acts.start(stage["root-1"])
    stage.run(3.0)
    _goes_on(stage, case, version, "root-1")
    stage.settle(60.0)


@_each(
    (5, 8, 9),
    STATES,
    "rollout_adopted_while_{}",
    "The owner of a rollout is lost while that is {}: another root adopts it.",
)
def _adopted(stage: Stage, case: str) -> None:
    version = _at_state(stage, case)
    stage.acts.power_off(stage["root-1"])
    stage.run(20.0)
    obeys(stage, "adopt", "root-2")
    stage.run(15.0)
    _goes_on(stage, case, version, "root-2")
    stage.acts.power_on(stage["root-1"])
    stage.settle(60.0)


@scenario("Q", 5, 9, **TREE)
def rollouts_of_two_owners(stage: Stage) -> None:
    """A root adopts the rollout of another one, which comes back and begins its own: together they take as many nodes out as one may."""
    stage.roles(*HOSTS, service="pricing", route="example.com/pricing*")
    serves_old(stage)
    stage.release(OLD, NEW, service="pricing")
    stage.expect(5, "pricing starts", not stage.roll(OLD, service="pricing"))
    stage.rolls("done", service="pricing")
    starts(stage, soak_s=6.0, nodes_out_max="1")
    in_phase(stage, "verifying")
    stage.acts.power_off(stage["root-1"])
    stage.run(20.0)
    obeys(stage, "adopt", "root-2")
    stage.acts.power_on(stage["root-1"])
    how: dict[str, Any] = {"soak_s": 6.0, "nodes_out_max": "1"}
    stage.until(5, "pricing starts beside it", lambda: not stage.roll(NEW, service="pricing", **how), 30.0)
    stage.run(5.0)
    obeys(stage, "pause", "root-2")
    stage.until(5, "pricing goes on", lambda: bool(stage.rollout(service="pricing")["slots"]), 60.0)
    obeys(stage, "resume", "root-2")
    stage.rolls("done", 200.0, service="pricing")
    stage.rolls("done", 200.0, at="root-2")
    all_run(stage, NEW)
    stage.settle(30.0)


@scenario("Q", 5, 8, 9, **TREE)
def rollout_adopted_while_its_owner_is_cut_off(stage: Stage) -> None:
    """The owner is cut off and does not know that another root adopted its rollout: only one of them goes on."""
    serves_old(stage)
    starts(stage)
    in_phase(stage, "draining")
    stage.acts.isolate(stage["root-1"], 60.0)
    stage.no_more_requests()  # an entry that is cut off never hears of the new version
    stage.requests(20.0, entries=("root-2",))
    stage.run(5.0)
    obeys(stage, "adopt", "root-2")
    stage.rolls("done", 200.0, "root-2")
    all_run(stage, NEW)
    stage.run(60.0)
    stage.settle(60.0)


# ---------------------------------------------------------------------- what hosts count


def _block(stage: Stage, seconds: float) -> dict[str, Figures]:
    """Of the block that was in progress so long ago, as the owner has it."""
    return dict(stage["root-1"].view.figures("catalog").get(block_of(stage["root-1"].wall_s - seconds), {}))


@scenario("Q", 5, **TREE)
def figures_of_a_canary_reach_the_owner(stage: Stage) -> None:
    """The hosts count what both versions answer; the owner has the sum, also after controls were killed on the way."""
    serves_old(stage)
    stage.world.figures.each = 10
    stage.errors(OLD, 0.1)
    stage.errors(NEW, 0.5)
    stage.expect(5, "nothing is counted without an analysis", not stage["root-1"].view.figures("catalog"))
    starts(stage, analysis=Analysis(warm_up_s=15.0), soak_s=400.0, progress_s=600.0)
    host = in_phase(stage, "verifying")
    stage.run(3 * BLOCK_S)
    early = _block(stage, 2 * BLOCK_S).get(NEW, Figures())
    stage.expect(5, f"a new instance is early: {early}", early.early_asked > 0 and not early.asked)
    stage.run(3 * BLOCK_S)
    _counts_all(stage)
    for name in ("rack-1", "root-1", host):
        stage.acts.kill(stage[name])
        stage.run(1.0)
        stage.acts.start(stage[name])
    stage.run(6 * BLOCK_S)
    _counts_all(stage)
    obeys(stage, "abort")
    stage.rolls("undone", 200.0)
    stage.run(10.0)
    stage.expect(5, "nothing is counted any more", not stage["root-1"].view.figures("catalog"))
    stage.settle(30.0)


def _counts_all(stage: Stage) -> None:
    """20 requests a second, each standing for ten."""
    found = _block(stage, 2 * BLOCK_S)
    old, new = found.get(OLD, Figures()), found.get(NEW, Figures())
    asked = old.asked + new.asked
    stage.expect(5, f"each answer is counted once: {asked}", abs(asked - 2000) <= 30)
    stage.expect(5, f"on all hosts: {old.hosts} and {new.hosts}", (old.hosts, new.hosts) == (3, 1))
    stage.expect(5, f"times are counted: {old.head}", sum(old.head.values()) == old.asked)
    stage.expect(5, f"errors of {OLD}: {old.errors} of {old.asked}", 0.05 < old.errors / old.asked < 0.15)
    stage.expect(5, f"errors of {NEW}: {new.errors} of {new.asked}", 0.35 < new.errors / new.asked < 0.65)
