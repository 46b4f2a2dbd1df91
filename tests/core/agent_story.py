"""A node with a role, and an owner of rollouts that a test plays."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from sdlb.core import events as ev
from sdlb.core.messages import TARGET
from sdlb.model.role import Program, RoleService
from sdlb.model.rollout import (
    DONE,
    ROLLING,
    TAKE,
    Rollout,
    RolloutSpec,
    SlotAnswer,
    SlotAsk,
    Target,
    target_body,
)
from tests.core.forest import ROUTE, Forest
from tests.core.node import Node

OLD, NEW, BIG = "1.0.1", "1.0.2", "2.5.1"
WEB = RoleService("web", "catalog", Program(("./catalog",)), (ROUTE,), port=8000)
ALONE = replace(WEB, side_by_side=False)
SPEC = RolloutSpec(soak_s=3.0, progress_s=60.0, drain_s=5.0)


class Story:
    """A root and a host that runs catalog-1.0.1, with an owner that grants what `grants` says."""

    def __init__(self, role: RoleService = WEB, *, settled: str = OLD, more: tuple[RoleService, ...] = ()) -> None:
        self.forest = Forest({"edge": (), "host": ("edge",)})
        self.host.roles = (role, *more)
        self.host.asked = self._answer
        self.host.restart()
        self.grants = True
        self.away = False
        self.asks: list[SlotAsk] = []
        self.slots: set[tuple[str, str]] = set()  # (service, node)
        self.target = Target("catalog", settled)
        if settled:
            self.publish()
            self.forest.run(8.0)
            assert self.serves() == {settled}

    @property
    def host(self) -> Node:
        return self.forest["host"]

    def _answer(self, ask: SlotAsk) -> SlotAnswer | None:
        if self.away:
            return None
        self.asks.append(ask)
        place = (ask.service, ask.node)
        if ask.what != TAKE:
            self.slots.discard(place)
            return SlotAnswer(True)
        if not self.grants:
            return SlotAnswer(False, 1.0, "the floor is 100")
        self.slots.add(place)
        return SlotAnswer(True)

    # ------------------------------------------------------------------ the owner

    def publish(self, target: Target | None = None) -> None:
        self.target = target or self.target
        root = self.forest["edge"]
        state = root.balancer._agents._state  # pyright: ignore[reportPrivateUsage]
        state.policies.put_doc(TARGET, self.target.service, target_body(self.target))
        root.inbox.append(ev.Tick())

    def rollout(self, to: str = NEW, state: str = ROLLING, **more: object) -> None:
        incompatible = to == BIG
        fields: dict[str, object] = {"cursor": 1.0, "spec": SPEC, "incompatible": incompatible, **more}
        before = str(fields.pop("before", self.target.settled))
        self.publish(replace(self.target, rollout=Rollout("r-1", to, before, state, **fields)))  # type: ignore[arg-type]

    def change(self, **fields: object) -> None:
        assert self.target.rollout is not None
        self.publish(replace(self.target, rollout=replace(self.target.rollout, **fields)))  # type: ignore[arg-type]

    def end(self, state: str = DONE) -> None:
        assert self.target.rollout is not None
        settled = self.target.rollout.to if state == DONE else self.target.settled
        self.publish(replace(self.target, settled=settled, rollout=replace(self.target.rollout, state=state)))

    # ------------------------------------------------------------------ what is seen

    def run(self, seconds: float) -> None:
        self.forest.run(seconds)

    def always(self, holds: Callable[[], bool]) -> None:
        """It is looked at after every step from here on."""

        def look() -> None:
            assert holds()

        self.forest.watch.append(look)

    def until(self, phase: str, seconds: float = 120.0) -> None:
        end = self.forest.now + seconds
        while self.phase() != phase:
            assert self.forest.now < end, f"{self.phase()} instead of {phase}: {self.agent()}"
            if not self.forest.step():
                self.forest.run(0.25)

    def agent(self) -> dict[str, object]:
        return self.host.balancer.view.agent()[0]

    def phase(self) -> str:
        return str(self.agent()["phase"])

    def serves(self) -> set[str]:
        """Versions to which the engine of the host forwards."""
        return {endpoint.claim.version for endpoint in self.host.engine.endpoints}

    def runs(self) -> dict[str, str]:
        return self.host.programs.versions()

    def report(self):
        return self.host.balancer._reports.total("catalog")  # pyright: ignore[reportPrivateUsage]

    def whats(self) -> list[str]:
        return [ask.what for ask in self.asks]
