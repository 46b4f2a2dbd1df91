"""Faults of certificates, each found with its file and what to do, and never in place of what works."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from sdlb.model.problem import Invalid
from sdlb.model.site import PemFile, Site, SiteSpec
from sdlb.node.certificate_faults import Checked, check, covers
from sdlb.node.check import certificate_warnings, mistakes
from sdlb.node.config import Options
from sdlb.node.pem import read_site
from tests.certificates import needs_openssl
from tests.made_certificates import DAY, Made, curve, make, rsa_key, with_another_value, without_point

ROOT = make(authority=True, name="root")
MIDDLE = make(authority=True, name="middle", by=ROOT)
OTHER = make(authority=True, name="other")
NOW = datetime.now(UTC)


def checked(folder: Path, text: str, *hosts: str, key: str | None = None, by_engine: bool = False) -> Checked:
    """`key`: the content of a key file of its own. `by_engine`: the engine checks keys."""
    file = PemFile(str(folder / "site.pem"), "node.toml:7: site.0.certificate")
    Path(file.path).write_text(text)
    Path(file.path).chmod(0o600)
    key_file = None
    if key is not None:
        key_file = PemFile(str(folder / "site.key"), "node.toml:8: site.0.key")
        Path(key_file.path).write_text(key)
        Path(key_file.path).chmod(0o600)
    spec = SiteSpec(hosts or ("a.example",), ((file, key_file),))
    return check(spec, read_site(spec), engine_checks_keys=by_engine)


def issued(**how: object) -> Made:
    return make("a.example", by=MIDDLE, **how)  # type: ignore[arg-type]


def old_pem(folder: Path, *words: str) -> str:
    """What the library refuses to make."""
    key, chain = folder / "old.key", folder / "old.crt"
    command = ["openssl", "req", "-x509", "-nodes", "-days", "9", "-subj", "/CN=a.example", "-keyout", str(key)]
    command += ["-addext", "subjectAltName=DNS:a.example", "-out", str(chain), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return chain.read_text() + key.read_text()


REFUSED: dict[str, tuple[Callable[[], str], str, str]] = {
    "no certificate": (lambda: issued().key_pem(), "has no certificate", "put the certificate of the site first"),
    "text": (lambda: "hello\n", "has no certificate", "as PEM"),
    "torn certificate": (
        lambda: issued().chain.replace("\nMI", "\nMJ", 1) + issued().key_pem(),
        "cannot be read (",
        "write the whole PEM file again",
    ),
    "cut": (lambda: (made := issued().pem)[: len(made) // 3], "has no certificate", "as PEM"),
    "no key": (
        lambda: issued().chain,
        "has no private key",
        "append the private key to it, or name its file with key =",
    ),
    "key with a passphrase": (
        lambda: (made := issued()).chain + made.key_pem(b"secret"),
        "has a passphrase, which cannot be entered for a node",
        "openssl pkey -in ",
    ),
    "old form of a key with a passphrase": (
        lambda: (made := issued()).chain + made.key_pem(b"secret", "TraditionalOpenSSL"),
        "has a passphrase",
        "chmod 600",
    ),
    "torn key": (
        lambda: issued().chain + "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        "the private key in",
        "unencrypted PEM key",
    ),
    "another's key": (
        lambda: issued().chain + issued().key_pem(),
        "does not belong to the first certificate",
        "with which this certificate was requested",
    ),
    "another kind of key": (
        lambda: issued().chain + make("x", key=rsa_key(2048)).key_pem(),
        "does not belong to the first certificate",
        "install the key",
    ),
    "the issuer first": (
        lambda: MIDDLE.chain + (made := issued()).chain + made.key_pem(),
        "belongs to certificate 2",
        "put the certificate of the site first",
    ),
    "a gap in the chain": (
        lambda: (made := issued()).chain + ROOT.chain + made.key_pem(),
        "is broken: certificate 2 (CN=root) did not issue certificate 1",
        "then that one's issuer",
    ),
    "the chain upside down": (
        lambda: (made := issued()).chain + ROOT.chain + MIDDLE.chain + made.key_pem(),
        "certificate 2 (CN=root) did not issue certificate 1",
        "then that one's issuer",
    ),
    "a stranger in the chain": (
        lambda: (made := issued()).chain + MIDDLE.chain + OTHER.chain + made.key_pem(),
        "certificate 3 (CN=other) did not issue certificate 2",
        "and no others",
    ),
    "an issuer of that name with another key": (
        lambda: (made := issued()).chain + make(authority=True, name="middle").chain + made.key_pem(),
        "certificate 2 (CN=middle) did not issue certificate 1",
        "that one's issuer",
    ),
    "RSA of 1024 bits": (
        lambda: issued(key=rsa_key(1024)).pem,
        "an RSA key of 1024 bits, fewer than 2048",
        "ECDSA P-256, or RSA of 2048 bits or more",
    ),
    "a weak issuer": (
        lambda: (
            (made := make("a.example", by=(weak := make(name="weak", authority=True, key=rsa_key(1024))))).chain
            + weak.chain
            + made.key_pem()
        ),
        "certificate 2 in",
        "ECDSA P-256",
    ),
    "P-521": (lambda: issued(key=curve(ec.SECP521R1())).pem, "on the curve secp521r1", "ECDSA P-256"),
    "secp256k1": (lambda: issued(key=curve(ec.SECP256K1())).pem, "on the curve secp256k1", "ECDSA P-256"),
    "must-staple": (
        lambda: issued(must_staple=True).pem,
        "demands a stapled OCSP response (must-staple)",
        "CAs have turned their OCSP responders off",
    ),
}


@pytest.mark.parametrize("by_engine", [False, True])
@pytest.mark.parametrize(("made", "what", "do"), REFUSED.values(), ids=REFUSED)
def test_what_refuses_a_certificate(
    tmp_path: Path, made: Callable[[], str], what: str, do: str, by_engine: bool
) -> None:
    fault = checked(tmp_path, made(), by_engine=by_engine).refused
    assert fault is not None
    assert what in fault.what and do in fault.do
    assert f"{tmp_path}/site.pem" in fault.what and fault.where == "node.toml:7: site.0.certificate"
    assert "\n" not in str(fault) and "secret" not in str(fault)


def test_a_fault_of_a_key_file_names_that_file(tmp_path: Path) -> None:
    made, other = issued(), issued()
    for key in ("", other.chain, made.key_pem(b"secret"), other.key_pem()):
        fault = checked(tmp_path, made.chain, key=key or "nothing").refused
        assert fault is not None and f"{tmp_path}/site.key" in fault.what
    assert checked(tmp_path, made.chain, key=made.key_pem()).refused is None


@needs_openssl
def test_signatures_with_sha1(tmp_path: Path) -> None:
    fault = checked(tmp_path, old_pem(tmp_path, "-newkey", "rsa:2048", "-sha1")).refused
    assert fault is not None and "is signed with SHA-1, which can be forged" in fault.what


FINE: dict[str, Callable[[], str]] = {
    "with its chain": lambda: (made := issued()).chain + MIDDLE.chain + ROOT.chain + made.key_pem(),
    "the key first": lambda: (made := issued()).key_pem() + made.chain + MIDDLE.chain,
    "self-signed": lambda: make("a.example").pem,
    "P-384": lambda: issued(key=curve(ec.SECP384R1())).pem,
    "RSA": lambda: issued(key=rsa_key(2048)).pem,
    "RSA in the old form": lambda: (made := issued(key=rsa_key(2048))).chain + made.key_pem(b"", "TraditionalOpenSSL"),
    "Ed25519": lambda: issued(key=ed25519.Ed25519PrivateKey.generate()).pem,
    "text between": lambda: "subject=a\n" + (made := issued()).chain + "\n\nissuer=b\n" + made.key_pem(),
    "CR LF": lambda: issued().pem.replace("\n", "\r\n"),
    "P-256 in the old form": lambda: (made := issued()).chain + made.key_pem(b"", "TraditionalOpenSSL"),
    "a key without its public part": lambda: (made := issued()).chain + without_point(made),
    "indented": lambda: issued().pem.replace("\nM", "\n M"),
}


@pytest.mark.parametrize("by_engine", [False, True])
@pytest.mark.parametrize("made", FINE.values(), ids=FINE)
def test_what_is_accepted(tmp_path: Path, made: Callable[[], str], by_engine: bool) -> None:
    found = checked(tmp_path, made(), by_engine=by_engine)
    assert found.refused is None, found.refused
    assert found.faults(int(NOW.timestamp())) == {}


@pytest.mark.parametrize("kind", [ec.SECP256R1(), ec.SECP384R1()], ids=lambda kind: kind.name)
def test_a_key_whose_value_does_not_belong_to_its_point(tmp_path: Path, kind: ec.EllipticCurve) -> None:
    """The one fault of a key that is left to the engine (tests/engine/test_tls.py)."""
    made = issued(key=curve(kind))
    text = made.chain + with_another_value(made)
    fault = checked(tmp_path, text).refused
    assert fault is not None and "cannot be read" in fault.what
    assert checked(tmp_path, text, by_engine=True).refused is None


# ------------------------------------------------------------------ what is used for want of a better one


def test_time_and_names(tmp_path: Path) -> None:
    now_s = int(NOW.timestamp())
    ended = checked(tmp_path, issued(begins=NOW - 90 * DAY, lives=10 * DAY).pem)
    assert "the certificate expired on" in ended.faults(now_s)["time"].what
    assert f"{tmp_path}/site.pem" in ended.faults(now_s)["time"].what
    early = checked(tmp_path, issued(begins=NOW + DAY).pem)
    assert "is not valid before" in early.faults(now_s)["time"].what
    assert early.faults(now_s + 2 * 86_400) == {}
    names = checked(tmp_path, make("a.example", "*.b.example").pem, "a.example", "x.b.example", "b.example", "*")
    assert list(names.faults(now_s)) == ["b.example"]
    assert names.faults(now_s)["b.example"].what.endswith("the certificate does not name b.example")


@pytest.mark.parametrize(
    ("name", "host", "expected"),
    [
        ("a.example", "a.example", True),
        ("a.example", "b.example", False),
        ("*.example", "a.example", True),
        ("*.example", "b.a.example", False),
        ("*.example", "example", False),
        ("*.a.example", "*.a.example", True),
        ("a.example", "*.example", False),
        ("*.", "a", False),
        ("*", "a", False),
    ],
)
def test_what_a_name_covers(name: str, host: str, expected: bool) -> None:
    assert covers(name, host) is expected


def test_nothing_worse_replaces_what_works(tmp_path: Path) -> None:
    now_s = int(NOW.timestamp())
    hosts = ("a.example", "b.example")

    def of(*named: str, begins: datetime = NOW - DAY, lives: timedelta = 90 * DAY) -> Checked:
        return checked(tmp_path, make(*named, begins=begins, lives=lives).pem, *hosts)

    both, narrow = of(*hosts), of("a.example")
    ended, early = of(*hosts, begins=NOW - 9 * DAY, lives=DAY), of(*hosts, begins=NOW + DAY)
    table: list[tuple[Checked, Checked | None, str]] = [
        (narrow, None, ""),
        (ended, None, ""),
        (both, narrow, ""),
        (narrow, both, "does not name b.example"),
        (narrow, narrow, ""),
        (ended, both, "expired"),
        (early, both, "not valid before"),
        (early, ended, ""),
        (both, ended, ""),
        (narrow, ended, ""),
        (ended, narrow, "expired"),
        (narrow, Checked(hosts, (), Invalid("x", "x", "x", "x")), ""),
    ]
    for fresh, held, expected in table:
        fault = fresh.worse_than(held, now_s)
        assert (expected in fault.what) if fault is not None and expected else (fault is None and not expected)
    assert early.worse_than(both, now_s + 2 * 86_400) is None, "its time has come"
    wider = checked(tmp_path, make("a.example").pem, "a.example", "c.example")
    assert wider.worse_than(narrow, now_s) is None, "the one in use does not name the added host either"


# ------------------------------------------------------------------ sdlb node --check


def test_the_check_of_a_node_file_names_all_of_them(tmp_path: Path) -> None:
    lines = ['[listen]\nhttps = "127.0.0.1:0"\nnode = "127.0.0.1:0"']
    for name, text in (
        ("good", make("good.example").pem),
        ("weak", make("weak.example", key=rsa_key(1024)).pem),
        ("other", make("nobody.example").pem),
    ):
        (tmp_path / f"{name}.pem").write_text(text)
        lines.append(f'[[site]]\nhosts = ["{name}.example"]\ncertificate = "{tmp_path}/{name}.pem"')
    file = tmp_path / "node.toml"
    file.write_text(f'state_dir = "{tmp_path}/state"\n' + "\n".join(lines) + "\n")
    options = Options(config=str(file), socket=str(tmp_path / "s"))
    assert mistakes(options) == [], "the node starts, and these sites do not stop a restart"
    weak, other = certificate_warnings(options)
    assert weak.startswith(
        f"{file}:10: site.1.certificate: the certificate in {tmp_path}/weak.pem has an RSA key of 1024"
    )
    assert other.startswith(
        f"{file}:13: site.2.certificate: {tmp_path}/other.pem: the certificate does not name other.e"
    )


LEAF = issued()
DERS = [ssl.PEM_cert_to_DER_cert(block) for block in (LEAF.chain, MIDDLE.chain)]


@given(st.sampled_from([0, 1]), st.integers(0, min(map(len, DERS)) - 1), st.integers(1, 255))
def test_a_certificate_with_a_changed_byte_is_used_or_refused(which: int, at: int, by: int) -> None:
    """Whichever part of it cannot be parsed, and whenever that is noticed."""
    ders = [bytearray(der) for der in DERS]
    ders[which][at] ^= by
    pem = "".join(map(ssl.DER_cert_to_PEM_cert, map(bytes, ders))) + LEAF.key_pem()
    file = PemFile("/site.pem", "node.toml:7: site.0.certificate")
    found = check(SiteSpec(("a.example",), ((file, None),)), Site("a", ("a.example",), (pem.encode(),)))
    assert len(found.leaves) == (found.refused is None)
    if found.refused is not None:
        assert "/site.pem" in found.refused.what
