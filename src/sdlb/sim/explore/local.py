"""The promises that a single node keeps (4 and 8), checked once for each distinct step of a node.

`Memory` holds what the checks need of the node's past. It is part of the node's state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.messages import ACTIVE, Bye, Cause, ClaimKey, DownState, UpState, Verdict
from sdlb.core.parents import UNDECIDED
from sdlb.core.state import text_of
from sdlb.model.policy import Policy
from sdlb.sim.explore import core
from sdlb.sim.explore.topology import Scenario

if TYPE_CHECKING:
    from sdlb.sim.explore.node import Nodes, NodeState

LEASE_TICKS = 3  # `core.TICK_S`: this many are more than a lease
PRESUMED_TICKS = 5  # this many are more than lease and fence
TICKS_MAX = 6
DEFAULT = Policy()
RECOVERY_TICKS = 8  # after silence: what was decided meanwhile is over by then


class Problem(Struct, frozen=True):
    """`promise` 0: the core failed."""

    promise: int
    text: str


class Acted(NamedTuple):
    """The newest decision about a service on which a node acted, and the roots that made it."""

    service: str
    generation: int
    versions: frozenset[str]
    scope: tuple[str, ...]


class Memory(NamedTuple):
    heard: frozenset[tuple[int, ClaimKey]]  # what children claim to serve
    since: tuple[int, ...]  # ticks since this neighbour was heard
    recover: tuple[int, ...]  # ticks until a silence of it is over
    against: frozenset[tuple[int, ClaimKey]]  # parents whose last decision about a key was not ACTIVE
    acted: tuple[Acted, ...]  # what this node let be active

    @staticmethod
    def empty(nodes: int) -> Memory:
        return Memory(frozenset(), (0,) * nodes, (0,) * nodes, frozenset(), ())

    def silent(self, node: int) -> bool:
        return self.since[node] >= LEASE_TICKS or self.recover[node] > 0


def compatible(scenario: Scenario, service: str, a: str, b: str, policy: Policy = DEFAULT) -> bool:
    declared = {
        each.version: each.compatible for each in scenario.instances if each.service == service and each.compatible
    }
    return policy.compatibility.compatible(a, b, declared.get(a, ()), declared.get(b, ()))


def link_child(link: int) -> int:
    """The number of the child whose link it is; see `world.link_number`."""
    return link >> 8


def after_event(memory: Memory, names: tuple[str, ...], event: ev.Event, twins: frozenset[tuple[int, int]]) -> Memory:
    """`twins`: pairs of children that are above the same host."""
    match event:
        case ev.ChildConnected(link):
            return _hear(memory, link_child(link))
        case ev.ChildMessage(link, message):
            child = link_child(link)
            memory = _hear(memory, child)
            if isinstance(message, UpState):
                gone = {key for key, _ in message.withdrawn} | {claim.key for claim in message.claims}
                heard = {
                    (other, key)
                    for other, key in memory.heard
                    if other != child or (not message.full and key not in gone)
                }
                stopped = {key for key, cause in message.withdrawn if cause is Cause.STOPPED}
                # a silent child is covered by another one above the same host
                heard -= {(o, key) for o, key in heard if key in stopped and (child, o) in twins and memory.since[o]}
                heard |= {(child, claim.key) for claim in message.claims if claim.capacity and not claim.leaving}
                return memory._replace(heard=frozenset(heard))
            if isinstance(message, Bye):
                return memory._replace(heard=frozenset(each for each in memory.heard if each[0] != child))
            return memory
        case ev.ParentMessage(parent, message):
            memory = _hear(memory, names.index(parent))
            return _told(memory, names.index(parent), message) if isinstance(message, DownState) else memory
        case ev.ForgetChild(name):
            child = names.index(name)
            return memory._replace(heard=frozenset(each for each in memory.heard if each[0] != child))
        case _:
            return memory


def _told(memory: Memory, parent: int, message: DownState) -> Memory:
    against = set(memory.against)
    for verdict in message.verdicts:
        if verdict.state == ACTIVE:
            against.discard((parent, verdict.key))
        elif verdict.reason.code not in UNDECIDED:
            against.add((parent, verdict.key))
    return memory._replace(against=frozenset(against))


def _hear(memory: Memory, other: int) -> Memory:
    if not memory.since[other]:
        return memory
    since = list(memory.since)
    since[other] = 0
    return memory._replace(since=tuple(since))


def after_restart(memory: Memory) -> Memory:
    return memory


def next_tick(memory: Memory, neighbours: frozenset[int]) -> Memory:
    since = tuple(min(TICKS_MAX, ticks + 1) if n in neighbours else 0 for n, ticks in enumerate(memory.since))
    recover = tuple(
        RECOVERY_TICKS if ticks >= LEASE_TICKS else max(0, left - 1)
        for ticks, left in zip(since, memory.recover, strict=True)
    )
    # what was given up stays so until it is claimed again: the engine may hear of it only after a restart
    heard = frozenset(each for each in memory.heard if since[each[0]] < PRESUMED_TICKS)
    return memory._replace(since=since, recover=recover, heard=heard)


# ------------------------------------------------------------------ checks


def check_step(
    nodes: Nodes, node: int, state: NodeState, control: int, effects: tuple[Any, ...], memory: Memory
) -> tuple[Memory, Problem | None]:
    is_root = not state.parents
    disk = nodes.disks[state.disk]
    for effect in effects:
        match effect:
            case ef.Persist(puts, durable):
                disk = disk.write(puts, durable or not nodes.power)
            case ef.Apply():
                problem = _stable(nodes, node, state, control, effect, memory)
                if problem is None and not effect.replace:
                    for endpoint in effect.put_endpoints:
                        problem = problem or _on_disk(nodes, node, disk.safe, is_root, endpoint.key.claim)
                if problem is not None:
                    return memory, problem
            case ef.ToChild(_, DownState() as down):
                for verdict in down.verdicts:
                    if verdict.state == ACTIVE:
                        problem = _on_disk(nodes, node, disk.safe, is_root, verdict.key)
                        if problem is None:
                            memory, problem = _not_older(nodes, node, memory, verdict)
                        if problem is not None:
                            return memory, problem
            case _:
                pass
    return memory, None


def _on_disk(nodes: Nodes, node: int, disk: Mapping[str, Any], is_root: bool, key: ClaimKey) -> Problem | None:
    if core.lets_be_active(disk, is_root, key):
        return None
    return Problem(8, f"{nodes.names[node]} has {text_of(key)} active, but not on its disk")


def _not_older(nodes: Nodes, node: int, memory: Memory, verdict: Verdict) -> tuple[Memory, Problem | None]:
    key, generation = verdict.key, verdict.generation
    acted = {each.service: each for each in memory.acted}
    known = acted.get(key.service)
    if known is None or set(known.scope).isdisjoint(verdict.scope):  # of another tree: not to be compared
        known = Acted(key.service, 0, frozenset(), verdict.scope)
    if generation < known.generation:
        rivals = [v for v in sorted(known.versions) if not compatible(nodes.scenario, key.service, v, key.version)]
        if rivals:
            text = (
                f"{nodes.names[node]} has {text_of(key)} active in generation {generation}; it had been at "
                f"{rivals[0]} in generation {known.generation}"
            )
            return memory, Problem(8, text)
        return memory, None
    versions = known.versions if generation == known.generation else frozenset[str]()
    acted[key.service] = Acted(key.service, generation, versions | {key.version}, verdict.scope)
    return memory._replace(acted=tuple(acted[name] for name in sorted(acted))), None


def _stable(nodes: Nodes, node: int, state: NodeState, control: int, delta: ef.Apply, memory: Memory) -> Problem | None:
    """An endpoint leaves the engine only for a reason that was reported to the node."""
    out = list(delta.delete_endpoints)
    if delta.replace:
        named = {endpoint.key for endpoint in delta.put_endpoints}
        out += [key for key in nodes.tables[state.engine].keys() if key not in named]
    for key in out:
        if _given_up(nodes, control, key, memory):
            continue
        live = nodes.control(control)
        tree = core.tree(live)
        if tree["stopping"]:
            continue
        name, what = nodes.names[node], f"{key.target} from {text_of(key.claim)}"
        if core.claim_states(live).get(key.claim, ACTIVE) == ACTIVE:  # only its own decision may remove it
            return Problem(4, f"{name} removes {what} without a reason")
        if tree["cut_off"] and not any(denied == key.claim for _, denied in memory.against):
            return Problem(4, f"{name}, cut off from its parents, removes {what}")
    return None


def _given_up(nodes: Nodes, control: int, key: ev.EndpointKey, memory: Memory) -> bool:
    kind, _, name = key.target.partition(":")
    if kind == "n":
        child = nodes.index[name]
        return (child, key.claim) not in memory.heard or memory.since[child] >= PRESUMED_TICKS
    known = nodes.reports(control).get(key.target)
    return (
        known is None
        or known.state in ("draining", "drained", "lapsed")
        or not known.healthy
        or known.key != tuple(key.claim)
    )
