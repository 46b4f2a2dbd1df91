"""The canonical form of a live object. Two objects with equal forms behave alike.

It walks slots and attributes and does not know the classes of the core. Unordered containers are sorted, shared objects become
references, times become distances from `now` in steps of `QUANTUM_S`, and attributes that only count or order (`SKIPPED`)
are left out. Frozen values are replaced by small numbers.
"""

# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import marshal
from collections import deque
from collections.abc import Callable, Hashable
from enum import Enum
from hashlib import blake2b
from inspect import get_annotations
from typing import Any, Final

from msgspec import Struct

from sdlb.sim.explore.core import LEASE_S, T0, Control

QUANTUM_S: Final = 0.05 * LEASE_S
FAR: Final = 100  # a time further away than this many steps is never reached
PAST: Final = 45  # one that is longer ago is over for all leases
SKIPPED: Final = frozenset(
    {"rng", "_timers", "_timer_count", "wall_s", "_lapsed", "_sorted", "_saved", "dial_at", "serves_since"}
)
"""Attributes that count, order, are computed from others, or of which only figures depend. The times of timers are in `State._set`."""
PLAIN: Final = frozenset({str, int, bool, type(None), bytes})


class Canon:
    def __init__(self) -> None:
        self._leaves: dict[Hashable, int] = {}
        self._names: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._kinds: dict[object, Callable[[Any], Any]] = {
            float: self._time,
            tuple: self._tuple,
            list: self._tuple,
            deque: self._tuple,
            dict: self._dict,
            set: self._set,
            frozenset: self._set,
        }
        self._slots: dict[object, tuple[str, ...] | None] = {}
        self._now = 0.0
        self._seen: set[int] = set()

    def digest(self, control: Control) -> bytes:
        self._now = control.now
        self._seen = set()
        form = self._of(control.balancer)
        return blake2b(marshal.dumps(form, 0), digest_size=16).digest()

    def form(self, control: Control) -> Any:
        """The form itself, for debugging."""
        self._now = control.now
        self._seen = set()
        return self._of(control.balancer)

    def leaf(self, value: Hashable) -> int:
        try:
            known = self._leaves.get(value)
        except TypeError:  # frozen, with a dictionary inside
            value = repr(value)
            known = self._leaves.get(value)
        if known is None:
            known = self._leaves[value] = len(self._leaves)
        return known

    # ------------------------------------------------------------------ kinds

    def _of(self, value: Any) -> Any:
        kind: object = type(value)
        if kind in PLAIN:
            return value
        known = self._kinds.get(kind)
        if known is None:
            known = self._kinds[kind] = self._kind(kind)
        return known(value)

    def _kind(self, kind: Any) -> Callable[[Any], Any]:
        if issubclass(kind, Enum):
            return lambda value: value.value
        if (issubclass(kind, Struct) and kind.__struct_config__.frozen) or _is_frozen_dataclass(kind):
            return self._frozen(kind)
        if issubclass(kind, tuple):
            return self.leaf
        if issubclass(kind, dict):
            return self._dict
        if callable(kind) and kind.__name__ in ("function", "method", "builtin_function_or_method"):
            return lambda value: 0
        return self._object

    def _frozen(self, kind: Any) -> Callable[[Any], Any]:
        """A small number, unless a time is in it."""
        annotations: dict[str, Any] = {}
        for base in reversed(kind.__mro__):
            annotations |= get_annotations(base)
        names = [name for name in kind.__match_args__ if name in annotations]
        floats = [name for name in names if annotations[name] in ("float", float)]

        def form(value: Any) -> Any:
            if any(getattr(value, name) > T0 / 2 for name in floats):
                return tuple([self._of(getattr(value, name)) for name in names])
            return self.leaf(value)

        return form if floats else self.leaf

    def _time(self, value: float) -> Any:
        if value < T0 / 2:
            return value
        distance = round((value - self._now) / QUANTUM_S)
        return ("t", max(-PAST, min(FAR, distance)))

    def _tuple(self, values: Any) -> Any:
        of = self._of
        return tuple([of(value) for value in values])

    def _dict(self, values: dict[Any, Any]) -> Any:
        if not values:
            return ()
        of = self._of
        items = [(of(key), of(value)) for key, value in values.items()]
        if len(items) > 1:
            items.sort(key=_first)
        return tuple(items)

    def _set(self, values: Any) -> Any:
        of = self._of
        return tuple(sorted([of(value) for value in values]))

    def _object(self, value: Any) -> Any:
        kind: object = type(value)
        if id(value) in self._seen:  # a reference by name, because numbers would depend on the order of dictionaries
            names = [getattr(value, each, "") for each in ("name", "parent", "target")]
            return (kind.__name__, *[name for name in names if isinstance(name, str)])
        self._seen.add(id(value))
        slots = self._slots.get(kind, 0)
        if slots == 0:
            slots = self._slots[kind] = _slots_of(kind)
        of = self._of
        if slots is not None:
            return tuple([of(getattr(value, name)) for name in slots])  # type: ignore[union-attr]
        attributes = value.__dict__
        given = tuple(attributes)
        names = self._names.get(given)
        if names is None:
            names = self._names[given] = tuple(sorted(name for name in given if name not in SKIPPED))
        return tuple([of(attributes[name]) for name in names])


def _is_frozen_dataclass(kind: Any) -> bool:
    params = getattr(kind, "__dataclass_params__", None)
    return params is not None and params.frozen


def _first(item: tuple[Any, Any]) -> Any:
    return item[0]


def _slots_of(kind: Any) -> tuple[str, ...] | None:
    names = [name for base in kind.__mro__ for name in getattr(base, "__slots__", ()) if name not in SKIPPED]
    if "__dict__" in dir(kind) and not names:
        return None
    return tuple(sorted(names)) if names else None
