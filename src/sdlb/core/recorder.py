"""What goes into the record of a rollout (`records.py`), and when.

Each root keeps its own record of each rollout: its owner has the orders, states, slots, gates and analyses; every root has what it saw
itself, which are the acknowledgements of a cut-over in their order, the gap, and what its engine answered by version.

All is level-triggered, like the decisions: after each batch of events, what has changed since the last entry is recorded. `witness.py`
has what a root sees itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from sdlb.core.records import ENDED, Chain, Records, ms
from sdlb.core.witness import Seen, Witness
from sdlb.model.rollout import CUTTING_OVER, PREPARING, Rollout, Target, past

if TYPE_CHECKING:
    from sdlb.core.analysis import Verdict
    from sdlb.core.authority import Root
    from sdlb.core.canary_analysis import AnalysisState
    from sdlb.core.children import Children
    from sdlb.core.state import State

GAP_S: Final = 60.0
"""A gap that has not ended by then after the end of its rollout is recorded as it is."""
COUNTED_S: Final = 5.0
"""After its end, a rollout's answers are counted for this time at least: statistics of the engine are a little late."""
TALLY: Final = "tally"


class Tally(Struct, frozen=True):
    """What is counted during a rollout. `least`: the lowest ready capacity, seen at `least_ms` when the floor was `floor`; -1: none yet.
    `below`: it is below the floor now. `gap_ms`: the longest gap. `answers`, `totals`: by version, since the rollout began and since
    the engine started. `ended_ms`: of the rollout."""

    rollout: str = ""
    least: int = -1
    least_ms: int = 0
    floor: int = 0
    below: bool = False
    granted: int = 0
    returned: int = 0
    gap_ms: int = 0
    gaps: int = 0
    answers: Mapping[str, int] = field(default_factory=dict[str, int])
    totals: Mapping[str, int] = field(default_factory=dict[str, int])
    ended_ms: int = 0


