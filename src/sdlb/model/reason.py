"""Why something waits or is refused: a stable code and one sentence, the same in command line, API and log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


def _on(hosts: tuple[str, ...]) -> str:
    return f" on {', '.join(hosts)}" if hosts else ""


@dataclass(frozen=True, slots=True)
class Reason:
    """`code` never changes its meaning; `str()` is for people."""

    code: ClassVar[str] = ""


@dataclass(frozen=True, slots=True)
class StillRunning(Reason):
    """An incompatible version is active. `hosts`: some of the nodes that have instances of it."""

    code: ClassVar[str] = "still-running"
    version: str
    count: int
    hosts: tuple[str, ...] = ()

    def __str__(self) -> str:
        what = "instance" if self.count == 1 else "instances"
        return f"{self.version} still has {self.count} {what}{_on(self.hosts)}"


@dataclass(frozen=True, slots=True)
class Closing(Reason):
    """What was recalled has not confirmed everywhere that it gets nothing new."""

    code: ClassVar[str] = "closing"
    name: str
    hosts: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} is being closed{_on(self.hosts)}"


@dataclass(frozen=True, slots=True)
class Settling(Reason):
    """This root has just started and has not heard from all the children that had an active version."""

    code: ClassVar[str] = "settling"
    version: str

    def __str__(self) -> str:
        return f"{self.version} was active before this root restarted, and not all nodes that had it have reported yet"


@dataclass(frozen=True, slots=True)
class PresumedStopped(Reason):
    """The policy is `on_silence = "wait"` and the nodes that had an incompatible version are silent."""

    code: ClassVar[str] = "presumed-stopped"
    version: str
    hosts: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.version} is silent{_on(self.hosts)} and only presumed to have stopped (on_silence is wait)"


@dataclass(frozen=True, slots=True)
class NewerGeneration(Reason):
    code: ClassVar[str] = "newer-generation"
    generation: int

    def __str__(self) -> str:
        return f"generation {self.generation} has been heard of, and whoever holds it has not reported yet"


@dataclass(frozen=True, slots=True)
class Contested(Reason):
    code: ClassVar[str] = "contested"
    version: str

    def __str__(self) -> str:
        return f"{self.version} claimed first and is about to become active"


@dataclass(frozen=True, slots=True)
class RouteConflict(Reason):
    code: ClassVar[str] = "route-conflict"
    route: str
    holder: str
    decided_by: str

    def __str__(self) -> str:
        return f"{self.route} is held by {self.holder} (decided by {self.decided_by})"


@dataclass(frozen=True, slots=True)
class Asking(Reason):
    code: ClassVar[str] = "asking"
    parents: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"no answer yet from {', '.join(self.parents) or 'the parents'}"


@dataclass(frozen=True, slots=True)
class NoParent(Reason):
    """A node that is cut off from its authority opens nothing new."""

    code: ClassVar[str] = "no-parent"

    def __str__(self) -> str:
        return "no parent can be reached, and a node that is cut off opens nothing new"
