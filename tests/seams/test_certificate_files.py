"""Issued certificates on disk: for this user alone, whole or not at all."""

from __future__ import annotations

import os
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from sdlb.adapters import acme_keys
from sdlb.adapters.certificate_files import CertificateFiles
from sdlb.seams.certificates import BadCertificate, Issued, OpenOrder

DAY = timedelta(days=1)


def made(*hosts: str, days: int = 90, staple: bool = False, key: bytes = b"") -> bytes:
    """A self-signed certificate with its key, PEM."""
    pem = acme_keys.new_key()
    private = acme_keys.load_key(pem)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + days * DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
    )
    if staple:
        builder = builder.add_extension(x509.TLSFeature([x509.TLSFeatureType.status_request]), critical=False)
    leaf = builder.sign(private, hashes.SHA256())
    return leaf.public_bytes(serialization.Encoding.PEM) + (key or pem)


def issued(*hosts: str) -> Issued:
    return acme_keys.read(made(*hosts), hosts)


LEAF, KEY = made("a.example").split(b"-----BEGIN PRIVATE", 1)
DER = ssl.PEM_cert_to_DER_cert(LEAF.decode())


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(st.integers(0, len(DER) - 1), st.integers(1, 255))
def test_a_certificate_with_a_changed_byte_is_read_or_refused(at: int, by: int) -> None:
    der = bytearray(DER)
    der[at] ^= by
    pem = ssl.DER_cert_to_PEM_cert(bytes(der)).encode() + b"-----BEGIN PRIVATE" + KEY
    try:
        found = acme_keys.read(pem, ("a.example",))
    except BadCertificate:
        return
    assert found.pem == pem


def test_certificates_come_back_and_only_this_user_can_read_them(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        files = CertificateFiles(tmp_path / "acme")
        one = issued("example.com", "*.example.com")
        files.save("example.com", one)
        files.save_account("https://ca.example/dir", acme_keys.new_key(), "https://ca.example/me")
        files.save_plan({"failures": {}})
    finally:
        os.umask(old)
    assert files.load("example.com", ("example.com", "*.example.com")) == one
    assert files.hosts() == ["example.com"]
    for path in (tmp_path / "acme").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    key, url = files.load_account("https://ca.example/dir")
    assert acme_keys.load_key(key) and url == "https://ca.example/me"
    assert files.load_account("https://other.example/dir") == (b"", "")


def test_the_open_order_comes_back_and_goes(tmp_path: Path) -> None:
    files = CertificateFiles(tmp_path / "acme")
    assert files.load_order() is None
    order = OpenOrder("a", ("a", "b"), acme_keys.new_key(), "https://ca/order/1")
    files.save_order(order)
    assert CertificateFiles(tmp_path / "acme").load_order() == order
    files.save_order(None)
    files.save_order(None)
    assert files.load_order() is None


def test_a_failed_write_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = CertificateFiles(tmp_path / "acme")
    old = issued("a.example")
    files.save("a.example", old)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            files.save("a.example", issued("a.example"))
    assert files.load("a.example", ("a.example",)) == old
    assert [path.name for path in (tmp_path / "acme/certificates").iterdir()] == ["a.example.pem"]


@given(st.binary(max_size=200))
def test_damaged_files_are_reported_or_dropped(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        files = CertificateFiles(Path(folder) / "acme")
        files.save("a.example", issued("a.example"))
        for path in (files.path("a.example"), *(Path(folder) / "acme" / name for name in ("order.json", "plan.json"))):
            path.write_bytes(content)
        with pytest.raises(BadCertificate):
            files.load("a.example", ("a.example",))
        assert files.load_order() is None
        assert isinstance(files.load_plan(), dict)


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        (made("a.example", key=acme_keys.new_key()), "its private key does not belong to it"),
        (made("b.example"), "it does not name a.example"),
        (made("a.example", staple=True), "it requires OCSP stapling"),
        (b"", "it cannot be read"),
    ],
)
def test_certificates_that_cannot_be_used(pem: bytes, why: str) -> None:
    with pytest.raises(BadCertificate, match=why):
        acme_keys.read(pem, ("a.example",))


def test_the_challenge_certificate_of_rfc_8737() -> None:
    """Section 3: the name alone, and the digest as a critical extension."""
    pem = acme_keys.challenge_certificate("a.example", "token.thumb").encode()
    leaf = x509.load_pem_x509_certificate(pem)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.example"]
    proof = leaf.extensions.get_extension_for_oid(acme_keys.ACME_IDENTIFIER)
    assert proof.critical and isinstance(proof.value, x509.UnrecognizedExtension)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(b"token.thumb")
    assert proof.value.value == b"\x04\x20" + digest.finalize()
    assert acme_keys.load_key(pem).public_key() == leaf.public_key()


def test_the_identifier_of_rfc_9773() -> None:
    """Section 4.1: the key identifier and the serial number as in DER, with its leading zero."""
    issuer = acme_keys.load_key(acme_keys.new_key())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    key_identifier = x509.AuthorityKeyIdentifier(bytes.fromhex("69885b6b87464041e1b37b847bd0ae2cde01c8d4"), None, None)
    now = datetime.now(UTC)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(issuer.public_key())
        .serial_number(0x87654321)
        .not_valid_before(now)
        .not_valid_after(now + DAY)
        .add_extension(key_identifier, critical=False)
        .sign(issuer, hashes.SHA256())
    )
    assert acme_keys._certificate_id(leaf) == "aYhba4dGQEHhs3uEe9CuLN4ByNQ.AIdlQyE"  # pyright: ignore[reportPrivateUsage]
