"""Verifies minisign signatures (https://jedisct1.github.io/minisign/): Ed25519 over the file ("Ed") or over its BLAKE2b-512 ("ED")."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from msgspec import Struct

TEXT_BYTES_MAX = 64 * 1024
LEGACY_BYTES_MAX = 256 << 20
"""A signature over the file itself needs the file in memory."""
_UNTRUSTED, _TRUSTED = "untrusted comment: ", "trusted comment: "


class BadSignature(ValueError):
    """Says what is wrong, in words that follow the name of the signature's file."""


class PublicKey(Struct, frozen=True):
    key_id: bytes
    key: bytes


class Signature(Struct, frozen=True):
    prehashed: bool
    key_id: bytes
    signature: bytes
    trusted_comment: str
    global_signature: bytes


def parse_public_key(text: str) -> PublicKey:
    """The content of a .pub file, or its second line alone. Raises BadSignature."""
    lines = [line.strip() for line in text.strip().splitlines()]
    if lines and lines[0].startswith(_UNTRUSTED):
        del lines[0]
    raw = _decoded(lines[0], 42) if len(lines) == 1 else b""
    if raw[:2] != b"Ed":
        raise BadSignature("is not a minisign public key")
    return PublicKey(raw[2:10], raw[10:])


def parse_signature(text: str) -> Signature:
    """The content of a .minisig file. Raises BadSignature."""
    lines = text.rstrip("\r\n").splitlines()
    if len(lines) != 4 or not lines[0].startswith(_UNTRUSTED) or not lines[2].startswith(_TRUSTED):
        raise BadSignature("is not a minisign signature")
    raw, whole = _decoded(lines[1], 74), _decoded(lines[3], 64)
    if raw[:2] not in (b"Ed", b"ED"):
        raise BadSignature("has an unknown algorithm")
    return Signature(raw[:2] == b"ED", raw[2:10], raw[10:], lines[2].removeprefix(_TRUSTED), whole)


def verify(signature: Signature, keys: Sequence[PublicKey], digest: bytes, content: bytes | None) -> None:
    """`digest`: BLAKE2b-512 of the file. `content`: the file, for a signature that is not prehashed. Raises BadSignature."""
    # 30 ms and 6 MB that only nodes with keys need
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    matching = [key for key in keys if key.key_id == signature.key_id]
    if not matching:
        known = ", ".join(_id(key.key_id) for key in keys)
        raise BadSignature(f"is by the key {_id(signature.key_id)}; permitted: {known}")
    message = digest if signature.prehashed else content
    if message is None:
        raise BadSignature(
            f"is not prehashed, which is supported up to {LEGACY_BYTES_MAX >> 20} MiB; sign with minisign -H"
        )
    for key in matching:
        try:
            public = Ed25519PublicKey.from_public_bytes(key.key)
            public.verify(signature.signature, message)
            public.verify(signature.global_signature, signature.signature + signature.trusted_comment.encode())
            return
        except (InvalidSignature, ValueError):
            continue
    raise BadSignature("does not match the file")


def _id(key_id: bytes) -> str:
    """As minisign prints it."""
    return key_id[::-1].hex().upper()


def _decoded(line: str, length: int) -> bytes:
    try:
        raw = base64.b64decode(line.encode("ascii", "replace"), validate=True)
    except binascii.Error:
        raw = b""
    if len(raw) != length:
        raise BadSignature("is not in the format of minisign")
    return raw
