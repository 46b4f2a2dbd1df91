"""The records of rollouts that this root has written (`model.record`): hash-chained, append-only, bounded.

Each entry is saved under its own key, in the same write as the decision that it is about. A chain is never changed; the oldest
chains of finished rollouts are forgotten as a whole. An entry at the end of a chain that cannot be read is set aside when the root
starts, because the write may have been cut off. One in the middle stays as it is, so that verification finds it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, cast

from msgspec import Struct, field

from sdlb.core.state import State
from sdlb.model.record import START, Entry, canonical, digest, following

ENTRIES_MAX: Final = 4096
"""Of one rollout. The last `KEPT_BACK` are for what matters most."""
KEPT_BACK: Final = 256
TOTAL_MAX: Final = 16384
"""Of all rollouts. Beyond it, the oldest finished ones are forgotten."""
KEY, ASIDE = "record", "record-aside"
ENDED, LEFT_OUT = "ended", "left-out"


class Chain(Struct):
    """`keys`: of its entries in the store. `ended`: the rollout is over. `full`: only what matters most is recorded."""

    service: str
    rollout: str
    entries: list[Entry] = field(default_factory=list[Entry])
    keys: list[str] = field(default_factory=list[str])
    ended: bool = False
    full: bool = False

    def head(self) -> tuple[int, str]:
        """Number and SHA-256 of the last entry."""
        return len(self.entries), digest(self.entries[-1]) if self.entries else START

    def last(self, *kinds: str) -> Entry:
        """The last entry of these kinds; empty: there is none."""
        nothing: Entry = {}
        return next((each for each in reversed(self.entries) if each.get("kind") in kinds), nothing)


class Records:
    def __init__(self, state: State) -> None:
        self._state = state
        self._chains: dict[tuple[str, str], Chain] = {}  # (service, rollout), in the order in which they began

    def load(self, name: str, value: object) -> None:
        """In the order of the names: those of one chain by number."""
        place, _, _ = name.rpartition("/")
        service, _, rollout = place.partition("/")
        chain = self._chains.setdefault((service, rollout), Chain(service, rollout))
        chain.keys.append(name)
        chain.entries.append(_read(value) or {"unreadable": str(value)[:256]})

    def start(self) -> None:
        """All is loaded."""
        order = sorted(self._chains.values(), key=lambda chain: (_began(chain), chain.service, chain.rollout))
        self._chains = {(chain.service, chain.rollout): chain for chain in order}
        for chain in order:
            self._set_aside(chain)
            chain.ended, chain.full = bool(chain.last(ENDED)), bool(chain.last(LEFT_OUT))
            if not chain.entries:
                del self._chains[chain.service, chain.rollout]

    def _set_aside(self, chain: Chain) -> None:
        while chain.entries and "number" not in chain.entries[-1]:
            entry, name = chain.entries.pop(), chain.keys.pop()
            self._state.persist(f"{KEY}/{name}", None)
            self._state.persist(f"{ASIDE}/{name}", entry["unreadable"])
            text = f"the last entry of the record of {chain.rollout} of {chain.service} cannot be read; it was moved to {ASIDE}/{name}"
            self._state.note("record-torn", text, "error", service=chain.service, rollout=chain.rollout)

    def get(self, service: str, rollout: str) -> Chain | None:
        return self._chains.get((service, rollout))

    def find(self, which: str) -> list[Chain]:
        """By service: its last one; or all with the id of a rollout."""
        of_service = [chain for chain in self._chains.values() if chain.service == which]
        return of_service[-1:] or [chain for chain in self._chains.values() if chain.rollout == which]

    def begin(self, service: str, rollout: str) -> Chain:
        self._forget()
        chain = self._chains[service, rollout] = Chain(service, rollout)
        return chain

    def _forget(self) -> None:
        total = sum(len(chain.entries) for chain in self._chains.values())
        for place, chain in list(self._chains.items()):
            if total <= TOTAL_MAX - ENTRIES_MAX:
                return
            if chain.ended:
                total -= len(chain.entries)
                del self._chains[place]
                for name in chain.keys:
                    self._state.persist(f"{KEY}/{name}", None)

    def append(self, chain: Chain, kind: str, fields: Mapping[str, object], *, always: bool = False) -> None:
        """`always`: it is recorded although the chain is almost full."""
        left = ENTRIES_MAX - len(chain.entries)
        if left <= KEPT_BACK and not chain.full:
            chain.full = True
            self._add(chain, LEFT_OUT, {"text": "from here on, slots and acknowledgements are not recorded"})
        if left > KEPT_BACK or (always and left > 1):
            self._add(chain, kind, fields)
            chain.ended = chain.ended or kind == ENDED

    def _add(self, chain: Chain, kind: str, fields: Mapping[str, object]) -> None:
        last = chain.entries[-1] if chain.entries else None
        where = {"root": self._state.settings.name, "service": chain.service, "rollout": chain.rollout}
        at_ms = ms(self._state.wall_s)
        entry = following(last, {**fields, **where, "kind": kind, "at_ms": at_ms})
        name = f"{chain.service}/{chain.rollout}/{entry['number']:06}"
        chain.entries.append(entry)
        chain.keys.append(name)
        self._state.persist(f"{KEY}/{name}", canonical(entry))


def ms(wall_s: float) -> int:
    """Unix time in milliseconds."""
    return round(wall_s * 1000)


def _began(chain: Chain) -> int:
    return next((each["at_ms"] for each in chain.entries if "number" in each), 0)


def _read(value: object) -> Entry | None:
    """None: it is not an entry."""
    try:
        found: Any = json.loads(str(value))
        entry = cast("Entry", found) if isinstance(found, dict) else {}
    except (ValueError, RecursionError):
        return None
    whole = isinstance(entry.get("number"), int) and isinstance(entry.get("at_ms"), int)
    return entry if whole else None
