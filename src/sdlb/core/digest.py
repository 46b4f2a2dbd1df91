"""Digests of sets of claims and verdicts. After a reconnect, equal digests make it unnecessary to send the sets again."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from sdlb.core.messages import Claim, Verdict


def claims_digest(claims: Iterable[Claim]) -> int:
    """64-bit digest, independent of the order: the exclusive or of the hash of each claim. 0 for no claims."""
    return _digest(claims)


def verdicts_digest(verdicts: Iterable[Verdict]) -> int:
    """As `claims_digest`."""
    return _digest(verdicts)


def _digest(values: Iterable[object]) -> int:
    digest = 0
    for value in values:
        digest ^= int.from_bytes(blake2b(repr(value).encode(), digest_size=8).digest(), "big")
    return digest
