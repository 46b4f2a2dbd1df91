"""Digests of a set of claims or verdicts, so that a child that connects again need not be sent what it still holds."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from sdlb.core.messages import Claim, Verdict


def claims_digest(claims: Iterable[Claim]) -> int:
    """64 bits, independent of the order: the exclusive or of each one's own hash. 0 when there is none."""
    return _digest(claims)


def verdicts_digest(verdicts: Iterable[Verdict]) -> int:
    """As `claims_digest`."""
    return _digest(verdicts)


def _digest(values: Iterable[object]) -> int:
    digest = 0
    for value in values:
        digest ^= int.from_bytes(blake2b(repr(value).encode(), digest_size=8).digest(), "big")
    return digest
