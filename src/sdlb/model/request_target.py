"""Canonical host and path of a request, by the same rules as the engine (engine/crates/http1: `host.rs`, `path.rs`, `bytes.rs`).

A property test compares the two (`tests/e2e/test_explain_agrees.py`).
"""

from __future__ import annotations

import re

from sdlb.model.problem import Invalid
from sdlb.model.route import HIDDEN_DOTS, canonical_host, remove_dot_segments

REFUSED = frozenset(b'"#<>\\`')
"""Visible ASCII characters that are not valid in a path (RFC 3986, 3.3)."""
ENCODED_SLASH = "%2F"
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_HEX = frozenset("0123456789abcdefABCDEF")
_HOST = re.compile(r"^(?=.{1,253}\Z)[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\Z")


def request_host(text: str) -> str:
    """The canonical host without port. Unlike in a route, a label may have any length. Raises Invalid."""
    name = text.removesuffix(".")
    return name.lower() if _HOST.match(name) else canonical_host(text)


def request_path(text: str, *, public: bool) -> str:
    """The path as it is matched and forwarded. Raises Invalid where the engine answers 400.

    `public`: the listener has the hardened preset.
    """
    where = f"path {text[:80]!r}"
    bad = next((char for char in text if not "!" <= char <= "~" or ord(char) in REFUSED), None)
    if bad is not None:
        raise Invalid("bad-path", where, f"has {bad!r}, which is not valid in a path", "percent-encode it")
    if not text.startswith("/"):
        raise Invalid("bad-path", where, "does not start with /", "paths are absolute")
    path = remove_dot_segments(_escapes(text, where, public))
    if ENCODED_SLASH in path and HIDDEN_DOTS.search(path):
        raise Invalid("bad-path", where, "has a dot segment beside an encoded slash", "leave the dots out")
    return path


def _escapes(text: str, where: str, public: bool) -> str:
    """Decodes unreserved characters; writes the hex digits of the others in upper case."""
    out: list[str] = []
    for place, part in enumerate(text.split("%")):
        if place == 0:
            out.append(part)
            continue
        digits, rest = part[:2], part[2:]
        if len(digits) != 2 or not _HEX.issuperset(digits):
            raise Invalid("bad-path", where, "has a % that is not followed by two hex digits", "write it as %25")
        byte = int(digits, 16)
        if public and byte in (0, 0x5C):
            raise Invalid("bad-path", where, f"has %{digits}", "public nodes refuse encoded backslashes and NUL")
        out.append((chr(byte) if byte in _UNRESERVED else f"%{digits.upper()}") + rest)
    return "".join(out)
