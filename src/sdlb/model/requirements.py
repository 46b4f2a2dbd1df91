"""Releases that require each other in a cycle, so that none of them could be first."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sdlb.model.release import Release
from sdlb.model.version import matches

Known = Callable[[str], Iterable[Release]]
"""The releases of a service that are available."""


def cycle(new: Release, known: Known) -> tuple[str, ...]:
    """The names of releases that keep `new` from ever being active, from one to the same one again. Empty: there are none.

    A release can be active if each of its requirements is met by some release that can. A requirement that no known release meets counts
    as met: such a version may run without a release, or be added later.
    """
    fits = _reachable(new, known)
    able: dict[str, None] = {}
    size = -1
    while size != len(able):
        size = len(able)
        for name, needs in fits.items():
            if all(not found or any(each in able for each in found) for found in needs):
                able[name] = None
    way: list[str] = []
    at = new.name
    while at not in able and at not in way:
        way.append(at)
        at = next(found[0] for found in fits[at] if found and not any(each in able for each in found))
    return (*way[way.index(at) :], at) if at in way else ()


def _reachable(new: Release, known: Known) -> dict[str, list[list[str]]]:
    """Release -> for each of its requirements, the releases that meet it. Of all that `new` requires, over any number of steps."""
    found: dict[str, list[list[str]]] = {}
    left = [new]
    while left:
        release = left.pop()
        if release.name in found:
            continue
        needs: list[list[str]] = []
        for need in release.requires:
            there = [each for each in known(need.service) if each.name != new.name]
            there += [new] if need.service == new.service else []
            fit = [each for each in there if matches(each.version, [need.versions])]
            needs.append([each.name for each in fit])
            left += fit
        found[release.name] = needs
    return found


def cycle_text(names: tuple[str, ...]) -> tuple[str, str]:
    """What is wrong, and what to do."""
    return f"is part of a cycle: {' requires '.join(names)}", "remove one of these requirements; none could be first"
