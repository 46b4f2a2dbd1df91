"""Interning: each part of a state is stored once and referred to by a small number."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Interned(Generic[T]):
    """A value to its number and back."""

    def __init__(self) -> None:
        self.values: list[T] = []
        self._numbers: dict[T, int] = {}

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, number: int) -> T:
        return self.values[number]

    def number(self, value: T) -> int:
        known = self._numbers.get(value)
        if known is None:
            known = self._numbers[value] = len(self.values)
            self.values.append(value)
        return known


class Queues:
    """Queues of numbers. 0 is the empty one."""

    def __init__(self) -> None:
        self._all: Interned[tuple[int, ...]] = Interned()
        self._all.number(())
        self.head: list[int] = [-1]
        self.rest: list[int] = [0]
        self._put: dict[tuple[int, int], int] = {}

    def put(self, queue: int, item: int) -> int:
        known = self._put.get((queue, item))
        if known is None:
            known = self._put[queue, item] = self.of((*self._all[queue], item))
        return known

    def of(self, items: tuple[int, ...]) -> int:
        number = self._all.number(items)
        if number == len(self.head):
            self.head.append(items[0])
            self.rest.append(-1)
            self.rest[number] = self.of(items[1:])
        return number

    def items(self, queue: int) -> tuple[int, ...]:
        return self._all[queue]
