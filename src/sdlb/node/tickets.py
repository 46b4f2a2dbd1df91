"""When the keys of TLS session tickets change: a new one at least daily, old ones forgotten.

The first key seals, all of them open. A ticket lives as long as a key seals (12 hours), so that with the two keys before
the first every ticket that is still good can be opened. What happens between nodes that are down is the same: keys are old
by the wall clock, for they outlive the process; a clock that jumps costs a key, never keeps one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sdlb.model.site import TicketKey

ROTATE_S = 12 * 3600
KEPT = 3


def rotate(keys: Sequence[TicketKey], now_s: int, make: Callable[[], TicketKey]) -> tuple[TicketKey, ...]:
    """The keys at `now_s`, the newest first; equal to `keys` when nothing is due. `make` gives one that is made now."""
    good = [key for key in keys if 0 <= now_s - key.made_s < KEPT * ROTATE_S]
    if not good or now_s - good[0].made_s >= ROTATE_S:
        good.insert(0, make())
    return tuple(good[:KEPT])
