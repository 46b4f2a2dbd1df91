"""What entries send each other about certificates and open challenges: the JSON of the call `Tree/Share` (proto/tree.proto).

A call has the state of the caller, and certificates that the other entry has asked for; the answer names those that it wants.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

CERTIFICATE_CHARS_MAX = 1 << 20


class Challenge(msgspec.Struct, frozen=True):
    """As `model.acme.ChallengeAnswer`."""

    kind: Annotated[str, msgspec.Meta(pattern="^(http-01|tls-alpn-01)$")]
    host: str
    token: str
    content: str


class Certificate(msgspec.Struct, frozen=True):
    """`pem`: chain and key."""

    site: str
    pem: str


class Ticket(msgspec.Struct, frozen=True):
    """A key of session tickets: `name` and `secret` in hexadecimal digits."""

    name: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    secret: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    made_s: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]


class Report(msgspec.Struct, frozen=True):
    """`held`: site -> rank of its certificate, [] without one; None: unchanged since the report with the same `digest`.
    `ordering`: the site of the open order. `tickets`: the keys of its session tickets."""

    digest: str
    held: dict[str, tuple[float, float, str] | None] | None = None
    ordering: str = ""
    stuck: bool = False
    challenges: tuple[Challenge, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    tickets: Annotated[tuple[Ticket, ...], msgspec.Meta(max_length=64)] = ()


class Answer(msgspec.Struct, frozen=True):
    """`digest`: of the last complete report that it has. `wants`: sites whose certificates at the caller are newer. `why`: why it
    cannot answer the caller's challenges, "" when it does."""

    digest: str
    wants: tuple[str, ...] = ()
    why: str = ""


class DecodeError(ValueError):
    """The bytes are not such a message."""


def encode(message: Report | Answer) -> bytes:
    return msgspec.json.encode(message)


def decode_report(raw: bytes) -> Report:
    """Raises DecodeError."""
    try:
        return msgspec.json.decode(raw, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodeError(str(error)) from None


def decode_answer(raw: bytes) -> Answer:
    """Raises DecodeError."""
    try:
        return msgspec.json.decode(raw, type=Answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodeError(str(error)) from None
