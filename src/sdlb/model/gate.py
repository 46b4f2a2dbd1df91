"""Gates: conditions that must hold before a version turns active. The field names are the keys of the JSON document.

A *level* gate (`MinReady`, `Soak`, `Window`, `DependsOn`) is evaluated until the version opens. A *latched* gate (`Approval`,
`Hook`) stays open once it has opened.
"""

from __future__ import annotations

import re
from typing import ClassVar

from msgspec import Struct

from sdlb.model.policy_reader import Reader
from sdlb.model.problem import Invalid
from sdlb.model.version import SERVICE, check_service, parse_declaration

GATES_MAX = 16
AT = ("before", "gap", "after")
FOR = ("incompatible", "every")
ON_TIMEOUT = ("hold", "abort")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_S = 86400
HOOK_TIMEOUT_S = 300.0
_CLOCK = re.compile(r"^(?=24:00|[01][0-9]|2[0-3])([0-9]{2}):([0-5][0-9])\Z")
_COMMON = ("name", "kind", "at", "for", "timeout_s", "on_timeout")


class Gate(Struct, frozen=True):
    """`at`: "before" (the old version serves), "gap" (the old version is out, requests are parked) or "after" (the new version
    serves; a failure returns to the old one). `applies`: "incompatible"
    (only for versions that replace an incompatible one) or "every". `timeout_s` 0: none. `on_timeout`: "hold" keeps the
    version waiting; "abort" also reverts a cut-over or rollout in progress.
    """

    kind: ClassVar[str] = ""
    latched: ClassVar[bool] = False
    name: str
    at: str = "before"
    applies: str = "incompatible"
    timeout_s: float = 0.0
    on_timeout: str = "hold"

    def to_data(self) -> dict[str, object]:
        return {
            "name": self.name,
            "kind": self.kind,
            "at": self.at,
            "for": self.applies,
            "timeout_s": self.timeout_s,
            "on_timeout": self.on_timeout,
            **self.settings(),
        }

    def settings(self) -> dict[str, object]:
        """The keys of this kind."""
        return {}


class MinReady(Gate, frozen=True):
    """`instances` are healthy, and `percent` of the capacity of the versions that it replaces. 0: not required."""

    kind: ClassVar[str] = "min_ready"
    instances: int = 0
    percent: float = 0.0

    def settings(self) -> dict[str, object]:
        return {"instances": self.instances, "percent": self.percent}


class Soak(Gate, frozen=True):
    """All instances of the version have been healthy for `healthy_s`."""

    kind: ClassVar[str] = "soak"
    healthy_s: float = 0.0

    def settings(self) -> dict[str, object]:
        return {"healthy_s": self.healthy_s}


class Window(Gate, frozen=True):
    """The local time of `zone` is in the window. `days`: numbers, 0 is Monday. `start_s`, `end_s`: seconds after midnight. A
    window that ends before it starts goes past midnight and belongs to the day on which it starts."""

    kind: ClassVar[str] = "window"
    days: tuple[int, ...] = tuple(range(7))
    start_s: int = 0
    end_s: int = DAY_S
    zone: str = "UTC"

    def settings(self) -> dict[str, object]:
        hours = f"{_clock(self.start_s)}-{_clock(self.end_s)}"
        return {"days": [DAYS[day] for day in self.days], "hours": hours, "zone": self.zone}

    def holds(self, weekday: int, second: float) -> bool:
        if self.start_s < self.end_s:
            return weekday in self.days and self.start_s <= second < self.end_s
        late = weekday in self.days and second >= self.start_s
        return late or ((weekday - 1) % 7 in self.days and second < self.end_s)


class DependsOn(Gate, frozen=True):
    """A version of `service` that matches `version` is active."""

    kind: ClassVar[str] = "depends_on"
    service: str = ""
    version: str = ""

    def settings(self) -> dict[str, object]:
        return {"service": self.service, "version": self.version}


class Approval(Gate, frozen=True):
    """`count` of the people or pipelines in `by` have approved."""

    kind: ClassVar[str] = "approval"
    latched: ClassVar[bool] = True
    by: tuple[str, ...] = ()
    count: int = 1

    def settings(self) -> dict[str, object]:
        return {"by": list(self.by), "count": self.count}


class Hook(Gate, frozen=True):
    """`url` answers 2xx, or the program that the root's node file names `run` exits with 0.

    `back` False: after the first attempt the old version must not serve again.
    """

    kind: ClassVar[str] = "hook"
    latched: ClassVar[bool] = True
    run: str = ""
    url: str = ""
    back: bool = True

    def settings(self) -> dict[str, object]:
        target: dict[str, object] = {"run": self.run} if self.run else {"url": self.url}
        return {**target, "back": self.back}


# ---------------------------------------------------------------------- reading

_KEYS = {
    "min_ready": ("instances", "percent"),
    "soak": ("healthy_s",),
    "window": ("days", "hours", "zone"),
    "depends_on": ("service", "version"),
    "approval": ("by", "count"),
    "hook": ("run", "url", "back"),
}
KINDS = tuple(_KEYS)


