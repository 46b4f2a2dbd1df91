"""Why something waits or is refused: a stable code with fields. The sentence is made where a person reads it (`str`).

A reason travels as its code and its fields (`to_fields`, `reason_of`). A code that this release does not know keeps its
fields and the sentence that the sender made of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar


def _on(hosts: tuple[str, ...]) -> str:
    return f" on {', '.join(hosts)}" if hosts else ""


@dataclass(frozen=True, slots=True)
class Reason:
    """`code` never changes its meaning; `str()` is for people."""

    code: ClassVar[str] = ""
    counts: ClassVar[tuple[str, ...]] = ()
    """Fields that may lag behind: a change in nothing else is sent with the next heartbeat."""

    def __str__(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Nothing(Reason):
    """There is nothing to explain: the claim is active."""


@dataclass(frozen=True, slots=True)
class StillRunning(Reason):
    """An incompatible version is active. `hosts`: some of the nodes that have instances of it."""

    code: ClassVar[str] = "still-running"
    counts: ClassVar[tuple[str, ...]] = ("count", "hosts")
    version: str
    count: int
    hosts: tuple[str, ...] = ()

    def __str__(self) -> str:
        what = "instance" if self.count == 1 else "instances"
        return f"{self.version} still has {self.count} {what}{_on(self.hosts)}"


@dataclass(frozen=True, slots=True)
class Closing(Reason):
    """A recalled version has not confirmed everywhere that it gets no new requests."""

    code: ClassVar[str] = "closing"
    counts: ClassVar[tuple[str, ...]] = ("hosts",)
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
    counts: ClassVar[tuple[str, ...]] = ("hosts",)
    version: str
    hosts: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.version} is silent{_on(self.hosts)} and only presumed to have stopped (on_silence is wait)"


@dataclass(frozen=True, slots=True)
class NewerGeneration(Reason):
    code: ClassVar[str] = "newer-generation"
    generation: int

    def __str__(self) -> str:
        return f"generation {self.generation} has been reported, and no node that serves it has reported yet"


@dataclass(frozen=True, slots=True)
class Contested(Reason):
    code: ClassVar[str] = "contested"
    version: str

    def __str__(self) -> str:
        return f"{self.version} claimed first and is about to become active"


@dataclass(frozen=True, slots=True)
class Incompatible(Reason):
    """Policy or declarations changed: two active versions are no longer compatible, and this one is recalled."""

    code: ClassVar[str] = "incompatible"
    version: str

    def __str__(self) -> str:
        return f"no longer compatible with {self.version}, which is active"


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
        return "no root can be reached, and a node that is cut off opens nothing new"


@dataclass(frozen=True, slots=True)
class Unconfirmed(Reason):
    """The permit is from before a restart of the engine; a parent in touch must confirm it."""

    code: ClassVar[str] = "unconfirmed"

    def __str__(self) -> str:
        return "it was active before this node restarted; waiting until a parent confirms it"


@dataclass(frozen=True, slots=True)
class Replacing(Reason):
    """The instance registered again as something incompatible; its former registration still drains."""

    code: ClassVar[str] = "replacing"
    version: str

    def __str__(self) -> str:
        return f"its former registration as {self.version} is still draining"


@dataclass(frozen=True, slots=True)
class NothingReady(Reason):
    """An active version can take no request. `why`: of an instance, as its node has reported. Made where it is read: it never travels."""

    code: ClassVar[str] = "nothing-ready"
    hosts: tuple[str, ...] = ()
    why: str = ""

    def __str__(self) -> str:
        return f"no instance is ready{_on(self.hosts)}" + (f" ({self.why})" if self.why else "")


@dataclass(frozen=True, slots=True)
class Foreign(Reason):
    """A reason of another release: `code` is an instance attribute here."""

    name: str = ""
    text: str = ""
    values: tuple[tuple[str, str], ...] = ()

    @property
    def code(self) -> str:  # type: ignore[override]
        return self.name

    def __str__(self) -> str:
        return self.text


KINDS: dict[str, type[Reason]] = {
    kind.code: kind
    for kind in (
        StillRunning,
        Closing,
        Settling,
        PresumedStopped,
        NewerGeneration,
        Contested,
        Incompatible,
        RouteConflict,
        Asking,
        NoParent,
        Unconfirmed,
        Replacing,
    )
}
_NOTHING = Nothing()


def to_fields(reason: Reason) -> dict[str, str]:
    """Field -> text; a list of names is joined by spaces (no name contains one)."""
    if isinstance(reason, Foreign):
        return dict(reason.values)
    found: dict[str, str] = {}
    for each in fields(reason):
        value: Any = getattr(reason, each.name)
        found[each.name] = " ".join(value) if isinstance(value, tuple) else str(value)  # pyright: ignore[reportUnknownArgumentType]
    return found


def reason_of(code: str, values: Mapping[str, str], text: str) -> Reason:
    """The reason that `code` and `to_fields` describe; `text` is the sender's sentence, used when they are not enough."""
    if not code:
        return _NOTHING
    kind = KINDS.get(code)
    if kind is None or any(each.name not in values for each in fields(kind)):
        return Foreign(code, text, tuple(sorted(values.items())))
    found: dict[str, Any] = {}
    for each in fields(kind):
        value = values[each.name]
        if each.type == "int":
            if not value.isascii() or not value.isdigit() or len(value) > 16:
                return Foreign(code, text, tuple(sorted(values.items())))
            found[each.name] = int(value)
        elif str(each.type).startswith("tuple"):
            found[each.name] = tuple(value.split())
        else:
            found[each.name] = value
    return kind(**found)


def differ_in_counts(old: Reason, new: Reason) -> bool:
    """Whether the two differ in counts alone, so that the newer may wait for the next heartbeat."""
    if type(old) is not type(new) or not new.counts:
        return False
    return all(getattr(old, f.name) == getattr(new, f.name) for f in fields(new) if f.name not in new.counts)
