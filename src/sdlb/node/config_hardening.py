"""`[hardening]` of the node file. The defaults follow from `public`."""

from __future__ import annotations

from collections.abc import Mapping

from sdlb.model.hardening import PUBLIC_LIMITS, Hardening
from sdlb.node.config_reader import Reader, one_of

TLS_VERSIONS = ("1.2", "1.3")
KEYS = Hardening.__struct_fields__
HSTS_S_MAX = 10 * 366 * 86_400


def read_hardening(top: Reader, public: bool) -> Hardening:
    """Raises Invalid."""
    preset = Hardening.preset(public)
    table = top.table("hardening", KEYS)
    flags = {name: table.flag(name, value) for name in KEYS if isinstance(value := getattr(preset, name), bool)}
    return Hardening(
        **flags,
        hsts_s=table.whole("hsts_s", preset.hsts_s, 0, HSTS_S_MAX),
        tls_min=table.text("tls_min", preset.tls_min, one_of(*TLS_VERSIONS)),
    )


def public_limits(limits: Mapping[str, int], public: bool) -> dict[str, int]:
    """The limits of the node file, with those that `public` adds."""
    return {**PUBLIC_LIMITS, **limits} if public else dict(limits)
