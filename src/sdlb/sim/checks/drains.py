"""Promise 3: a drain takes exactly as long as its requests."""

from __future__ import annotations

from sdlb.core import effects as ef
from sdlb.core.messages import ClaimKey
from sdlb.sim.check import Check, check
from sdlb.sim.host import Host
from sdlb.sim.process import Process

DRAIN_S = 6.0  # from the last request that was in flight to the end of the drain, over all tiers


@check(3)
class DrainsEnd(Check):
    """A drain ends shortly after the last request in flight, and is forced only while requests are in flight.

    Exempt are instances below nodes that were disturbed recently.
    """

    def every_second(self) -> None:
        now = self.world.clock.now
        for processes in self.world.by_service.values():
            for process in processes.values():
                if process.leave_asked > now - DRAIN_S or process.rejected:
                    continue
                if self._drained(process):
                    continue
                self.compared()
                late = now - max(process.leave_asked, self._busy_at(process)) > DRAIN_S
                if late and not self._excused(process.host) and not self._kept_for_another(process):
                    known = self.world.hosts[process.host].view.instance(process.id)
                    state = "unknown" if known is None else known["state"]
                    raise self.broken(
                        f"the drain of {process.name} on {process.host} does not end: {state}, nothing is in flight"
                    )

    def _drained(self, process: Process) -> bool:
        host = self.world.hosts[process.host]
        if not host.running or self.world.is_endpoint(process):
            return not host.running
        known = host.view.instance(process.id)
        return known is None or known["drained"] or known["endpoint"] != process.spec.endpoint

    def _busy_at(self, process: Process) -> float:
        """The time of the last request in flight for its version, including those of other instances on the same nodes."""
        mine = [p for p in self.world.by_service[process.spec.service].values() if p.version == process.version]
        return max(self.world.clock.now if p.carried else p.carried_at for p in mine)

    def _excused(self, name: str) -> bool:
        world, above = self.world, self.world.shape.above(name)
        return name in world.outside or world.affected.disturbed(above) or any(map(world.touch.fresh, above))

    def _kept_for_another(self, process: Process) -> bool:
        """Whether a node above may keep it until another version serves (make before break), which waits for a disturbed parent."""
        world, mine = self.world, self.world.shape.above(process.host)
        return any(
            other.alive
            and other.wanted
            and not other.served
            and other.version != process.version
            and not set(other.spec.routes).isdisjoint(process.spec.routes)
            and not mine.isdisjoint(world.shape.above(other.host))
            and self._excused(other.host)
            for other in world.by_service[process.spec.service].values()
        )

    def on_note(self, host: Host, note: ef.Note) -> None:
        if note.code in ("instance-drained", "instance-removed"):
            self.world.coverage.happened["drains"] += 1
        if note.code != "drain-deadline":
            return
        self.world.coverage.happened["drains forced"] += 1
        self.compared()
        mine = [p for p in host.processes.values() if p.id == note.fields.get("instance") and p.alive]
        for process in mine:
            busy = self._busy_at(process)
            self.world.affected.harm_service(process.spec.service)  # what is still in flight may be cut
            if self.world.clock.now - busy > 1.0 and not self._excused(host.name):
                raise self.broken(f"{process.name} on {host.name} was removed by force although nothing was in flight")

    def on_stopped(self, host: Host, clean: bool) -> None:
        self.world.coverage.happened["nodes stopped" if clean else "nodes stopped at their deadline"] += 1
        self.compared()
        if clean:
            if host.engine.in_flight and not self._excused(host.name):
                key = next(iter(host.engine.in_flight))
                raise self.broken(
                    f"{host.name} reported a clean stop with requests in flight through {_text(key.claim)}"
                )
            return
        self.world.affected.harm_node(host.name)
        if not host.engine.in_flight and not self._excused(host.name):
            raise self.broken(f"{host.name} stopped at its deadline although nothing was in flight")


def _text(key: ClaimKey) -> str:
    return " ".join(key)
