"""docs/operate/attacks.md names tests that exist and counters that the engine has and the reference explains."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operate/attacks.md").read_text()
TEST = re.compile(r"`((?:tests|engine)/[\w/.]+)::(\w+)`")
ROWS = [
    cells
    for line in PAGE.splitlines()
    if line.startswith("| ") and len(cells := line.strip("| ").split(" | ")) >= 3 and cells[0] not in ("attack", "---")
]


def engine_counters() -> dict[str, str]:
    """Name -> meaning."""
    source = (ROOT / "engine/crates/engine/src/counters.rs").read_text()
    block = source[source.index("\ncounters! {") : source.index("\n}\n", source.index("\ncounters! {"))]
    return {name: meaning for meaning, name in re.findall(r"/// (.+)\n    (\w+)(?:: BusyCounter)?,", block)}


@pytest.mark.parametrize(("file", "name"), sorted(set(TEST.findall(PAGE))))
def test_the_tests_that_are_named_exist(file: str, name: str) -> None:
    assert re.search(rf"^ *(?:async )?(?:def|fn) {name}\(", (ROOT / file).read_text(), re.MULTILINE)


@pytest.mark.parametrize("cells", ROWS, ids=lambda cells: cells[0][:40])
def test_a_row_is_played_or_says_that_it_is_open(cells: list[str]) -> None:
    assert TEST.search(" | ".join(cells)) or "**Open**" in " | ".join(cells)


def test_the_counters_that_are_named_exist() -> None:
    named = set(re.findall(r"`([a-z0-9_]+_total)`", PAGE))
    assert len(named) > 20
    assert named - engine_counters().keys() == set()


def test_maps_that_clients_fill_are_keyed_by_chance() -> None:
    """A hasher without a key is an invitation to collide. The one there is has numbers of our own."""
    unkeyed = re.compile(r"BuildHasherDefault|with_hasher|\b(?:Fnv|Fx|A)Hash|\bimpl Hasher\b|_hasher\(")
    sources = (ROOT / "engine/crates").glob("*/src/**/*.rs")
    found = {str(path.relative_to(ROOT)) for path in sources if unkeyed.search(path.read_text())}
    assert found == {"engine/crates/engine/src/upstream/pool.rs"}


def test_every_counter_of_the_engine_is_documented() -> None:
    page = (ROOT / "docs/reference/metrics.md").read_text()
    section = page[page.index("## Counters of the engine") :]
    assert set(re.findall(r"^\| `([a-z0-9_]+)` \|", section, re.MULTILINE)) == engine_counters().keys()
