"""When the keys of TLS session tickets change: a new one every 12 hours, forgotten after 36 hours.

The first key encrypts, all keys decrypt. A ticket is valid for as long as a key encrypts (12 hours), so the two previous
keys are enough to decrypt every valid ticket. The age of a key is measured by the wall clock, because keys outlive the
process. Entries that share their keys (`[peers]`) merge them. A clock that jumps may drop a key too early, but never keeps one too long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from sdlb.model.site import TicketKey

ROTATE_S = 12 * 3600
KEPT = 3
SHARED_MAX = 16
"""Keys at once, with those of other entries: entries that start at the same time make one each."""
SKEW_S = 3600
"""A key from the future is taken as made now, so that entries whose clocks differ a little can share."""


def rotate(keys: Sequence[TicketKey], now_s: int, make: Callable[[], TicketKey]) -> tuple[TicketKey, ...]:
    """The keys at `now_s`, the newest first; equal to `keys` when nothing is due. `make` creates a new key."""
    good = [key for key in keys if 0 <= now_s - key.made_s < KEPT * ROTATE_S]
    if not good or now_s - good[0].made_s >= ROTATE_S:
        good.insert(0, make())
    return tuple(good[:SHARED_MAX])


def merge(keys: Sequence[TicketKey], others: Sequence[TicketKey], now_s: int) -> tuple[TicketKey, ...]:
    """The keys of this entry and of another one, the newest first. Entries that merge what the others have agree on the key that
    encrypts, and a new one is due for all of them at once: the first that makes it makes it for all."""
    found: dict[bytes, TicketKey] = {}
    for key in (*keys, *others):
        if not -SKEW_S <= now_s - key.made_s < KEPT * ROTATE_S:
            continue
        known = found.get(key.name)
        if known is None or key.made_s < known.made_s:
            found[key.name] = replace(key, made_s=min(key.made_s, now_s))
    return tuple(sorted(found.values(), key=lambda key: (key.made_s, key.name), reverse=True)[:SHARED_MAX])
