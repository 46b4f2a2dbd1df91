"""A flip is recorded in each of its phases, also when it has nothing to wait for."""

from __future__ import annotations

from tests.core.test_openings import TREES, Story, roots


@TREES
def test_a_flip_without_gap_gates_is_recorded_before_it_opens(tree: dict[str, tuple[str, ...]]) -> None:
    """Otherwise a root could open the new version while the conductor reverts to the old one."""
    story = Story(tree, cut_over="flip")
    story.put("1.0.2")
    story.put("2.5.1")
    story.forest.run(5.0)
    assert story.all_serve("2.5.1")
    notes = [note.code for root in roots(story.forest) for note in story.forest[root].notes]
    assert [code for code in notes if code.startswith("cutover")] == [
        "cutover-closing",
        "cutover-gap",
        "cutover-opened",
    ]
