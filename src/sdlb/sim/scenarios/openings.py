"""P: gates and cut-overs, which one root conducts: it is killed, cut off, or loses its disk at each moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from sdlb.sim.host import Host
from sdlb.sim.process import Process
from sdlb.sim.stage import Stage, scenario

CLOSING, GAP = "closing", "gap"
APPROVAL: dict[str, object] = {"name": "sign-off", "kind": "approval", "by": ["operator-a", "operator-b"]}
MIGRATE: dict[str, object] = {"name": "migrate", "kind": "hook", "at": "gap", "run": "migrate", "timeout_s": 600}
LONG = {"timeout_s": 600}


def _serves_old(stage: Stage, **policy: object) -> tuple[Process, Process]:
    """1.0.1 serves on both hosts, and requests arrive at all roots."""
    stage.run(3.0)
    stage.everywhere(cut_over="flip", **policy)
    stage.run(1.0)
    old = stage.instance("host-1", "catalog-1.0.1"), stage.instance("host-2", "catalog-1.0.1")
    stage.serving(*old)
    stage.run(12.0)  # the policy has been in force for long enough to be required
    stage.requests(20.0)
    return old


def _rolls_out(stage: Stage, version: str = "2.0.0") -> tuple[Process, Process]:
    return stage.instance("host-1", f"catalog-{version}"), stage.instance("host-2", f"catalog-{version}")


def _opens(stage: Stage, *new: Process, within_s: float = 60.0) -> None:
    stage.until(5, "the new version serves", lambda: all(map(stage.serves, new)), within_s)
    stage.run(5.0)


def _lost(stage: Stage) -> dict[str, int]:
    return {why: n for why, n in stage.world.traffic.outcomes.items() if why != "answered"}


def _nothing_lost(stage: Stage) -> None:
    stage.expect(3, f"no request was lost: {_lost(stage)}", not _lost(stage))


def _plain_flip(stage: Stage) -> None:
    old = _serves_old(stage)
    new = _rolls_out(stage)
    _opens(stage, *new, within_s=10.0)
    stage.expect(2, "the old version waits, and its programs run on", all(p.alive and not stage.serves(p) for p in old))
    _nothing_lost(stage)
    stage.settle(30.0)


@scenario("P", 2, 3, 5, root_1="", host_1="root-1", host_2="root-1")
def flip_one_root(stage: Stage) -> None:
    """Below one root, a flip replaces the old version without an overlap, and no request is lost."""
    _plain_flip(stage)


@scenario("P", 2, 3, 5, root_1="", root_2="", host_1="root-1 root-2", host_2="root-1 root-2")
def flip_two_roots(stage: Stage) -> None:
    """Below two roots, one of them conducts the flip, and the other one follows."""
    _plain_flip(stage)


@scenario(
    "P",
    *(2, 3, 5),
    root_1="",
    root_2="",
    rack_1="root-1 root-2",
    rack_2="root-1 root-2",
    host_1="rack-1 rack-2",
    host_2="rack-1 rack-2",
)
def flip_three_tiers(stage: Stage) -> None:
    """The same with racks between roots and hosts."""
    _plain_flip(stage)


# ---------------------------------------------------------------------- the conductor fails


def _interrupted(stage: Stage, phase: str, harm: Callable[[Host], object], **policy: object) -> None:
    """In this phase the conductor is harmed. The flip ends with one version: the new one, or it is reverted with a reason."""
    stage.world.hooks.answers["migrate"] = deque([("yes", 8.0)])
    old = _serves_old(stage, gate=[MIGRATE], **policy)
    new = _rolls_out(stage)
    if phase == CLOSING:
        for root in stage.roots():
            stage.request(root, 3.0)
    stage.in_phase(phase)
    harm(stage.conductor())
    _ends(stage, old, new)


def _ends(stage: Stage, old: tuple[Process, ...], new: tuple[Process, ...], within_s: float = 120.0) -> None:
    def one_serves() -> bool:
        return all(map(stage.serves, new)) or (all(map(stage.serves, old)) and _reverted(stage))

    stage.until(5, "one version serves", one_serves, within_s)
    stage.run(60.0)
    if not all(map(stage.serves, new)):
        stage.expect(5, "an operator can promote the version again", stage.promote("2.0.0"))
        _opens(stage, *new)
    stage.settle(60.0)


def _reverted(stage: Stage) -> bool:
    return all(stage.opening(root)["phase"] == "reverted" for root in stage.roots())


def _kill(stage: Stage) -> Callable[[Host], None]:
    def kill(host: Host) -> None:
        stage.acts.kill(host)
        stage.after(2.0, lambda: stage.acts.start(host))

    return kill


def _lose_power(stage: Stage) -> Callable[[Host], None]:
    def off(host: Host) -> None:
        stage.acts.power_off(host)
        stage.after(2.0, lambda: stage.acts.power_on(host))

    return off


def _lose_disk(stage: Stage) -> Callable[[Host], None]:
    def lose(host: Host) -> None:
        stage.acts.lose_disk(host)
        stage.after(2.0, lambda: stage.acts.start(host))

    return lose


def _cut_off(stage: Stage) -> Callable[[Host], None]:
    return lambda host: stage.acts.isolate(host, 40.0)


def _fill(stage: Stage) -> Callable[[Host], None]:
    def fill(host: Host) -> None:
        stage.acts.fill_disk(host)
        stage.after(30.0, lambda: stage.acts.free_disk(host))

    return fill


TREE = {"root_1": "", "root_2": "", "host_1": "root-1 root-2", "host_2": "root-1 root-2"}


@scenario("P", 2, 5, 8, **TREE)
def flip_conductor_killed_in_closing(stage: Stage) -> None:
    """The conductor is killed while the old version drains, and goes on when it is back."""
    _interrupted(stage, CLOSING, _kill(stage))


@scenario("P", 2, 5, 8, **TREE)
def flip_conductor_killed_in_gap(stage: Stage) -> None:
    """The conductor is killed during the migration: the migration goes on, and is asked again with the same key."""
    _interrupted(stage, GAP, _kill(stage))
    keys = {program.effect.key for program in stage.world.hooks.programs}
    stage.expect(2, f"one migration: {keys}", len(keys) == len(stage.world.hooks.programs) == 1)


@scenario("P", 2, 5, 8, root_1="", host_1="root-1", host_2="root-1")
def flip_only_root_killed_in_gap(stage: Stage) -> None:
    """Likewise below one root."""
    _interrupted(stage, GAP, _kill(stage))


@scenario("P", 2, 5, 8, **TREE)
def flip_conductor_loses_power(stage: Stage) -> None:
    """The conductor's machine goes down during the migration, which is asked again."""
    _interrupted(stage, GAP, _lose_power(stage))


