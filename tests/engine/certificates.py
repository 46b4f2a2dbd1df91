"""Certificates for tests, made with the program openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Pair:
    """`pem`: certificate and key in one file."""

    certificate: Path
    key: Path

    @property
    def pem(self) -> bytes:
        return self.certificate.read_bytes() + self.key.read_bytes()


class Authority:
    """Signs certificates that last ten days."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self.root = self.made(name, "/CN=Test authority", "EC", "-x509")

    def issue(self, *hosts: str, kind: str = "EC", name: str = "", client: bool = False) -> Pair:
        """`kind`: EC (P-256) or RSA (2048)."""
        names = ",".join(f"DNS:{host}" for host in hosts)
        usage = "clientAuth" if client else "serverAuth"
        return self.made(
            name or f"{hosts[0].replace('*', 'any')}-{kind}",
            f"/CN={hosts[0]}",
            kind,
            *("-x509", "-CA", str(self.root.certificate), "-CAkey", str(self.root.key)),
            *("-addext", f"subjectAltName={names}", "-addext", f"extendedKeyUsage={usage}"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
        )

    def node(self, *names: str, name: str = "") -> Pair:
        """For links between nodes: it serves and connects. `names`: DNS names, or addresses as `IP:127.0.0.1`."""
        shown = ",".join(each if ":" in each else f"DNS:{each}" for each in names)
        return self.made(
            name or f"node-{names[0].replace(':', '-')}",
            f"/CN={names[0]}",
            "EC",
            *("-x509", "-CA", str(self.root.certificate), "-CAkey", str(self.root.key)),
            *("-addext", f"subjectAltName={shown}", "-addext", "extendedKeyUsage=serverAuth,clientAuth"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
        )

    def expired(self, host: str) -> Pair:
        """One that ended in 2021."""
        request, made = self._folder / "expired.csr", Pair(self._folder / "expired.crt", self._folder / "expired.key")
        _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={host}",
                 "-keyout", str(made.key), "-out", str(request))  # fmt: skip
        (self._folder / "index.txt").write_text("")
        (self._folder / "ca.cnf").write_text(
            f"[ca]\ndefault_ca=d\n[d]\ndatabase={self._folder}/index.txt\nnew_certs_dir={self._folder}\n"
            "default_md=sha256\nrand_serial=yes\npolicy=p\nunique_subject=no\nx509_extensions=e\n"
            f"[p]\ncommonName=supplied\n[e]\nsubjectAltName=DNS:{host}\n"
        )
        _openssl("ca", "-batch", "-notext", "-config", str(self._folder / "ca.cnf"), "-in", str(request),
                 "-cert", str(self.root.certificate), "-keyfile", str(self.root.key), "-out", str(made.certificate),
                 "-startdate", "20200101000000Z", "-enddate", "20210101000000Z")  # fmt: skip
        return made

    def made(self, name: str, subject: str, kind: str, *more: str) -> Pair:
        made = Pair(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        key = ("rsa:2048",) if kind == "RSA" else ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")
        _openssl("req", "-newkey", *key, "-nodes", "-days", "10", "-subj", subject,
                 "-keyout", str(made.key), "-out", str(made.certificate), *more)  # fmt: skip
        return made


def _openssl(*words: str) -> None:
    done = subprocess.run(["openssl", *words], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
