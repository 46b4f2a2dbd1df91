"""Control links between nodes: ordered, with a delay for each direction. They break, stall and lose messages.

A lost message leaves a gap in the stream. A partition drops messages or holds them until it heals. A reset is reported to
both ends or, half-open, to one. Traffic has its own model in `traffic`.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from msgspec import Struct, field

from sdlb.core import events as ev
from sdlb.core.messages import DownMessage, Hello, UpMessage, UpState

if TYPE_CHECKING:
    from sdlb.sim.host import Host
    from sdlb.sim.world import World

NUMBER_MAX = 1 << 53  # as sdlb.wire checks it
DIAL_TIMEOUT_S = 3.0
REDELIVERY_S_MAX = 15.0


class Link(Struct):
    number: int
    child: str
    parent: str
    address: str  # of the parent, as the child has it configured
    child_open: bool = True
    parent_open: bool = True
    last: dict[str, float] = field(default_factory=dict[str, float])  # receiver -> time of the last delivery


class Weather(Struct):
    """Current faults of the network. Probabilities are per message."""

    delay_s: tuple[float, float] = (0.0002, 0.004)
    slow: float = 0.0
    slow_s: float = 1.0
    loss: float = 0.0


class Edge(Struct):
    """The messages that really passed between a parent and a child, for the checks. Times are the world's."""

    up_heard: float = 0.0  # the parent last took in something of the child
    down_heard: float = 0.0
    up_gap_end: float = -1e9  # a silence long enough for the parent to presume the child stopped ended here
    down_gap_end: float = -1e9  # ... for the child to leave the parent out


class BadMessage(Exception):
    """Control sent a message that proto/tree.proto cannot represent."""


def _check_numbers(message: UpState) -> None:
    for claim in message.claims:
        if not 0 <= claim.capacity < NUMBER_MAX or not 0 <= claim.count < NUMBER_MAX:
            raise BadMessage(f"{' '.join(claim.key)}: capacity {claim.capacity}, count {claim.count}")


