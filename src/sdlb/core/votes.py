"""How many children report a generation: one alone may be wrong, or lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sdlb.core.remnants import PREFIX, child_of
from sdlb.core.slot import Slot

Scope = tuple[str, ...]


def generation_votes(slots: Iterable[Slot], counts: Callable[[Scope], bool], most: int) -> list[int]:
    """The newest generation of each child that has the service, the highest first. This node's own instances are one voter,
    a child and its remnants another.

    `counts`: whether a scope is to be compared at all. What is above `most` is a lie or a fault. What was never told of a
    generation has no say.
    """
    votes: dict[str, int] = {}
    for slot in slots:
        for target, part in slot.parts.items():
            if part.generation and not part.covered and part.generation <= most and counts(part.scope):
                voter = _voter(target) if part.child else ""
                votes[voter] = max(votes.get(voter, 0), part.generation)
    return sorted(votes.values(), reverse=True)


def _voter(target: str) -> str:
    """A child and what is kept of it as remnants report one after the other: they are one voter."""
    return child_of(target) if target.startswith(PREFIX) else target[2:]


def majority_generation(votes: list[int]) -> int:
    """What more than half of the voters report at least; 0: there are none."""
    place = len(votes) // 2
    return votes[place] if place < len(votes) else 0
