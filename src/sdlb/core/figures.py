"""What the instances of this host answered, in blocks, while the rollout of their service has an analysis.

The node counts what `analysed` names, and passes each complete block in (`FiguresCounted`). The last blocks are part of this node's
report about the service (`agents.py`); they are dropped when the rollout ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from sdlb.model.canary import BLOCKS_KEPT, Blocks, Figures

if TYPE_CHECKING:
    from sdlb.core.events import FiguresCounted
    from sdlb.core.instance import Instance
    from sdlb.core.state import State
    from sdlb.model.rollout import Rollout


class Analysed(Struct, frozen=True):
    """A service whose rollout has an analysis. `versions`: those of the rollout that have an instance on this host. `early`: of these,
    those with an instance that has been healthy and active for less than `warm_up_s`."""

    service: str
    versions: tuple[str, ...]
    early: frozenset[str]


class OwnFigures:
    """`instances`: of a service, on this host."""

    def __init__(self, state: State, instances: Callable[[str], list[Instance]]) -> None:
        self._state = state
        self._instances = instances
        self._rollouts: dict[str, Rollout] = {}  # service -> its rollout with an analysis
        self._blocks: dict[str, dict[int, dict[str, Figures]]] = {}

    def start(self) -> None:
        for target in self._state.targets.all():
            self.review(target.service)

    def review(self, service: str) -> None:
        """The target of the service has changed."""
        target = self._state.targets.get(service)
        active = target.active if target is not None else None
        if active is not None and active.spec.analysis is not None:
            self._rollouts[service] = active
        else:
            self._rollouts.pop(service, None)
            self._blocks.pop(service, None)

    def counted(self, event: FiguresCounted) -> None:
        rollout = self._rollouts.get(event.service)
        figures = {v: each for v, each in event.figures.items() if rollout is not None and v in _versions(rollout)}
        if not figures:
            return  # it was counted before the target changed
        kept = self._blocks.setdefault(event.service, {})
        kept[event.block] = figures
        for number in list(kept):  # those above are from before the clock was set back
            if not event.block - BLOCKS_KEPT < number <= event.block:
                del kept[number]

    def blocks(self, service: str) -> Blocks:
        return dict(self._blocks.get(service, {}))

    def analysed(self) -> list[Analysed]:
        """Empty: there is nothing to count."""
        found: list[Analysed] = []
        for service, rollout in self._rollouts.items():
            analysis = rollout.spec.analysis
            there = [each for each in self._instances(service) if each.spec.version in _versions(rollout)]
            if there and analysis is not None:
                warm_since = self._state.now - analysis.warm_up_s
                early = {each.spec.version for each in there if not each.serves_since <= warm_since}
                found.append(Analysed(service, tuple(sorted({each.spec.version for each in there})), frozenset(early)))
        return found


def _versions(rollout: Rollout) -> tuple[str, str]:
    return rollout.before, rollout.to
