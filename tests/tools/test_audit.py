"""What `make audit` makes of what pip-audit 2.10 and cargo-deny 0.20 say. The outputs are theirs, cut where they are long."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CLEAN = '{"dependencies": [{"name": "idna", "version": "3.20", "vulns": []}], "fixes": []}\n'
VULNERABLE = (
    '{"dependencies": [{"name": "urllib3", "version": "1.26.5", "vulns": [{"id": "PYSEC-2023-192", "fix_versions": ["1.26.17"],'
    ' "aliases": ["GHSA-v845-jxx5-vc9f", "CVE-2023-43804"]}]}, {"name": "idna", "version": "3.20", "vulns": []}], "fixes": []}\n'
)
SKIPPED = '{"name": "idna", "skip_reason": "Dependency not found on PyPI and could not be audited: idna (3.20)"}'
MIRROR = f'{{"dependencies": [{SKIPPED}], "fixes": []}}\n'
NO_PROXY = """\
  File "site-packages/requests/adapters.py", line 723, in send
    raise ProxyError(e, request=request)
requests.exceptions.ProxyError: HTTPSConnectionPool(host='pypi.org', port=443): Max retries exceeded with url: /pypi/anyio/4.16.0/json
"""
SLOW = """\
ERROR:pip_audit._cli:Could not connect to PyPI's vulnerability feed
ERROR:pip_audit._cli:Tip: your network may be blocking this service. Try another service with `-s SERVICE`
"""
NO_FILE = "ERROR:pip_audit._cli:invalid requirements input: requirements.lock\n"

SUMMARY = '{"fields":{"advisories":{"errors":%d,"helps":0,"notes":0,"warnings":0}},"type":"summary"}\n'
SMALLVEC = (
    '{"fields":{"advisory":{"aliases":["CVE-2021-25900","GHSA-43w2-9j62-hq99"],"collection":"crates","date":"2021-01-08",'
    '"id":"RUSTSEC-2021-0003","informational":null,"package":"smallvec","title":"Buffer overflow in SmallVec::insert_many"},'
    '"code":"vulnerability","graphs":[{"Krate":{"name":"smallvec","version":"0.6.13"},"parents":[{"Krate":{"name":"vuln",'
    '"version":"0.1.0"}}]}],"labels":[{"column":1,"line":3,"message":"security vulnerability detected","span":"smallvec 0.6.13 '
    'registry+https://github.com/rust-lang/crates.io-index"}],"message":"Buffer overflow in SmallVec::insert_many","notes":'
    '["ID: RUSTSEC-2021-0003"],"severity":"error"},"type":"diagnostic"}\n'
)
YANKED = SMALLVEC.replace('"code":"vulnerability"', '"code":"yanked"').replace(
    '"severity":"error"', '"severity":"warning"'
)
NO_GITHUB = (
    '{"fields":{"level":"ERROR","message":"failed to fetch advisory database https://github.com/RustSec/advisory-db with cli: '
    "failed to clone: Cloning into '/root/.cargo/advisory-dbs/advisory-db-3157b0e258782691'...\\nfatal: unable to access "
    "'https://github.com/RustSec/advisory-db/': Could not resolve host: github.com\\n\","
    '"timestamp":"2026-11-29T13:51:13.345027343Z"},"type":"log"}\n'
)
BAD_FILE = (
    '{"fields":{"labels":[],"message":"unexpected keys","severity":"error"},"type":"diagnostic"}\n'
    '{"fields":{"level":"ERROR","message":"failed to validate configuration file deny.toml","timestamp":""},"type":"log"}\n'
)

PYPI_NOT_HAD = "audit: the advisory database of PyPI could not be fetched; not checked"
RUSTSEC_NOT_HAD = "audit: the advisory database of RustSec could not be fetched; not checked"


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    return Audit(tmp_path)


class Audit:
    """`make audit` where both programs say this. Both are well unless a test says otherwise."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.pip_audit(0, CLEAN)
        self.cargo_deny(0, SUMMARY % 0)

    def pip_audit(self, code: int, out: str = "", error: str = "", takes_s: float = 0.0) -> None:
        self._put("pip-audit", code, out, error, takes_s)

    def cargo_deny(self, code: int, error: str, takes_s: float = 0.0) -> None:
        self._put("cargo-deny", code, "", error, takes_s)

    def _put(self, name: str, code: int, out: str, error: str, takes_s: float) -> None:
        (self._folder / f"{name}.out").write_text(out)
        (self._folder / f"{name}.err").write_text(error)
        script = f"#!/bin/sh\nsleep {takes_s}\ncat '{self._folder}/{name}.out'\ncat '{self._folder}/{name}.err' >&2\nexit {code}\n"
        (self._folder / name).write_text(script)
        (self._folder / name).chmod(0o755)

    def __call__(self) -> tuple[int, list[str]]:
        words = [sys.executable, "-m", "tools.audit", "--within-s", "2"]
        words += ["--pip-audit", self._folder / "pip-audit", "--cargo-deny", self._folder / "cargo-deny"]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, (done.stdout + done.stderr).splitlines()


