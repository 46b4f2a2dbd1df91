"""The lists of the core's view, entry by entry, so that a long list can be made in slices (`node.reads`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdlb.core.view import View


class Lists(View):
    """Reads the state of the same node as `view`, and changes nothing."""

    def __init__(self, view: View) -> None:
        super().__init__(*view.parts)
        self._head = _Head(view)

    def instance_ids(self) -> list[str]:
        return sorted(self._local.by_id)

    def child_names(self) -> list[str]:
        return sorted(self._children.by_name)

    def route_texts(self) -> list[str]:
        return list(self._state.by_route)

    def route(self, text: str, below: Sequence[str], above: Sequence[str]) -> dict[str, Any] | None:
        """One entry of `routes`; `below` and `above`: the routes that it shadows and those that shadow it."""
        return self._route(text, list(below), list(above)) if text in self._state.by_route else None

    def node(self) -> dict[str, Any]:
        """`tree` without the children and instances."""
        return self._head.tree()


class _Head(View):
    def __init__(self, view: View) -> None:
        super().__init__(*view.parts)

    def tree(self) -> dict[str, Any]:
        return {name: value for name, value in super().tree().items() if name not in ("children", "instances")}

    def instances(self) -> list[dict[str, Any]]:
        return []

    def _child(self, name: str) -> dict[str, Any]:
        return {}
