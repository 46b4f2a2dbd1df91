"""The hand-written mutations: `mutations/*.toml`, one file for each area of the core.

[[mutation]]
name = "drain-ack-of-one-parent"                 unique, in words
place = "core/parents.py:Parents.drained"        a file below src/sdlb, and the function or class in it
old = "all("                                     the source text to replace; it occurs exactly once in the place
new = "any("
breaks = "One sentence: what the node does wrong now."
matters = "One sentence: what a user loses by it."
promise = [2, 3]                                 the promises that it breaks; see docs/promises.md
test = "core/test_links.py::test_a_gap"          optional: the test below tests/ that is run first
scenario = "replaced-rack"                       optional: the scenario of the simulator that is run first
explored = "chain-deploy"                        optional: the scenario of the exploration that is run first
unit_only = "..."                                optional: why no simulator or exploration can notice it

[[planned]]                                      a mutation of a rule whose place is not known yet
name, rule, change, matters, promise
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.mutate.place import PlaceError, mutated

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent / "mutations"
SOURCE = Path("src/sdlb")
AREAS = ("core/", "model/")


@dataclass(frozen=True, slots=True)
class Mutation:
    """`file`: relative to the root of the project. `text`: the whole changed file, of a generated mutation only."""

    name: str
    file: str
    scope: str
    old: str
    new: str
    breaks: str
    matters: str = ""
    promise: tuple[int, ...] = ()
    unit_only: str = ""
    test: str = ""
    scenario: str = ""
    explored: str = ""
    text: str = ""

    @property
    def generated(self) -> bool:
        return bool(self.text)

    def apply(self, root: Path) -> str:
        """The text of the changed file. Raises PlaceError."""
        if self.generated:
            return self.text
        path = root / self.file
        if not path.exists():
            raise PlaceError(f"{self.file} does not exist")
        return mutated(path.read_text(), self.scope, self.old, self.new)


@dataclass(frozen=True, slots=True)
class Planned:
    name: str
    rule: str
    breaks: str
    matters: str
    promise: tuple[int, ...]
    draft: Mutation | None = None


def read(folder: Path = FOLDER) -> tuple[list[Mutation], list[Planned]]:
    """All entries of the table. Raises ValueError for an invalid entry."""
    mutations: list[Mutation] = []
    planned: list[Planned] = []
    for path in sorted(folder.glob("*.toml")):
        data = tomllib.loads(path.read_text())
        for unknown in sorted(set(data) - {"mutation", "planned"}):
            raise ValueError(f"{path.name}: unknown table [[{unknown}]]")
        mutations += [_mutation(path.name, entry) for entry in data.get("mutation", [])]
        planned += [_planned(path.name, entry) for entry in data.get("planned", [])]
    names = [each.name for each in (*mutations, *planned)]
    for name in sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{name} is the name of {names.count(name)} entries")
    return mutations, planned


REQUIRED = ("name", "place", "old", "new", "breaks", "matters", "promise")
OPTIONAL = ("test", "scenario", "explored", "unit_only")


def _mutation(where: str, entry: dict[str, Any]) -> Mutation:
    _check_keys(where, entry, REQUIRED, ("rule", *OPTIONAL))
    return _placed(where, entry)


def _planned(where: str, entry: dict[str, Any]) -> Planned:
    if "place" in entry:
        _check_keys(where, entry, (*REQUIRED, "rule"), OPTIONAL)
    else:
        _check_keys(where, entry, ("name", "rule", "breaks", "matters", "promise"), ())
    return Planned(
        entry["name"],
        entry["rule"],
        entry["breaks"],
        entry["matters"],
        tuple(entry["promise"]),
        _placed(where, entry) if "place" in entry else None,
    )


def _placed(where: str, entry: dict[str, Any]) -> Mutation:
    file, _, scope = entry["place"].partition(":")
    if not file.startswith(AREAS):
        raise ValueError(f"{where}: {entry['name']}: the place is not in {' or '.join(AREAS)}")
    return Mutation(
        name=entry["name"],
        file=str(SOURCE / file),
        scope=scope,
        old=entry["old"],
        new=entry["new"],
        breaks=entry["breaks"],
        matters=entry["matters"],
        promise=tuple(entry["promise"]),
        **{key: entry[key] for key in OPTIONAL if key in entry},
    )


def _check_keys(where: str, entry: dict[str, Any], required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    name = entry.get("name", "an entry without a name")
    missing = [key for key in required if key not in entry]
    unknown = sorted(set(entry) - {*required, *optional})
    if missing or unknown:
        raise ValueError(f"{where}: {name}: missing keys {missing}, unknown keys {unknown}")
    empty = [key for key in required if key not in ("new", "promise") and not entry[key]]
    if empty:
        raise ValueError(f"{where}: {name}: empty keys {empty}")
