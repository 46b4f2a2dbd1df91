"""The small trees that are explored, by name. The text of each states what it examines."""

from __future__ import annotations

from collections.abc import Iterator

from sdlb.sim.explore.core import LEASE_S
from sdlb.sim.explore.topology import Action, Faults, Instance, Scenario, programs

CHAIN = {"root": (), "rack": ("root",), "host": ("rack",)}
ROOTS = {"root-1": (), "root-2": (), "host": ("root-1", "root-2")}
HOSTS = {"root": (), "host-1": ("root",), "host-2": ("root",)}
DIAMOND = {"root": (), "rack-1": ("root",), "rack-2": ("root",), "host": ("rack-1", "rack-2")}
WIDE = {
    "root-1": (),
    "root-2": (),
    "rack-1": ("root-1", "root-2"),
    "rack-2": ("root-1", "root-2"),
    "host": ("rack-1", "rack-2"),
}
CROSS = {"root-1": (), "root-2": (), "host-1": ("root-1", "root-2"), "host-2": ("root-1", "root-2")}
LEAVE = {"root": (), "rack": ("root",), "host": ("rack",), "host-2": ("root",)}
BESIDE = {"root-a": (), "root-b": (), "host": ("root-b",)}
TREES = {"root-a": (), "root-b": (), "host": ("root-a",)}

TTL_S = 0.9 * LEASE_S
OLD, NEXT, NEW = "1.0.0", "1.0.1", "2.0.0"  # the first two may serve side by side

KILL, RESET, CUT = Faults(kill=1), Faults(reset=1), Faults(cut=1)
ENGINE, POWER = Faults(engine=1), Faults(power=1)


def _deploy(host: str, old: str = "", faults: Faults | None = None) -> tuple[tuple[Instance, ...], tuple[Action, ...]]:
    """An incompatible version registers beside the one that serves, which leaves."""
    before = old or host
    instances = Instance("a", before, OLD), Instance("b", host, NEW)
    return instances, (Action("put", host, instance=1), Action("remove", before, instance=0))


def _roll(host: str, old: str = "") -> tuple[tuple[Instance, ...], tuple[Action, ...]]:
    """A compatible version registers; the old one leaves after that."""
    before = old or host
    instances = Instance("a", before, OLD), Instance("b", host, NEXT)
    return instances, (Action("put", host, instance=1), Action("remove", before, instance=0, after=(0,)))


def _again(version: str) -> tuple[tuple[Instance, ...], tuple[Action, ...]]:
    """One instance registers again under its id, as another version."""
    return (Instance("a", "host", OLD), Instance("a", "host", version)), (Action("put", "host", instance=1),)


