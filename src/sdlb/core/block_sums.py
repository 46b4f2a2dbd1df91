"""Figures of many nodes added up, by block and version. A report that is replaced or dropped is subtracted again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec import Struct, field

from sdlb.model.canary import Blocks, Figures

BLOCKS_MAX: Final = 8
"""More than a host reports, because the clocks of hosts differ and reports take a heartbeat at each tier."""
VERSIONS_MAX: Final = 8
BUCKETS_MAX: Final = 128
NUMBER_MAX: Final = (1 << 53) - 1


class _Cell(Struct):
    """One version in one block. `sources`: reports that have it. `counts`: in the order of `_counts`."""

    sources: int = 0
    counts: list[int] = field(default_factory=lambda: [0] * 6)
    head: dict[int, int] = field(default_factory=dict[int, int])

    def add(self, figures: Figures, sign: int) -> None:
        self.sources += sign
        for place, count in enumerate(_counts(figures)):
            self.counts[place] += sign * count
        for bucket, count in figures.head.items():
            total = self.head.get(bucket, 0) + sign * count
            if total:
                self.head[bucket] = total
            else:
                self.head.pop(bucket, None)

    def total(self) -> Figures:
        asked, errors, refused, early_asked, early_errors, hosts = (min(each, NUMBER_MAX) for each in self.counts)
        head = {bucket: min(self.head[bucket], NUMBER_MAX) for bucket in sorted(self.head)}
        return Figures(asked, errors, refused, head, early_asked, early_errors, hosts)


class BlockSums(Struct):
    cells: dict[int, dict[str, _Cell]] = field(default_factory=dict[int, dict[str, _Cell]])

    def add(self, blocks: Blocks, sign: int) -> None:
        """`sign`: -1 takes a former report back."""
        for number, versions in blocks.items():
            cells = self.cells.setdefault(number, {})
            for version, figures in versions.items():
                cell = cells.setdefault(version, _Cell())
                cell.add(figures, sign)
                if not cell.sources:
                    del cells[version]
            if not cells:
                del self.cells[number]

    def total(self) -> Blocks:
        """In this order: the blocks that most sources have, then the newest. Those beyond the limits are left out, and so are
        versions, so that a faulty child cannot displace those of the others."""
        ranks = {number: max(cell.sources for cell in cells.values()) for number, cells in self.cells.items()}
        numbers = sorted(ranks, key=lambda number: (-ranks[number], -number))[:BLOCKS_MAX]
        return {number: self._versions(number) for number in numbers}

    def _versions(self, number: int) -> dict[str, Figures]:
        cells = self.cells[number]
        versions = sorted(cells, key=lambda version: (-cells[version].sources, version))[:VERSIONS_MAX]
        return {version: cells[version].total() for version in sorted(versions)}


def _counts(figures: Figures) -> tuple[int, ...]:
    return (
        figures.asked,
        figures.errors,
        figures.refused,
        figures.early_asked,
        figures.early_errors,
        figures.hosts,
    )


# ---------------------------------------------------------------------- what a child may send


def numbers_of(blocks: Blocks) -> Iterator[int]:
    """All numbers in it, which have to be within 0 and NUMBER_MAX."""
    for number, versions in blocks.items():
        yield number
        for figures in versions.values():
            yield from _counts(figures)
            yield from figures.head.values()


def names_of(blocks: Blocks) -> Iterator[str]:
    for versions in blocks.values():
        yield from versions


def cut_blocks(blocks: Blocks) -> Blocks:
    """The newest blocks within the limits. A block without versions is left out."""
    newest = sorted((number for number, versions in blocks.items() if versions), reverse=True)[:BLOCKS_MAX]
    return {number: _cut_versions(blocks, number) for number in sorted(newest)}


def _cut_versions(blocks: Blocks, number: int) -> dict[str, Figures]:
    versions = blocks[number]
    return {version: _cut_figures(versions[version]) for version in sorted(versions)[:VERSIONS_MAX]}


def _cut_figures(figures: Figures) -> Figures:
    head = {bucket: figures.head[bucket] for bucket in sorted(figures.head) if 0 <= bucket < BUCKETS_MAX}
    return Figures(
        figures.asked,
        figures.errors,
        figures.refused,
        head,
        figures.early_asked,
        figures.early_errors,
        figures.hosts,
    )