@scenario("P", 2, 5, **TREE)
def flip_conductor_loses_disk_in_closing(stage: Stage) -> None:
    """The conductor's disk is lost while the old version drains: another root conducts."""
    _interrupted(stage, CLOSING, _lose_disk(stage))


@scenario("P", 2, 5, **TREE)
def flip_conductor_loses_disk_in_gap(stage: Stage) -> None:
    """The conductor's disk is lost during the migration."""
    _interrupted(stage, GAP, _lose_disk(stage))


@scenario("P", 2, 5, **TREE)
def flip_conductor_cut_off_in_closing(stage: Stage) -> None:
    """The conductor is cut off while the old version drains: another root takes over, and the old version opens again."""
    _interrupted(stage, CLOSING, _cut_off(stage), park=LONG)


@scenario("P", 2, 5, **TREE)
def flip_conductor_cut_off_in_gap(stage: Stage) -> None:
    """The conductor is cut off during the migration."""
    _interrupted(stage, GAP, _cut_off(stage), park=LONG)


@scenario("P", 2, 5, **TREE)
def flip_conductor_disk_full(stage: Stage) -> None:
    """The conductor's disk is full while the old version drains."""
    _interrupted(stage, CLOSING, _fill(stage), park=LONG)


@scenario("P", 2, 5, **TREE)
def flip_conductor_disk_full_in_gap(stage: Stage) -> None:
    """The conductor's disk is full during the migration."""
    _interrupted(stage, GAP, _fill(stage), park=LONG)


# ---------------------------------------------------------------------- others fail


def _closing(stage: Stage) -> tuple[tuple[Process, ...], tuple[Process, ...]]:
    """A flip whose old version drains, with a request in flight from each root. Returns the old and the new instances."""
    old = _serves_old(stage, park=LONG)
    for root in stage.roots():
        stage.request(root, 3.0)
    new = _rolls_out(stage)
    stage.in_phase(CLOSING)
    return old, new


@scenario("P", 2, 5, **TREE)
def flip_host_silent_in_closing(stage: Stage) -> None:
    """A host is cut off while its instance of the old version drains: the new one opens after lease and fence at the earliest."""
    old, new = _closing(stage)
    stage.acts.isolate(stage["host-1"], 60.0)
    stage.run(8.0)
    stage.expect(2, "the new version waits for the silent host", not any(map(stage.serves, new)))
    stage.until(5, "it opens at the other host", lambda: stage.serves(new[1]), 60.0)
    stage.run(60.0)
    stage.expect(2, "the old version does not open again", not any(map(stage.serves, old)))
    stage.settle(60.0)


