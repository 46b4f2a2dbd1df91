"""`sdlb tls` as a command: parameters are made once, by `openssl`; nothing half-written is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.cluster import until
from tests.made_certificates import make

DATA = Path(__file__).parents[1] / "node/data/dh2048.pem"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    (tmp_path / "a.pem").write_text(make("a.example").pem)
    file = tmp_path / "node.toml"
    file.write_text(
        f'state_dir = "{tmp_path}"\n[listen]\nhttps = "127.0.0.1:0"\nsocket = "{tmp_path}/api.sock"\n'
        f'[[site]]\nhosts = ["a.example", "*.a.example"]\ncertificate = "{tmp_path}/a.pem"\n'
    )
    return file


def environment(folder: Path, script: str) -> dict[str, str]:
    """With a program `openssl` of its own."""
    (folder / "bin").mkdir()
    program = folder / "bin/openssl"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    return {**os.environ, "PATH": f"{folder}/bin:{os.environ['PATH']}"}


def words(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "sdlb", "tls", *map(str, arguments)]


def tls(env: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words(*arguments), env=env, capture_output=True, text=True, timeout=60, check=False)


def test_made_then_unchanged_then_bundled(tmp_path: Path, config: Path) -> None:
    """The program is called once, and prints parameters that were made before."""
    env = environment(tmp_path, f'echo "$@" >> {tmp_path}/calls; cat {DATA}')
    bundle = ("bundle", "a.example", "--for", "haproxy", "--out", tmp_path / "bundle.pem", "--config", config)
    early = tls(env, *bundle)
    assert (early.returncode, early.stdout) == (1, "")
    assert early.stderr == "sdlb tls: a.example: has no DH parameters; run: sdlb tls dhparam a.example\n"
    made = tls(env, "dhparam", "*.a.example", "--config", config)
    assert made.returncode == 0, made.stderr
    assert "making DH parameters of 2048 bits for a.example: usually 10 to 54 seconds" in made.stderr
    assert made.stdout.startswith("a.example: made and checked in ")
    assert "the native engine has no finite-field Diffie-Hellman" in made.stdout
    again = tls(env, "dhparam", "a.example", "--config", config)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.startswith("a.example: unchanged: 2048 bits, SHA-256 ")
    assert (tmp_path / "calls").read_text() == "dhparam -2 2048\n"
    bundled = tls(env, *bundle)
    assert bundled.returncode == 0, bundled.stderr
    written = tmp_path / "bundle.pem"
    assert written.stat().st_mode & 0o777 == 0o600
    assert "\n\n" not in written.read_text() and written.read_text().endswith(DATA.read_text())
    wrong = tls(env, "dhparam", "b.example", "--config", config)
    assert wrong.returncode == 1
    assert wrong.stderr == "sdlb tls: b.example: is not a site of this node; name one of its sites: a.example\n"
    assert tls(env, "dhparam", "a.example", "--bits", "512").returncode == 2


def test_killed_in_the_middle_it_leaves_nothing(tmp_path: Path, config: Path) -> None:
    env = environment(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 300")
    command = subprocess.Popen(words("dhparam", "a.example", "--config", config), env=env, stderr=subprocess.DEVNULL)
    pid = tmp_path / "pid"
    until("openssl runs", lambda: pid.exists() and pid.read_text().endswith("\n"), 30)
    command.send_signal(signal.SIGKILL)
    command.wait()
    until("its child has ended", lambda: not Path(f"/proc/{pid.read_text().strip()}").exists())
    assert [path.name for path in (tmp_path / "dhparam").iterdir()] == [".lock"]
