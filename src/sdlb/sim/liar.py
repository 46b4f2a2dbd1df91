"""A child that does not run the real control: it sends false but well-formed messages.

It has no engine, so requests to it are not answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdlb.core import events as ev
from sdlb.core.messages import Beat, Bye, Claim, ClaimKey, DownState, UpState, Welcome
from sdlb.sim import bridge
from sdlb.sim.host import Host

if TYPE_CHECKING:
    from random import Random

    from sdlb.core.messages import Doc
    from sdlb.sim.world import World

DIAL_AGAIN_S = 2.0


class Liar(Host):
    honest = False

    def __init__(self, world: World, name: str, parents: tuple[str, ...], rng: Random) -> None:
        super().__init__(world, name, parents, rng)
        self.engine.up = False
        self.claims: dict[ClaimKey, Claim] = {}
        self.policies: list[Doc] = []
        self._world_of_lies = world
        self._sent: dict[str, int] = {}
        self._received: dict[str, int] = {}

    def start(self) -> None:
        if not self.running:
            self.running = True
            self.boot += 1
            for parent in self.addresses:
                self._dial(parent, self.boot)
            self._beat(self.boot)

    def leave(self) -> None:
        """The lying child is discovered and disconnected."""
        for parent in list(self.up):
            self._world_of_lies.network.send_up(self, parent, Bye())
        self.kill()

    @property
    def roots(self) -> tuple[str, ...]:
        """Ids of all roots, whose decisions it fakes."""
        hosts = self._world_of_lies.hosts
        return tuple(hosts[name].node_id for name in self._world_of_lies.shape.roots)

    def lie(self, *claims: Claim) -> None:
        for claim in claims:
            self.claims[claim.key] = claim
            self._world_of_lies.know(claim.key)
        for parent in self._sent:
            self._say(parent, full=False, claims=claims)

    def lie_about_policies(self, *docs: Doc) -> None:
        self.policies += docs
        for parent in self._sent:
            self._say(parent, full=False, docs=docs)

    # ------------------------------------------------------------------ the protocol, and no more of it than is needed

    def _dial(self, parent: str, boot: int) -> None:
        if self.running and self.boot == boot and parent not in self.up:
            self._world_of_lies.network.dial(self, parent)

    def _say(self, parent: str, full: bool, claims: tuple[Claim, ...] = (), docs: tuple[Doc, ...] = ()) -> None:
        self._sent[parent] += 1
        message = UpState(self._sent[parent], full, claims, (), docs)
        self._world_of_lies.network.send_up(self, parent, message)

    def _beat(self, boot: int) -> None:
        if self.running and self.boot == boot:
            for parent, sent in self._sent.items():
                beat = bridge.beat(sent, self._received.get(parent, 0))
                self._world_of_lies.network.send_up(self, parent, beat)
            self._world_of_lies.clock.after(self._world_of_lies.shape.beat_s, lambda: self._beat(boot))

    def take(self, event: ev.Event, pair: tuple[str, str] | None = None) -> None:
        network, boot = self._world_of_lies.network, self.boot
        if not self.running:
            return
        if pair is not None:
            network.note_heard(pair, up=False)
        match event:
            case ev.ParentConnected(parent):
                hello = bridge.hello(self.node, self.node_id, self.boot, self.address, f"{self.name}/{self.boot}")
                network.send_up(self, parent, hello)
            case ev.ParentClosed(parent):
                self._sent.pop(parent, None)
                self._world_of_lies.clock.after(DIAL_AGAIN_S, lambda: self._dial(parent, boot))
            case ev.ParentMessage(parent, Welcome()):
                self._sent[parent] = self._received[parent] = 0
                self._say(parent, full=True, claims=tuple(self.claims.values()), docs=tuple(self.policies))
            case ev.ParentMessage(parent, DownState(seq)):
                self._received[parent] = seq
            case ev.ParentMessage(parent, Beat()):
                pass
            case _:
                pass


def claimed_by_liars(world: World, service: str) -> bool:
    """Whether the false report of an incompatible version may block others. It can until the child is discovered."""
    liars = (host for host in world.hosts.values() if isinstance(host, Liar))
    return any(key[0] == service for liar in liars for key in liar.claims)
