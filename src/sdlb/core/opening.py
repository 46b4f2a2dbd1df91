"""The record of a service's opening: which versions wait for which gates, and how far a cut-over is.

One root, the *conductor*, writes it as the document `Doc(OPENING, service)`; every node holds it, so that every root keeps to
it and every node can show it. `conduct.py` has the rules. The phases of a cut-over to an incompatible version:

    "" -> prepare -> closing -> gap -> opening -> "" (in the next generation)
             ^----------+---------+--> reverted

In `closing` and `gap` all incompatible versions are recalled and requests are parked. `opening` cannot be reverted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, cast

from msgspec import Struct, field
from msgspec.structs import replace

from sdlb.model.reason import CuttingOver, Gated, Nothing, NotReady, Reason, Reverted, reason_of, to_fields

OPEN, WAITING, RUNNING, REFUSED, TIMED_OUT = "open", "waiting", "running", "refused", "timed-out"
NONE, PREPARE, CLOSING, GAP, OPENING, REVERTED = "", "prepare", "closing", "gap", "opening", "reverted"
COMMITTED: Final = (CLOSING, GAP, OPENING)
"""Phases in which no incompatible version may serve."""
CANDIDATES_MAX = 32
"""Versions of one service that are evaluated at once: the earliest."""


class GateState(Struct, frozen=True):
    """`since`: wall time in seconds at which the gate began to be evaluated, or opened. `by`: names that approved. `attempts`: calls of
    a hook, including one in progress. `number`: of the attempt at the cut-over in which it was first called. It is part of the
    hook's key, which is the same until the gate is evaluated anew, also when another root takes over."""

    state: str = WAITING
    since: float = 0.0
    reason: str = ""
    by: tuple[str, ...] = ()
    attempts: int = 0
    number: int = 0

    @property
    def failed(self) -> bool:
        return self.state in (REFUSED, TIMED_OUT)


class Candidate(Struct, frozen=True):
    """A version that waits. `reason`: why it may not open; `Nothing`: it may. `baseline`: the greatest capacity of the versions
    that it replaces, as seen since it waits. `promoted`, `no_gates`: see the event `Promote`.

    `replaces`: versions of the generation that it replaces. `opened`: wall time at which it opened and its `after` gates began;
    0: it waits. `failed`: it serves although one of these gates failed.
    """

    since: float = 0.0
    gates: Mapping[str, GateState] = field(default_factory=dict[str, GateState])
    baseline: int = 0
    replaces: tuple[str, ...] = ()
    opened: float = 0.0
    promoted: str = ""
    no_gates: str = ""
    failed: bool = False
    reason: Reason = NotReady("its gates are being evaluated")

    @property
    def clear(self) -> bool:
        return isinstance(self.reason, Nothing)

    def with_gate(self, name: str, state: GateState) -> Candidate:
        return replace(self, gates={**self.gates, name: state})


class OpeningRecord(Struct, frozen=True):
    """`conductor_id`, `conductor`: id and name of the root that writes it. `generation`: of the service when it was begun; it is
    void once the service has a newer one. `number`: part of the ticket, so that an acknowledgement of an earlier attempt or
    conductor does not count. `attempt`: counts attempts at a cut-over; it stays when another root takes over.

    `to`: the version of the cut-over. `closes`: the versions that a flip drains. `since`: wall time of the phase. `parked_since`:
    wall time at which a flip began to park requests. `tried`: a hook with `back = false` is called.
    """

    conductor_id: str = ""
    conductor: str = ""
    generation: int = 0
    number: int = 0
    attempt: int = 0
    phase: str = NONE
    to: str = ""
    closes: tuple[str, ...] = ()
    since: float = 0.0
    parked_since: float = 0.0
    detail: str = ""
    tried: bool = False
    candidates: Mapping[str, Candidate] = field(default_factory=dict[str, Candidate])

    @property
    def ticket(self) -> str:
        """What other roots send back to show that they follow this attempt."""
        return f"{self.conductor_id}.{self.number}"

    @property
    def committed(self) -> bool:
        return self.phase in COMMITTED

    def with_candidate(self, version: str, candidate: Candidate) -> OpeningRecord:
        return replace(self, candidates={**self.candidates, version: candidate})


