"""Certificates for tests, made with the `openssl` program: nothing of ours has a hand in them."""

from __future__ import annotations

import itertools
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

OPENSSL = shutil.which("openssl")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="the program openssl is not installed")


def openssl(*words: str | Path) -> str:
    done = subprocess.run([OPENSSL or "openssl", *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Authority:
    """A root of its own in `folder`; its certificate is `pem`."""

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._numbers = itertools.count(1)
        self.pem = folder / "ca.pem"
        self._key = folder / "ca.key"
        self._make_key(self._key, "ec")
        basic = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
        openssl(
            *("req", "-x509", "-new", "-key", self._key, "-subj", f"/CN={name}", "-days", "3650", *basic),
            *("-out", self.pem),
        )

    @staticmethod
    def _make_key(path: Path, kind: str) -> None:
        how = (
            ("RSA", "-pkeyopt", "rsa_keygen_bits:2048")
            if kind == "rsa"
            else ("EC", "-pkeyopt", "ec_paramgen_curve:P-256")
        )
        openssl("genpkey", "-algorithm", *how, "-out", path)
        path.chmod(0o600)

    def issue(self, *hosts: str, kind: str = "ec", days: int = 90, use: str = "serverAuth") -> Issued:
        """For these hosts, or with a colon other names: `IP:127.0.0.1`."""
        name = f"{next(self._numbers)}"
        key, request, chain = (self._folder / f"{name}.{kind}" for kind in ("key", "csr", "crt"))
        self._make_key(key, kind)
        openssl("req", "-new", "-key", key, "-subj", f"/CN={hosts[0][:60]}", "-out", request)
        extensions = self._folder / f"{name}.ext"
        names = ",".join(host if ":" in host else f"DNS:{host}" for host in hosts)
        extensions.write_text(f"extendedKeyUsage={use}\nsubjectAltName={names}\n")
        openssl(
            *("x509", "-req", "-in", request, "-CA", self.pem, "-CAkey", self._key, "-days", str(days)),
            *("-set_serial", f"0x{int(name) + 4096:x}", "-extfile", extensions, "-out", chain),
        )
        return Issued(chain, key)


class Issued:
    def __init__(self, chain: Path, key: Path) -> None:
        self.chain, self.key = chain, key

    @property
    def pem(self) -> str:
        """Certificate and key together."""
        return self.chain.read_text() + self.key.read_text()

    @property
    def der(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.chain.read_text())

    def write(self, path: Path) -> Path:
        """Certificate and key into one file, replaced in one step, as a program that renews should do."""
        fresh = path.with_name(f".{path.name}.new")
        fresh.touch(mode=0o600)
        fresh.write_text(self.pem)
        fresh.replace(path)
        return path


def shown(address: str, host: str) -> bytes | None:
    """The certificate (DER) that a client gets who asks for this name; None: the handshake is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    name, _, port = address.rpartition(":")
    with socket.create_connection((name, int(port)), 10) as raw:
        try:
            with context.wrap_socket(raw, server_hostname=host) as connection:
                return connection.getpeercert(binary_form=True)
        except ssl.SSLError:
            return None
