"""Reasons why a claim waits or is refused: a stable code with fields. `str(reason)` is the sentence for people.

Nodes send a reason as its code, its fields and its sentence (`to_fields`, `reason_of`). A node that does not know the code
keeps the fields and shows the sentence of the sender. Class and field names are part of the digest by which two nodes
compare verdicts, so a rename makes neighbouring releases send all verdicts again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from msgspec import Struct


def _on(hosts: tuple[str, ...]) -> str:
    return f" on {', '.join(hosts)}" if hosts else ""


class Reason(Struct, frozen=True):
    """`code` never changes its meaning; `str()` is for people."""

    code: ClassVar[str] = ""
    counts: ClassVar[tuple[str, ...]] = ()
    """Fields whose changes are not urgent: a change of these alone is sent with the next heartbeat."""

    def __str__(self) -> str:
        return ""


class Nothing(Reason, frozen=True):
    """No reason: the claim is active."""


class StillRunning(Reason, frozen=True):
    """An incompatible version is active. `hosts`: up to five nodes that have instances of it."""

    code: ClassVar[str] = "still-running"
    counts: ClassVar[tuple[str, ...]] = ("count", "hosts")
    version: str
    count: int
    hosts: tuple[str, ...] = ()

    def __str__(self) -> str:
        what = "instance" if self.count == 1 else "instances"
        return f"{self.version} still has {self.count} {what}{_on(self.hosts)}"


class Closing(Reason, frozen=True):
    """An incompatible version was recalled, and not every node has confirmed yet that it gets no new requests."""

    code: ClassVar[str] = "closing"
    counts: ClassVar[tuple[str, ...]] = ("hosts",)
    name: str
    hosts: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} is closing{_on(self.hosts)}"


class Settling(Reason, frozen=True):
    """This root has restarted and still waits for reports of children that had an active version."""

    code: ClassVar[str] = "settling"
    version: str

    def __str__(self) -> str:
        return f"{self.version} was active before this root restarted, and not all of its nodes have reported yet"


class PresumedStopped(Reason, frozen=True):
    """An incompatible version is silent, and the policy `on_silence = "wait"` does not let this version open."""

    code: ClassVar[str] = "presumed-stopped"
    counts: ClassVar[tuple[str, ...]] = ("hosts",)
    version: str
    hosts: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.version} is silent{_on(self.hosts)} and only presumed to have stopped (on_silence is wait)"


class NewerGeneration(Reason, frozen=True):
    """Children report a generation that is newer than the record of this root."""

    code: ClassVar[str] = "newer-generation"
    generation: int

    def __str__(self) -> str:
        return f"generation {self.generation} has been reported, and no node that serves it has reported yet"


class Contested(Reason, frozen=True):
    """An incompatible version claimed earlier and opens first."""

    code: ClassVar[str] = "contested"
    version: str

    def __str__(self) -> str:
        return f"{self.version} claimed first and is about to become active"


class Incompatible(Reason, frozen=True):
    """Policy or declarations changed: two active versions are no longer compatible, and this one is recalled."""

    code: ClassVar[str] = "incompatible"
    version: str

    def __str__(self) -> str:
        return f"no longer compatible with {self.version}, which is active"


class OnHold(Reason, frozen=True):
    """The policy's `hold` names the version, or every version that was not active in this generation."""

    code: ClassVar[str] = "on-hold"

    def __str__(self) -> str:
        return "it is on hold by policy (hold)"


class PinnedOut(Reason, frozen=True):
    """The policy's `pin` allows other versions only."""

    code: ClassVar[str] = "pinned"
    pin: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"the policy pins the service to {' or '.join(self.pin)} (pin)"


class BelowFloor(Reason, frozen=True):
    """The version sorts below the policy's `never_below`."""

    code: ClassVar[str] = "below-floor"
    floor: str

    def __str__(self) -> str:
        return f"the policy allows no version below {self.floor} (never_below)"


class Gated(Reason, frozen=True):
    """A gate is not open. `gate`: its name."""

    code: ClassVar[str] = "gate"
    gate: str
    text: str

    def __str__(self) -> str:
        return f"gate {self.gate}: {self.text}"


class CuttingOver(Reason, frozen=True):
    """A cut-over to `version` is in progress, and keeps this version waiting. `text`: what it waits for."""

    code: ClassVar[str] = "cutting-over"
    version: str
    text: str

    def __str__(self) -> str:
        return f"cut-over to {self.version}: {self.text}"


