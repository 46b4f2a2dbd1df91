"""A policy document as people read it: one line a setting, and what a change has changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

Document = Mapping[str, Any]
TABLES = ("compatibility", "park", "balance", "outlier", "limits")


def lines(document: Document) -> Iterator[tuple[str, str]]:
    """One line a setting; those that are tables of settings are taken apart, as the options are."""
    for key, value in document.items():
        if key in TABLES and isinstance(value, dict):
            for inner, setting in cast("Document", value).items():
                yield f"{key}.{inner}", setting_text(setting)
        else:
            yield key, setting_text(value)


def changes(had: Document, has: Document) -> list[str]:
    """ "priority: even -> share" for each setting that differs."""
    before = dict(lines(had))
    now = dict(lines(has))
    keys = [*now, *(key for key in before if key not in now)]
    found = [(key, before.get(key, "-"), now.get(key, "-")) for key in keys]
    return [f"{key}: {old} -> {new}" for key, old, new in found if old != new]


def setting_text(value: object) -> str:
    """1.0.2=5 for a table, 1.0.2~2.0.0 for a pair, "-" for nothing."""
    if isinstance(value, dict):
        table = cast("dict[str, Any]", value)
        if set(table) == {"by", "name"}:
            return ":".join(part for part in (table["by"], table["name"]) if part) or "-"
        return ", ".join(f"{name}={setting_text(item)}" for name, item in table.items()) or "-"
    if isinstance(value, list | tuple):
        items = cast("list[Any]", value)
        return (
            ", ".join("~".join(cast("list[str]", i)) if isinstance(i, list | tuple) else setting_text(i) for i in items)
            or "-"
        )
    if isinstance(value, bool):
        return str(value).lower()  # as it is written in a change
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value not in ("", None) else "-"
