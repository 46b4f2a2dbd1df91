"""Keys, signing requests and certificates of ACME orders, with the `cryptography` library."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sdlb.adapters.acme_jws import b64
from sdlb.adapters.x509_errors import UNREADABLE
from sdlb.core.certificates import Lifetime
from sdlb.seams.certificates import BadCertificate, Issued

ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
"""id-pe-acmeIdentifier (RFC 8737, section 6.1)."""
MUST_STAPLE = x509.TLSFeatureType.status_request


def new_key() -> bytes:
    """A P-256 key, PEM."""
    none = serialization.NoEncryption()
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, none)


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Raises ValueError."""
    key = serialization.load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("not a P-256 key")
    return key


def signing_request(key_pem: bytes, hosts: Sequence[str]) -> bytes:
    """DER. The names stand in the extension only: a common name is limited to 64 characters and not needed."""
    names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=False)
    return builder.sign(load_key(key_pem), hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def dns_value(authorization: str) -> str:
    """The content of the TXT record of dns-01 (RFC 8555, section 8.4)."""
    return b64(hashlib.sha256(authorization.encode()).digest())


def challenge_certificate(host: str, authorization: str) -> str:
    """The self-signed certificate of tls-alpn-01 with its key, PEM (RFC 8737, section 3)."""
    pem = new_key()
    key = load_key(pem)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ACME challenge")])
    proof = b"\x04\x20" + hashlib.sha256(authorization.encode()).digest()  # OCTET STRING of 32 bytes
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.UnrecognizedExtension(ACME_IDENTIFIER, proof), critical=True)
    )
    certificate = builder.sign(key, hashes.SHA256())
    return (certificate.public_bytes(serialization.Encoding.PEM) + pem).decode("ascii")


def read(pem: bytes, hosts: Sequence[str]) -> Issued:
    """A certificate with its chain and key, which shall serve these hosts. Raises BadCertificate."""
    try:
        return _read(pem, hosts)
    except BadCertificate:
        raise
    except UNREADABLE as error:
        raise BadCertificate(f"it cannot be read: {error}") from None


def _read(pem: bytes, hosts: Sequence[str]) -> Issued:
    key, leaf = load_key(pem), x509.load_pem_x509_certificates(pem)[0]
    if leaf.public_key() != key.public_key():
        raise BadCertificate("its private key does not belong to it")
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        covered = {name.lower() for name in names.get_values_for_type(x509.DNSName)}
    except x509.ExtensionNotFound:
        covered = set[str]()
    missing = [host for host in hosts if host not in covered]
    if missing:
        raise BadCertificate(f"it does not name {', '.join(missing)}")
    if _must_staple(leaf):
        raise BadCertificate("it requires OCSP stapling, which sdlb does not do")
    before_s, after_s = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    digest = leaf.fingerprint(hashes.SHA256()).hex()
    return Issued(pem, Lifetime(before_s, after_s), digest, _certificate_id(leaf))


def leaf_der(pem: bytes) -> bytes:
    """The certificate itself, without its chain."""
    return x509.load_pem_x509_certificates(pem)[0].public_bytes(serialization.Encoding.DER)


def _must_staple(leaf: x509.Certificate) -> bool:
    try:
        return MUST_STAPLE in leaf.extensions.get_extension_for_class(x509.TLSFeature).value
    except x509.ExtensionNotFound:
        return False


def _certificate_id(leaf: x509.Certificate) -> str:
    """RFC 9773, section 4.1; "" for a certificate without the issuer's key identifier."""
    try:
        issuer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound:
        issuer = None
    if not issuer:
        return ""
    number = leaf.serial_number
    serial = number.to_bytes(number.bit_length() // 8 + 1, "big")  # as in DER: a leading zero when the first bit is set
    return f"{b64(issuer)}.{b64(serial)}"
