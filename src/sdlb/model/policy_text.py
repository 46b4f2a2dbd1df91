"""Prints a policy document: one line per setting, and the differences between two documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

Document = Mapping[str, Any]
TABLES = ("compatibility", "park", "drain", "rollout", "balance", "outlier", "limits", "path")


def lines(document: Document) -> Iterator[tuple[str, str]]:
    """(setting, value) pairs. Nested tables become dotted names (`park.timeout_s`), as in the options of `sdlb policy`."""
    for key, value in document.items():
        if key in TABLES and isinstance(value, dict):
            for inner, setting in cast("Document", value).items():
                yield f"{key}.{inner}", setting_text(setting)
        else:
            yield key, setting_text(value)


def changes(old: Document, new: Document) -> list[str]:
    """One line per setting that differs: "priority: even -> share"."""
    before = dict(lines(old))
    now = dict(lines(new))
    keys = [*now, *(key for key in before if key not in now)]
    found = [(key, before.get(key, "-"), now.get(key, "-")) for key in keys]
    return [f"{key}: {had} -> {has}" for key, had, has in found if had != has]


def setting_text(value: object) -> str:
    """A value as text: "1.0.2=5" for a table, "1.0.2~2.0.0" for a pair, "-" for nothing."""
    if isinstance(value, dict):
        table = cast("dict[str, Any]", value)
        if set(table) == {"by", "name"}:
            return ":".join(part for part in (table["by"], table["name"]) if part) or "-"
        return ", ".join(f"{name}={setting_text(item)}" for name, item in table.items()) or "-"
    if isinstance(value, list | tuple):
        items = cast("list[Any]", value)
        if items and all(isinstance(each, dict) for each in items):
            return "; ".join(setting_text(each) for each in items)
        return (
            ", ".join("~".join(cast("list[str]", i)) if isinstance(i, list | tuple) else setting_text(i) for i in items)
            or "-"
        )
    if isinstance(value, bool):
        return str(value).lower()  # as in the options of `sdlb policy set`
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value not in ("", None) else "-"
