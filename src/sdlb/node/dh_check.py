"""Checks of Diffie-Hellman parameters that another program made: size, generator, primes, and that no other site has them.

A safe prime p is one for which q = (p - 1) / 2 is prime too. Then every element but 1 and p - 1 has order q or 2q, and no small
subgroup gives bits of a key away. The generator must have order q (RFC 7919, section 3): 2q would give one bit away.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Final

ROUNDS: Final = 40
"""Of Miller-Rabin, each with a base chosen at random: a composite number passes with probability 4 to the -40 at most."""
PEM: Final = re.compile(r"-----BEGIN DH PARAMETERS-----\n([A-Za-z0-9+/=\n]+)-----END DH PARAMETERS-----\n")
_SMALL_PRIMES: Final = tuple(n for n in range(3, 1000, 2) if all(n % d for d in range(3, int(n**0.5) + 1, 2)))
Draw = Callable[[int], int]
"""A random number below its argument."""


def parse(pem: str) -> tuple[int, int]:
    """(p, g) of PKCS #3 parameters in PEM: SEQUENCE { INTEGER p, INTEGER g }. Raises ValueError."""
    found = PEM.search(pem)
    if found is None:
        raise ValueError("there are no DH parameters")
    data = base64.b64decode(found[1])
    tag, sequence, _ = _element(data)
    kind_p, p, rest = _element(sequence)
    kind_g, g, _ = _element(rest)
    if (tag, kind_p, kind_g) != (0x30, 0x02, 0x02):
        raise ValueError("these are no DH parameters")
    return int.from_bytes(p, "big"), int.from_bytes(g, "big")


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag, content and what follows, of one element in DER."""
    if len(data) < 2:
        raise ValueError("the DH parameters are cut off")
    size, start = data[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start], "big")
    if len(data) < start + size:
        raise ValueError("the DH parameters are cut off")
    return data[0], data[start : start + size], data[start + size :]


def digest(prime: int) -> str:
    """SHA-256 of a prime, as hexadecimal digits."""
    return hashlib.sha256(prime.to_bytes((prime.bit_length() + 7) // 8, "big")).hexdigest()


def faults(
    p: int,
    g: int,
    bits: int,
    others: Mapping[str, str],
    published: Callable[[int], str],
    draw: Draw = secrets.randbelow,
) -> Iterator[str]:
    """What is wrong; the primes are checked only if the rest is right, as this takes seconds. `others`: the digests of the primes
    of other sites, with their names."""
    cheap: list[str] = []
    if p.bit_length() != bits:
        cheap.append(f"the prime has {p.bit_length()} bits instead of {bits}")
    if name := published(p):
        cheap.append(f"the prime is a published one: {name}")
    if site := others.get(digest(p)):
        cheap.append(f"the prime is that of the site {site}")
    if g != 2:
        cheap.append(f"the generator is {g} instead of 2")
    yield from cheap
    q = (p - 1) // 2
    if cheap:
        return
    if not is_prime(p, draw):
        yield "p is not prime"
    elif not is_prime(q, draw):
        yield "(p - 1) / 2 is not prime: p is not a safe prime"
    elif pow(2, q, p) != 1:
        yield "2 does not generate the subgroup of order (p - 1) / 2"


def is_prime(n: int, draw: Draw = secrets.randbelow) -> bool:
    """Miller-Rabin (FIPS 186-5, B.3.1)."""
    if n < 4 or n % 2 == 0:
        return n in (2, 3)
    if any(n % small == 0 and n != small for small in _SMALL_PRIMES):
        return False
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    return all(_passes(2 + draw(n - 3), n, odd, twos) for _ in range(ROUNDS))


def _passes(base: int, n: int, odd: int, twos: int) -> bool:
    x = pow(base, odd, n)
    if x in (1, n - 1):
        return True
    for _ in range(twos - 1):
        x = x * x % n
        if x == n - 1:
            return True
    return False
