"""Known vulnerabilities of what is in the lock files: `make audit`, a part of `make lint`.

pip-audit queries PyPI, cargo-deny queries the database of RustSec. Exit codes: 1 for an advisory; 2 for a check that did not run because
of an error here, since it would otherwise pass forever. An unreachable database is reported but is not a failure: lint needs no network.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
WITHIN_S = 60.0
TERM_S = 5.0
PYPI_UNREACHED = (
    "requests.exceptions.",
    "urllib3.exceptions.",
    "Could not connect to PyPI",
    "PyPI is not redirecting",
    "ServiceError",
)


@dataclass(frozen=True, slots=True)
class Done:
    """The output of a program. `code` is None if it took too long."""

    code: int | None
    out: str
    error: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """`advisories`: a line each. `reached`: the database answered. `failed`: why the check did not run."""

    advisories: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    reached: bool = True
    failed: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.audit", description="Checks the dependencies for known vulnerabilities."
    )
    parser.add_argument("--pip-audit", default=str(Path(sys.executable).parent / "pip-audit"))
    parser.add_argument("--cargo-deny", default="cargo-deny")
    parser.add_argument(
        "--within-s", type=float, default=WITHIN_S, help="the timeout of each of the two checks (%(default)s)"
    )
    args = parser.parse_args()
    words = [args.pip_audit, "--require-hashes", "--disable-pip", "--format=json", "--progress-spinner=off"]
    words += ["-r", "requirements.lock", "-r", "requirements-dev.lock"]
    python = read_pip_audit(run(words, ROOT, args.within_s))
    crates = read_cargo_deny(
        run([args.cargo_deny, "--format=json", "check", "advisories"], ROOT / "engine", args.within_s)
    )
    codes = [show("PyPI", "pip-audit", python), show("RustSec", "cargo-deny", crates)]
    return 1 if 1 in codes else max(codes)


def show(database: str, program: str, verdict: Verdict) -> int:
    """Prints the verdict; returns its exit code."""
    if verdict.failed:
        print(f"audit: {program} failed: {verdict.failed}", flush=True)
        return 2
    if not verdict.reached:
        print(f"audit: the advisory database of {database} could not be fetched; not checked", flush=True)
        return 0
    for line in (*verdict.advisories, *verdict.notes):
        print(f"audit: {line}", flush=True)
    return 1 if verdict.advisories else 0


def read_pip_audit(done: Done) -> Verdict:
    if done.code is None:
        return Verdict(reached=False)
    try:
        packages: list[dict[str, Any]] = json.loads(done.out)["dependencies"]
    except (ValueError, KeyError, TypeError):
        if any(word in done.error for word in PYPI_UNREACHED):
            return Verdict(reached=False)
        return Verdict(failed=last_line(done))
    # PyPI answers 404 for a version that it does not know; so does a mirror that has no advisories.
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    if len(unknown) == len(packages):
        return Verdict(reached=False) if packages else Verdict(failed="it found no packages in the lock files")
    advisories = [
        f"{package['name']} {package['version']}: {known['id']} ({', '.join(known.get('aliases', [])) or 'no other name'}), "
        f"fixed in {', '.join(known['fix_versions']) or 'no version'}"
        for package in packages
        for known in package.get("vulns", [])
    ]
    if advisories or done.code == 0:
        checked = len(packages) - len(unknown)
        notes = [] if advisories else [f"PyPI has no advisory for {checked} package{'s' if checked > 1 else ''}"]
        notes += [f"PyPI does not know {', '.join(unknown)}; not checked"] if unknown else []
        return Verdict(advisories, notes)
    return Verdict(failed=last_line(done))


def read_cargo_deny(done: Done) -> Verdict:
    if done.code is None:
        return Verdict(reached=False)
    found = [json.loads(line) for line in done.error.splitlines() if line.startswith("{")]
    fields: list[tuple[str, dict[str, Any]]] = [(each["type"], each["fields"]) for each in found]
    if not any(kind == "summary" for kind, _ in fields):
        errors = [str(entry["message"]) for kind, entry in fields if kind == "log" and entry.get("level") == "ERROR"]
        if any("advisory database" in error for error in errors):
            return Verdict(reached=False)
        return Verdict(failed="; ".join(errors) or last_line(done))
    advisories: list[str] = []
    for kind, entry in fields:
        if kind == "diagnostic" and entry.get("severity") == "error":
            crates = [f"{each['Krate']['name']} {each['Krate']['version']}" for each in entry.get("graphs", [])]
            name = entry["advisory"]["id"] if entry.get("advisory") else entry.get("code", "?")
            advisories.append(f"{', '.join(crates)}: {name}, {entry['message']}")
    if bool(advisories) != bool(done.code):
        return Verdict(failed=last_line(done))
    return Verdict(advisories, [] if advisories else ["RustSec has no advisory for Cargo.lock"])


def last_line(done: Done) -> str:
    lines = (done.error + done.out).strip().splitlines()
    return f"{lines[-1] if lines else 'no output'} (exit code {done.code})"


def run(words: Sequence[str], folder: Path, within_s: float) -> Done:
    """Runs a program in its own session, so that a timeout also ends its children, such as git."""
    quiet = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    try:
        process = subprocess.Popen(words, cwd=folder, env=quiet, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, start_new_session=True)  # fmt: skip
    except OSError as error:
        return Done(127, "", f"{words[0]}: {error.strerror}")
    for wait_s, then in ((within_s, signal.SIGTERM), (TERM_S, signal.SIGKILL)):
        try:
            out, error = process.communicate(timeout=wait_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, then)
        else:
            return Done(process.returncode if then == signal.SIGTERM else None, out, error)
    process.communicate()
    return Done(None, "", "")


if __name__ == "__main__":
    sys.exit(main())
