"""Adds ejected endpoints to the result of `explain`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def with_ejected(told: dict[str, Any], ejected: Mapping[str, str]) -> dict[str, Any]:
    """Ejected endpoints are not chosen while there are others, as in the engine."""
    targets = told["targets"]
    well = any(target["chosen"] and target["name"] not in ejected for target in targets)
    return {**told, "targets": [_told(target, ejected, well) for target in targets]}


def _told(target: dict[str, Any], ejected: Mapping[str, str], well: bool) -> dict[str, Any]:
    if target["name"] not in ejected or not target["chosen"]:
        return target
    why = f"ejected by passive health: {ejected[target['name']] or 'requests failed there'}"
    return {**target, "chosen": not well, "why": why if well else f"{why}; chosen because all endpoints are ejected"}