def test_nothing_is_known(audit: Audit) -> None:
    assert audit() == (
        0,
        ["audit: PyPI has no advisory for 1 package", "audit: RustSec has no advisory for Cargo.lock"],
    )


def test_an_advisory_for_a_python_package_fails(audit: Audit) -> None:
    audit.pip_audit(1, VULNERABLE, "Found 1 known vulnerability in 1 package\n")
    code, lines = audit()
    assert code == 1
    assert lines[0] == "audit: urllib3 1.26.5: PYSEC-2023-192 (GHSA-v845-jxx5-vc9f, CVE-2023-43804), fixed in 1.26.17"


def test_an_advisory_for_a_crate_fails(audit: Audit) -> None:
    audit.cargo_deny(1, SMALLVEC + SUMMARY % 1)
    code, lines = audit()
    assert code == 1
    assert lines[1:] == ["audit: smallvec 0.6.13: RUSTSEC-2021-0003, Buffer overflow in SmallVec::insert_many"]


def test_a_warning_does_not_fail(audit: Audit) -> None:
    audit.cargo_deny(0, YANKED + SUMMARY % 0)
    assert audit()[0] == 0


@pytest.mark.parametrize(("code", "out", "error"), [(0, MIRROR, "No known vulnerabilities found\n"), (1, "", NO_PROXY), (1, "", SLOW)],
                         ids=["a mirror without advisories", "no network", "a firewall"])  # fmt: skip
def test_pypi_that_cannot_be_asked_is_said_and_passes(audit: Audit, code: int, out: str, error: str) -> None:
    audit.pip_audit(code, out, error)
    assert audit() == (0, [PYPI_NOT_HAD, "audit: RustSec has no advisory for Cargo.lock"])


def test_a_database_of_rustsec_that_cannot_be_had_is_said_and_passes(audit: Audit) -> None:
    audit.cargo_deny(1, NO_GITHUB)
    assert audit() == (0, ["audit: PyPI has no advisory for 1 package", RUSTSEC_NOT_HAD])


def test_one_that_cannot_be_had_hides_no_advisory_of_the_other(audit: Audit) -> None:
    audit.pip_audit(1, VULNERABLE)
    audit.cargo_deny(1, NO_GITHUB)
    code, lines = audit()
    assert code == 1 and RUSTSEC_NOT_HAD in lines
    audit.pip_audit(1, "", NO_PROXY)
    audit.cargo_deny(1, SMALLVEC + SUMMARY % 1)
    code, lines = audit()
    assert code == 1 and PYPI_NOT_HAD in lines


def test_packages_that_are_skipped_are_named(audit: Audit) -> None:
    told = json.loads(VULNERABLE)
    told["dependencies"].append(json.loads(SKIPPED))
    audit.pip_audit(1, json.dumps(told))
    code, lines = audit()
    assert code == 1 and "audit: PyPI does not know idna; not checked" in lines


def test_it_does_not_wait_for_long(audit: Audit) -> None:
    audit.pip_audit(0, CLEAN, takes_s=600)
    audit.cargo_deny(0, SUMMARY % 0, takes_s=600)
    began = time.monotonic()
    assert audit() == (0, [PYPI_NOT_HAD, RUSTSEC_NOT_HAD])
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("error", [NO_FILE, "pip-audit: error: unrecognized arguments: --x\n", ""])
def test_a_check_that_does_not_run_is_no_success(audit: Audit, error: str) -> None:
    """It would pass for ever."""
    audit.pip_audit(2, "", error)
    code, lines = audit()
    assert code == 2 and lines[0].startswith("audit: pip-audit failed")


@pytest.mark.parametrize(("code", "error"), [(1, BAD_FILE), (2, "error: unexpected argument '--x' found\n"), (0, "")])
def test_nor_is_one_of_crates(audit: Audit, code: int, error: str) -> None:
    audit.cargo_deny(code, error)
    found, lines = audit()
    assert found == 2 and lines[1].startswith("audit: cargo-deny failed")


def test_a_program_that_is_not_there(audit: Audit, tmp_path: Path) -> None:
    (tmp_path / "cargo-deny").unlink()
    code, lines = audit()
    assert code == 2 and lines[1].startswith("audit: cargo-deny failed")