@scenario(
    "P", 2, 5, root_1="", root_2="", rack_1="root-1 root-2", rack_2="root-1 root-2", host_1="rack-1", host_2="rack-2"
)
def flip_rack_killed_in_closing(stage: Stage) -> None:
    """Control of a rack is killed while the old version drains, and starts again."""
    old, new = _closing(stage)
    stage.acts.kill(stage["rack-1"])
    stage.run(4.0)
    stage.acts.start(stage["rack-1"])
    _ends(stage, old, new)


@scenario("P", 2, 5, **TREE)
def flip_other_root_killed_in_closing(stage: Stage) -> None:
    """The root that does not conduct is killed while the old version drains."""
    old, new = _closing(stage)
    other = next(stage[name] for name in stage.roots(stage.conductor().name))
    stage.acts.kill(other)
    stage.run(4.0)
    stage.acts.start(other)
    _ends(stage, old, new)


@scenario("P", 2, 5, **TREE)
def flip_second_root_late(stage: Stage) -> None:
    """The second root is down when the new version registers: the flip waits for it."""
    old = _serves_old(stage)
    stage.acts.kill(stage["root-2"])
    new = _rolls_out(stage)
    stage.run(40.0)
    stage.expect(2, "the old version serves on", all(map(stage.serves, old)))
    stage.acts.start(stage["root-2"])
    _opens(stage, *new)
    stage.settle(60.0)


@scenario("P", 2, 5, **TREE)
def flip_old_instance_restarts_in_gap(stage: Stage) -> None:
    """An instance of the old version restarts during the migration: it waits."""
    stage.world.hooks.answers["migrate"] = deque([("yes", 8.0)])
    old = _serves_old(stage, gate=[MIGRATE])
    new = _rolls_out(stage)
    stage.in_phase(GAP)
    stage.acts.crash(old[0])
    stage.run(1.0)
    again = stage.instance("host-1", "catalog-1.0.1")
    _opens(stage, *new)
    stage.run(20.0)
    stage.expect(2, "the old version waits", not stage.serves(again) and not stage.serves(old[1]))
    stage.settle(60.0)


@scenario("P", 2, 3, 5, **TREE)
def flip_reverted_by_its_hook(stage: Stage) -> None:
    """The migration is refused: the old version opens again in the same generation, and no request is lost."""
    stage.world.hooks.answers["migrate"] = deque([("later", 0.5), ("failed", 0.5), ("no", 1.0), ("yes", 1.0)])
    old = _serves_old(stage, gate=[MIGRATE])
    before = stage.generation()
    new = _rolls_out(stage)
    stage.in_phase("reverted")
    stage.until(3, "the old version serves again", lambda: all(map(stage.serves, old)), 5.0)
    stage.expect(2, "in the same generation", stage.generation() == before)
    stage.run(20.0)
    stage.expect(2, "it does not begin anew", not any(map(stage.serves, new)))
    _nothing_lost(stage)
    stage.promote("2.0.0")
    _opens(stage, *new)
    _nothing_lost(stage)
    stage.expect(8, "in the next generation", stage.generation() == before + 1)
    stage.settle(30.0)


@scenario("P", 2, 3, 5, **TREE)
def flip_takes_too_long(stage: Stage) -> None:
    """A request to the old version does not end: the flip is reverted before parked requests are lost."""
    old = _serves_old(stage, park={"timeout_s": 10})
    for root in stage.roots():
        stage.request(root, 30.0)
    new = _rolls_out(stage)
    stage.in_phase("reverted")
    stage.run(20.0)
    stage.expect(2, "the old version serves", all(map(stage.serves, old)) and not any(map(stage.serves, new)))
    _nothing_lost(stage)
    stage.settle(60.0)


@scenario("P", 2, 5, **TREE)
def flip_policy_changed_in_the_middle(stage: Stage) -> None:
    """The policy says "stopped" while a flip closes the old version: the flip ends under the old policy or is reverted."""
    old = _serves_old(stage, park=LONG)
    for root in stage.roots():
        stage.request(root, 4.0)
    new = _rolls_out(stage)
    stage.in_phase(CLOSING)
    stage.everywhere(cut_over="stopped", park=LONG)
    stage.until(5, "one version serves", lambda: all(map(stage.serves, new)) or all(map(stage.serves, old)), 30.0)
    stage.run(20.0)
    for process in old:
        stage.acts.leave(process, 20.0)
    _opens(stage, *new)
    stage.settle(60.0)


