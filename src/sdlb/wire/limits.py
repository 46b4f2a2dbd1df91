"""Limits of every number, name and list on a node link.

They protect a node from a faulty or malicious peer. A message over a limit raises `DecodeError`, which closes the link of
its sender and affects no other node. Before sending, values are cut to the limits (`at_most`), so that a sum over many
children cannot make a message that the parent refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

COUNT_MAX: Final = (1 << 53) - 1
"""For counts, capacities, generations, revisions, sequence numbers, and stamps (microseconds since 1970, until the year
2255). JSON readers keep whole numbers up to this value exact (RFC 8259, 6)."""
U32_MAX: Final = (1 << 32) - 1
NUMBER_MAX: Final = (1 << 63) - 1
"""For verdict epochs and drain numbers: the incarnation in the upper half, a count in the lower half (`core.state`).
`core.slot.ALL_SEEN` is 2^63, greater than every epoch; it is sent as NUMBER_MAX."""
INCARNATION_MAX: Final = (1 << 31) - 1
"""An incarnation of this size still makes numbers up to NUMBER_MAX."""
REFUSED_INCARNATION_MAX: Final = (1 << 30) - 1
"""A refused node continues above the incarnation in the refusal. The limit leaves it 2^30 further starts."""
LEASE_S_MAX: Final = 7 * 86_400
"""Seven times the longest lease of an instance (`node.specs`). It bounds how long a false lease keeps a lost claim."""
PROTOCOLS_MAX: Final = 1_000_000

NAMES_MAX: Final = 64
"""Entries in a list of names (hosts, roots, features)."""
NAME_CHARS_MAX: Final = 256
COMPATIBLE_MAX: Final = 256
"""Declarations of one claim. An instance may have 32, and instances of one version usually share them."""
LABELS_MAX: Final = 64
LABEL_CHARS_MAX: Final = 512
ANCESTORS_MAX: Final = 1024
"""Nodes above: the roots and every node on a path to them."""
ADDRESS_CHARS_MAX: Final = 512
KEY_CHARS_MAX: Final = 2048
TEXT_CHARS_MAX: Final = 8192
WHY_CHARS_MAX: Final = 256
"""Characters of a reason's sentence and of each of its fields."""
DROPPED_MAX: Final = 100_000
"""Documents that one message withdraws: as many as a node holds."""
FIELDS_MAX: Final = 16
PATH_CHARS_MAX: Final = 65_536
"""Path of a call that is forwarded to the roots. A URL to explain has up to 8192 characters, and quoting triples them."""
REPORTS_MAX: Final = 100_000
"""Reports in one message. The reader counts fewer services of one child (`core.reports`)."""
BODY_BYTES_MAX: Final = 1 << 20
"""For a document, a report or a forwarded call. Responses are bounded by the size of the message."""


class DecodeError(ValueError):
    """The bytes are not a valid message of this protocol."""


# ------------------------------------------------------------------ reading


def number(value: int, most: int, what: str) -> int:
    if value > most:
        raise DecodeError(f"{what} is {value}; the limit is {most}")
    return value


def text(value: str, most: int, what: str) -> str:
    if len(value) > most:
        raise DecodeError(f"{what} has {len(value)} characters; the limit is {most}")
    return value


def name(value: str, what: str, most: int = NAME_CHARS_MAX) -> str:
    """A name, which may be empty. It has no spaces or control characters, because names are printed and joined by spaces."""
    if len(value) > most or not value.isprintable() or " " in value:
        raise DecodeError(f"{what} is {value[:40]!r}, which is not a name of up to {most} characters")
    return value


def names(values: Sequence[str], what: str, most: int = NAMES_MAX, chars: int = NAME_CHARS_MAX) -> tuple[str, ...]:
    if not values:
        return ()
    if len(values) > most:
        raise DecodeError(f"{len(values)} {what}; the limit is {most}")
    return tuple([name(value, f"one of the {what}", chars) for value in values])


def body(value: bytes, what: str) -> bytes:
    if len(value) > BODY_BYTES_MAX:
        raise DecodeError(f"{what} has {len(value)} bytes; the limit is {BODY_BYTES_MAX}")
    return value


# ------------------------------------------------------------------ writing


def at_most(value: int, most: int = COUNT_MAX) -> int:
    return value if value <= most else most


def first(values: Iterable[str], most: int = NAMES_MAX) -> Sequence[str]:
    return tuple(values)[:most]
