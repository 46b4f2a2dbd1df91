"""The parts of the core's interface that the simulator uses, in one place, so that a change of the interface changes this file.

All other files of `sdlb.sim` use events, effects and messages directly, and nothing of the inside of a `Balancer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from msgspec.structs import replace

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.balancer import Balancer
from sdlb.core.forwarding import SLOT_PATH
from sdlb.core.messages import POLICY, Ask, Beat, Claim, ClaimKey, Doc, DownState, Hello, Stage, UpState
from sdlb.core.settings import Settings
from sdlb.core.view import View
from sdlb.model.instance import InstanceSpec
from sdlb.model.role import RoleService
from sdlb.model.rollout import TAKE, Target, read_ask, read_target

__all__ = ["Balancer", "View"]


def settings(
    node: str,
    node_id: str,
    incarnation: int,
    nonce: str,
    parents: tuple[str, ...],
    times: tuple[float, float, float],
    roles: tuple[RoleService, ...] = (),
    zone: str = "",
) -> Settings:
    """`nonce`: of this start of control. `times`: heartbeat interval, lease and fence in seconds."""
    beat_s, lease_s, fence_s = times
    return Settings(
        *(node, node_id, incarnation, parents),
        beat_s=beat_s,
        lease_s=lease_s,
        fence_s=fence_s,
        nonce=nonce,
        roles=roles,
        labels=(("zone", zone),) if zone else (),
    )


def view(balancer: Balancer) -> View:
    return balancer.view


def start(balancer: Balancer, now: float, wall_s: float) -> list[ef.Effect]:
    return balancer.start(now, wall_s)


def handle(balancer: Balancer, events: Iterable[ev.Event], now: float, wall_s: float) -> list[ef.Effect]:
    return balancer.handle_all(events, now, wall_s)


def new_incarnation(effect: ef.Effect) -> int | None:
    """The incarnation that a refused node continues with. None: the effect is another one."""
    return effect.incarnation if isinstance(effect, ef.Reincarnate) else None


def store_event(stuck: bool) -> ev.Event:
    """The event for a node whose disk cannot be written, and for one whose disk can be written again."""
    return ev.StoreStuck() if stuck else ev.StoreWritten()


def instance_put(spec: InstanceSpec, healthy: bool, owner: str, socket: str) -> ev.InstancePut:
    """`socket`: where it listens."""
    return ev.InstancePut(spec, healthy, owner, frozenset({socket}))


def hello(node: str, node_id: str, incarnation: int, address: str, nonce: str) -> Hello:
    return Hello(node, node_id, incarnation, address, nonce=nonce)


# ---------------------------------------------------------------------- policies


def policy_put(service: str, text: str) -> ev.PolicyPut:
    return ev.PolicyPut(service, text.encode())


def policy(service: str, text: str, revision: int = 0, origin: str = "") -> Doc:
    return Doc(POLICY, service, revision, origin, text.encode())


def policy_of(view: View, service: str) -> str | None:
    """The policy in force at a node as JSON. None: no policy was set."""
    doc = view.policy(service)
    return None if doc is None else doc.body.decode()


def policy_rank(view: View, service: str) -> tuple[int, str]:
    """Revision and origin of the policy in force at a node."""
    doc = view.policy(service)
    return (0, "") if doc is None else (doc.revision, doc.origin)


def subjects_of(message: UpState | DownState) -> list[str]:
    """The services and routes that the documents in a message are about."""
    return [doc.name for doc in message.docs]


def remnants(view: View) -> list[str]:
    """Nodes of which a node keeps remnants."""
    return [str(each["name"]) for each in view.tree()["remnants"]]


# ---------------------------------------------------------------------- rollouts


def target_of(view: View, service: str) -> Target | None:
    """The target of a service as a node has it."""
    doc = view.target(service)
    return None if doc is None else read_target(doc.body)


def saved_slots(effect: ef.Effect) -> dict[str, dict[str, int]]:
    """What an owner saves about the slots of its rollouts: service -> node -> share."""
    found: dict[str, dict[str, int]] = {}
    for name, value in effect.puts.items() if isinstance(effect, ef.Persist) else ():
        if name.startswith("rollout/"):
            slots: dict[str, Any] = cast("dict[str, Any]", value)["owned"]["slots"] if value is not None else {}
            found[name.removeprefix("rollout/")] = {node: held["share"] for node, held in slots.items()}
    return found


def slots_asked(events: Iterable[ev.Event]) -> set[str]:
    """Nodes that ask for a slot by messages of children."""
    messages = [event.message for event in events if isinstance(event, ev.ChildMessage)]
    asks = [read_ask(each.body) for each in messages if isinstance(each, Ask) and each.path == SLOT_PATH]
    return {ask.node for ask in asks if ask is not None and ask.what == TAKE}


def saved_holds(effect: ef.Effect) -> dict[str, int | None]:
    """What an agent saves: service -> the capacity that leaves with its slot. None: it holds no slot."""
    puts = effect.puts.items() if isinstance(effect, ef.Persist) else ()
    agents = {
        name.rpartition("/")[2]: cast("dict[str, Any]", value) for name, value in puts if name.startswith("agent/")
    }
    return {service: value["share"] if value["slot"] == "held" else None for service, value in agents.items()}


# ---------------------------------------------------------------------- messages


def beat(sent: int, received: int) -> Beat:
    return Beat(sent, received)


def false_claim(
    key: ClaimKey, *, is_open: bool, roots: tuple[str, ...], generation: int, host: str, seen: int
) -> Claim:
    """The most false claim that a child can make: open, granted by all of `roots` (ids), with the oldest stamp."""
    return Claim(
        key,
        capacity=100 if is_open else 0,
        count=1,
        hosts=(host,),
        stage=Stage.OPEN if is_open else Stage.WAITING,
        opening=not is_open,
        stamp=1,
        generation=generation,
        scope=roots,
        granted=roots if is_open else (),
        seen=seen,
    )


def beat_of(beat: Beat, sent: int) -> Beat:
    return replace(beat, sent=sent)


# ---------------------------------------------------------------------- what is saved


def is_written(read: Callable[[str], object], key: ClaimKey, root: bool) -> bool:
    """Whether this key is active according to a node's disk."""
    if not root:
        return read("permit/" + " ".join(key)) is not None
    record = read(f"service/{key.service}")
    return isinstance(record, dict) and key.version in record["active"]
