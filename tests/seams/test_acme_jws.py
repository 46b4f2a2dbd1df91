"""Signatures and derived values of ACME, against the vectors of the RFCs and the library's own verification."""

from __future__ import annotations

import json

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from sdlb.adapters.acme_jws import b64, jwk, key_authorization, sign, signed, thumbprint, unb64

D = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"
"""The private key of RFC 7515, appendix A.3."""


def rfc_key() -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(unb64(D), "big"), ec.SECP256R1())


def verify(key: ec.EllipticCurvePrivateKey, body: dict[str, str]) -> dict[str, object]:
    """Raises InvalidSignature; returns the protected header."""
    raw = unb64(body["signature"])
    assert len(raw) == 64  # r and s, not DER (RFC 7518, section 3.4)
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    key.public_key().verify(der, f"{body['protected']}.{body['payload']}".encode(), ec.ECDSA(hashes.SHA256()))
    return json.loads(unb64(body["protected"]))


def test_the_public_key_is_that_of_the_rfc() -> None:
    assert jwk(rfc_key()) == {
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }


def test_the_signed_content_is_that_of_the_rfc_and_its_signature_verifies() -> None:
    """RFC 7515, appendix A.3: header and payload. ES256 signatures differ each time."""
    payload = b'{"iss":"joe",\r\n "exp":1300819380,\r\n "http://example.com/is_root":true}'
    body = sign(rfc_key(), {"alg": "ES256"}, payload)
    assert body["protected"] == "eyJhbGciOiJFUzI1NiJ9"
    assert body["payload"] == (
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    )
    assert verify(rfc_key(), body) == {"alg": "ES256"}


def test_the_signature_of_the_rfc_verifies_in_the_same_way() -> None:
    """So the check above is that of RFC 7515."""
    verify(
        rfc_key(),
        {
            "protected": "eyJhbGciOiJFUzI1NiJ9",
            "payload": "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
            "signature": "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        },
    )


def test_the_thumbprint_has_the_members_in_the_order_of_the_rfc() -> None:
    """RFC 7638, section 3.2: crv, kty, x, y, without spaces. The value was computed with openssl and sha256sum."""
    assert thumbprint(rfc_key()) == "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U"
    assert key_authorization(rfc_key(), "token") == "token.oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U"


def test_a_request_names_its_url_and_nonce_and_the_key_or_the_account() -> None:
    """RFC 8555, section 6.2."""
    key = rfc_key()
    new = verify(key, signed(key, "https://ca/new", "n1", {"a": 1}))
    assert new == {"alg": "ES256", "nonce": "n1", "url": "https://ca/new", "jwk": jwk(key)}
    body = signed(key, "https://ca/order", "n2", None, "https://ca/me")
    assert verify(key, body) == {"alg": "ES256", "nonce": "n2", "url": "https://ca/order", "kid": "https://ca/me"}
    assert body["payload"] == ""  # POST-as-GET (section 6.3)
    assert unb64(signed(key, "https://ca/chal", "n3", {})["payload"]) == b"{}"


@given(st.binary(max_size=80))
def test_base64url_has_no_padding_and_comes_back(data: bytes) -> None:
    text = b64(data)
    assert unb64(text) == data and not set(text) & set("=+/")