def _scenarios() -> Iterator[Scenario]:
    trees = (
        ("chain", "a root, a rack, a host", CHAIN, "host", "", ()),
        ("roots", "two roots above one host", ROOTS, "host", "", (("root-1", "root-2"),)),
        ("hosts", "two hosts below one root", HOSTS, "host-2", "host-1", ()),
        ("diamond", "two racks between a root and a host", DIAMOND, "host", "", (("rack-1", "rack-2"),)),
        ("wide", "two roots, two racks, a host", WIDE, "host", "", (("root-1", "root-2"), ("rack-1", "rack-2"))),
        ("cross", "two hosts below two roots", CROSS, "host-2", "host-1", (("root-1", "root-2"),)),
    )
    faults = (
        ("", Faults(), "no faults"),
        ("-kill", KILL, "one kill"),
        ("-reset", RESET, "one broken link"),
        ("-cut", CUT, "one cut link"),
        ("-engine", ENGINE, "one engine crash"),
        ("-power", POWER, "one power cut"),
        ("-kill-cut", Faults(kill=1, cut=1), "a kill and a cut link"),
        ("-kills", Faults(kill=2), "two kills"),
        ("-detach", Faults(detach=1), "one broken connection to an engine"),
    )
    for name, text, tree, host, old, alike in trees:
        for suffix, budget, words in faults:
            for kind, maker, what in (("deploy", _deploy, "an incompatible"), ("roll", _roll, "a compatible")):
                instances, actions = maker(host, old)
                description = f"{text}; {what} version replaces the old one; {words}"
                yield Scenario(
                    f"{name}-{kind}{suffix}", description, tree, instances, (0,), actions, budget, alike=alike
                )
    for name, tree, alike in (("chain", CHAIN, ()), ("roots", ROOTS, (("root-1", "root-2"),))):
        for kind, version in (("again", NEXT), ("again-new", NEW)):
            for suffix, budget, words in faults[:4]:
                instances, actions = _again(version)
                description = f"an instance registers again under its id, as {version}; {words}"
                yield Scenario(
                    f"{name}-{kind}{suffix}", description, tree, instances, (0,), actions, budget, alike=alike
                )
    both = Instance("a", "host-1", OLD), Instance("b", "host-2", NEW)
    puts = Action("put", "host-1", instance=0), Action("put", "host-2", instance=1)
    for name, tree, alike in (("hosts", HOSTS, ()), ("cross", CROSS, (("root-1", "root-2"),))):
        for suffix, budget, words in faults[:4]:
            description = f"two incompatible versions register at two hosts at once; {words}"
            yield Scenario(f"{name}-contest{suffix}", description, tree, both, (), puts, budget, alike=alike)
    rivals = Instance("a", "host-1", OLD), Instance("b", "host-2", OLD, service="basket")
    for suffix, budget, words in faults[:3]:
        description = f"two services claim one route at two hosts; {words}"
        yield Scenario(
            f"cross-route{suffix}", description, CROSS, rivals, (), puts, budget, alike=(("root-1", "root-2"),)
        )
    moved = (Instance("a", "host", OLD),)
    for suffix, budget, words in faults[:4]:
        yield Scenario(
            f"move-tree{suffix}",
            f"a host is moved from one tree to another; {words}",
            TREES,
            moved,
            (0,),
            (Action("move", "host", parents=("root-b",)),),
            budget,
            wider=(("host", "root-b"),),
        )
        yield Scenario(
            f"move-rack{suffix}",
            f"a host is moved to another rack of its tree while an incompatible version waits; {words}",
            {"root": (), "rack-1": ("root",), "rack-2": ("root",), "host": ("rack-1",)},
            (Instance("a", "host", OLD), Instance("b", "host", NEW)),
            (0,),
            (
                Action("move", "host", parents=("rack-2",)),
                Action("put", "host", instance=1),
                Action("remove", "host", instance=0, after=(1,)),
            ),
            budget,
            wider=(("host", "rack-2"),),
        )
    gone = (Action("put", "host-2", instance=1), Action("gone", "host-1", instance=0))
    for suffix, budget, words in faults[:4]:
        instances = Instance("a", "host-1", OLD), Instance("b", "host-2", NEW)
        description = f"a process dies while an incompatible version waits at another host; {words}"
        yield Scenario(f"hosts-gone{suffix}", description, HOSTS, instances, (0,), gone, budget)
    waits = Action("policy", "root", 'catalog {"on_silence": "wait"}')
    for suffix, budget, words in faults[3:4]:
        instances = Instance("a", "host-1", OLD), Instance("b", "host-2", NEW)
        description = f"as set, what is silent is waited for; an operator may say that it has stopped; {words}"
        actions = (waits, Action("put", "host-2", instance=1), Action("forget", "root", "host-1"))
        yield Scenario(f"hosts-wait{suffix}", description, HOSTS, instances, (0,), actions, budget)
    for node in ("root", "host-1"):
        killed = Faults(kill=1, at=(node,))
        instances, (put, remove) = _deploy("host-2", "host-1")
        description = f"an incompatible version replaces the old one; the control of {node} is killed at any moment; no lease ends"
        yield Scenario(f"drain-kill-{node}", description, HOSTS, instances, (0,), (put, remove), killed, time=False)
        description = f"an incompatible version waits for one that stays; the control of {node} is killed at any moment"
        yield Scenario(f"wait-kill-{node}", description, HOSTS, instances, (0,), (put,), killed)
    yield from _operators(faults)
    yield from _openings()
    yield from _rollouts()


