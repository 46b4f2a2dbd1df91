"""What the simulator uses of the core's interface, in one place: when the interface changes, this file does.

Everything else in `sdlb.sim` knows events, effects and messages as they are, and nothing of the inside of a `Balancer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.balancer import Balancer
from sdlb.core.messages import POLICY, Beat, Claim, ClaimKey, Doc, DownState, Hello, Stage, UpState
from sdlb.core.settings import Settings
from sdlb.core.view import View
from sdlb.model.instance import InstanceSpec

__all__ = ["Balancer", "View"]


def settings(
    node: str,
    node_id: str,
    incarnation: int,
    nonce: str,
    parents: tuple[str, ...],
    times: tuple[float, float, float],
) -> Settings:
    """`nonce`: of this start of control. `times`: beat, lease and fence in seconds."""
    beat_s, lease_s, fence_s = times
    return Settings(node, node_id, incarnation, parents, beat_s=beat_s, lease_s=lease_s, fence_s=fence_s, nonce=nonce)


def view(balancer: Balancer) -> View:
    return balancer.view


def start(balancer: Balancer, now: float, wall_s: float) -> list[ef.Effect]:
    return balancer.start(now, wall_s)


def handle(balancer: Balancer, events: Iterable[ev.Event], now: float, wall_s: float) -> list[ef.Effect]:
    return balancer.handle_all(events, now, wall_s)


def new_incarnation(effect: ef.Effect) -> int | None:
    """The number that a node takes because it was refused with an older one; None: another effect."""
    return effect.incarnation if isinstance(effect, ef.Reincarnate) else None


def store_event(stuck: bool) -> ev.Event:
    """What a node is told when its disk cannot be written, and when it can again."""
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
    """The text that is in force at a node; None: none was ever set."""
    doc = view.policy(service)
    return None if doc is None else doc.body.decode()


def policy_rank(view: View, service: str) -> tuple[int, str]:
    """Which one is in force at a node: its revision, and the root that gave it."""
    doc = view.policy(service)
    return (0, "") if doc is None else (doc.revision, doc.origin)


def policies_in(message: UpState | DownState) -> list[str]:
    """The services whose policies are in a message."""
    return [doc.name for doc in message.docs]


def remnants(view: View) -> list[str]:
    """Nodes that no longer vouch for something that a node keeps in mind for them."""
    return [str(each["name"]) for each in view.tree()["remnants"]]


# ---------------------------------------------------------------------- messages


def beat(sent: int, received: int) -> Beat:
    return Beat(sent, received)


def false_claim(
    key: ClaimKey, *, is_open: bool, roots: tuple[str, ...], generation: int, host: str, seen: int
) -> Claim:
    """As false as a child can make it: open, granted by all of `roots` (ids), older than anything."""
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
    """Whether a node's disk says that this key is active."""
    if not root:
        return read("permit/" + " ".join(key)) is not None
    record = read(f"service/{key.service}")
    return isinstance(record, dict) and key.version in record["active"]
