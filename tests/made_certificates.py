"""Certificates with any fault, made in memory with the library `cryptography`. `tests.certificates` makes good ones with the
program `openssl`."""

from __future__ import annotations

import base64
import functools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def curve(kind: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(kind or ec.SECP256R1())


@functools.cache
def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@dataclass(frozen=True)
class Made:
    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)

    @property
    def chain(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def key_pem(self, passphrase: bytes = b"", form: str = "PKCS8") -> str:
        how = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        kind = serialization.PrivateFormat[form]
        return self.key.private_bytes(serialization.Encoding.PEM, kind, how).decode()

    @property
    def pem(self) -> str:
        return self.chain + self.key_pem()


def make(
    *hosts: str,
    by: Made | None = None,
    key: PrivateKey | None = None,
    begins: datetime | None = None,
    lives: timedelta = 90 * DAY,
    name: str = "",
    must_staple: bool = False,
    authority: bool = False,
) -> Made:
    """A certificate for these hosts. `by`: who issues it, none: itself. `begins`: by default a day ago."""
    key = key or curve()
    begins = begins or datetime.now(UTC) - DAY
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name or (hosts[0] if hosts else "authority"))])
    signer = key if by is None else by.key
    issuer_key: Any = signer.public_key()
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if by is None else by.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + lives)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), False)
    )
    if hosts:
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), False)
    if authority:
        made = made.add_extension(x509.BasicConstraints(True, None), True)
    if must_staple:
        made = made.add_extension(x509.TLSFeature([x509.TLSFeatureType.status_request]), False)
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Made(made.sign(signer, algorithm), key)


def with_another_value(made: Made) -> str:
    """Its ECDSA key in PKCS#8, with the private value of another key before its point."""
    assert isinstance(made.key, ec.EllipticCurvePrivateKey)
    other = ec.generate_private_key(made.key.curve)
    return _pem(_der(made.key).replace(_value(made.key), _value(other)))


def without_point(made: Made) -> str:
    """Its P-256 key in PKCS#8 without the optional public part (RFC 5915, section 3)."""
    assert isinstance(made.key, ec.EllipticCurvePrivateKey)
    start = bytes.fromhex("3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420")
    return _pem(start + _value(made.key))


def _value(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_numbers().private_value.to_bytes((key.key_size + 7) // 8, "big")


def _der(key: ec.EllipticCurvePrivateKey) -> bytes:
    der, form = serialization.Encoding.DER, serialization.PrivateFormat.PKCS8
    return key.private_bytes(der, form, serialization.NoEncryption())


def _pem(der: bytes) -> str:
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN PRIVATE KEY-----\n{text}-----END PRIVATE KEY-----\n"