class Network:
    def __init__(self, world: World, rng: Random) -> None:
        self._world = world
        self._rng = rng
        self.weather = Weather()
        self.links: dict[int, Link] = {}
        self.ends: dict[int, tuple[str, str]] = {}  # of every link that ever was: what came by it may still be waiting
        self.blocked: dict[tuple[str, str], float] = {}  # (from, to) -> when it heals
        self.stalling: dict[tuple[str, str], bool] = {}
        self.edges: dict[tuple[str, str], Edge] = {}
        self.aliases: dict[str, str] = {}  # a second address of a machine -> its name
        self._count = 0
        self.sent = self.lost = 0

    # ------------------------------------------------------------------ faults

    @property
    def dialled(self) -> int:
        """Number of links so far."""
        return self._count

    def block(self, a: str, b: str, until: float, both: bool, stall: bool) -> None:
        for pair in ((a, b), (b, a))[: 2 if both else 1]:
            self.blocked[pair] = until
            self.stalling[pair] = stall

    def heal(self) -> None:
        self.blocked.clear()
        self.weather = Weather()

    def unblock(self, a: str, b: str) -> None:
        self.blocked.pop((a, b), None)
        self.blocked.pop((b, a), None)

    def is_blocked(self, a: str, b: str) -> bool:
        return self.blocked.get((a, b), 0.0) > self._world.clock.now

    def reset(self, link: Link, half: bool) -> None:
        ends = [link.child, link.parent]
        self._rng.shuffle(ends)
        for name in ends[: 1 if half else 2]:
            self._tell_closed(link, name, "connection reset")

    # ------------------------------------------------------------------ what nodes do

    def dial(self, child: Host, address: str) -> None:
        parent = self.aliases.get(address, address)
        there = self._world.hosts[parent]
        boot = child.boot
        if self.is_blocked(child.name, parent) or self.is_blocked(parent, child.name):
            self._world.clock.after(DIAL_TIMEOUT_S, lambda: self._dial_failed(child, boot, address, "timed out"))
            return
        delay = self._delay() + self._delay()
        if not there.running:
            self._world.clock.after(delay, lambda: self._dial_failed(child, boot, address, "connection refused"))
            return
        self._world.clock.after(delay, lambda: self._dialled(child, boot, there, address))

    def _dial_failed(self, child: Host, boot: int, parent: str, detail: str) -> None:
        if child.running and child.boot == boot:
            child.take(ev.ParentClosed(parent, detail))

    def _dialled(self, child: Host, boot: int, parent: Host, address: str) -> None:
        if not child.running or child.boot != boot:
            return
        if not parent.running:
            self._dial_failed(child, boot, address, "connection refused")
            return
        self._count += 1
        link = self.links[self._count] = Link(self._count, child.name, parent.name, address)
        self.ends[link.number] = child.name, parent.name
        child.up[address] = link.number
        child.take(ev.ParentConnected(address, child.address))

    def send_up(self, child: Host, address: str, message: UpMessage) -> None:
        link = self.links.get(child.up.get(address, 0))
        if link is None or not link.child_open:
            return
        if isinstance(message, UpState):
            _check_numbers(message)
        if isinstance(message, Hello):
            event: ev.Event = ev.ChildConnected(link.number, message)
        else:
            event = ev.ChildMessage(link.number, message)
        self._send(link, child.name, link.parent, event)

    def send_down(self, parent: Host, number: int, message: DownMessage) -> None:
        link = self.links.get(number)
        if link is not None and link.parent_open:
            self._send(link, parent.name, link.child, ev.ParentMessage(link.address, message))

    def _send(self, link: Link, sender: str, receiver: str, event: ev.Event) -> None:
        now = self._world.clock.now
        self.sent += 1
        when = now + self._delay()
        heals = self.blocked.get((sender, receiver), 0.0)
        if heals > now:
            if not self.stalling[sender, receiver] or heals - now > REDELIVERY_S_MAX:
                self.lost += 1
                return
            when = heals + self._rng.uniform(0.0, 0.5)
        elif self.weather.loss and self._rng.random() < self.weather.loss:
            self.lost += 1
            return
        when = max(when, link.last.get(receiver, 0.0))
        link.last[receiver] = when
        self._world.clock.at(when, lambda: self._deliver(link, receiver, event))

    def _deliver(self, link: Link, receiver: str, event: ev.Event) -> None:
        is_open = link.child_open if receiver == link.child else link.parent_open
        host = self._world.hosts[receiver]
        if is_open and host.running:
            if receiver == link.child:
                if host.up.get(link.address) != link.number:
                    return
            else:
                host.down.add(link.number)
            host.take(event, (link.child, link.parent))

    def _delay(self) -> float:
        if self.weather.slow and self._rng.random() < self.weather.slow:
            return self._rng.uniform(0.0, self.weather.slow_s)
        return self._rng.uniform(*self.weather.delay_s)

    # ------------------------------------------------------------------ endings

    def hang_up(self, child: Host, address: str) -> None:
        link = self.links.get(child.up.pop(address, 0))
        if link is not None:
            self._close(link, child.name)

    def drop(self, parent: Host, number: int) -> None:
        link = self.links.get(number)
        if link is not None:
            self._close(link, parent.name)

    def close_all(self, name: str, silently: bool) -> None:
        """The node's control has ended. `silently`: the peers do not notice, because the whole machine is down."""
        for link in list(self.links.values()):
            if name in (link.child, link.parent):
                self._close(link, name, silently)

    def _close(self, link: Link, by: str, silently: bool = False) -> None:
        other = link.parent if by == link.child else link.child
        if by == link.child:
            link.child_open = False
        else:
            link.parent_open = False
            self._world.hosts[by].down.discard(link.number)
        if not link.child_open and not link.parent_open:
            self.links.pop(link.number, None)
        elif not silently and not self.is_blocked(by, other):
            when = max(self._world.clock.now + self._delay(), link.last.get(other, 0.0))
            self._world.clock.at(when, lambda: self._tell_closed(link, other, "closed"))

    def _tell_closed(self, link: Link, name: str, detail: str) -> None:
        host = self._world.hosts[name]
        if name == link.child:
            if link.child_open and host.running and host.up.get(link.address) == link.number:
                del host.up[link.address]
                host.take(ev.ParentClosed(link.address, detail))
            link.child_open = False
        else:
            if link.parent_open and host.running and link.number in host.down:
                host.take(ev.ChildClosed(link.number))
            link.parent_open = False
            host.down.discard(link.number)
        if not link.child_open and not link.parent_open:
            self.links.pop(link.number, None)

    # ------------------------------------------------------------------ messages that passed

    def note_heard(self, pair: tuple[str, str], up: bool) -> None:
        edge, now, settings = self.edges[pair], self._world.clock.now, self._world.shape
        if up:
            if now - edge.up_heard >= settings.presumed_s:
                edge.up_gap_end = now
            edge.up_heard = now
        else:
            if now - edge.down_heard >= settings.lease_s - settings.slack_s:
                edge.down_gap_end = now
            edge.down_heard = now
