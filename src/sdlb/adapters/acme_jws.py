"""Signatures of ACME requests: flattened JWS with ES256 (RFC 7515, RFC 7518 section 3.4), and what is derived from the key."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

NUMBER_BYTES = 32


def b64(data: bytes) -> str:
    """base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def unb64(text: str) -> bytes:
    """Raises ValueError."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def jwk(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    """The public key (RFC 7518, section 6.2), its members in the order of the thumbprint."""
    numbers = key.public_key().public_numbers()
    x, y = (b64(number.to_bytes(NUMBER_BYTES, "big")) for number in (numbers.x, numbers.y))
    return {"crv": "P-256", "kty": "EC", "x": x, "y": y}


def thumbprint(key: ec.EllipticCurvePrivateKey) -> str:
    """RFC 7638."""
    return b64(hashlib.sha256(compact(jwk(key))).digest())


def key_authorization(key: ec.EllipticCurvePrivateKey, token: str) -> str:
    return f"{token}.{thumbprint(key)}"


def signed(key: ec.EllipticCurvePrivateKey, url: str, nonce: str, payload: object, account: str = "") -> dict[str, str]:
    """The body of a request. `account` "": the key itself is sent, as for a new account. `payload` None: POST-as-GET."""
    header: dict[str, object] = {"alg": "ES256", "nonce": nonce, "url": url}
    header |= {"kid": account} if account else {"jwk": jwk(key)}
    return sign(key, header, b"" if payload is None else compact(payload))


def sign(key: ec.EllipticCurvePrivateKey, header: Mapping[str, object], payload: bytes) -> dict[str, str]:
    protected, content = b64(compact(header)), b64(payload)
    der = key.sign(f"{protected}.{content}".encode("ascii"), ec.ECDSA(hashes.SHA256()))
    signature = b"".join(number.to_bytes(NUMBER_BYTES, "big") for number in decode_dss_signature(der))
    return {"protected": protected, "payload": content, "signature": b64(signature)}


def compact(data: object) -> bytes:
    """JSON without spaces."""
    return json.dumps(data, separators=(",", ":")).encode()