def _operators(faults: tuple[tuple[str, Faults, str], ...]) -> Iterator[Scenario]:
    """What is done to nodes, not to instances."""
    old, new = Instance("a", "host", OLD), Instance("b", "host-2", NEW)
    leaves = Action("stop", "rack"), Action("put", "host-2", instance=1)
    for suffix, budget, words in faults[:4]:
        description = (
            f"a rack leaves, and its host has no other parent; an incompatible version wants to serve; {words}"
        )
        yield Scenario(f"leave-deploy{suffix}", description, LEAVE, (old, new), (0,), leaves, budget)
    for suffix, budget, words in faults[:3]:
        for node, tree, host in (("root", HOSTS, "host-2"), ("rack", CHAIN, "host"), ("host", CHAIN, "host")):
            instances, actions = _deploy(host, "host-1" if tree is HOSTS else "host")
            description = (
                f"during the deployment of an incompatible version, a {node} gets an older state folder back; {words}"
            )
            restored = (*actions, Action("restore", node))
            yield Scenario(f"restore-{node}{suffix}", description, tree, instances, (0,), restored, budget)
    for suffix, budget, words in faults[:4]:
        instances, actions = _deploy("host")
        description = f"during a deployment a rack becomes a root; {words}"
        promoted = (*actions, Action("move", "rack"))
        yield Scenario(f"promote{suffix}", description, CHAIN, instances, (0,), promoted, budget)
        description = f"during a deployment a root becomes the child of another root; {words}"
        demoted = (*actions, Action("move", "root-b", parents=("root-a",)))
        yield Scenario(
            f"demote{suffix}", description, BESIDE, instances, (0,), demoted, budget, wider=(("root-b", "root-a"),)
        )
    demoted = Action("put", "host", instance=0), Action("move", "root-b", parents=("root-a",))
    description = "while a version is activated, the root becomes the child of another root; no faults"
    first = (Instance("a", "host", OLD),)
    yield Scenario("demote-put", description, BESIDE, first, (), demoted, Faults(), wider=(("root-b", "root-a"),))
    both = Instance("a", "host-1", OLD), Instance("b", "host-2", NEXT)
    deny = Action("policy", "root", f'catalog {{"compatibility": {{"deny": [["{OLD}", "{NEXT}"]]}}}}')
    for suffix, budget, words in faults[:4]:
        description = f"an operator forbids two versions side by side that serve; {words}"
        actions = deny, Action("remove", "host-1", instance=0)
        yield Scenario(f"deny{suffix}", description, HOSTS, both, (0, 1), actions, budget)
    for suffix, budget, words in faults[:4]:
        instances = Instance("a", "host-1", OLD, ttl_s=TTL_S), Instance("b", "host-2", NEW)
        lapses = Action("lapse", "host-1", instance=0), Action("put", "host-2", instance=1)
        description = f"the lease of an instance ends while an incompatible version waits; {words}"
        yield Scenario(f"lapse{suffix}", description, HOSTS, instances, (0,), lapses, budget)


FLIP = 'catalog {"cut_over": "flip", "park": {"timeout_s": 600}}'
_MIGRATE = '{"name": "migrate", "kind": "hook", "at": "gap", "run": "migrate", "timeout_s": 0}'
_GAP = f'"park": {{"timeout_s": 600}}, "gate": [{_MIGRATE}]'
FLIP_GAP = f'catalog {{"cut_over": "flip", {_GAP}}}'
FLIP_GAP_ONCE = FLIP_GAP.replace('"run"', '"back": false, "run"')
STOPPED_GAP = f"catalog {{{_GAP}}}"


