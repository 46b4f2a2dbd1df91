"""Evaluates the clients' logs and the steps: the table, and the goals that were missed. Pure.

A request is lost when it has no correct answer. A step excuses some lost requests, depending on its fault (`Goal` in plan.py). A lost
request that no step excuses fails the run. Times are seconds of CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf

from tools.chaos.plan import EDGES, KINDS, Goal, Step

SILENCE_S = 2.0
"""A silent connection on which a request waits is found within this."""
MACHINE_S = 0.3
"""Additional time that a request may wait: for a second path, and on an overloaded machine."""
KILL_S = 0.1
"""The time from a kill until the other side's kernel knows of it."""
ROLLED_OUT = "shop"
"""The service that gets incompatible versions."""
SHOWN_MAX = 20


@dataclass(frozen=True, slots=True)
class Attempt:
    """One line of a client's log. `moved`: the client went on to the other entry. `received`: by the instance."""

    id: str
    entry: str
    service: str
    method: str
    slow_ms: int
    fresh: bool
    sent: float
    done: float
    status: int
    cause: str
    moved: bool = False
    version: str = ""
    instance: str = ""
    received: float = 0.0

    @property
    def repeatable(self) -> bool:
        return self.method == "GET"

    @property
    def in_part(self) -> bool:
        """Whether the answer had begun."""
        return "in the answer" in self.cause

    @property
    def word(self) -> str:
        """The cause in one word, for the table: `refused`, `cut`, `late`, `wrong` or a status."""
        return self.cause.partition(":")[0].partition(" ")[0]

    @property
    def waited_s(self) -> float:
        """The time that it waited for something other than the instance."""
        return self.done - self.sent - self.slow_ms / 1000


@dataclass(frozen=True, slots=True)
class Received:
    """One request that an instance received, and on which host."""

    method: str
    id: str
    host: str


@dataclass(slots=True)
class Done:
    """A step that was done. A time of 0: the step did not get that far; `late` has the reason."""

    step: Step
    began: float
    struck_from: float = 0.0
    struck_to: float = 0.0
    """The fault happened between these moments: a kill takes a little time."""
    over: float = 0.0
    converged: float = 0.0
    late: str = ""
    frames: int = 0
    """Frames that a fault between two machines lost or delayed."""

    def excuses(self, attempt: Attempt, host: str) -> bool:
        """Whether the step excuses a lost request. `host`: where an instance received it; "": nowhere."""
        goal = self.step.goal
        if (
            self.step.kind == "stop" and self.step.tier == "edge"
        ):  # planned: nothing was sent, the clients use the other entry
            return attempt.entry in self.step.targets and attempt.word == "refused" and self._during(attempt)
        if goal is Goal.ENTRY:
            return attempt.entry in self.step.targets and attempt.word in ("refused", "cut") and self._during(attempt)
        if goal is Goal.NOTHING or (attempt.repeatable and not attempt.in_part) or attempt.word == "refused":
            return False
        if host and self.step.host and host != self.step.host:
            return False  # it was in flight elsewhere
        found_s = SILENCE_S if goal is Goal.SILENCE else KILL_S
        return attempt.sent <= self.struck_to + found_s and attempt.done >= self.struck_from

    def _during(self, attempt: Attempt) -> bool:
        return attempt.done >= self.struck_from and (not self.converged or attempt.sent <= self.converged)


@dataclass(slots=True)
class Row:
    """The totals of all steps with one name."""

    name: str
    times: int = 0
    sent: int = 0
    lost: Counter[str] = field(default_factory=Counter[str])
    """Lost requests by cause, including the excused ones."""
    unexcused: int = 0
    moved: int = 0
    outage_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(EDGES, 0.0))
    waited_s: float = 0.0
    """The longest wait of a GET that was answered."""
    converge_s: float = 0.0
    old: int = 0

    def document(self) -> dict[str, object]:
        names = ("name", "times", "sent", "unexcused", "moved", "outage_s", "waited_s", "converge_s", "old")
        return {**{name: getattr(self, name) for name in names}, "lost": dict(self.lost)}


@dataclass(slots=True)
class Report:
    rows: list[Row]
    broken: list[str]

    @property
    def held(self) -> bool:
        return not self.broken


def report(steps: Sequence[Done], attempts: Iterable[Attempt], received: Iterable[Received]) -> Report:
    return _Evaluation(steps, sorted(attempts, key=lambda attempt: attempt.sent), received).report()


