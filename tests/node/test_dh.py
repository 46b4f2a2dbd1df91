"""Diffie-Hellman parameters: what is accepted, how they are kept, and the files for HAProxy."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sdlb.model.problem import Invalid
from sdlb.model.site import PemFile, SiteSpec
from sdlb.node import dh_check, dh_files, dh_groups, dh_make, dh_site
from tests.certificates import needs_openssl
from tests.made_certificates import make

FOLDER = Path(__file__).parent / "data"
P, G = dh_check.parse((FOLDER / "dh2048.pem").read_text())
"""Made once with `openssl dhparam 2048`. A check takes seconds, so most tests use a smaller one."""
BITS = 512
GOOD = (FOLDER / "dh512.pem").read_text()
SMALL, _ = dh_check.parse(GOOD)
SITE = "www.example"


def no_group(prime: int) -> str:
    return ""


def faults(p: int, g: int = 2, bits: int = 0, others: dict[str, str] | None = None) -> list[str]:
    return list(dh_check.faults(p, g, bits or p.bit_length(), others or {}, dh_groups.published))


def pem(p: int, g: int) -> str:
    """PKCS #3 in PEM."""

    def element(tag: int, content: bytes) -> bytes:
        size = len(content)
        head = bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")
        return bytes([tag]) + head + content

    numbers = [element(2, n.to_bytes(n.bit_length() // 8 + 1, "big")) for n in (p, g)]
    text = base64.encodebytes(element(0x30, b"".join(numbers))).decode().replace("\n", "")
    lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return f"-----BEGIN DH PARAMETERS-----\n{lines}\n-----END DH PARAMETERS-----\n"


# ------------------------------------------------------------------ checks


def test_good_parameters_have_no_fault() -> None:
    assert (P.bit_length(), G) == (2048, 2)
    assert faults(P) == []
    assert dh_check.parse(pem(P, G)) == (P, G)


@pytest.mark.parametrize(
    ("p", "g", "expected"),
    [
        (23, 2, ""),
        (47, 2, ""),
        (11, 2, "2 does not generate the subgroup"),  # order 10
        (59, 2, "2 does not generate the subgroup"),
        (23, 5, "the generator is 5 instead of 2"),
        (29, 2, "p is not a safe prime"),
        (21, 2, "p is not prime"),
        (2047, 2, "p is not prime"),  # a strong pseudoprime to base 2
        (3215031751, 2, "p is not prime"),  # to the bases 2, 3, 5 and 7
        (561, 2, "p is not prime"),  # a Carmichael number
    ],
)
def test_small_groups(p: int, g: int, expected: str) -> None:
    found = list(dh_check.faults(p, g, p.bit_length(), {}, no_group))
    assert expected in "; ".join(found) if expected else not found


def test_broken_groups_of_full_size() -> None:
    assert faults(P, bits=3072) == ["the prime has 2048 bits instead of 3072"]
    assert faults(P, others={dh_check.digest(P): "a.example"}) == ["the prime is that of the site a.example"]
    assert faults(P, g=5) == ["the generator is 5 instead of 2"]
    assert faults(P + 24) == ["p is not prime"]


@pytest.mark.parametrize(
    ("name", "number", "constant"), [("RFC 3526", "RFC_3526", "pi"), ("RFC 7919", "RFC_7919", "e")]
)
def test_published_groups_are_refused(name: str, number: str, constant: str) -> None:
    """That each is a safe prime shows that the formula is the document's."""
    for bits in (2048, 3072):
        prime: int = getattr(dh_groups, number)[bits]
        prime = dh_groups._prime(bits, prime, getattr(dh_groups, constant))  # pyright: ignore[reportPrivateUsage]
        assert pow(3, prime - 1, prime) == pow(3, (prime - 3) // 2, (prime - 1) // 2) == 1
        assert dh_groups.published(prime) == f"{name}{' (ffdhe)' * (constant == 'e')}, {bits} bits"
        assert faults(prime) == [f"the prime is a published one: {dh_groups.published(prime)}"]


@needs_openssl
def test_a_group_of_rfc_5114_is_known(tmp_path: Path) -> None:
    words = ["openssl", "genpkey", "-genparam", "-algorithm", "DHX", "-pkeyopt", "dh_rfc5114:2"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    p, _ = dh_check.parse(done.stdout.replace("X9.42 ", ""))
    assert dh_groups.published(p).startswith("RFC 5114")


@pytest.mark.parametrize(
    "text", ["", "hello", pem(P, 2).replace("MII", "MMM"), "-----BEGIN DH PARAMETERS-----\nMII=\n-----END DH"]
)
def test_what_is_no_parameters(text: str) -> None:
    with pytest.raises(ValueError, match="DH parameters"):
        dh_check.parse(text)


# ------------------------------------------------------------------ made and kept


def state(folder: Path) -> Path:
    folder.chmod(0o700)
    return folder


def never(bits: int) -> str:
    pytest.fail("they were made again")


def test_made_once_kept_and_replaced_on_request(tmp_path: Path) -> None:
    folder = state(tmp_path)
    stored, new = dh_site.provide(folder, SITE, BITS, False, lambda bits: GOOD)
    assert new and stored.path == folder / "dhparam/www.example.pem"
    assert stored.path.stat().st_mode & 0o777 == 0o600
    text = stored.path.read_text()
    assert f"# site: {SITE}\n# sha256: {dh_check.digest(SMALL)}\n# made: 20" in text and text.endswith(GOOD)
    assert "\n# checked: generator 2 of order q; p and (p - 1) / 2 prime, 40 rounds" in text
    assert dh_site.provide(folder, SITE, None, False, never) == (stored, False)
    assert dh_site.provide(folder, SITE, BITS, False, never) == (stored, False)
    with pytest.raises(
        Invalid, match=r"has parameters of 512 bits; run: sdlb tls dhparam www.example --renew --bits 3072"
    ):
        dh_site.provide(folder, SITE, 3072, False, never)
    _, new = dh_site.provide(folder, SITE, BITS, True, lambda bits: GOOD)
    assert new
    with pytest.raises(Invalid, match=r"the prime is that of the site www.example"):
        dh_site.provide(folder, "*.b.example", BITS, False, lambda bits: GOOD)
    assert sorted(path.name for path in (folder / "dhparam").iterdir()) == [".lock", "www.example.pem"]


def test_bad_ones_are_never_kept(tmp_path: Path) -> None:
    folder = state(tmp_path)
    for made, expected in (
        (pem(SMALL + 24, 2), "p is not prime"),
        (pem(SMALL, 5), "the generator is 5"),
        ("nonsense", "printed no DH parameters"),
        ("", "there are no DH parameters"),
    ):
        with pytest.raises(Invalid, match=expected):
            dh_site.provide(folder, SITE, BITS, False, lambda bits, made=made: made)
    assert [path.name for path in (folder / "dhparam").iterdir()] == [".lock"]


def test_a_file_that_was_changed_or_opened_is_named(tmp_path: Path) -> None:
    folder = state(tmp_path)
    stored, _ = dh_site.provide(folder, SITE, BITS, False, lambda bits: GOOD)
    stored.path.chmod(0o644)
    with pytest.raises(Invalid, match="can be read or changed by other users; run: chmod 600"):
        dh_site.provide(folder, SITE, None, False, never)
    stored.path.chmod(0o600)
    whole = stored.path.read_text()
    for text in (whole.replace("# bits: 512", "# bits: 3072"), whole[:-100], whole.replace(SITE, "a.example"), "\xff"):
        stored.path.write_text(text, "latin-1")
        with pytest.raises(Invalid, match="--renew"):
            dh_site.provide(folder, SITE, None, False, never)


def test_what_a_killed_command_left_is_removed_and_two_do_not_run_at_once(tmp_path: Path) -> None:
    folder = state(tmp_path)
    with dh_files.locked(folder), pytest.raises(Invalid, match="another command makes DH parameters now"):
        dh_site.provide(folder, SITE, None, False, never)
    left = folder / "dhparam/.www.example.pem.new"
    left.write_text("half of")
    dh_site.provide(folder, SITE, BITS, False, lambda bits: GOOD)
    assert not left.exists()


# ------------------------------------------------------------------ openssl


@needs_openssl
def test_openssl_makes_them_at_a_lower_priority(tmp_path: Path) -> None:
    """512 bits take well under a second; the command does not offer them."""
    told: list[float] = []
    p, g = dh_check.parse(dh_make.generate(512, told.append))
    assert list(dh_check.faults(p, g, 512, {}, no_group)) == []
    told.clear()
    fake = tmp_path / "openssl"
    fake.write_text("#!/bin/sh\nsleep 0.5\nnice\n")
    fake.chmod(0o700)
    assert dh_make.generate(512, told.append, str(fake)) == f"{os.nice(0) + dh_make.NICE if os.nice(0) < 4 else 19}\n"
    assert told and told == sorted(told)


def test_an_openssl_that_is_missing_or_fails(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"cannot be run .*apt install openssl"):
        dh_make.generate(512, print, str(tmp_path / "none"))
    with pytest.raises(Invalid, match="exited with code 1"):
        dh_make.generate(512, print, shutil.which("false") or "false")


# ------------------------------------------------------------------ for HAProxy


def test_a_bundle_has_key_chain_and_parameters_and_no_blank_line(tmp_path: Path) -> None:
    folder = state(tmp_path)
    stored, _ = dh_site.provide(folder, SITE, BITS, False, lambda bits: GOOD)
    root = make(authority=True, name="root")
    first, second = (make(SITE, by=root) for _ in range(2))
    chain, key, both = tmp_path / "a.crt", tmp_path / "a.key", tmp_path / "b.pem"
    chain.write_text(f"subject\n\n{first.chain}\r\n\n{root.chain}\n\n")
    key.write_text(f"\n{first.key_pem()}\n".replace("\n", "\r\n"))
    both.write_text(second.pem)
    files = ((PemFile(str(chain)), PemFile(str(key))), (PemFile(str(both)), None))
    one, two = dh_site.haproxy_bundles(SiteSpec((SITE,), files), stored)
    assert one == first.key_pem() + first.chain + root.chain + GOOD
    assert two == second.key_pem() + second.chain + GOOD
    both.write_text(second.chain)
    with pytest.raises(Invalid, match="has no private key"):
        dh_site.haproxy_bundles(SiteSpec((SITE,), files), stored)
