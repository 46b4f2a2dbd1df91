"""The sentences of the page on troubleshooting are those that the program prints."""

from __future__ import annotations

from pathlib import Path

from sdlb.model import reason

PAGE = Path(__file__).parents[2] / "docs/guide/why-not.md"
EXAMPLES = (
    reason.StillRunning("1.0.2", 1, ("host-3",)),
    reason.Closing("1.0.2", ("host-3",)),
    reason.PresumedStopped("1.0.2", ("host-3",)),
    reason.Settling("1.0.2"),
    reason.NoParent(),
    reason.Unconfirmed(),
    reason.Replacing("1.0.1"),
    reason.Contested("1.0.3"),
    reason.Incompatible("1.0.2"),
    reason.Gated("sign-off", "waits for an approval by ann"),
    reason.CuttingOver("2.5.1", "it replaces this version"),
    reason.NotReady("a capacity of 100 is ready, and a flip needs 150 (max_unavailable)"),
    reason.Reverted("edge-2 is out of touch"),
    reason.OnHold(),
    reason.PinnedOut(("1.0.2",)),
    reason.BelowFloor("2.5"),
    reason.NewerGeneration(7),
    reason.Asking(("edge-1",)),
    reason.RouteConflict("example.com/catalog*", "search", "edge-1"),
    reason.NothingReady(("host-1",)),
)


def test_every_reason_is_explained() -> None:
    page = PAGE.read_text()
    assert [str(each) for each in EXAMPLES if f"| `{each}`" not in page] == []
    assert {type(each) for each in EXAMPLES} == {*reason.KINDS.values(), reason.NothingReady}
