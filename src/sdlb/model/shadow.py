"""Which patterns take requests from which others, for a whole table at once.

Two patterns overlap where one's host stands within the other's and one's path begins with the other's: hosts and paths
are each nested or apart. So for each pattern it is enough to look, on its own host and on each wider one, for paths that
it begins with (a look-up for each of its lengths) and for paths that begin with it (a stretch of a sorted list). The cost
is that of what is found, not that of all pairs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from sdlb.model.route import Pattern

AFTER_ALL = chr(0x10FFFF)


def shadows(patterns: Iterable[Pattern]) -> dict[Pattern, set[Pattern]]:
    """For each pattern, those that `Pattern.shadows` is true of; a pattern that shadows none is left out."""
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
