"""Adds ejected endpoints to the result of `explain`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def with_ejected(explanation: dict[str, Any], ejected: Mapping[str, str]) -> dict[str, Any]:
    """Ejected endpoints are not chosen while there are others, as in the engine."""
    targets = explanation["targets"]
    others = any(target["chosen"] and target["name"] not in ejected for target in targets)
    return {**explanation, "targets": [_with_reason(target, ejected, others) for target in targets]}


def _with_reason(target: dict[str, Any], ejected: Mapping[str, str], others: bool) -> dict[str, Any]:
    if target["name"] not in ejected or not target["chosen"]:
        return target
    why = f"ejected by passive health: {ejected[target['name']] or 'requests failed there'}"
    return {
        **target,
        "chosen": not others,
        "why": why if others else f"{why}; chosen because all endpoints are ejected",
    }
