"""What a node's decisions need to know of its configuration."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """`parents` are addresses as configured; a node without any is a root. `nonce` is random for each start of control.

    A child is *suspect* `lease_s` after it was last heard and presumed stopped `fence_s` (or the longest lease below it)
    after that. When more than `guard_share` of the children are suspect at once, none is presumed stopped.
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

    @property
    def is_root(self) -> bool:
        return not self.parents

    @property
    def silence_s(self) -> float:
        """After that long a silence, what has no longer lease of its own is presumed to have stopped."""
        return self.lease_s + self.fence_s
