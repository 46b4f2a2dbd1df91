"""Digests of sets of claims and verdicts. After a reconnect, equal digests make it unnecessary to send the sets again."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from msgspec import Struct

from sdlb.core.messages import Claim, Doc, Verdict


def claims_digest(claims: Iterable[Claim]) -> int:
    """64-bit digest, independent of the order: the exclusive or of the hash of each claim. 0 for no claims."""
    return _digest(without_last(claim, "why") for claim in claims)


def verdicts_digest(verdicts: Iterable[Verdict]) -> int:
    """As `claims_digest`."""
    return _digest(map(repr, verdicts))


def doc_digest(doc: Doc) -> int:
    return _digest([without_last(doc, "scope")])


def without_last(value: Struct, field: str) -> str:
    """Its text without its last field, which neighbours may have in another form."""
    return f"{repr(value).removesuffix(f', {field}={getattr(value, field)!r})')})"


def _digest(texts: Iterable[str]) -> int:
    digest = 0
    for text in texts:
        digest ^= int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
    return digest
