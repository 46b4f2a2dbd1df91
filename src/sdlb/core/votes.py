"""Which generation a majority of the children reports. A single child may be wrong, or lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sdlb.core.remnants import PREFIX, child_of
from sdlb.core.slot import Slot

Scope = tuple[str, ...]


def generation_votes(slots: Iterable[Slot], counts: Callable[[Scope], bool], most: int) -> list[int]:
    """The newest generation that each voter reports, in descending order. A child with its remnants is one voter; all local
    instances together are another.

    `counts`: whether generations of a scope count. Generations above `most` are false and do not count. A source that does
    not know a generation has no vote.
    """
    votes: dict[str, int] = {}
    for slot in slots:
        for target, part in slot.parts.items():
            if part.generation and not part.covered and part.generation <= most and counts(part.scope):
                voter = _voter(target) if part.child else ""
                votes[voter] = max(votes.get(voter, 0), part.generation)
    return sorted(votes.values(), reverse=True)


def _voter(target: str) -> str:
    """Name of the child that a target belongs to. A child and its remnants are one voter."""
    return child_of(target) if target.startswith(PREFIX) else target[2:]


def majority_generation(votes: list[int]) -> int:
    """The newest generation that more than half of the voters have reached. 0: there are no votes."""
    middle = len(votes) // 2
    return votes[middle] if middle < len(votes) else 0