def line(version: str) -> tuple[int, ...]:
    """The part that compatible versions have in common: all components but the last."""
    return tuple(int(part) for part in version.split("."))[:-1]


def old_after_new(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Answers of a version to requests that were sent after a newer, incompatible version had answered; in the order sent."""
    first: dict[str, dict[tuple[int, ...], float]] = defaultdict(dict)
    good = [attempt for attempt in attempts if attempt.version]
    for attempt in good:
        lines, mine = first[attempt.service], line(attempt.version)
        lines[mine] = min(attempt.done, lines.get(mine, attempt.done))
    replaced: dict[tuple[str, tuple[int, ...]], float] = {}
    for service, lines in first.items():
        moment = inf
        for mine in sorted(lines, reverse=True):
            replaced[service, mine] = moment
            moment = min(moment, lines[mine])
    return [attempt for attempt in good if replaced[attempt.service, line(attempt.version)] < attempt.sent]


def longest_gap(moments: Sequence[float], begin: float, end: float) -> float:
    """The longest time between two successive moments (sorted) within the interval; its ends count as moments."""
    inside = [begin, *moments[bisect_right(moments, begin) : bisect_left(moments, end)], end]
    return max(later - earlier for earlier, later in pairwise(inside))


class _Evaluation:
    def __init__(self, steps: Sequence[Done], attempts: Sequence[Attempt], received: Iterable[Received]) -> None:
        self._steps, self._attempts = steps, attempts
        self._received = list(received)
        self._hosts = {each.id: each.host for each in self._received}
        self._begins = [done.began for done in steps]
        self._rows: dict[str, Row] = {}
        self._unexcused: dict[int, list[Attempt]] = defaultdict(list)
        self._broken: list[str] = []

    def report(self) -> Report:
        for place, done in enumerate(self._steps):
            row = self._row(place)
            row.times += 1
            if done.late:
                self._broken.append(f"{_named(done)}: {done.late}")
            else:
                row.converge_s = max(row.converge_s, done.converged - done.over)
            if not done.late and KINDS[done.step.kind].frames and not done.frames:
                self._broken.append(f"{_named(done)}: no frame was lost or delayed: the fault has shown nothing")
        for attempt in self._attempts:
            self._count(attempt)
        self._outages()
        for place, lost in sorted(self._unexcused.items()):
            self._break(place, "lost", lost)
        self._old()
        self._silence()
        self._twice()
        return Report(list(self._rows.values()), self._broken)

    def _row(self, place: int) -> Row:
        name = self._steps[place].step.name
        return self._rows.setdefault(name, Row(name))

    def _place(self, moment: float) -> int:
        return max(0, bisect_right(self._begins, moment) - 1)

    def _break(self, place: int, what: str, attempts: Sequence[Attempt]) -> None:
        done = self._steps[place]
        shown = [_shown(attempt, done.began) for attempt in attempts[:SHOWN_MAX]]
        more = [f"  and {len(attempts) - SHOWN_MAX} more"] if len(attempts) > SHOWN_MAX else []
        self._broken.append("\n".join([f"{_named(done)}: {len(attempts)} {what}", *shown, *more]))

    def _count(self, attempt: Attempt) -> None:
        place = self._place(attempt.sent)
        row = self._row(place)
        row.sent += 1
        if not attempt.cause:
            if attempt.repeatable:  # the event that ended its wait belongs to the later step
                row = self._row(self._place(attempt.done))
                row.waited_s = max(row.waited_s, attempt.waited_s)
            return
        host = self._hosts.get(attempt.id, "")
        while not self._steps[place].excuses(attempt, host) and place + 1 < len(self._steps):
            if self._steps[place + 1].began > attempt.done:
                break
            place += 1
        excused = self._steps[place].excuses(attempt, host)
        place = place if excused else self._place(attempt.sent)
        if excused and attempt.moved and self._steps[place].step.tier == "edge":
            self._row(place).moved += 1
            return
        self._row(place).lost[attempt.word] += 1
        if not excused:
            self._row(place).unexcused += 1
            self._unexcused[place].append(attempt)

    def _outages(self) -> None:
        """Finds the longest outage of each entry over all services."""
        answered: dict[tuple[str, str], list[float]] = defaultdict(list)
        for attempt in self._attempts:
            if not attempt.cause:
                answered[attempt.entry, attempt.service].append(attempt.done)
        for moments in answered.values():
            moments.sort()
        for place, done in enumerate(self._steps):
            end = self._begins[place + 1] if place + 1 < len(self._steps) else done.converged or done.began
            outage_s = self._row(place).outage_s
            for (entry, _), moments in answered.items():
                outage_s[entry] = max(outage_s[entry], longest_gap(moments, done.began, max(end, done.began)))

    def _old(self) -> None:
        by_place: dict[int, list[Attempt]] = defaultdict(list)
        for attempt in old_after_new(self._attempts):
            by_place[self._place(attempt.sent)].append(attempt)
        for place, old in sorted(by_place.items()):
            self._row(place).old += len(old)
            self._break(place, "answered by an old version after a new one", old)

    def _silence(self) -> None:
        """Finds requests that waited until a silence ended. During a rollout, requests of its service wait for the rollout."""
        limit_s = SILENCE_S + MACHINE_S
        answered = [attempt for attempt in self._attempts if attempt.repeatable and not attempt.cause]
        waited = [attempt for attempt in answered if attempt.waited_s > limit_s]
        for place, done in enumerate(self._steps):
            if done.step.goal is Goal.SILENCE:
                long = [
                    attempt
                    for attempt in waited
                    if attempt.done >= done.struck_from
                    and attempt.sent <= (done.over or attempt.sent)
                    and not (done.step.rollout and attempt.service == ROLLED_OUT)
                ]
                if long:
                    self._break(place, f"waited for over {limit_s:g} s in a silence", long)

    def _twice(self) -> None:
        seen = Counter(each.id for each in self._received if each.method == "POST")
        by_id = {attempt.id: attempt for attempt in self._attempts}
        twice = [by_id[id] for id, times in seen.items() if times > 1 and id in by_id]
        by_place: dict[int, list[Attempt]] = defaultdict(list)
        for attempt in twice:
            by_place[self._place(attempt.sent)].append(attempt)
        for place, attempts in sorted(by_place.items()):
            self._break(place, "POST received twice", attempts)


def _named(done: Done) -> str:
    return f"step {done.step.number} ({done.step})"


def _shown(attempt: Attempt, began: float) -> str:
    what = attempt.cause or f"{attempt.service}-{attempt.version} on {attempt.instance}"
    kind = f"{attempt.method} {attempt.service}" + (f", {attempt.slow_ms} ms" if attempt.slow_ms else "")
    kept = "fresh" if attempt.fresh else "kept-alive"
    times = f"{attempt.sent - began:.3f} to {attempt.done - began:.3f} s"
    return f"  {attempt.entry} {attempt.id} {kind}, {kept}, {times} from its start: {what}"


# ------------------------------------------------------------------ the table

HEAD = ("fault", "steps", "sent", "lost", "moved", "outage s", "longest wait s", "converged s", "old after new")


def table(rows: Sequence[Row]) -> str:
    """The table in Markdown. Times are maxima, not means."""
    lines = [HEAD, *(_cells(row) for row in sorted(rows, key=lambda row: row.name)), _sum(rows)]
    widths = [max(len(cells[column]) for cells in lines) for column in range(len(HEAD))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
        for cells in lines
    ]
    text.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(text)


def _cells(row: Row) -> tuple[str, ...]:
    lost = ", ".join(f"{count} {word}" for word, count in sorted(row.lost.items())) or "0"
    outage = " / ".join(f"{row.outage_s[edge]:.2f}" for edge in EDGES)
    return (
        row.name,
        str(row.times),
        str(row.sent),
        lost + (f" ({row.unexcused} NOT EXCUSED)" if row.unexcused else ""),
        str(row.moved),
        outage,
        f"{row.waited_s:.2f}",
        f"{row.converge_s:.1f}",
        str(row.old),
    )


def _sum(rows: Sequence[Row]) -> tuple[str, ...]:
    lost = sum((row.lost for row in rows), Counter[str]())
    outages = {edge: max((row.outage_s[edge] for row in rows), default=0.0) for edge in EDGES}
    whole = Row("all", sum(row.times for row in rows), sum(row.sent for row in rows), lost)
    whole.unexcused, whole.moved = sum(row.unexcused for row in rows), sum(row.moved for row in rows)
    whole.outage_s, whole.old = outages, sum(row.old for row in rows)
    whole.waited_s = max((row.waited_s for row in rows), default=0.0)
    whole.converge_s = max((row.converge_s for row in rows), default=0.0)
    return _cells(whole)
