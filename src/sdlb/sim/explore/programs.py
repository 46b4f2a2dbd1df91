"""What the driver of a host runs, as a frozen value: a model of the drivers that are called by agents.

A call is carried out in a step of its own, in the order in which calls were made, and its result is another event for control. So
control may be killed between the two, and then asks what runs. A program is healthy as soon as it is started, and exits only with
its machine. Versions in `bad` are never started: each call fails, and it is the program's fault.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from sdlb.core.effects import RunDriver
from sdlb.core.events import DriverDone

PORTS: Final = {"a": 20_001, "b": 20_002}


class DriverCall(NamedTuple):
    """The effect `RunDriver`, without the release."""

    key: str
    call: str
    place: str
    version: str
    port: int


def call_of(effect: RunDriver) -> DriverCall:
    return DriverCall(effect.key, effect.call, effect.slot, effect.version, effect.port)


class Place(Struct, frozen=True):
    """`status` "stopped": its machine was started again, and nothing runs there."""

    version: str = ""
    status: str = "absent"
    port: int = 0
    pid: int = 0


class Programs(Struct, frozen=True):
    """`starts`: how many programs were started here; process ids are not used twice."""

    a: Place = Place()
    b: Place = Place()
    starts: int = 0

    def at(self, place: str) -> Place:
        return self.a if place == "a" else self.b

    def running(self) -> dict[str, str]:
        """place -> version"""
        return {name: self.at(name).version for name in PORTS if self.at(name).status == "running"}

    def _with(self, name: str, place: Place) -> Programs:
        return replace(self, a=place) if name == "a" else replace(self, b=place)

    def carry_out(self, call: DriverCall, bad: Collection[str]) -> tuple[Programs, DriverDone]:
        name = call.place
        there = self.at(name)
        after = self
        match call.call:
            case "start" if there.status == "running" and there.version != call.version:
                return self, DriverDone(call.key, "us", f"the place has {there.version}; stop it first")
            case "start" if call.version in bad:
                return self, DriverDone(call.key, "program", "exit code 1")
            case "start" if there.status != "running":
                pid = self.starts + 1
                started = Place(call.version, "running", there.port or call.port or PORTS[name], pid)
                after = replace(self._with(name, started), starts=pid)
            case "stop" | "forget":
                after = self._with(name, Place())
            case _:
                pass
        now = after.at(name)
        return after, DriverDone(call.key, "", "", False, (), now.status, now.version, now.pid, now.port)

    def power_cut(self) -> Programs:
        """The machine ends with all that runs on it. What is installed stays."""
        ended = self
        for name in PORTS:
            place = self.at(name)
            if place.status == "running":
                ended = ended._with(name, replace(place, status="stopped", pid=0))
        return ended
