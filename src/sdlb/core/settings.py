"""The part of a node's configuration that its decisions depend on."""

from __future__ import annotations

from msgspec import Struct

from sdlb.model.calendar import Calendar, utc
from sdlb.model.role import RoleService

BACKOFF_S_MAX = 5.0
"""The longest time between two dials of a child."""


class Settings(Struct, frozen=True):
    """`parents`: addresses as configured; a node without parents is a root. `nonce`: random for each start of control.

    A child is *suspect* when its last message is `lease_s` old. It is presumed stopped after a further `fence_s`, or after
    the longest lease below it if that is longer. While more than `guard_share` of the children are suspect, the node is
    *guarded* and presumes no child stopped. `calendar`: local time, for gates. `roles`: services that
    this node starts and stops itself.
    """

    name: str
    node_id: str
    incarnation: int
    parents: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    beat_s: float = 2.0
    lease_s: float = 10.0
    fence_s: float = 10.0
    nonce: str = ""
    guard_share: float = 0.5
    calendar: Calendar = utc
    roles: tuple[RoleService, ...] = ()

    @property
    def is_root(self) -> bool:
        return not self.parents

    @property
    def zone(self) -> str | None:
        return dict(self.labels).get("zone")

    @property
    def keep_s(self) -> float:
        """Time for which a node without its state keeps what its engine serves: its children need that long to report. A child
        dials at least every `BACKOFF_S_MAX`, and as much again is left for its first report."""
        return max(self.lease_s, 2 * BACKOFF_S_MAX)

    @property
    def silence_s(self) -> float:
        """Silence after which a child is presumed stopped, unless a claim below it has a longer lease."""
        return self.lease_s + self.fence_s
