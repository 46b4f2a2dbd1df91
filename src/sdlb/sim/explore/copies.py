"""Copies of live objects, which share frozen values.

A node is copied for every event that is tried on it. Most of its parts never change (claims, permits, verdicts). These are
stored once, and copies refer to them by number.
"""

from __future__ import annotations

import pickle
from io import BytesIO
from typing import Any, Final

from sdlb.core.messages import Doc
from sdlb.sim.explore.tables import Interned

_values: Interned[Any] = Interned()
_is_shared: dict[object, bool] = {Doc: False}  # two of these are equal that differ in their scope


def number_of(value: Any) -> int:
    """-1: it has a dictionary inside, and is not shared."""
    try:
        return _values.number(value)
    except TypeError:
        return -1


def value_of(number: int) -> Any:
    return _values[number]


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: object) -> Any:
        kind = type(obj)
        shared = _is_shared.get(kind)
        if shared is None:
            params = getattr(kind, "__dataclass_params__", None)
            shared = _is_shared[kind] = params is not None and params.frozen
        if shared:
            number = number_of(obj)
            if number >= 0:
                return value_of, (number,)
        return NotImplemented


PROTOCOL: Final = 5


def keep(live: object) -> bytes:
    """For `copy`, in this process."""
    file = BytesIO()
    _Pickler(file, PROTOCOL).dump(live)
    return file.getvalue()


def copy(kept: bytes) -> Any:
    return pickle.loads(kept)
