"""External account binding (RFC 8555, section 7.3.4) at a real ACME server (Pebble), and what can be wrong with it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC

from sdlb.adapters import acme_keys
from sdlb.adapters.acme_eab import BadKeyFile, binding, read_key
from sdlb.adapters.acme_jws import b64, jwk, unb64
from sdlb.core.certificates import OUTAGE, REFUSED
from sdlb.model.acme import ExternalAccount
from sdlb.seams.acme import AcmeFailed
from tests.acme_front import Front
from tests.pebble import Pebble, needs_pebble
from tests.seams.test_acme_client import Orders

KID = "kid-1"
KEY = b64(secrets.token_bytes(32))


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    made = Pebble(tmp_path_factory.mktemp("pebble"), eab={KID: KEY})
    yield made
    made.close()


@pytest.fixture
def front(pebble: Pebble, tmp_path: Path) -> Iterator[Front]:
    made = Front(tmp_path / "front", pebble.directory)
    yield made
    made.close()


def key_file(folder: Path, content: str, mode: int = 0o600) -> str:
    path = folder / "eab.key"
    path.write_text(content)
    path.chmod(mode)
    return str(path)


async def _open(orders: Orders) -> str:
    try:
        await orders.server.open()
        return orders.server.account
    finally:
        await orders.server.close()


def opened(pebble: Pebble, front: Front, folder: Path, eab: ExternalAccount | None) -> str:
    """The URL of the account. Raises AcmeFailed."""
    return asyncio.run(_open(Orders(pebble, front, folder, eab=eab)))


def refused(pebble: Pebble, front: Front, folder: Path, eab: ExternalAccount | None) -> AcmeFailed:
    with pytest.raises(AcmeFailed) as caught:
        opened(pebble, front, folder, eab)
    return caught.value


@needs_pebble
def test_an_account_is_bound_once_and_found_again_without_the_key(pebble: Pebble, front: Front, tmp_path: Path) -> None:
    """A CA may accept a key for one account only, and the operator may remove the file afterwards."""
    path = key_file(tmp_path, f"{KEY}\n")
    account = opened(pebble, front, tmp_path, ExternalAccount(KID, path))
    assert account
    os.unlink(path)
    assert opened(pebble, front, tmp_path, ExternalAccount("gone", path)) == account
    assert opened(pebble, front, tmp_path, None) == account


@needs_pebble
def test_a_wrong_key_and_an_unknown_kid_are_named_with_the_words_of_the_ca(
    pebble: Pebble, front: Front, tmp_path: Path
) -> None:
    good, wrong = key_file(tmp_path, KEY), ExternalAccount("kid-2", str(tmp_path / "eab.key"))
    error = refused(pebble, front, tmp_path, wrong)
    assert error.kind == REFUSED and "kid" in str(error)
    assert "was not bound to the external account kid-2: check eab in [acme]" in str(error)
    Path(good).write_text(b64(bytes(32)))
    error = refused(pebble, front, tmp_path, ExternalAccount(KID, good))
    assert error.kind == REFUSED and "bound to the external account kid-1: check eab" in str(error)
    assert b64(bytes(32)) not in str(error)


@needs_pebble
def test_a_ca_that_requires_a_binding_says_what_to_set(pebble: Pebble, front: Front, tmp_path: Path) -> None:
    error = refused(pebble, front, tmp_path, None)
    assert error.kind == REFUSED and "set eab = {kid, hmac_key_file} in [acme]" in str(error)


@needs_pebble
def test_a_key_file_that_cannot_be_used_is_no_refusal_of_the_ca(pebble: Pebble, front: Front, tmp_path: Path) -> None:
    """So it does not count as a failed order of the hosts, and another entry orders meanwhile."""
    missing = str(tmp_path / "missing")
    error = refused(pebble, front, tmp_path, ExternalAccount(KID, missing))
    assert error.kind == OUTAGE
    what = f"eab.hmac_key_file: {missing} cannot be read (No such file or directory)"
    assert str(error) == f"{what}; correct eab.hmac_key_file in [acme]"


# ------------------------------------------------------------------ the file and the signature


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o644, 0o601])
def test_a_key_that_others_can_read_is_refused(mode: int, tmp_path: Path) -> None:
    path = key_file(tmp_path, KEY, mode)
    with pytest.raises(BadKeyFile) as caught:
        read_key(path)
    assert str(caught.value) == f"{path} is readable by others (mode {mode:04o}); run: chmod 600 {path}"


@pytest.mark.parametrize("content", ["", "\n", "not base64!", "ä", "A" * 5000, "AAAAA"])
def test_what_is_no_key_is_refused_and_never_shown(content: str, tmp_path: Path) -> None:
    with pytest.raises(BadKeyFile) as caught:
        read_key(key_file(tmp_path, content))
    assert "is not an HMAC key in base64url" in str(caught.value)
    assert not content.strip() or content not in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadKeyFile, match="Not a regular file"):
        read_key(str(tmp_path))


def test_keys_are_read_with_and_without_padding(tmp_path: Path) -> None:
    raw = bytes(range(31))
    assert read_key(key_file(tmp_path, b64(raw))) == raw
    assert read_key(key_file(tmp_path, base64.urlsafe_b64encode(raw).decode() + "\n", 0o640)) == raw


def test_the_binding_is_that_of_the_rfc() -> None:
    """Protected header, payload and MAC (RFC 8555, section 7.3.4), checked with another implementation of HMAC."""
    key, secret = acme_keys.load_key(acme_keys.new_key()), secrets.token_bytes(32)
    made = binding(key, "k", secret, "https://ca/new")
    assert json.loads(unb64(made["protected"])) == {"alg": "HS256", "kid": "k", "url": "https://ca/new"}
    assert json.loads(unb64(made["payload"])) == jwk(key)
    mac = HMAC(secret, hashes.SHA256())
    mac.update(f"{made['protected']}.{made['payload']}".encode())
    mac.verify(unb64(made["signature"]))