class NotReady(Reason, frozen=True):
    """A flip does not begin: too little capacity of the version is ready, or it was active earlier and is not promoted."""

    code: ClassVar[str] = "not-ready"
    text: str

    def __str__(self) -> str:
        return self.text


class Reverted(Reason, frozen=True):
    """A cut-over to this version was reverted; it is tried again when an operator promotes the version."""

    code: ClassVar[str] = "reverted"
    text: str

    def __str__(self) -> str:
        return f"its cut-over was reverted: {self.text}"


class RouteConflict(Reason, frozen=True):
    """Another service holds the route."""

    code: ClassVar[str] = "route-conflict"
    route: str
    holder: str
    decided_by: str

    def __str__(self) -> str:
        return f"{self.route} is held by {self.holder} (decided by {self.decided_by})"


class Asking(Reason, frozen=True):
    """Some parents have not decided yet."""

    code: ClassVar[str] = "asking"
    parents: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"no answer yet from {', '.join(self.parents) or 'the parents'}"


class NoParent(Reason, frozen=True):
    """The node is cut off: it reaches no root, so it opens nothing new."""

    code: ClassVar[str] = "no-parent"

    def __str__(self) -> str:
        return "no root can be reached, and a node that is cut off opens nothing new"


class Unconfirmed(Reason, frozen=True):
    """The permit was given before a restart of the engine. A parent must confirm it."""

    code: ClassVar[str] = "unconfirmed"

    def __str__(self) -> str:
        return "it was active before this node restarted; waiting until a parent confirms it"


class Replacing(Reason, frozen=True):
    """The instance registered again with an incompatible version, and its former registration is still draining."""

    code: ClassVar[str] = "replacing"
    version: str

    def __str__(self) -> str:
        return f"its former registration as {self.version} is still draining"


class NothingReady(Reason, frozen=True):
    """An active version has no ready instance. `why`: the reason of one instance, as its node reported it.

    Built by the node that answers a read; nodes do not send it to each other.
    """

    code: ClassVar[str] = "nothing-ready"
    hosts: tuple[str, ...] = ()
    why: str = ""

    def __str__(self) -> str:
        return f"no instance is ready{_on(self.hosts)}" + (f" ({self.why})" if self.why else "")


class Foreign(Reason, frozen=True):
    """A reason that only another release knows. `code` is an instance attribute here."""

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
        OnHold,
        PinnedOut,
        BelowFloor,
        Gated,
        CuttingOver,
        NotReady,
        Reverted,
        RouteConflict,
        Asking,
        NoParent,
        Unconfirmed,
        Replacing,
    )
}
_NOTHING = Nothing()


def to_fields(reason: Reason) -> dict[str, str]:
    """Field name -> text. A list of names is joined by spaces, because no name contains one."""
    if isinstance(reason, Foreign):
        return dict(reason.values)
    found: dict[str, str] = {}
    for name in reason.__struct_fields__:
        value: Any = getattr(reason, name)
        found[name] = " ".join(value) if isinstance(value, tuple) else str(value)  # pyright: ignore[reportUnknownArgumentType]
    return found


def reason_of(code: str, values: Mapping[str, str], text: str) -> Reason:
    """The inverse of `to_fields`. `text`: the sender's sentence, for a code or fields that this release does not know."""
    if not code:
        return _NOTHING
    kind = KINDS.get(code)
    if kind is None or any(name not in values for name in kind.__struct_fields__):
        return Foreign(code, text, tuple(sorted(values.items())))
    found: dict[str, Any] = {}
    for name in kind.__struct_fields__:
        value, annotation = values[name], str(kind.__annotations__[name])
        if annotation == "int":
            if not value.isascii() or not value.isdigit() or len(value) > 16:
                return Foreign(code, text, tuple(sorted(values.items())))
            found[name] = int(value)
        elif annotation.startswith("tuple"):
            found[name] = tuple(value.split())
        else:
            found[name] = value
    return kind(**found)


def differ_in_counts(old: Reason, new: Reason) -> bool:
    """Whether the two differ only in `counts`, so that the newer one may wait for the next heartbeat."""
    if type(old) is not type(new) or not new.counts:
        return False
    return all(getattr(old, name) == getattr(new, name) for name in new.__struct_fields__ if name not in new.counts)
