"""Canaries: a version that answers with errors is found before all nodes have it, and its share is taken away. A good one is not
stopped for its errors. Both are part of promise 5: a rollout comes to the end that its builds imply."""

from __future__ import annotations

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.model.rollout import DONE, HALTED, Rollout
from sdlb.sim import bridge
from sdlb.sim.check import Check, check
from sdlb.sim.host import Host
from sdlb.sim.world import World

BAD = 0.6
"""Part of the responses that are errors, from which a version has to be found."""
GOOD = 0.0


@check(5)
class CanaryFound(Check):
    """Only rollouts with steps and an analysis that was not promoted."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._promoted: set[str] = set()

    def before_step(self, host: Host, events: list[ev.Event]) -> None:
        for event in events:
            if isinstance(event, ev.RolloutOrder) and event.verb == "promote":
                rollout = self._rollout(host, event.service)
                self._promoted.add(rollout.id if rollout is not None else "")

    def _rollout(self, host: Host, service: str) -> Rollout | None:
        target = bridge.target_of(host.view, service)
        return target.rollout if target is not None else None

    def on_note(self, host: Host, note: ef.Note) -> None:
        if note.code != "rollout-state":
            return
        service = note.fields.get("service", "")
        rollout = self._rollout(host, service)
        if rollout is None or rollout.id != note.fields.get("rollout") or rollout.id in self._promoted:
            return
        if rollout.spec.analysis is None or not rollout.spec.step or rollout.to == rollout.before:
            return
        figures, happened = self.world.figures, self.world.coverage.happened
        new, old = figures.quality(rollout.to), figures.quality(rollout.before)
        self.compared()
        if rollout.state == DONE:
            happened["canaries passed"] += 1
            if new.errors >= BAD and old.errors == GOOD:
                raise self.broken(
                    f"{rollout.id} brings {service}-{rollout.to} to all nodes: {new.errors:.0%} are errors"
                )
        if rollout.state == HALTED and rollout.share == 0.0:
            happened["canaries stopped"] += 1
            calm = not self.world.affected.harmed(host.name, service)
            if new.errors <= old.errors and calm and not rollout.detail.startswith("no instance"):
                raise self.broken(f"{rollout.id} stops {service}-{rollout.to}, which is good: {rollout.detail}")
