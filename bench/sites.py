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
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from bench.report import Report, Row, below
from sdlb.cli.demo.launch import SDLB, Ports

SITES = 10_000
START_S, CHANGE_MS = 3.0, 100.0
WITHIN_S = 120.0
IDLE_S = 10.0
CA_ISSUERS = AuthorityInformationAccessOID.CA_ISSUERS
DOMAIN_VALIDATED = x509.ObjectIdentifier("2.23.140.1.2.1")


def run(quick: bool) -> Report:
    count, rounds = (1_000, 5) if quick else (SITES, 20)
    with tempfile.TemporaryDirectory(prefix="sdlb-bench-sites-") as name:
        folder, ports, issuer = Path(name), Ports(), Issuer()
        https, node = ports.take(), ports.take()
        for number in range(count):
            write(folder, number, issuer)
        (folder / "node.toml").write_text(node_file(folder, https, node, count))
        log = (folder / "log").open("wb")
        began = time.perf_counter()
        words = [*SDLB, "node", "--config", str(folder / "node.toml")]
        process = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            serial(https, count - 1, within_s=WITHIN_S)
            start_s = time.perf_counter() - began
            control_s, engine_s = cpu_s(process.pid)
            time.sleep(IDLE_S)
            idle = sum(cpu_s(process.pid)) - control_s - engine_s
            before = sum(cpu_s(process.pid))
            changes = [_change(folder, https, number * (count // rounds), issuer) for number in range(rounds)]
            change_cpu_ms = (sum(cpu_s(process.pid)) - before) / rounds * 1000
        finally:
            process.terminate()
            process.wait()
            log.close()
    rows = [
        below(f"{count} sites: from the start to the first handshake", start_s, START_S, "s", 2),
        below("the same, CPU of control and engine", control_s + engine_s, START_S, "s", 2),
        below("a replaced certificate, p50", statistics.median(changes), CHANGE_MS, "ms"),
        below("a replaced certificate, slowest", max(changes), CHANGE_MS, "ms"),
        below("the same, CPU of control and engine", change_cpu_ms, CHANGE_MS, "ms"),
        Row("CPU without changes", "", f"{idle / IDLE_S:.1%} of a core"),
    ]
    how = [
        f"One entry, one P-256 certificate with its issuer for each of {count} sites, in one file each. The start is that of `sdlb node`,",
        f"until the first handshake of the last site: {control_s:.2f} s of CPU in control, {engine_s:.2f} s in the engine. Replaced:",
        f"{rounds} files, renamed into place one at a time; until a handshake gets the new certificate.",
    ]
    measurements = {
        "start_s": start_s,
        "control_cpu_s": control_s,
        "engine_cpu_s": engine_s,
        "change_ms": changes,
        "change_cpu_ms": change_cpu_ms,
    }
    return Report("sites", "an entry with many sites", how, rows, measurements)


def _host(number: int) -> str:
    return f"site-{number}.example"


class Issuer:
    """Issues certificates with the extensions that those of public CAs have."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench issuer")])
        basic = x509.BasicConstraints(ca=True, path_length=0)
        self.pem = _begun(self.name, self.name, self.key).add_extension(basic, True).sign(self.key, hashes.SHA256())

    def issue(self, host: str) -> tuple[int, bytes]:
        """The serial number, and the PEM file."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _begun(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]), self.name, key)
        for extension, critical in self._extensions(host):
            builder = builder.add_extension(extension, critical)
        made = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False
        ).sign(self.key, hashes.SHA256())
        pem, raw, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        chain = made.public_bytes(pem) + self.pem.public_bytes(pem)
        return made.serial_number, chain + key.private_bytes(pem, raw, plain)

    def _extensions(self, host: str) -> Iterator[tuple[x509.ExtensionType, bool]]:
        yield x509.KeyUsage(True, False, False, False, False, False, False, False, False), True
        yield x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False
        yield x509.BasicConstraints(ca=False, path_length=None), True
        issuers = x509.UniformResourceIdentifier("http://ca.example/issuer.der")
        yield x509.AuthorityInformationAccess([x509.AccessDescription(CA_ISSUERS, issuers)]), False
        yield x509.SubjectAlternativeName([x509.DNSName(host)]), False
        yield x509.CertificatePolicies([x509.PolicyInformation(DOMAIN_VALIDATED, None)]), False


def _begun(name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder(issuer, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=60))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def write(folder: Path, number: int, issuer: Issuer) -> int:
    """Returns the serial number of the certificate. The file appears complete."""
    number_of_it, pem = issuer.issue(_host(number))
    new = folder / "new.pem"
    new.touch(0o600)
    new.write_bytes(pem)
    new.replace(folder / f"{number}.pem")
    return number_of_it


def node_file(folder: Path, https: int, node: int, count: int) -> str:
    sites = "".join(
        f'[[site]]\nhosts = ["{_host(number)}"]\ncertificate = "{folder}/{number}.pem"\n' for number in range(count)
    )
    return (
        f'name = "edge-1"\nstate_dir = "{folder}/state"\npublic = true\n[listen]\nhttps = "127.0.0.1:{https}"\n'
        f'node = "127.0.0.1:{node}"\nsocket = "{folder}/s"\n{sites}'
    )


def serial(port: int, number: int, within_s: float, other_than: int = 0) -> int:
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


def _change(folder: Path, port: int, number: int, issuer: Issuer) -> float:
    """Milliseconds."""
    before = serial(port, number, 5)
    now = write(folder, number, issuer)
    began = time.perf_counter()
    assert serial(port, number, 30, other_than=before) == now
    return (time.perf_counter() - began) * 1000


def cpu_s(pid: int) -> tuple[float, float]:
    """Of a process, and of the processes that it started and of theirs."""
    return _cpu_s(pid), sum(map(_cpu_s, _below(pid)))


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _below(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(word) for task in tasks for word in task.read_text().split()]
    return [each for child in children for each in (child, *_below(child))]
