"""The number of children that must report a generation before it counts."""

from __future__ import annotations

import pytest

from sdlb.core.authority import SCOPE_MAX, Root
from sdlb.core.messages import ClaimKey
from sdlb.core.slot import Part, Slot
from sdlb.core.votes import generation_votes, majority_generation
from tests.core.forest import Forest, Node, key_of

KEY = ClaimKey("catalog", "1.0.1", "example.com/*")
OURS = ("id-edge",)


def slot_of(parts: dict[str, Part]) -> Slot:
    slot = Slot(KEY)
    for target, part in parts.items():
        slot.put_part(target, part)
    return slot


def child(generation: int, scope: tuple[str, ...] = OURS, *, covered: bool = False) -> Part:
    return Part(child=True, generation=generation, scope=scope, covered=covered)


def voted(parts: dict[str, Part]) -> list[int]:
    return generation_votes([slot_of(parts)], lambda scope: scope == OURS, 100)


@pytest.mark.parametrize(
    ("votes", "believed"),
    [([], 0), ([5], 5), ([5, 3], 3), ([5, 3, 3], 3), ([5, 5, 3], 5), ([5, 5, 3, 3], 3), ([9, 5, 5, 3], 5)],
)
def test_a_generation_counts_when_more_than_half_report_it(votes: list[int], believed: int) -> None:
    assert majority_generation(votes) == believed


def test_the_instances_of_a_node_have_one_vote_together() -> None:
    local = Part(generation=4, scope=OURS)
    assert voted({"i:a": local, "i:b": local, "n:host": child(2)}) == [4, 2]


def test_a_child_has_one_vote_for_all_its_claims() -> None:
    one, other = slot_of({"n:host": child(2)}), slot_of({"n:host": child(3)})
    assert generation_votes([one, other], lambda _: True, 100) == [3]


def test_a_child_and_what_is_kept_of_it_have_one_vote() -> None:
    assert voted({"n:host": child(2), "r:host#1": child(7), "r:host#2": child(5), "n:other": child(3)}) == [7, 3]


@pytest.mark.parametrize(
    "part",
    [child(0), child(101), child(7, ("id-nowhere",)), child(7, covered=True)],
    ids=["was never told of one", "far above", "of another authority", "another speaks for it"],
)
def test_some_have_no_vote(part: Part) -> None:
    assert voted({"n:host": child(2), "n:other": part}) == [2]


def test_a_record_continues_the_scopes_that_it_has_adopted() -> None:
    assert Root._widened(("a", "b"), ("b", "c")) == ("a", "b", "c")  # pyright: ignore[reportPrivateUsage]
    many = tuple(f"id-{number}" for number in range(SCOPE_MAX))
    assert Root._widened(many, ("new",)) == (*many[1:], "new")  # pyright: ignore[reportPrivateUsage]


@pytest.mark.promise(2)
@pytest.mark.parametrize("again", [Node.restart, Node.lose_engine])
@pytest.mark.parametrize("first", ["2.0.0", "3.0.0"])
def test_seniority_survives_a_restart_of_the_root(first: str, again: object) -> None:
    """Seniority survives a restart of the root, whichever claim is reported first."""
    second = "3.0.0" if first == "2.0.0" else "2.0.0"
    forest = Forest({"edge": (), "host-1": ("edge",), "host-2": ("edge",)})
    forest.put("host-1", "a", "1.0.1")
    for number, version in enumerate((first, second)):
        forest.put("host-2", f"b{number}", version)
        forest.run(1.0)
    again(forest["edge"])  # type: ignore[operator]
    forest.run(5.0)
    forest.remove("host-1", "a")
    forest.run(5.0)
    assert forest["edge"].serves(key_of(first)) == {"n:host-2"}
    assert forest["edge"].versions()[second] == "waiting"