class Recorder:
    def __init__(self, state: State, children: Children, root: Root | None) -> None:
        self.records = Records(state)
        self._state = state
        self._root = root
        self._witness = Witness(state, children, self.records)
        self._tallies: dict[str, Tally] = {}
        self._seen: dict[str, Seen] = {}  # service with a rollout in progress -> what was seen last
        self._touched: dict[str, None] = {}

    # ------------------------------------------------------------------ start

    def load(self, name: str, value: object) -> None:
        self.records.load(name, value)

    def load_tally(self, service: str, value: object) -> None:
        try:
            self._tallies[service] = msgspec.convert(value, Tally)
        except msgspec.ValidationError:
            self._state.persist(f"{TALLY}/{service}", None)

    def start(self) -> None:
        if self._root is None:
            return
        self.records.start()
        for target in self._state.targets.all():
            self._touched[target.service] = None

    # ------------------------------------------------------------------ what the owner decides

    def order(self, service: str, verb: str, by: str) -> None:
        chain = self._chain_of(service)
        if chain is not None and verb != "start":
            self.records.append(chain, "order", {"verb": verb, "by": by}, always=True)

    def slot(self, service: str, node: str, what: str, **fields: object) -> None:
        """`what`: "granted" or "returned"."""
        chain, tally = self._chain_of(service), self._tallies.get(service)
        if chain is not None and tally is not None:
            self.records.append(chain, f"slot-{what}", {"node": node, **fields})
            more = {"granted": tally.granted + (what == "granted"), "returned": tally.returned + (what == "returned")}
            self._count(service, replace(tally, **more))

    def analysed(self, service: str, step: int, found: Verdict, analysis: AnalysisState) -> None:
        chain = self._chain_of(service)
        if chain is not None:
            fields: dict[str, object] = {
                "step": step,
                "result": found.result,
                "metric": found.metric,
                "text": found.text,
            }
            fields |= {"requests": found.requests, "requests_old": int(analysis.evidence.step_old_requests)}
            fields |= {"refused": found.refused[1], "refused_old": found.refused[0], "metrics": dict(found.numbers)}
            self.records.append(chain, "analysis", fields, always=True)

    def step(self, service: str, text: str) -> None:
        chain = self._chain_of(service)
        if chain is not None:
            self.records.append(chain, "step", {"text": text}, always=True)

    def put(self, target: Target) -> None:
        """The owner has decided the next state: each is recorded, also if several follow in one batch."""
        self._states(target)

    def capacity(self, service: str, rollout: Rollout, ready: int, floor: int) -> None:
        """During a rollout. In the gap of a cut-over nothing serves, which is no loss of capacity: it is in `gap_ms`."""
        chain, tally = self._chain_of(service), self._tallies.get(service)
        seen = self._seen.get(service)
        in_gap = rollout.state == CUTTING_OVER or (seen is not None and (seen.committed or seen.closed_at is not None))
        if chain is None or tally is None or not rollout.baseline or in_gap:
            return
        found = tally
        if tally.least < 0 or ready < tally.least:
            found = replace(found, least=ready, least_ms=self._wall_ms, floor=floor)
        if (ready < floor) != found.below:
            what = "below-floor" if ready < floor else "above-floor"
            self.records.append(chain, what, {"ready": ready, "floor": floor, "baseline": rollout.baseline})
            found = replace(found, below=ready < floor)
        self._count(service, found)

    # ------------------------------------------------------------------ what the engine counts

    def counted(self) -> list[str]:
        """Services whose answers are to be counted now."""
        return [service for service, tally in self._tallies.items() if tally.rollout]

    def on_answers(self, service: str, totals: Mapping[str, int]) -> None:
        """`totals`: by version, since the engine started. They do not fall while it runs."""
        tally = self._tallies.get(service)
        if tally is None:
            return
        known = tally.totals or totals  # what was counted before the rollout is no part of it
        answers = dict(tally.answers)
        for version, total in totals.items():
            more = total - known.get(version, 0)
            if more > 0:
                answers[version] = answers.get(version, 0) + more
        self._count(service, replace(tally, answers=answers, totals=dict(totals) or tally.totals))
        self._touched[service] = None
        chain = self.records.get(service, tally.rollout)
        whole = chain is None or chain.ended  # else its gap goes on
        if whole and tally.ended_ms and self._wall_ms >= tally.ended_ms + COUNTED_S * 1000:
            self._finish(service, replace(tally, answers=answers))

    def _finish(self, service: str, tally: Tally) -> None:
        chain = self.records.get(service, tally.rollout)
        if chain is not None:
            fields = {"entry": self._state.settings.name, "answers": dict(sorted(tally.answers.items()))}
            self.records.append(chain, "answers", fields, always=True)
        self._tallies.pop(service, None)
        self._state.persist(f"{TALLY}/{service}", None)

    # ------------------------------------------------------------------ what changes

    def touch(self, service: str) -> None:
        self._touched[service] = None

    def settle(self) -> None:
        """After each batch of events, before its effects are carried out."""
        if self._root is None:
            self._touched.clear()
            return
        touched, self._touched = self._touched, {}
        changed = [each for each in self._state.changed_services if each in self._seen and each not in touched]
        for service in (*touched, *changed):
            target = self._state.targets.get(service)
            if target is None or target.rollout is None:
                continue
            if service in touched:  # else its target is as it was
                self._states(target)
            self._look(target.rollout, service)

    def _states(self, target: Target) -> None:
        for rollout in reversed(past(target)):
            chain = self.records.get(target.service, rollout.id)
            if rollout is target.rollout or (chain is not None and not chain.ended):
                self._state_of(target, rollout, chain)

    def _state_of(self, target: Target, rollout: Rollout, chain: Chain | None) -> None:
        """Records a state of the rollout that is new."""
        if chain is None:
            if rollout.ended:
                return  # from before this root had a record
            chain = self._begin(target, rollout)
        last = chain.last("state", "started", "followed")
        if chain.ended or (last.get("state"), last.get("term")) == (rollout.state, rollout.term):
            return
        fields: dict[str, object] = {"state": rollout.state, "term": rollout.term, "owner": rollout.owner}
        fields |= {"detail": rollout.detail, "nodes": rollout.nodes, "baseline": rollout.baseline}
        if rollout.share is not None:
            fields["share"] = rollout.share
        self.records.append(chain, "state", fields, always=True)
        tally = self._tallies.get(target.service)
        if rollout.ended and tally is not None and tally.rollout == rollout.id:
            self._count(target.service, replace(tally, ended_ms=self._wall_ms))

    def _begin(self, target: Target, rollout: Rollout) -> Chain:
        service = target.service
        self._close(target)
        chain = self.records.begin(service, rollout.id)
        self._seen.pop(service, None)
        mine = rollout.owner_id == self._state.settings.node_id
        fields: dict[str, object] = {"by": rollout.by, "before": rollout.before, "to": rollout.to}
        fields |= {"incompatible": rollout.incompatible, "undoes": rollout.undoes, "owner": rollout.owner}
        fields |= {"term": rollout.term, "state": rollout.state, "settings": rollout.spec}
        fields |= {"digests": {v: digests_of(target, v) for v in (rollout.before, rollout.to) if v}}
        kind = "started" if mine and rollout.state == PREPARING else "followed"
        self.records.append(chain, kind, fields, always=True)
        self._count(service, Tally(rollout.id))
        return chain

    def _chain_of(self, service: str) -> Chain | None:
        """Of the rollout in progress, as far as this root has begun to record it."""
        tally = self._tallies.get(service)
        chain = self.records.get(service, tally.rollout) if tally is not None else None
        return chain if chain is not None and not chain.ended else None

    def _count(self, service: str, tally: Tally) -> None:
        if tally != self._tallies.get(service):
            self._tallies[service] = tally
            self._state.persist(f"{TALLY}/{service}", msgspec.to_builtins(tally), durable=False)

    @property
    def _wall_ms(self) -> int:
        return ms(self._state.wall_s)

    def _close(self, target: Target) -> None:
        """Ends the record of a rollout that was superseded, or ended a moment ago."""
        service, tally = target.service, self._tallies.get(target.service)
        if tally is None:
            return
        chain = self.records.get(service, tally.rollout)
        rollout = next((each for each in past(target) if each.id == tally.rollout), None)
        if chain is not None and rollout is not None and not chain.ended:
            self._end(rollout, chain, service, Seen())
        self._finish(service, self._tallies[service])

    # ------------------------------------------------------------------ cut-overs

    def _look(self, rollout: Rollout, service: str) -> None:
        chain, root = self.records.get(service, rollout.id), self._root
        tally = self._tallies.get(service)
        if chain is None or chain.ended or root is None or tally is None or tally.rollout != rollout.id:
            return
        seen = self._seen.get(service)
        if seen is None:
            seen = self._seen[service] = self._witness.first(chain)
        gap_ms = self._witness.look(rollout, chain, seen, root.openings.record(service), service)
        if gap_ms is not None:
            self._count(service, replace(tally, gap_ms=max(tally.gap_ms, gap_ms), gaps=tally.gaps + 1))
        if rollout.ended:
            self._end(rollout, chain, service, seen)

    def _end(self, rollout: Rollout, chain: Chain, service: str, seen: Seen) -> None:
        """A rollout can be over a moment before its version serves: its nodes have reported."""
        tally = self._tallies[service]
        if seen.closed_at is not None and self._wall_ms < tally.ended_ms + GAP_S * 1000:
            return
        self._seen.pop(service, None)
        fields: dict[str, object] = {"state": rollout.state, "detail": rollout.detail}
        fields |= {"gaps": tally.gaps, "gap_ms": tally.gap_ms, "took_ms": tally.ended_ms - ms(rollout.started_s)}
        if tally.granted or tally.least >= 0:  # at the owner
            fields |= {"slots_granted": tally.granted, "slots_returned": tally.returned}
            fields |= {"least": tally.least, "least_at_ms": tally.least_ms, "floor": tally.floor}
        self.records.append(chain, ENDED, fields, always=True)
        number, head = chain.head()
        text = f"{service}: the record of {rollout.id} ends with entry {number}, SHA-256 {head}"
        self._state.note("rollout-recorded", text, service=service, rollout=rollout.id)

    # ------------------------------------------------------------------ reads

    def view(self, which: str) -> list[dict[str, Any]]:
        """The records of a rollout by its id, or of the last one of a service."""
        found: list[dict[str, Any]] = []
        for chain in self.records.find(which):
            number, head = chain.head()
            found.append(
                {
                    "root": self._state.settings.name,
                    "service": chain.service,
                    "rollout": chain.rollout,
                    "entries": list(chain.entries),
                    "number": number,
                    "head": head,
                }
            )
        return found


def digests_of(target: Target, version: str) -> dict[str, str]:
    """Of the artifacts of a version, by platform."""
    artifacts: Any = target.releases.get(version, {}).get("artifact", {})
    return {str(platform): str(each.get("sha256", "")) for platform, each in dict(artifacts).items()}
