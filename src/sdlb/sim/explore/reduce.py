"""Partial-order reduction: which steps of a state have to be tried.

Steps of different nodes commute: each reads its own node's queues and appends to the queues of others. So it is enough to try
the steps of one node first, under two conditions. No step that other nodes can take before may give it another step (a
*persistent set*: Godefroid 1996). And at least one of its steps changes no table, so that its order is not observable. The
first holds for a node if every queue into it has a waiting message (queues keep order) or comes from a node that cannot act
until this one has. `tests/sim/test_explore.py` compares the outcome with that of trying every step.
"""

from __future__ import annotations

from sdlb.sim.explore.state import LEAVING, RENEWED, State, Step
from sdlb.sim.explore.world import World

TIME = Step("time", -1)


def all_steps(world: World, state: State) -> list[Step]:
    return [step for steps in _by_owner(world, state) for step in steps] + _time(world, state)


def _by_owner(world: World, state: State) -> list[list[Step]]:
    return [
        world.node_steps(state, n) + world.engine_steps(state, n) + world.outside_steps(state, n)
        for n in range(world.size)
    ]


def _time(world: World, state: State) -> list[Step]:
    return [TIME] if world.scenario.time and world.at_rest(state) else []


def reduced_steps(world: World, state: State) -> list[Step]:
    steps = _persistent(world, state)
    alike = world.env(state).alike
    return [step for step in steps if _first_of_its_kind(world, step, alike)] if alike else steps


def _first_of_its_kind(world: World, step: Step, alike: int) -> bool:
    """Of nodes that differ only in their names, the first one is taken, because the others would give the same result."""
    for number, group in enumerate(world.groups):
        if alike >> number & 1 and any(node in group[1:] for node in world.involved(step)):
            return False
    return True


def _persistent(world: World, state: State) -> list[Step]:
    inside = [world.node_steps(state, n) for n in range(world.size)]
    engine = [world.engine_steps(state, n) for n in range(world.size)]
    outside = [world.outside_steps(state, n) for n in range(world.size)]
    env = world.env(state)
    best: list[Step] | None = None
    for node in range(world.size):
        if not any(step.kind != "connect" for step in inside[node]):
            continue
        if any(env.status[number] in (LEAVING, RENEWED) for number, host in enumerate(world.hosts) if host == node):
            continue  # its control may end an instance, which can be seen
        if node in world.with_roles:
            continue  # its control says which of its programs are to serve
        own = inside[node] + engine[node] + outside[node]
        if best is not None and len(own) >= len(best):
            continue
        if _alone(world, state, node, inside, engine, outside):
            best = own
    if best is not None:
        return best
    return [step for n in range(world.size) for step in inside[n] + engine[n] + outside[n]] + _time(world, state)


def _alone(
    world: World,
    state: State,
    node: int,
    inside: list[list[Step]],
    engine: list[list[Step]],
    outside: list[list[Step]],
) -> bool:
    done = world.env(state).done
    actions = {step.arg for step in outside[node] if step.kind == "act"}
    for number, owner in enumerate(world.owners):
        if owner == node and not done >> number & 1 and number not in actions:
            return False  # an operator may come when another node has got so far
    active = _active(world, state, node, inside, engine, outside)
    for at, child in world.net.as_parent[node]:
        if child in active:
            link = world.links[state[at]]
            if not state[at + 1] or not link.child or not link.parent:
                return False
    for at, parent in world.net.as_child[node]:
        if parent in active:
            link = world.links[state[at]]
            if not state[at + 2] or not link.child or not link.parent:
                return False
    return True


def _active(
    world: World,
    state: State,
    node: int,
    inside: list[list[Step]],
    engine: list[list[Step]],
    outside: list[list[Step]],
) -> set[int]:
    """Nodes that may act before this one does, or be made to by others."""
    done = world.env(state).done
    active = {n for n in range(world.size) if n != node and (inside[n] or engine[n] or outside[n])}
    active |= {owner for number, owner in enumerate(world.owners) if owner != node and not done >> number & 1}
    grown = True
    while grown:
        grown = False
        for child, parent in world.pairs:
            if node in (child, parent):
                continue
            if (child in active) != (parent in active):
                active |= {child, parent}
                grown = True
    return active