@scenario("P", 2, 5, **TREE)
def gate_hooks_root_dies(stage: Stage) -> None:
    """The root whose hook runs before a cut-over loses power: the other root asks again, with the same key."""
    stage.world.hooks.answers["warm-up"] = deque([("yes", 5.0)])
    hook: dict[str, object] = {"name": "warm-up", "kind": "hook", "run": "warm-up"}
    old = _serves_old(stage, gate=[hook])
    new = _rolls_out(stage)
    stage.until(5, "the hook runs", lambda: bool(stage.world.hooks.running("catalog")), 10.0)
    lost = stage.conductor()
    stage.acts.power_off(lost)
    stage.run(60.0)
    stage.expect(2, "the old version serves on", all(map(stage.serves, old)))
    stage.acts.power_on(lost)
    _opens(stage, *new)
    keys = [program.effect.key for program in stage.world.hooks.programs]
    stage.expect(2, f"the same key: {keys}", len(keys) == 2 and len(set(keys)) == 1)
    stage.settle(60.0)


@scenario("P", 2, 5, **TREE)
def gate_approved_while_a_root_is_cut_off(stage: Stage) -> None:
    """A person approves at one root while the other one is out of reach. The approval holds when that one is back."""
    stage.run(3.0)
    stage.everywhere(gate=[APPROVAL])
    old = stage.instance("host-1", "catalog-1.0.1")
    stage.serving(old)
    new = stage.instance("host-2", "catalog-2.0.0")
    stage.run(15.0)
    here = stage.conductor()
    other = next(stage[name] for name in stage.roots(here.name))
    stage.acts.isolate(other, 40.0)
    stage.run(5.0)
    stage.expect(2, "the approval counts", stage.approve("2.0.0", "sign-off", "operator-a", here.name))
    stage.acts.leave(old, 10.0)
    stage.run(60.0)
    _opens(stage, new)
    stage.settle(60.0)


@scenario("P", 2, 5, **TREE)
def gate_approved_at_the_root_that_took_over(stage: Stage) -> None:
    """The conductor is cut off, a person approves at the root that takes over, and the approval holds for all later."""
    stage.run(3.0)
    stage.everywhere(gate=[APPROVAL])
    old = stage.instance("host-1", "catalog-1.0.1")
    stage.serving(old)
    new = stage.instance("host-2", "catalog-2.0.0")
    stage.run(15.0)
    here = stage.conductor()
    other = next(name for name in stage.roots(here.name))
    stage.acts.isolate(here, 60.0)
    stage.run(30.0)
    stage.expect(2, "the approval counts", stage.approve("2.0.0", "sign-off", "operator-a", other))
    stage.run(40.0)
    stage.acts.leave(old, 10.0)
    _opens(stage, new)
    stage.settle(60.0)


@scenario("P", 2, 5, **TREE)
def gate_in_the_gap_of_a_plain_cut_over(stage: Stage) -> None:
    """With "stopped", the migration runs when the last instance has stopped. One of the old version that restarts meanwhile waits."""
    stage.world.hooks.answers["migrate"] = deque([("later", 2.0), ("yes", 3.0)])
    stage.run(3.0)
    stage.everywhere(gate=[MIGRATE], park=LONG)
    old = stage.instance("host-1", "catalog-1.0.1")
    stage.serving(old)
    new = stage.instance("host-2", "catalog-2.0.0")
    stage.run(15.0)
    stage.requests(5.0)
    stage.acts.leave(old, 10.0)
    stage.in_phase(GAP)
    again = stage.instance("host-1", "catalog-1.0.1")
    _opens(stage, new)
    stage.expect(2, "the old version waits", not stage.serves(again))
    _nothing_lost(stage)
    stage.settle(60.0)


@scenario("P", 1, 5, **TREE)
def route_transferred_while_a_root_is_cut_off(stage: Stage) -> None:
    """A route is given to another service while one root is out of reach: that one follows when it is back."""
    stage.run(3.0)
    old = stage.instance("host-1", "catalog-1.0.1")
    stage.serving(old)
    rival = stage.instance("host-2", "basket-1.0.0")
    stage.run(3.0)
    stage.acts.isolate(stage["root-2"], 40.0)
    stage.run(3.0)
    stage.expect(5, "the transfer counts", stage.acts.transfer("root-1", "example.com/*", "basket", "operator-a"))
    stage.run(60.0)
    _opens(stage, rival)
    stage.expect(5, "the other service is refused", not stage.serves(old))
    stage.settle(60.0)


@scenario("P", 3, 5, root_1="", root_2="", host_1="root-1 root-2", host_2="root-1 root-2")
def a_root_is_replaced_that_a_cut_over_waits_for(stage: Stage) -> None:
    """A flip waits for root-2, which is down and comes back as another machine. Its former id counts for lease and fence, no longer."""
    _serves_old(stage)
    stage.no_more_requests()  # those in flight at the lost machine are lost with it
    stage.acts.replace(stage["root-2"])
    new = _rolls_out(stage)
    stage.run(5.0)
    stage.expect(5, "the flip waits for root-2", "root-2" in stage.opening()["detail"])
    stage.acts.power_on(stage["root-2"])
    _opens(stage, *new, within_s=50.0)
    stage.settle(30.0)
