"""The saved format of an agent's record, as in `saved.py`: an object with its version `v`; unknown fields are ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from msgspec.structs import asdict

from sdlb.core.agent_steps import PLACES, Place, Record
from sdlb.core.saved import V

_FIELDS = tuple(name for name in Record.__struct_fields__ if name not in ("places", "log"))
_PLACE_FIELDS = Place.__struct_fields__


def record_to(record: Record) -> dict[str, object]:
    return {
        "v": V,
        **{name: getattr(record, name) for name in _FIELDS},
        "log": list(record.log),
        "places": {name: asdict(place) for name, place in record.places.items()},
    }


def record_from(value: object) -> Record:
    data = cast("Mapping[str, Any]", value)
    places = {name: _place_from(data.get("places", {}).get(name, {})) for name in PLACES}
    known = {name: data[name] for name in _FIELDS if name in data}
    return Record(**known, log=tuple(data.get("log", ())), places=places)


def _place_from(value: Mapping[str, Any]) -> Place:
    return Place(**{name: value[name] for name in _PLACE_FIELDS if name in value})
