"""An entry with 10,000 sites, each with its own certificate: from its start to the first handshake, and a replaced certificate."""

from __future__ import annotations

import datetime
import os
import socket
import ssl
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bench.report import Report, below
from sdlb.cli.demo.launch import SDLB, Ports

SITES = 10_000
START_S, CHANGE_MS = 3.0, 100.0
WITHIN_S = 120.0


def run(quick: bool) -> Report:
    count, rounds = (1_000, 5) if quick else (SITES, 20)
    with tempfile.TemporaryDirectory(prefix="sdlb-bench-sites-") as name:
        folder, ports = Path(name), Ports()
        https, node = ports.take(), ports.take()
        for number in range(count):
            _write(folder, number)
        (folder / "node.toml").write_text(_node_file(folder, https, node, count))
        log = (folder / "log").open("wb")
        began = time.perf_counter()
        words = [*SDLB, "node", "--config", str(folder / "node.toml")]
        process = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            first = _serial(https, count - 1, within_s=WITHIN_S)
            start_s = time.perf_counter() - began
            cpu_s = _cpu_s(process.pid)
            changes = [_change(folder, https, number * (count // rounds)) for number in range(rounds)]
        finally:
            process.terminate()
            process.wait()
            log.close()
    assert first
    rows = [
        below(f"{count} sites: from the start to the first handshake", start_s, START_S, "s", 2),
        below("a replaced certificate, p50", statistics.median(changes), CHANGE_MS, "ms"),
        below("a replaced certificate, slowest", max(changes), CHANGE_MS, "ms"),
    ]
    how = [
        f"One entry, one P-256 certificate for each of {count} sites, in one file each. The start is that of `sdlb node`; control used",
        f"{cpu_s:.2f} s of CPU until the first handshake of the last site. Replaced: {rounds} files, renamed into place one at a time;",
        "until a handshake gets the new certificate.",
    ]
    return Report(
        "sites", "an entry with many sites", how, rows, {"start_s": start_s, "cpu_s": cpu_s, "change_ms": changes}
    )


def _host(number: int) -> str:
    return f"site-{number}.example"


def _write(folder: Path, number: int) -> int:
    """A certificate that signs itself; returns its serial number. The file appears complete."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _host(number))])
    now, serial = datetime.datetime.now(datetime.UTC), x509.random_serial_number()
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), serial)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=60))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(_host(number))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, raw, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    new = folder / "new.pem"
    new.touch(0o600)
    new.write_bytes(made.public_bytes(pem) + key.private_bytes(pem, raw, plain))
    new.replace(folder / f"{number}.pem")
    return serial


def _node_file(folder: Path, https: int, node: int, count: int) -> str:
    sites = "".join(
        f'[[site]]\nhosts = ["{_host(number)}"]\ncertificate = "{folder}/{number}.pem"\n' for number in range(count)
    )
    return (
        f'name = "edge-1"\nstate_dir = "{folder}/state"\npublic = true\n[listen]\nhttps = "127.0.0.1:{https}"\n'
        f'node = "127.0.0.1:{node}"\nsocket = "{folder}/s"\n{sites}'
    )


def _serial(port: int, number: int, within_s: float, other_than: int = 0) -> int:
    """Of the certificate that a handshake gets, as soon as it succeeds with another one."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    end = time.perf_counter() + within_s
    while time.perf_counter() < end:
        try:
            with (
                socket.create_connection(("127.0.0.1", port), 5) as plain,
                context.wrap_socket(plain, server_hostname=_host(number)) as secured,
            ):
                der = secured.getpeercert(binary_form=True)
            assert der is not None
            serial = x509.load_der_x509_certificate(der).serial_number
            if serial != other_than:
                return serial
        except OSError:
            pass
        time.sleep(0.002)
    raise TimeoutError(f"no handshake for {_host(number)} within {within_s:g} s")


def _change(folder: Path, port: int, number: int) -> float:
    """Milliseconds."""
    before = _serial(port, number, 5)
    serial = _write(folder, number)
    began = time.perf_counter()
    assert _serial(port, number, 30, other_than=before) == serial
    return (time.perf_counter() - began) * 1000


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
