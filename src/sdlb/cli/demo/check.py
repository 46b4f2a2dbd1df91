"""The rules that the load generator checks every response against. Pure: no I/O, no clock.

Three rules, all on one clock (CLOCK_MONOTONIC, shared by the processes of a machine):

1. A version may answer only requests that it received while the story allows it to run. This begins when its first
   instance is started (or, for a version that must wait, when the last instance that it waits for is stopped), and ends
   when its last instance has exited.
2. Two incompatible versions of a service never overlap: the later one receives its first request after the earlier
   one has finished its last response.
3. The right service answers: the one whose route is the most specific, as the story knew it when the request was sent.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

FOR_EVER = 1 << 62
WAITED_MS = 25.0


def line_of(version: str) -> str:
    """What versions must share to be compatible by the default rule: all parts but the last.

    >>> line_of("1.0.2"), line_of("2.5.1")
    ('1.0', '2.5')
    """
    return version.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class Answer:
    """The version that answered a request, and its own timestamps (ns)."""

    service: str
    version: str
    received_ns: int
    finished_ns: int


@dataclass(slots=True)
class _Line:
    first_received_ns: int = FOR_EVER
    last_finished_ns: int = -1


class Rules:
    """The story calls `start`, `end` and `expect`; `wrong` checks an answer."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, str], list[list[int]]] = {}
        self._lines: dict[str, dict[str, _Line]] = {}
        self._order: dict[str, list[str]] = {}
        self._expected: dict[str, frozenset[str]] = {}

    def start(self, service: str, version: str, at_ns: int) -> None:
        """The version may answer from now on. A new line of versions comes after the known ones."""
        windows = self._windows.setdefault((service, version), [])
        if not windows or windows[-1][1] != FOR_EVER:
            windows.append([at_ns, FOR_EVER])
        order = self._order.setdefault(service, [])
        if line_of(version) not in order:
            order.append(line_of(version))

    def end(self, service: str, version: str, at_ns: int) -> None:
        """Its last instance has ended."""
        windows = self._windows.get((service, version))
        if windows and windows[-1][1] == FOR_EVER:
            windows[-1][1] = at_ns

    def expect(self, kind: str, services: frozenset[str]) -> None:
        """Requests of this kind, sent from now on, belong to one of these services."""
        self._expected[kind] = services

    def expected(self, kind: str) -> frozenset[str]:
        return self._expected.get(kind, frozenset())

    def wrong(self, answer: Answer, expected: frozenset[str]) -> str:
        """Why the response is wrong; "" when it is right."""
        name = f"{answer.service}-{answer.version}"
        if answer.service not in expected:
            return f"{name} answered a request for {' or '.join(sorted(expected))}"
        windows = self._windows.get((answer.service, answer.version), [])
        if not any(begin <= answer.received_ns <= end for begin, end in windows):
            return f"{name} was not permitted when it received the request"
        return self._overlap(answer)

    def _overlap(self, answer: Answer) -> str:
        order = self._order[answer.service]
        lines = self._lines.setdefault(answer.service, {name: _Line() for name in order})
        mine = lines.setdefault(line_of(answer.version), _Line())
        mine.first_received_ns = min(mine.first_received_ns, answer.received_ns)
        mine.last_finished_ns = max(mine.last_finished_ns, answer.finished_ns)
        place = order.index(line_of(answer.version))
        for other_place, other in enumerate(order):
            seen = lines.setdefault(other, _Line())
            earlier = other_place < place and answer.received_ns <= seen.last_finished_ns
            later = other_place > place and answer.finished_ns >= seen.first_received_ns
            if earlier or later:
                return f"{answer.service}-{answer.version} and {other}.x were active at the same time"
        return ""


@dataclass(slots=True)
class Tally:
    """The statistics of one phase. A request belongs to the phase in which it was sent."""

    requests: int = 0
    answered: int = 0
    lost: int = 0
    wrong_version: int = 0
    longest_wait_ms: float = 0.0
    waited: int = 0
    """How many waited over `WAITED_MS` for something other than the application."""
    by_version: Counter[str] = field(default_factory=Counter[str])

    def sent(self) -> None:
        self.requests += 1

    def answer(self, name: str, wait_ms: float, *, wrong: bool) -> None:
        self.answered += 1
        self.wrong_version += wrong
        self.by_version[name] += 1
        self._wait(wait_ms)

    def lose(self, wait_ms: float) -> None:
        self.lost += 1
        self._wait(wait_ms)

    def _wait(self, wait_ms: float) -> None:
        self.longest_wait_ms = max(self.longest_wait_ms, wait_ms)
        self.waited += wait_ms > WAITED_MS

    @property
    def open(self) -> int:
        """Sent and not yet answered."""
        return self.requests - self.answered - self.lost

    def to_dict(self) -> dict[str, object]:
        return {
            "requests": self.requests,
            "answered": self.answered,
            "lost": self.lost,
            "wrong_version": self.wrong_version,
            "longest_wait_ms": round(self.longest_wait_ms, 1),
            "waited": self.waited,
            "by_version": dict(sorted(self.by_version.items())),
        }