def read_gates(top: Reader) -> tuple[Gate, ...]:
    """The gates in the list `gate`. Raises Invalid, which names the gate and the key."""
    gates = tuple(map(_gate, top.objects("gate", GATES_MAX)))
    names = [gate.name for gate in gates]
    for name in names:
        if names.count(name) > 1:
            raise Invalid("bad-policy", top.path("gate"), f"has two gates named {name}", "give each its own name")
    return gates


def _gate(item: Reader) -> Gate:
    kind = item.one_of("kind", KINDS, "")
    item.only((*_COMMON, *_KEYS[kind]))
    do = "name the gate, with 1 to 64 letters, digits, dots, hyphens and underscores"
    name = item.text("name", do, 64)
    if not SERVICE.match(name):
        raise item.fail("name", do)
    common: dict[str, object] = {
        "name": name,
        "at": item.one_of("at", AT, "before"),
        "applies": item.one_of("for", FOR, "incompatible"),
        "timeout_s": item.number("timeout_s", HOOK_TIMEOUT_S if kind == "hook" else 0.0, 0, 31_536_000),
        "on_timeout": item.one_of("on_timeout", ON_TIMEOUT, "hold"),
    }
    return _READERS[kind](item, common)


def _min_ready(item: Reader, common: dict[str, object]) -> Gate:
    instances, percent = item.count("instances", 0, 1_000_000), item.number("percent", 0.0, 0, 1000)
    if not instances and not percent:
        raise item.fail("instances", "set instances, percent or both to more than 0")
    return MinReady(**common, instances=instances, percent=percent)  # type: ignore[arg-type]


def _soak(item: Reader, common: dict[str, object]) -> Gate:
    return Soak(**common, healthy_s=item.number("healthy_s", 30.0, 0, 31_536_000))  # type: ignore[arg-type]


def _window(item: Reader, common: dict[str, object]) -> Gate:
    days = item.strings("days", 7, list(DAYS), 'use a list of days, for example ["mon", "tue"]')
    if not days or any(day not in DAYS for day in days):
        raise item.fail("days", f"use a list of {', '.join(DAYS)}")
    start, dash, end = item.text("hours", 'use "HH:MM-HH:MM", for example "09:00-16:00"', 11, "00:00-24:00").partition(
        "-"
    )
    times = (_seconds(start), _seconds(end))
    if not dash or times[0] is None or times[1] is None or times[0] == times[1] or times[0] == DAY_S:
        raise item.fail("hours", 'use "HH:MM-HH:MM", for example "09:00-16:00"')
    do = "use the name of a time zone, for example Europe/Berlin"
    zone = item.text("zone", do, 64, "UTC")
    if not zone:
        raise item.fail("zone", do)
    numbers = tuple(sorted({DAYS.index(day) for day in days}))
    return Window(**common, days=numbers, start_s=times[0], end_s=times[1], zone=zone)  # type: ignore[arg-type]


def _depends_on(item: Reader, common: dict[str, object]) -> Gate:
    service = item.text("service", "name the service", 128)
    version = item.text("version", "use a version or a range, for example '>=3.1'", 256)
    try:
        check_service(service)
    except Invalid:
        raise item.fail("service", "name the service") from None
    try:
        parse_declaration(version)
    except Invalid as problem:
        raise item.fail("version", f"use a version or a range: {problem}") from None
    return DependsOn(**common, service=service, version=version)  # type: ignore[arg-type]


def _approval(item: Reader, common: dict[str, object]) -> Gate:
    do = 'list the people and pipelines that may approve, for example ["operator-a", "release-bot"]'
    by = tuple(dict.fromkeys(item.strings("by", 64, [], do)))
    count = item.count("count", 1, 64)
    if not by or not all(by):
        raise item.fail("by", do)
    if not 1 <= count <= len(by):
        raise item.fail("count", f"use a number from 1 to {len(by)}, the number of names in by")
    return Approval(**common, by=by, count=count)  # type: ignore[arg-type]


def _hook(item: Reader, common: dict[str, object]) -> Gate:
    run = item.text("run", "name a hook of the node file", 64, "")
    url = item.text("url", "use an http or https URL", 1024, "")
    if bool(run) == bool(url):
        raise item.fail("run", "set either run, the name of a hook in the node files of the roots, or url")
    if url and not url.startswith(("http://", "https://")):
        raise item.fail("url", "use an http or https URL")
    return Hook(**common, run=run, url=url, back=item.flag("back", True))  # type: ignore[arg-type]


_READERS = {
    "min_ready": _min_ready,
    "soak": _soak,
    "window": _window,
    "depends_on": _depends_on,
    "approval": _approval,
    "hook": _hook,
}


def _clock(second: int) -> str:
    return f"{second // 3600:02}:{second % 3600 // 60:02}"


def _seconds(text: str) -> int | None:
    found = _CLOCK.match(text)
    return None if found is None else int(found[1]) * 3600 + int(found[2]) * 60
