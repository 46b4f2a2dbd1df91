"""What a node's decisions need to know of its configuration."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """`parents` are addresses as configured; a node without any is a root.

    A child is *suspect* `lease_s` after it was last heard and presumed stopped `fence_s` after that.
    """

    name: str
    node_id: str
    incarnation: int
    parents: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    beat_s: float = 2.0
    lease_s: float = 10.0
    fence_s: float = 10.0

    @property
    def is_root(self) -> bool:
        return not self.parents