def _openings() -> Iterator[Scenario]:
    """Gates and cut-overs that one root conducts."""
    trees = (
        ("hosts", "two hosts below one root", HOSTS, "host-2", "host-1"),
        ("roots", "two roots above one host", ROOTS, "host", "host"),
        ("cross", "two hosts below two roots", CROSS, "host-2", "host-1"),
    )
    for name, text, tree, host, old in trees:
        roots = tuple(node for node, parents in tree.items() if not parents)
        faults = (
            ("", Faults(), "no faults"),
            ("-kill", Faults(kill=1, at=roots), "a root is killed"),
            ("-cut", CUT, "one cut link"),
            ("-reset", RESET, "one broken link"),
            ("-engine", ENGINE, "one engine crash"),
            ("-power", Faults(power=1, at=roots), "one root loses power"),
        )
        instances = Instance("a", old, OLD), Instance("b", host, NEW), Instance("c", old, OLD)
        put, gone = Action("put", host, instance=1), Action("gone", old, instance=0)
        again = Action("put", old, instance=2, after=(1,))
        leaves = Action("remove", old, instance=0)
        for suffix, budget, words in faults:
            yield Scenario(
                f"flip-{name}{suffix}",
                f"{text}; a flip; {words}",
                tree,
                instances[:2],
                (0,),
                (put,),
                budget,
                policies=(FLIP,),
            )
        for suffix, budget, words in faults[:3]:
            for kind, policy, answers in (
                ("gap", FLIP_GAP, ("yes",)),
                ("refused", FLIP_GAP, ("yes", "no")),
                ("once", FLIP_GAP_ONCE, ("yes",)),
            ):
                yield Scenario(
                    f"flip-{kind}-{name}{suffix}",
                    f"{text}; a flip with a hook in its gap ({kind}); {words}",
                    tree,
                    instances[:2],
                    (0,),
                    (put,),
                    budget,
                    policies=(policy,),
                    answers=answers,
                )
            yield Scenario(
                f"flip-again-{name}{suffix}",
                f"{text}; a flip with a hook in its gap, and the old instance restarts; {words}",
                tree,
                instances,
                (0,),
                (put, gone, again),
                budget,
                policies=(FLIP_GAP,),
            )
            yield Scenario(
                f"gap-{name}{suffix}",
                f"{text}; a hook in the gap after the old instance has left, which starts again; {words}",
                tree,
                instances,
                (0,),
                (put, leaves, again),
                budget,
                policies=(STOPPED_GAP,),
            )


def _rollouts() -> Iterator[Scenario]:
    """A root rolls a version out to the hosts of a role."""
    one = {"root": (), "host-1": ("root",)}
    trees = (
        ("one", "one host below a root", one, ("host-1",)),
        ("hosts", "two hosts below one root", HOSTS, ("host-1", "host-2")),
        ("cross", "two hosts below two roots", CROSS, ("host-1", "host-2")),
    )
    ways = (
        ("patch", "a compatible version", NEXT, (), True),
        ("place", "a compatible version where two do not fit", NEXT, (), False),
        ("bad", "a compatible version that does not start", NEXT, (NEXT,), True),
        ("new", "an incompatible version", NEW, (), True),
    )
    orders = (
        ("", ()),
        ("-abort", ("abort",)),
        ("-pause", ("pause", "resume")),
        ("-undo", ("undo",)),
    )
    faults = (
        ("", Faults(), "no faults"),
        ("-kill", KILL, "one kill"),
        ("-cut", CUT, "one cut link"),
        ("-reset", RESET, "one broken link"),
        ("-power", POWER, "one power cut"),
    )
    for name, text, tree, hosts in trees:
        root = next(node for node, parents in tree.items() if not parents)
        for way, what, version, bad, side_by_side in ways:
            for order, verbs in orders if tree is not CROSS else orders[:1]:
                subjects = (f"start {version}{' gap' if len(hosts) == 1 else ''}", *verbs)
                actions = tuple(
                    Action("rollout", root, subject, after=(number - 1,) if number else ())
                    for number, subject in enumerate(subjects)
                )
                for suffix, budget, words in faults if not order else faults[:2]:
                    yield Scenario(
                        f"role-{way}-{name}{order}{suffix}",
                        f"{text}; a rollout of {what}{''.join(f', {verb}' for verb in verbs)}; {words}",
                        tree,
                        programs(hosts, (OLD, version)),
                        (),
                        actions,
                        budget,
                        roles=hosts,
                        releases=(OLD, version),
                        bad=bad,
                        side_by_side=side_by_side,
                    )


ALL: dict[str, Scenario] = {scenario.name: scenario for scenario in _scenarios()}


def named(names: str) -> list[Scenario]:
    """Comma-separated names, or the beginning of several with a star; "all". `KeyError` with the one that is none."""
    if names == "all":
        return list(ALL.values())
    found: dict[str, Scenario] = {}
    for name in names.split(","):
        start = name[:-1] if name.endswith("*") else None
        matching = {n: s for n, s in ALL.items() if (n.startswith(start) if start is not None else n == name)}
        if not matching:
            raise KeyError(name)
        found.update(matching)
    return list(found.values())
