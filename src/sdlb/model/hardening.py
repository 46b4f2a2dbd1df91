"""`[hardening]` of the node file: how strict the listeners for clients are. `public = true` sets the defaults."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

HSTS_S: Final = 63_072_000
"""Two years."""
PUBLIC_LIMITS: Final = {"body_bytes": 100 << 20, "connections_per_address": 1024}
"""Limits that a public node has unless its node file sets others."""


class Hardening(Struct, frozen=True):
    """Field names and meanings as the keys of `[hardening]`."""

    refuse_encoded_paths: bool = False
    drop_underscore_fields: bool = False
    replace_request_ids: bool = False
    handshakes_per_address: bool = False
    redirect_to_https: bool = False
    hsts_s: int = 0
    tls_min: str = "1.2"
    session_tickets: bool = True

    @classmethod
    def preset(cls, public: bool) -> Hardening:
        return cls(True, True, True, True, True, HSTS_S) if public else cls()
