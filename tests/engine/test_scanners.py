"""The engine checked by scanners: TLS by sslyze with Mozilla's intermediate profile, HTTP/2 over TLS by h2spec.

Nothing leaves this machine. The certificates are signed by a CA of the tests, so the only expected finding is an unknown
CA.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdlb.wire.engine_pb2 import Listener, ToEngine
from tests.certificates import needs_openssl
from tests.compliance.recorder import Recorder
from tests.engine.certificates import Authority
from tests.engine.engine import Engine

pytestmark = needs_openssl


@pytest.fixture(scope="module")
def engine(authority: Authority) -> Iterator[Engine]:
    listeners = [Listener(key="https", address="127.0.0.1:0", tls=True, public=True)]
    with Recorder() as recorder, Engine(listeners) as engine:
        engine.serve("*", recorder.endpoint)
        message = ToEngine()
        site = message.sites.put.add(key="a", hosts=["localhost"])
        for kind in ("EC", "RSA"):
            site.certificates.add(pem=authority.issue("localhost", kind=kind).pem)
        assert not engine.sites(message).sites[0].error
        yield engine


def test_sslyze(engine: Engine, authority: Authority, tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    done = subprocess.run(
        [sys.executable, "-m", "sslyze", "--mozilla_config", "intermediate", "--early_data",
         "--certinfo_ca_file", str(authority.root.certificate), "--json_out", str(found),
         f"localhost:{engine.address['https'][1]}"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    complaints = re.findall(r"^ +\* (\w+):", done.stdout.split("COMPLIANCE AGAINST TLS CONFIGURATION")[1], re.MULTILINE)
    assert complaints == ["certificate_path_validation"], done.stdout

    (server,) = json.loads(found.read_text())["server_scan_results"]
    said = {name: scan["result"] for name, scan in server["scan_result"].items() if scan["status"] == "COMPLETED"}
    for version in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"):
        assert not said[f"{version}_cipher_suites"]["accepted_cipher_suites"], version
    for version, suites in (("tls_1_2", 6), ("tls_1_3", 3)):
        accepted = [
            suite["cipher_suite"]["name"] for suite in said[f"{version}_cipher_suites"]["accepted_cipher_suites"]
        ]
        assert len(accepted) == suites and all("GCM" in name or "POLY1305" in name for name in accepted)
    assert said["heartbleed"]["is_vulnerable_to_heartbleed"] is False
    assert said["robot"]["robot_result"] == "NOT_VULNERABLE_RSA_NOT_SUPPORTED"
    assert said["openssl_ccs_injection"]["is_vulnerable_to_ccs_injection"] is False
    assert said["session_renegotiation"]["is_vulnerable_to_client_renegotiation_dos"] is False
    assert said["session_renegotiation"]["supports_secure_renegotiation"] is True
    assert said["tls_compression"]["supports_compression"] is False
    assert said["tls_fallback_scsv"]["supports_fallback_scsv"] is True
    assert said["tls_1_3_early_data"]["supports_early_data"] is False
    assert said["tls_extended_master_secret"]["supports_ems_extension"] is True
    assert {curve["name"] for curve in said["elliptic_curves"]["supported_curves"]} == {
        *("X25519", "secp256r1", "secp384r1")
    }


H2SPEC = os.environ.get("H2SPEC") or shutil.which("h2spec", path=f"{os.environ.get('PATH', '')}:{Path.home()}/go/bin")


@pytest.mark.skipif(
    H2SPEC is None, reason="needs h2spec: go install github.com/summerwind/h2spec/cmd/h2spec@latest, or H2SPEC=PATH"
)
def test_h2spec_strict_over_tls(engine: Engine) -> None:
    """h2spec itself skips one of its tests."""
    port = engine.address["https"][1]
    done = subprocess.run(
        [str(H2SPEC), "--strict", "--tls", "--insecure", "--timeout", "5", "--host", "localhost", "--port", str(port)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert re.search(r"^14\d tests, 14\d passed, [01] skipped, 0 failed$", done.stdout, re.MULTILINE), done.stdout[
        -400:
    ]
