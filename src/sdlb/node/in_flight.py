"""Requests in flight, as the engine counts them, in events about drains: the core does not know numbers."""

from __future__ import annotations

from msgspec.structs import replace

from sdlb.core.effects import Note
from sdlb.seams.engine import EngineStats

SLOW = "drain-slow"


def with_in_flight(note: Note, stats: EngineStats) -> Note:
    """A note of another kind is returned as it is."""
    if note.code != SLOW:
        return note
    fields = note.fields
    if "instance" in fields:
        count = at_instance(fields["instance"], stats)
    else:
        wanted = (fields["service"], fields["version"])
        count = sum(
            number for key, number in stats.draining.items() if (key.claim.service, key.claim.version) == wanted
        )
    what = f"{count} request{'' if count == 1 else 's'} in flight on this node"
    return replace(note, text=f"{note.text} ({what})", fields={**fields, "in_flight": str(count)})


def at_instance(instance_id: str, stats: EngineStats) -> int:
    """Counts of draining endpoints are separate from the statistics, which may no longer know the endpoint."""
    name = f"i:{instance_id}"
    target = stats.upstreams.get(name)
    draining = sum(count for key, count in stats.draining.items() if key.target == name)
    return max(target.in_flight if target is not None else 0, draining)
