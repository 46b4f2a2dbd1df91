"""The servers of metrics that analyses ask. All roots have the same ones, which know what each text has as its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sdlb.core.effects import AskMetrics
from sdlb.core.events import MetricsAnswered

if TYPE_CHECKING:
    from sdlb.sim.host import Host
    from sdlb.sim.world import World

ANSWER_S: Final = 0.2


class Metrics:
    """`result`: of the text of a query, or why it has none."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.result: Callable[[str], float | str] = lambda text: "the server does not answer"

    def ask(self, host: Host, effect: AskMetrics) -> None:
        boot, results = host.boot, tuple(self.result(each.query) for each in effect.asks)
        self._world.clock.after(ANSWER_S, lambda: self._answers(host, boot, MetricsAnswered(effect.key, results)))

    def _answers(self, host: Host, boot: int, event: MetricsAnswered) -> None:
        if host.running and host.boot == boot:
            host.take(event)
