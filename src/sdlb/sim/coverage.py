"""Counts of what happened in a run, so that a run that tested nothing shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from sdlb.core import effects as ef
from sdlb.core.messages import ClaimKey, DownMessage, DownState

if TYPE_CHECKING:
    from sdlb.sim.host import Host

Counts = dict[str, int]


class Coverage(Struct):
    """`compared`: by promise, how often a check had two things to compare. The rest: what happened, by name."""

    faults: Counter[str] = field(default_factory=Counter[str])
    changes: Counter[str] = field(default_factory=Counter[str])  # what operators and programs did
    instances: Counter[str] = field(default_factory=Counter[str])  # "waiting > active"
    permits: Counter[str] = field(default_factory=Counter[str])  # verdicts as children hear them, in the same form
    happened: Counter[str] = field(default_factory=Counter[str])  # cut-overs, recalls, drains, parked, ...
    notes: Counter[str] = field(default_factory=Counter[str])
    compared: Counter[str] = field(default_factory=Counter[str])
    _instance: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    _verdict: dict[tuple[str, ClaimKey], str] = field(default_factory=dict[tuple[str, ClaimKey], str])

    def changed(self, host: Host, effects: Iterable[ef.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, ef.Changed):
                for name in effect.instances:
                    self._step(self.instances, self._instance, (host.name, name), _state(host, name))

    def verdicts_sent(self, host: Host, message: DownMessage) -> None:
        if isinstance(message, DownState):
            for verdict in message.verdicts:
                old = self._verdict.get((host.name, verdict.key))
                self._step(self.permits, self._verdict, (host.name, verdict.key), verdict.state)
                if old == "active" and verdict.state != "active" and not host.parents:
                    self.happened["recalls"] += 1

    @staticmethod
    def _step(counts: Counter[str], known: dict[Any, str], key: object, state: str) -> None:
        old = known.get(key, "new")
        if old != state:
            counts[f"{old} > {state}"] += 1
            known[key] = state

    def to_data(self) -> dict[str, Counts]:
        return {name: dict(sorted(getattr(self, name).items())) for name in TABLES}


TABLES = ("faults", "changes", "instances", "permits", "happened", "compared", "notes")


def _state(host: Host, name: str) -> str:
    known = host.view.instance(name)
    return "gone" if known is None else str(known["state"])


def add_up(tables: Iterable[dict[str, Counts]]) -> dict[str, Counts]:
    """Of many runs."""
    total = {name: Counter[str]() for name in TABLES}
    for table in tables:
        for name, counts in table.items():
            total[name].update(counts)
    return {name: dict(sorted(counts.items())) for name, counts in total.items()}
