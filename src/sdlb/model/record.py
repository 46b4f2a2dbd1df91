"""The format of a rollout's record: entries in order, each with the SHA-256 of the one before.

An entry is a JSON object of text, whole numbers, booleans, lists and objects. There are no fractions, so that its canonical form
(RFC 8785: sorted keys, no white space, UTF-8) is the same in every language.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, cast

import msgspec

Entry = dict[str, Any]
START: Final = "0" * 64
"""`previous` of the first entry."""
TEXT_CHARS_MAX: Final = 1024


def canonical(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(entry: Mapping[str, Any]) -> str:
    return sha256(canonical(entry).encode(errors="replace")).hexdigest()


def following(last: Mapping[str, Any] | None, fields: Mapping[str, object]) -> Entry:
    """The entry that continues a chain whose last one is this. None: the chain is empty."""
    number = int(last["number"]) + 1 if last is not None else 1
    return {**_plain(fields), "number": number, "previous": digest(last) if last is not None else START}


def broken(entries: Sequence[Mapping[str, Any]]) -> tuple[int, str]:
    """Number of the first entry that does not continue the chain, and why. (0, ""): the chain is whole."""
    previous, where = START, "the first entry must have 64 zeros"
    for place, entry in enumerate(entries, 1):
        if entry.get("number") != place:
            return place, f"entry {place} is missing or cannot be read"
        if entry.get("previous") != previous:
            return max(1, place - 1), f"the SHA-256 in entry {place} is not that of the entry before: {where}"
        previous, where = digest(entry), f"entry {place} was changed, or entries were removed after it"
    return 0, ""


def _plain(value: object) -> Any:
    """Without fractions, and with texts of a limited length."""
    found: Any = msgspec.to_builtins(value)
    if isinstance(found, dict):
        return {str(key): _plain(each) for key, each in cast("dict[object, object]", found).items()}
    if isinstance(found, list | tuple):
        return [_plain(each) for each in cast("Sequence[object]", found)]
    if isinstance(found, bool | int):
        return found
    if isinstance(found, float):
        return int(found) if found.is_integer() and abs(found) < 2**53 else f"{found:.6g}"
    return "" if found is None else str(found)[:TEXT_CHARS_MAX].encode(errors="replace").decode()