def differ_in_texts(one: OpeningRecord, other: OpeningRecord) -> bool:
    """Whether two records differ at most in texts for people and in `baseline`, so that the newer one is not urgent."""
    return _bare(one) == _bare(other)


def _bare(record: OpeningRecord) -> OpeningRecord:
    candidates = {
        version: replace(
            each,
            baseline=0,
            reason=_without_text(each.reason),
            gates={name: replace(gate, reason="") for name, gate in each.gates.items()},
        )
        for version, each in record.candidates.items()
    }
    return replace(record, detail="", candidates=candidates)


def _without_text(reason: Reason) -> Reason:
    return replace(reason, text="") if isinstance(reason, Gated | CuttingOver | NotReady | Reverted) else reason


# ---------------------------------------------------------------------- the document


def to_body(record: OpeningRecord) -> bytes:
    data: dict[str, object] = {
        "conductor_id": record.conductor_id,
        "conductor": record.conductor,
        "generation": record.generation,
        "number": record.number,
        "attempt": record.attempt,
        "phase": record.phase,
        "to": record.to,
        "closes": list(record.closes),
        "since": record.since,
        "parked_since": record.parked_since,
        "detail": record.detail,
        "tried": record.tried,
        "versions": {version: _candidate_to(each) for version, each in sorted(record.candidates.items())},
    }
    return json.dumps(data, separators=(",", ":")).encode()


def _candidate_to(candidate: Candidate) -> dict[str, object]:
    gates = {
        name: {
            "state": gate.state,
            "since": gate.since,
            "reason": gate.reason,
            "by": list(gate.by),
            "attempts": gate.attempts,
            "number": gate.number,
        }
        for name, gate in sorted(candidate.gates.items())
    }
    return {
        "since": candidate.since,
        "gates": gates,
        "baseline": candidate.baseline,
        "replaces": list(candidate.replaces),
        "opened": candidate.opened,
        "promoted": candidate.promoted,
        "no_gates": candidate.no_gates,
        "failed": candidate.failed,
        "reason": {
            "code": candidate.reason.code,
            "fields": to_fields(candidate.reason),
            "text": str(candidate.reason),
        },
    }


def from_body(body: bytes) -> OpeningRecord | None:
    """None: it cannot be read, because it comes from another release or a faulty node."""
    try:
        data = json.loads(body)
        return OpeningRecord(
            conductor_id=str(data["conductor_id"]),
            conductor=str(data["conductor"]),
            generation=int(data["generation"]),
            number=int(data["number"]),
            attempt=int(data["attempt"]),
            phase=str(data["phase"]),
            to=str(data["to"]),
            closes=tuple(str(version) for version in data["closes"]),
            since=float(data["since"]),
            parked_since=float(data["parked_since"]),
            detail=str(data["detail"]),
            tried=bool(data["tried"]),
            candidates={str(v): _candidate_from(each) for v, each in dict(data["versions"]).items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _candidate_from(data: Any) -> Candidate:
    gates = cast("dict[str, Any]", dict(data["gates"]))
    return Candidate(
        since=float(data["since"]),
        gates={name: _gate_from(each) for name, each in gates.items()},
        baseline=int(data["baseline"]),
        replaces=tuple(str(version) for version in data["replaces"]),
        opened=float(data["opened"]),
        promoted=str(data["promoted"]),
        no_gates=str(data["no_gates"]),
        failed=bool(data["failed"]),
        reason=_reason_from(data["reason"]),
    )


def _reason_from(data: Any) -> Reason:
    fields = {str(name): str(value) for name, value in dict(data["fields"]).items()}
    return reason_of(str(data["code"]), fields, str(data["text"]))


def _gate_from(data: Any) -> GateState:
    return GateState(
        state=str(data["state"]),
        since=float(data["since"]),
        reason=str(data["reason"]),
        by=tuple(str(name) for name in data["by"]),
        attempts=int(data["attempts"]),
        number=int(data["number"]),
    )
