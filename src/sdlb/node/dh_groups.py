"""Published Diffie-Hellman groups of 2048 bits and more. A site's own parameters must be none of them: an attacker who invests in
one group breaks all who use it (Logjam, https://weakdh.org).

The groups of RFC 3526 and RFC 7919 are computed by the formulas of these documents. Of others, the SHA-256 of the prime is listed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from sdlb.node.dh_check import digest

RFC_3526 = {2048: 124476, 3072: 1690314, 4096: 240904, 6144: 929484, 8192: 4743158}
RFC_7919 = {2048: 560316, 3072: 2625351, 4096: 5736041, 6144: 15705020, 8192: 10965728}
"""Bits -> the number that makes the prime safe."""
OTHERS = {
    "bfe545862ca102ad1eeddb5fbfa5bf855ac4995c56a8b408ce3fe099dce93a9d": "RFC 5114, 2048 bits with a subgroup of 224 bits",
    "0b7835722cb619827610c2549fdda5587421686c4409a13865e76225522ddcc9": "RFC 5114, 2048 bits with a subgroup of 256 bits",
    "725541d91fe79bcf52e6d96581d83ab8eb68a6c2460d933f68792a369b003b1c": "SKIP, 2048 bits (a default of OpenSSL)",
    "fd0a9188ad8072add30826bb3f57f8fc61520c5a8b4d54af2236b5932b1a8c31": "SKIP, 4096 bits (a default of OpenSSL)",
    "7b6551ea6ff09bd78c24bede10980a155f70b6c81e48b4dd8bec822ab3bf0e94": "the default of HAProxy, 2048 bits",
    "a67f41cb161353e098a815bf4070d3268927a50cf3b9be233377f81e0ac77c1e": "the default of HAProxy, 4096 bits",
}
"""Apache and nginx use groups of RFC 3526 or have no default of this size."""


def published(prime: int) -> str:
    """The name of the group with this prime; empty if none is known."""
    return _known().get(digest(prime), "")


@cache
def _known() -> dict[str, str]:
    """Digest -> name."""
    computed = {
        digest(_prime(bits, number, constant)): f"{name}, {bits} bits"
        for name, numbers, constant in (("RFC 3526", RFC_3526, pi), ("RFC 7919 (ffdhe)", RFC_7919, e))
        for bits, number in numbers.items()
    }
    return computed | OTHERS


def _prime(bits: int, number: int, constant: Callable[[int], int]) -> int:
    """RFC 3526, section 3, and RFC 7919, appendix A: 64 ones at both ends, and the digits of a constant between them."""
    return (1 << bits) - (1 << (bits - 64)) + ((constant(bits - 130) + number) << 64) - 1


_EXTRA_BITS = 64


def pi(bits: int) -> int:
    """The integer part of pi times 2 to the `bits`, by Machin's formula."""
    one = 1 << (bits + _EXTRA_BITS)

    def arctan_of_one_over(x: int) -> int:
        total = term = one // x
        divisor, sign = 1, -1
        while term:
            term //= x * x
            divisor += 2
            total += sign * (term // divisor)
            sign = -sign
        return total

    return (16 * arctan_of_one_over(5) - 4 * arctan_of_one_over(239)) >> _EXTRA_BITS


def e(bits: int) -> int:
    """The same for Euler's number, by its series."""
    total = term = 1 << (bits + _EXTRA_BITS)
    number = 1
    while term:
        term //= number
        total += term
        number += 1
    return total >> _EXTRA_BITS
