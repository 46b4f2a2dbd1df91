"""External account binding: the operator's account at the CA vouches for the account that the node creates (RFC 8555, section
7.3.4)."""

from __future__ import annotations

import errno
import hashlib
import hmac
import stat
from typing import TYPE_CHECKING

from sdlb.adapters.acme_jws import b64, compact, jwk, unb64
from sdlb.adapters.regular_file import EXPOSED, read_with_status

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

KEY_BYTES_MAX = 4096


class BadKeyFile(ValueError):
    """The file of the HMAC key cannot be used."""

    def __init__(self, what: str, do: str) -> None:
        super().__init__(f"{what}; {do}")
        self.what = what
        self.do = do


def read_key(path: str) -> bytes:
    """The HMAC key. Raises BadKeyFile."""
    try:
        content, status = read_with_status(path, KEY_BYTES_MAX)
    except OSError as error:
        do = "grant access" if error.errno == errno.EACCES else "correct eab.hmac_key_file in [acme]"
        raise BadKeyFile(f"{path} cannot be read ({error.strerror})", do) from None
    mode = stat.S_IMODE(status.st_mode)
    if mode & EXPOSED:
        raise BadKeyFile(f"{path} is readable by others (mode {mode:04o})", f"run: chmod 600 {path}")
    try:
        key = unb64(content.decode("ascii").strip())
    except ValueError:
        key = b""
    if not key or len(content) > KEY_BYTES_MAX:
        raise BadKeyFile(f"{path} is not an HMAC key in base64url", "write the key to it as the CA shows it")
    return key


def binding(key: EllipticCurvePrivateKey, kid: str, hmac_key: bytes, url: str) -> dict[str, str]:
    """`externalAccountBinding` of the request that creates the account of `key`. `url`: of newAccount."""
    protected = b64(compact({"alg": "HS256", "kid": kid, "url": url}))
    payload = b64(compact(jwk(key)))
    mac = hmac.digest(hmac_key, f"{protected}.{payload}".encode("ascii"), hashlib.sha256)
    return {"protected": protected, "payload": payload, "signature": b64(mac)}
