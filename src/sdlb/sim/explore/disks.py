"""The disk of a node as a frozen value: its durable part, and the part that a power loss removes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Disk:
    """Equal by content. Neither part is ever changed."""

    __slots__ = ("_hash", "_text", "safe", "waiting")

    def __init__(self, safe: Mapping[str, Any], waiting: Mapping[str, Any]) -> None:
        self.safe = safe
        self.waiting = waiting
        self._text = repr((sorted(safe.items()), sorted(waiting.items())))
        self._hash = hash(self._text)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Disk) and self._text == other._text

    def write(self, puts: Mapping[str, Any], durable: bool) -> Disk:
        """Writes. A durable write makes all earlier writes durable too."""
        waiting = {**self.waiting, **puts}
        return Disk(_over(self.safe, waiting), {}) if durable else Disk(self.safe, waiting)

    def flush(self) -> Disk:
        return Disk(_over(self.safe, self.waiting), {}) if self.waiting else self

    def power_cut(self) -> Disk:
        return Disk(self.safe, {}) if self.waiting else self

    def read(self) -> dict[str, Any]:
        return _over(self.safe, self.waiting)


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**below, **above}.items() if value is not None}
