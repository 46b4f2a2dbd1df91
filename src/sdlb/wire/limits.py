"""How large what another node sends may be: of every number, name and list of a node link.

One child must not be able to break what others depend on. What is over a limit makes its message no message
(`DecodeError`), which costs the sender its link and nobody else anything. In the other direction sums are cut to the
limits (`at_most`), so that a sum over many children never makes a message that the parent refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

COUNT_MAX: Final = (1 << 53) - 1
"""Counts, capacities, generations, revisions, sequence numbers, and stamps (microseconds since 1970, until the year 2255).
JSON readers hold whole numbers up to here without loss (RFC 8259, 6)."""
U32_MAX: Final = (1 << 32) - 1
NUMBER_MAX: Final = (1 << 63) - 1
"""Verdict epochs and numbers of drains: an incarnation in the upper half, a count in the lower half (`core.state`). They
stay below `core.slot.ALL_SEEN`, which is 2^63 and conforms to every epoch; on the wire that is written as NUMBER_MAX."""
INCARNATION_MAX: Final = (1 << 31) - 1
"""So that an incarnation makes numbers up to NUMBER_MAX."""
REFUSED_INCARNATION_MAX: Final = (1 << 30) - 1
"""A node takes the next incarnation above the one with which it is refused; after that, it must still be able to start a
thousand million times."""
LEASE_S_MAX: Final = 7 * 86_400
"""Seven times the longest lease of an instance (`node.specs`): a false one keeps what its sender claimed no longer."""
PROTOCOLS_MAX: Final = 1_000_000

NAMES_MAX: Final = 64
"""Entries of a list of names (hosts, roots, features)."""
NAME_CHARS_MAX: Final = 256
COMPATIBLE_MAX: Final = 256
"""Declarations of one claim: an instance may have 32, and the instances of one version mostly have the same."""
LABELS_MAX: Final = 64
LABEL_CHARS_MAX: Final = 512
ANCESTORS_MAX: Final = 1024
"""All nodes above: the roots and every node on a way to them."""
ADDRESS_CHARS_MAX: Final = 512
KEY_CHARS_MAX: Final = 2048
TEXT_CHARS_MAX: Final = 8192
WHY_CHARS_MAX: Final = 256
"""Sentences, and the values that they are made of."""
DROPPED_MAX: Final = 100_000
"""Documents that one message takes back: all that a node holds."""
FIELDS_MAX: Final = 16
PATH_CHARS_MAX: Final = 65_536
"""Of a call that is asked of the roots: a URL to explain has up to 8192 characters, each up to three when quoted."""
BODY_BYTES_MAX: Final = 1 << 20
"""Of a document or a question. Answers are only bounded by the message."""


class DecodeError(ValueError):
    """These bytes are no message of this protocol."""


# ------------------------------------------------------------------ reading


def number(value: int, most: int, what: str) -> int:
    if value > most:
        raise DecodeError(f"{what} is {value}; at most {most}")
    return value


def text(value: str, most: int, what: str) -> str:
    if len(value) > most:
        raise DecodeError(f"{what} has {len(value)} characters; at most {most}")
    return value


def name(value: str, what: str, most: int = NAME_CHARS_MAX) -> str:
    """Something that is shown, kept and joined by spaces: without control characters or spaces. May be empty."""
    if len(value) > most or not value.isprintable() or " " in value:
        raise DecodeError(f"{what} is {value[:40]!r}, which is no name of up to {most} characters")
    return value


def names(values: Sequence[str], what: str, most: int = NAMES_MAX, chars: int = NAME_CHARS_MAX) -> tuple[str, ...]:
    if not values:
        return ()
    if len(values) > most:
        raise DecodeError(f"{len(values)} {what}; at most {most}")
    return tuple([name(value, f"one of the {what}", chars) for value in values])


def body(value: bytes, what: str) -> bytes:
    if len(value) > BODY_BYTES_MAX:
        raise DecodeError(f"{what} has {len(value)} bytes; at most {BODY_BYTES_MAX}")
    return value


# ------------------------------------------------------------------ writing


def at_most(value: int, most: int = COUNT_MAX) -> int:
    return value if value <= most else most


def first(values: Iterable[str], most: int = NAMES_MAX) -> Sequence[str]:
    return tuple(values)[:most]
