"""A digest of a set of claims, so that a re-connected child can skip sending what its parent still holds."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from sdlb.core.messages import Claim


def claims_digest(claims: Iterable[Claim]) -> int:
    """64 bits, independent of the order: the exclusive or of each claim's own hash. Never 0 unless there is none."""
    digest = 0
    for claim in claims:
        digest ^= int.from_bytes(blake2b(repr(claim).encode(), digest_size=8).digest(), "big")
    return digest
