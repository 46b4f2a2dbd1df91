"""Which patterns shadow which others, for a whole route table.

Hosts are either nested or disjoint, and so are paths. Two patterns overlap if one host includes the other and one path is
a prefix of the other. So each pattern is compared, on its own host and on each less specific one, with the paths that are
its prefixes (one look-up per length) and with the paths that it is a prefix of (a range of a sorted list). The cost grows
with the number of overlaps found, not with the number of pairs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from sdlb.model.route import Pattern

AFTER_ALL = chr(0x10FFFF)


def shadows(patterns: Iterable[Pattern]) -> dict[Pattern, set[Pattern]]:
    """Pattern -> the patterns that it shadows (`Pattern.shadows`). A pattern that shadows none is left out."""
    by_host: dict[str, dict[str, Pattern]] = {}
    for pattern in patterns:
        by_host.setdefault(pattern.host, {})[pattern.path] = pattern
    sorted_paths = {host: sorted(paths) for host, paths in by_host.items()}
    found: dict[Pattern, set[Pattern]] = {}
    for paths in list(by_host.values()):
        for pattern in paths.values():
            for host in pattern.hosts():
                if host in by_host:
                    for other in _overlapping(pattern, by_host[host], sorted_paths[host]):
                        winner, loser = sorted((pattern, other), key=lambda each: each.specificity, reverse=True)
                        if winner != loser:
                            found.setdefault(winner, set()).add(loser)
    return found


def _overlapping(pattern: Pattern, on_host: dict[str, Pattern], ordered: list[str]) -> Iterable[Pattern]:
    literal = pattern.path.removesuffix("*")
    for size in range(1, len(literal) + 1):
        wider = on_host.get(f"{literal[:size]}*")
        if wider is not None:
            yield wider
    if pattern.path == literal:
        if literal in on_host:
            yield on_host[literal]
        return
    for path in ordered[bisect_left(ordered, literal) : bisect_left(ordered, literal + AFTER_ALL)]:
        yield on_host[path]
