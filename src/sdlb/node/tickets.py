"""When the keys of TLS session tickets change: a new one at least daily, old ones forgotten.

The first key encrypts, all keys decrypt. A ticket is valid for as long as a key encrypts (12 hours), so the two previous
keys are enough to decrypt every valid ticket. The age of a key is measured by the wall clock, because keys outlive the
process. A clock that jumps may drop a key too early, but never keeps one too long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sdlb.model.site import TicketKey

ROTATE_S = 12 * 3600
KEPT = 3


def rotate(keys: Sequence[TicketKey], now_s: int, make: Callable[[], TicketKey]) -> tuple[TicketKey, ...]:
    """The keys at `now_s`, the newest first; equal to `keys` when nothing is due. `make` creates a new key."""
    good = [key for key in keys if 0 <= now_s - key.made_s < KEPT * ROTATE_S]
    if not good or now_s - good[0].made_s >= ROTATE_S:
        good.insert(0, make())
    return tuple(good[:KEPT])
