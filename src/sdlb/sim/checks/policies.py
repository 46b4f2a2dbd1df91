"""Promise 6: only operators of a tree set its policies."""

from __future__ import annotations

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.sim import bridge
from sdlb.sim.check import Check, check
from sdlb.sim.host import Host
from sdlb.sim.world import World


@check(6)
class PoliciesComeFromOperators(Check):
    """The policy in force at a root was set in its tree by an operator, and a policy that is set is in force there.

    A policy that a child or a node of another tree brings along is not in force. But a root that has just lost its disk has
    only the reports of a majority of its children, and accepts false ones from a majority.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._learnt_anew: set[tuple[str, str, str]] = set()  # root, service, policy

    def after_step(self, host: Host, events: list[ev.Event], effects: list[ef.Effect]) -> None:
        for event in events:
            if isinstance(event, ev.PolicyPut):
                self._look(host, event.service, event.body.decode())

    def every_second(self) -> None:
        for root in self.world.shape.roots:
            host = self.world.hosts[root]
            if host.balancer is None or not host.running:
                continue
            for service in self.world.by_service:
                self._allowed(host, service)

    def _look(self, host: Host, service: str, text: str) -> None:
        self.compared()
        if bridge.policy_of(host.view, service) != text and not self._later(host, service, text):
            raise self.broken(f"a policy of {service} was set at {host.name}, and is not in force there")

    def _later(self, host: Host, service: str, text: str) -> bool:
        """Whether the policy in force was set at this root too: several were set in one step."""
        now = bridge.policy_of(host.view, service)
        return now in self.world.policies_set.get(host.name, {}).get(service, ())

    def _allowed(self, host: Host, service: str) -> None:
        text = bridge.policy_of(host.view, service)
        if text is None:
            return
        if self.world.touch.fresh(host.name) or self._liars_are_most(host):
            self._learnt_anew.add((host.name, service, text))
        if (host.name, service, text) in self._learnt_anew:
            return
        self.compared()
        if text not in self.world.policies_set.get(host.name, {}).get(service, ()):
            raise self.broken(f"{host.name} uses a policy of {service} that was not set in its tree: {text}")

    def _liars_are_most(self, host: Host) -> bool:
        names = [link.name for link in host.view.child_links()]
        liars = [other for other in self.world.hosts.values() if not other.honest and other.node in names]
        return len(liars) * 2 > len(names)
