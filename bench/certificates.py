"""Certificates by the `openssl` program, all on P-256: one for the public edge, and those by which nodes know each other."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench.report import CannotRun

HOST = "bench.test"
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def site(folder: Path) -> Path:
    """`site.pem` for `HOST`, signed by its own key; `site.crt` is what a client trusts. Raises CannotRun."""
    key, certificate = folder / "site.key", folder / "site.crt"
    words = ("-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}", "-days", "2")
    _openssl("req", "-x509", *KEY, *words, "-keyout", key, "-out", certificate)
    return _joined(folder / "site.pem", certificate, key)


def nodes(folder: Path, *names: str) -> Path:
    """`ca.pem`, which is returned, and `<name>.pem` for each node on 127.0.0.1. Raises CannotRun."""
    ca, ca_key = folder / "ca.pem", folder / "ca.key"
    words = ("-subj", "/CN=bench nodes", "-addext", "basicConstraints=critical,CA:TRUE", "-days", "2")
    _openssl("req", "-x509", *KEY, *words, "-keyout", ca_key, "-out", ca)
    for number, name in enumerate(names, 1):
        key, request, certificate, extensions = (folder / f"{name}.{kind}" for kind in ("key", "csr", "crt", "ext"))
        extensions.write_text(f"subjectAltName=DNS:{name},IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
        _openssl("req", "-new", *KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        signer = ("-CA", ca, "-CAkey", ca_key, "-set_serial", str(number), "-days", "2")
        _openssl("x509", "-req", "-in", request, *signer, "-extfile", extensions, "-out", certificate)
        _joined(folder / f"{name}.pem", certificate, key)
    return ca


def _joined(path: Path, certificate: Path, key: Path) -> Path:
    path.write_text(certificate.read_text() + key.read_text())
    path.chmod(0o600)
    return path


def _openssl(*words: str | Path) -> None:
    done = subprocess.run(["openssl", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotRun(f"openssl could not make a certificate: {done.stderr.strip()}")
