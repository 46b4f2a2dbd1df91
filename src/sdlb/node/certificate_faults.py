"""What is wrong with the certificates of a site, found when its files are read.

Faults that make a certificate useless or weak refuse it: the site keeps its earlier one. A certificate that is expired, not
yet valid, or does not name a host is used only if the site has nothing better (`Checked.worse_than`), because with none its
handshakes would fail.

Signatures within a chain are not verified: that takes longer than all other checks, and an entry may have 10,000 sites.
Issuers, subjects and key identifiers (RFC 5280, sections 4.1.2.4, 4.2.1.1 and 4.2.1.2) show a wrong order as well.

The private key is parsed only where the certificate and the key file do not show the same ECDSA point (`_same_point`), or where
nobody else checks that the value in the key file belongs to that point (`check`).
"""

from __future__ import annotations

import binascii
import re
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes, PrivateKeyTypes
from msgspec import Struct

from sdlb.adapters.x509_errors import UNREADABLE
from sdlb.model.problem import Invalid
from sdlb.model.site import PemFile, Site, SiteSpec
from sdlb.node.config_reader import CODE

BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s[^-]*(?:-(?!----END \1-----)[^-]*)*-----END \1-----")
POINTS = (
    (bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200"), 65),  # P-256
    (bytes.fromhex("3076301006072a8648ce3d020106052b81040022036200"), 97),  # P-384
)
"""The start of a SubjectPublicKeyInfo (RFC 5480, section 2) until its point, and the length of the point."""
TLS_FEATURE = bytes.fromhex("06082b06010505070118")
"""The identifier of the extension (RFC 7633), as DER."""
RSA_BITS_MIN = 2048
CURVES = ("secp256r1", "secp384r1")
WEAK_HASHES = (hashes.SHA1, hashes.MD5)
Kind = TypeVar("Kind", bound=x509.ExtensionType)
PASSPHRASE = (b"ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED")


class Leaf(Struct, frozen=True):
    """The certificate of a site, without its chain. `file`: where it is; `where`: the place in the node file."""

    file: str
    where: str
    not_before_s: int
    not_after_s: int
    names: tuple[str, ...]


class Checked(Struct, frozen=True):
    """`refused`: why the certificates cannot be used."""

    hosts: tuple[str, ...] = ()
    leaves: tuple[Leaf, ...] = ()
    refused: Invalid | None = None

    def faults(self, now_s: int) -> dict[str, Invalid]:
        """What does not keep it from being used, by kind: "time", or the host that a certificate does not name."""
        found: dict[str, Invalid] = {}
        for leaf in self.leaves:
            if leaf.not_after_s <= now_s:
                found["time"] = _fault(leaf, f"the certificate expired on {_date(leaf.not_after_s)}", "renew it")
            elif leaf.not_before_s > now_s:
                what = f"the certificate is not valid before {_date(leaf.not_before_s)}"
                found["time"] = _fault(leaf, what, "wait until then, or correct the clock of this machine")
            for host in self.hosts:
                if host != "*" and not any(covers(name, host) for name in leaf.names):
                    what = f"the certificate does not name {host}"
                    found[host] = _fault(leaf, what, f"request one that names it, or remove {host} from the site")
        return found

    def all_faults(self, now_s: int) -> list[Invalid]:
        """For `sdlb node --check` and `sdlb audit`."""
        return [*([self.refused] if self.refused else []), *self.faults(now_s).values()]

    def worse_than(self, now: Checked | None, now_s: int) -> Invalid | None:
        """The fault for which the certificates `now` in use are kept."""
        if now is None or now.refused is not None or not now.leaves:
            return None
        held, ours = Checked(self.hosts, now.leaves).faults(now_s), self.faults(now_s)
        if "time" in held and "time" not in ours:
            return None
        return next((fault for kind, fault in ours.items() if kind not in held), None)


def check(spec: SiteSpec, site: Site, *, engine_checks_keys: bool = False) -> Checked:
    """Checks the files of a site that were read. `engine_checks_keys`: the engine refuses a private key whose value does
    not belong to its public part; finding that here takes three times as long as all other checks."""
    leaves: list[Leaf] = []
    try:
        for (chain, key), pem in zip(spec.certificates, site.certificates, strict=True):
            named = key or chain
            leaves.append(_check_pair(chain, named, pem, engine_checks_keys))
    except Invalid as error:
        return Checked(spec.hosts, (), error)
    return Checked(spec.hosts, tuple(leaves))


def covers(name: str, host: str) -> bool:
    """RFC 9525, section 6.3: a wildcard stands for one label."""
    return name == host or (name.startswith("*.") and host.partition(".")[2] == name[2:] != "")


def leaf_of(file: PemFile, pem: bytes) -> Leaf:
    """The first certificate in the content of a file. Raises Invalid."""
    found = next((found for found in BLOCK.finditer(pem) if found[1] == b"CERTIFICATE"), None)
    if found is None:
        raise _no_certificate(file)
    try:
        leaf = _read_leaf(found[0], _der(found[0]), strong_key=False)
    except UNREADABLE as error:
        raise _unreadable(file, error) from None
    return Leaf(file.path, file.where, leaf.not_before_s, leaf.not_after_s, leaf.names)


def not_before_s(pem: bytes) -> int:
    """When the first certificate in a file begins to be valid; 0: it cannot be read."""
    block = next((found[0] for found in BLOCK.finditer(pem) if found[1] == b"CERTIFICATE"), b"")
    try:
        return int(_load(block).not_valid_before_utc.timestamp())
    except UNREADABLE:
        return 0


# ------------------------------------------------------------------ one certificate with its key


def _check_pair(chain_file: PemFile, key_file: PemFile, pem: bytes, engine_checks_keys: bool) -> Leaf:
    file, where = chain_file.path, chain_file.where
    blocks = [(found[1], found[0]) for found in BLOCK.finditer(pem)]
    certificates = [block for kind, block in blocks if kind == b"CERTIFICATE"]
    if not certificates:
        raise _no_certificate(chain_file)
    keys = [block for kind, block in blocks if kind.endswith(b"PRIVATE KEY")]
    try:
        der = _der(certificates[0])
        same = engine_checks_keys and bool(keys) and _same_point(der, keys[0])
        chain = [_read_leaf(certificates[0], der, same), *map(_read_issuer, certificates[1:])]
        if not same:
            key = _key(key_file.path, key_file.where, keys)
            _check_match(file, where, key_file.path, key, chain)
        for depth, link in enumerate(chain):
            if link.weakness:
                raise _weak(file, where, link, depth)
        if len(chain) > 1:
            _check_order(file, where, chain)
    except Invalid:
        raise
    except UNREADABLE as error:  # `cryptography` parses a part of a certificate when it is asked for it
        raise _unreadable(chain_file, error) from None
    leaf = chain[0]
    if leaf.must_staple:
        what = f"the certificate in {file} demands a stapled OCSP response (must-staple)"
        do = "request one without must-staple: CAs have turned their OCSP responders off, so nothing can be stapled"
        raise Invalid(CODE, where, what, do)
    return Leaf(file, where, leaf.not_before_s, leaf.not_after_s, leaf.names)


def _no_certificate(file: PemFile) -> Invalid:
    do = "put the certificate of the site first in it, then those that issued it, as PEM"
    return Invalid(CODE, file.where, f"the file {file.path} has no certificate", do)


def _unreadable(file: PemFile, error: Exception) -> Invalid:
    what = f"a certificate in {file.path} cannot be read ({str(error).partition(chr(10))[0][:100]})"
    return Invalid(CODE, file.where, what, "write the whole PEM file again, as it was issued")


def _same_point(public: bytes, key: bytes) -> bool:
    """Whether a certificate (DER) has exactly the ECDSA point that ends the private key (PEM; RFC 5915, section 3). False: they
    do not belong together, or it is not as simple as that."""
    private = _der(key)
    for start, size in POINTS:
        form = bytes((0x03, size + 1, 0x00, 0x04))  # a bit string with an uncompressed point
        point = private[-size:]
        if private[-size - 3 : -size + 1] == form and start + point in public:
            return True
    return False


def _der(block: bytes) -> bytes:
    """Of a PEM block; empty: it has more than base64."""
    start = block.index(b"-----", 5) + 5
    try:
        return binascii.a2b_base64(
            block[start : block.index(b"-----", start)].translate(None, b"\r\n"), strict_mode=True
        )
    except binascii.Error:
        return b""


class _Link(Struct, frozen=True):
    """A certificate of a chain. `der`: empty if its PEM is unusual. `weakness`: what keeps it from being used, as it follows on
    its name. `subject`, `key_id`: of an issuer. What few checks need is computed for these alone, because an entry may have
    10,000 sites."""

    certificate: x509.Certificate
    der: bytes
    not_before_s: int
    not_after_s: int
    weakness: str = ""
    names: tuple[str, ...] = ()
    must_staple: bool = False
    subject: bytes = b""
    key_id: bytes = b""

    @property
    def key(self) -> CertificatePublicKeyTypes:
        return self.certificate.public_key()

    @property
    def name(self) -> str:
        return self.certificate.subject.rfc4514_string()[:80] or "without a subject"

    def issued(self, other: _Link) -> bool:
        own_id = self.key_id
        if 0 < len(own_id) < 128 and _tagged(0x80, own_id) in other.der and self.subject in other.der:
            return True  # nearly always
        above = _extension(other.certificate, x509.AuthorityKeyIdentifier)
        issuer_id = above and above.key_identifier
        same_key = not own_id or not issuer_id or own_id == issuer_id
        return same_key and self.subject == other.certificate.issuer.public_bytes()


def _tagged(tag: int, content: bytes) -> bytes:
    """As DER; the content is short."""
    return bytes((tag, len(content))) + content


def _read_leaf(block: bytes, der: bytes, strong_key: bool) -> _Link:
    try:
        certificate = _quiet(x509.load_der_x509_certificate, der)
    except ValueError:
        certificate, der = _load(block), b""  # accepts a few forms more, and has better messages
    names = _extension(certificate, x509.SubjectAlternativeName)
    dns = () if names is None else tuple([name.lower() for name in names.get_values_for_type(x509.DNSName)])
    features = _extension(certificate, x509.TLSFeature) if not der or TLS_FEATURE in der else None
    must_staple = features is not None and x509.TLSFeatureType.status_request in features
    weakness = _weak_hash(certificate, dns) if strong_key else _weakness(certificate, dns)
    return _Link(certificate, der, *_span(certificate), weakness, dns, must_staple)


@lru_cache(maxsize=256)
def _read_issuer(block: bytes) -> _Link:
    """Most sites share their issuers."""
    certificate = _load(block)
    own = _extension(certificate, x509.SubjectKeyIdentifier)
    key_id, subject = b"" if own is None else own.digest, certificate.subject.public_bytes()
    weakness = _weakness(certificate, ())
    return _Link(certificate, _der(block), *_span(certificate), weakness, subject=subject, key_id=key_id)


def _span(certificate: x509.Certificate) -> tuple[int, int]:
    return int(certificate.not_valid_before_utc.timestamp()), int(certificate.not_valid_after_utc.timestamp())


def _load(block: bytes) -> x509.Certificate:
    return _quiet(x509.load_pem_x509_certificate, block)


def _quiet(load: Callable[[bytes], x509.Certificate], data: bytes) -> x509.Certificate:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what deserves one is a fault here
        return load(data)


def _extension(certificate: x509.Certificate, kind: type[Kind]) -> Kind | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


# ------------------------------------------------------------------ the key


def _key(file: str, where: str, blocks: Sequence[bytes]) -> PrivateKeyTypes:
    if not blocks:
        do = "append the private key to it, or name its file with key ="
        raise Invalid(CODE, where, f"the file {file} has no private key", do)
    block = blocks[0]
    if any(sign in block for sign in PASSPHRASE):
        what = f"the private key in {file} has a passphrase, which cannot be entered for a node"
        do = f"write it without one: openssl pkey -in {file} -out NEW-FILE; chmod 600 NEW-FILE"
        raise Invalid(CODE, where, what, do)
    try:
        # Validation of an RSA key takes 75 ms; a key that does not fit the certificate is found below.
        return serialization.load_pem_private_key(block, None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        what = f"the private key in {file} cannot be read"
        raise Invalid(CODE, where, what, "use an unencrypted PEM key: ECDSA (P-256, P-384), RSA or Ed25519") from None


def _check_match(file: str, where: str, key_file: str, key: PrivateKeyTypes, chain: Sequence[_Link]) -> None:
    public = key.public_key()
    if public == chain[0].key:
        return
    place = next((depth for depth, link in enumerate(chain) if link.key == public), 0)
    if place:
        what = f"the private key belongs to certificate {place + 1} in {file}, not to the first"
        raise Invalid(CODE, where, what, "put the certificate of the site first, then those that issued it")
    which = "there" if key_file == file else f"in {file}"
    what = f"the private key in {key_file} does not belong to the first certificate {which}"
    raise Invalid(CODE, where, what, "install the key with which this certificate was requested")


# ------------------------------------------------------------------ strength and order


def _weakness(certificate: x509.Certificate, names: Sequence[str]) -> str:
    match certificate.public_key():
        case rsa.RSAPublicKey() as key if key.key_size < RSA_BITS_MIN:
            return f"has an RSA key of {key.key_size} bits, fewer than {RSA_BITS_MIN}"
        case ec.EllipticCurvePublicKey() as key if key.curve.name not in CURVES:
            return f"has a key on the curve {key.curve.name}; P-256 and P-384 are allowed"
        case rsa.RSAPublicKey() | ec.EllipticCurvePublicKey() | ed25519.Ed25519PublicKey():
            return _weak_hash(certificate, names)
        case _:
            return "has a key of an unsupported type"


def _weak_hash(certificate: x509.Certificate, names: Sequence[str]) -> str:
    used = certificate.signature_hash_algorithm
    if not isinstance(used, WEAK_HASHES):
        return ""
    if certificate.subject == certificate.issuer and not names:
        return ""  # nothing relies on the signature of a root
    return f"is signed with {used.name.upper().replace('SHA1', 'SHA-1')}, which can be forged"


def _weak(file: str, where: str, link: _Link, depth: int) -> Invalid:
    which = f"the certificate in {file}" if depth == 0 else f"certificate {depth + 1} in {file} ({link.name})"
    do = "request one with ECDSA P-256, or RSA of 2048 bits or more, signed with SHA-256"
    return Invalid(CODE, where, f"{which} {link.weakness}", do)


def _check_order(file: str, where: str, chain: Sequence[_Link]) -> None:
    for depth, (link, above) in enumerate(pairwise(chain)):
        if above.issued(link):
            continue
        what = f"the chain in {file} is broken: certificate {depth + 2} ({above.name}) did not issue certificate {depth + 1}"
        do = "put the certificate of the site first, then the one that issued it, then that one's issuer, and no others"
        raise Invalid(CODE, where, what, do)


# ------------------------------------------------------------------ text


def _fault(leaf: Leaf, what: str, do: str) -> Invalid:
    return Invalid(CODE, leaf.where, f"{leaf.file}: {what}", do)


def _date(unix_s: int) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M} UTC"
