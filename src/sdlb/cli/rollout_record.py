"""`sdlb rollout show ID --record`: what the roots have recorded about a rollout, and whether the chain of its entries is whole."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from sdlb.cli import out
from sdlb.cli.release import warn
from sdlb.model.record import digest
from sdlb.sdk.client import Client
from sdlb.sdk.problem import BASE, Problem
from sdlb.sdk.rollout_types import RolloutRecord

COMMON: Final = ("number", "previous", "at_ms", "kind", "root", "service", "rollout", "settings")
STYLES: Final = {"started": "bold", "ended": "bold", "closed": "yellow", "below-floor": "red", "order": "bold"}


def run(client: Client, args: argparse.Namespace) -> int:
    """Raises Problem if a chain is broken."""
    found = client.rollout_record(args.service)
    if args.json:
        out.json(found)
    else:
        for place, record in enumerate(found.records):
            if place:
                out.line("")
            for line in _lines(record):
                out.line(*line)
        warn(found.unreachable)
    for record in found.records:
        _verify(record)
    if args.verify:
        known = {digest(entry): (record.root, entry) for record in found.records for entry in record.entries}
        if args.verify not in known:
            raise Problem(
                BASE + "record-broken", 409, f"no entry has the SHA-256 {args.verify}: entries were changed or removed"
            )
    return 0


def _verify(record: RolloutRecord) -> None:
    number, why = record.broken()
    if number:
        text = f"the record of {record.rollout} of {record.service} at {record.root} is broken at entry {number}: {why}"
        raise Problem(BASE + "record-broken", 409, text)


def _lines(record: RolloutRecord) -> Iterator[list[out.Piece]]:
    entries = "entry" if record.number == 1 else "entries"
    yield [
        (record.root, "bold"),
        f"  {record.rollout} of {record.service}, {record.number} {entries}, SHA-256 {record.head}",
    ]
    for entry in record.entries:
        kind, at_ms = str(entry.get("kind", "")), entry.get("at_ms", 0)
        clock = time.strftime("%H:%M:%S", time.localtime(at_ms / 1000))
        yield [
            f"{entry.get('number', '?'):>4}  {clock}.{at_ms % 1000:03}  ",
            (f"{kind:<13}", STYLES.get(kind, "")),
            f"  {text(entry)}",
        ]


def text(entry: Mapping[str, Any]) -> str:
    """What an entry has beside its place, in one line."""
    return ", ".join(f"{key} {_value(value)}" for key, value in _sorted(entry) if value not in ("", [], {}))


def _sorted(entry: Mapping[str, Any]) -> list[tuple[str, Any]]:
    first = ("state", "by", "before", "to", "node", "what", "phase", "gate", "step", "result", "text")
    keys = [key for key in first if key in entry] + sorted(
        key for key in entry if key not in first and key not in COMMON
    )
    return [(key, entry[key]) for key in keys]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(_value(each) for each in cast("list[Any]", value))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} {_value(each)}" for key, each in cast("dict[str, Any]", value).items()) + "}"
    return str(value).partition("\n")[0]
