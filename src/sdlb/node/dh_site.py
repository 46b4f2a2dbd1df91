"""The DH parameters of one site: made, checked and kept; and the PEM file that HAProxy reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from sdlb.model.problem import Invalid
from sdlb.model.site import SiteSpec
from sdlb.node import dh_check, dh_files
from sdlb.node.certificate_faults import BLOCK, check
from sdlb.node.dh_files import CODE, Stored
from sdlb.node.dh_groups import published
from sdlb.node.pem import read_site

Make = Callable[[int], str]
"""Bits -> PEM."""
BITS = (2048, 3072, 4096)
CHECKED = f"generator 2 of order q; p and (p - 1) / 2 prime, {dh_check.ROUNDS} rounds of Miller-Rabin; no published group; no other site's"


def provide(state_dir: Path, site: str, bits: int | None, renew: bool, make: Make) -> tuple[Stored, bool]:
    """The parameters of a site, and whether they are new. `bits` None: those that there are, or 2048. Raises Invalid, OSError."""
    with dh_files.locked(state_dir):
        others = dh_files.others(state_dir, site)
        stored = None if renew else dh_files.read(state_dir, site)
        if stored is not None:
            _check_stored(stored, bits, others)
            return stored, False
        wanted = bits or BITS[0]
        pem = make(wanted)
        _check_made(pem, wanted, others)
        made = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        return dh_files.write(state_dir, site, pem, made, CHECKED), True


def _check_stored(stored: Stored, bits: int | None, others: dict[str, str]) -> None:
    renew = f"run: sdlb tls dhparam {stored.site} --renew"
    if bits not in (None, stored.bits):
        what = f"has parameters of {stored.bits} bits"
        raise Invalid(CODE, stored.site, what, f"{renew} --bits {bits}")
    if other := others.get(stored.sha256):
        raise Invalid(CODE, str(stored.path), f"has the prime of the site {other}", renew)
    if stored.path.stat().st_mode & 0o077:
        raise Invalid(CODE, str(stored.path), "can be read or changed by other users", f"run: chmod 600 {stored.path}")


def _check_made(pem: str, bits: int, others: dict[str, str]) -> None:
    try:
        p, g = dh_check.parse(pem)
    except ValueError as error:
        raise Invalid(
            CODE, "openssl dhparam", f"printed no DH parameters: {error}", "run it by hand to see why"
        ) from None
    if wrong := list(dh_check.faults(p, g, bits, others, published)):
        what = f"made parameters that are not used: {'; '.join(wrong)}"
        raise Invalid(CODE, "openssl dhparam", what, "run the command again; if it happens again, update openssl")


def haproxy_bundles(spec: SiteSpec, parameters: Stored) -> list[str]:
    """For each certificate of the site: private key, chain and DH parameters, without a blank line (which would end a payload of
    HAProxy's `set ssl cert`). Raises Invalid."""
    site = read_site(spec)
    if (refused := check(spec, site).refused) is not None:
        raise refused
    bundles: list[str] = []
    for pem in site.certificates:
        blocks = [(found[1], found[0]) for found in BLOCK.finditer(pem)]
        key = next(block for kind, block in blocks if kind.endswith(b"PRIVATE KEY"))
        chain = [block for kind, block in blocks if kind == b"CERTIFICATE"]
        text = b"\n".join([key, *chain]).decode("ascii") + f"\n{parameters.pem}"
        bundles.append(re.sub(r"\n\s*\n+", "\n", text.replace("\r", "")))
    return bundles
