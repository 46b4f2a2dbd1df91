"""The checks of the audit on a configuration and files, each with its fault made on purpose."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest
from msgspec.structs import replace

from sdlb.model.acme import AcmeSettings, ExternalAccount
from sdlb.model.hardening import Hardening
from sdlb.model.hook_program import HookProgram
from sdlb.model.identity import IdentitySpec
from sdlb.model.site import PemFile, SiteSpec
from sdlb.node.audit import ports
from sdlb.node.audit.checks import CHECKS, Finding
from sdlb.node.audit.node import findings
from sdlb.node.config import NodeConfig
from sdlb.node.hardening import FIXED, HAPROXY, KEYS
from sdlb.node.openapi import version
from tests.made_certificates import DAY, make

NOW = datetime.now(UTC)


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def good(tmp_path: Path) -> NodeConfig:
    """A public node as it should be. It does not run."""
    tmp_path.chmod(0o755)
    for folder in ("state", "run"):
        (tmp_path / folder).mkdir(mode=0o700)
    pem = PemFile(str(write(tmp_path / "a.pem", make("a.example").pem)))
    node = make("edge-1")
    certificate = PemFile(str(write(tmp_path / "node.crt", node.chain, 0o644)))
    key = PemFile(str(write(tmp_path / "node.key", node.key_pem())))
    return NodeConfig(
        name="edge-1",
        state_dir=tmp_path / "state",
        socket=tmp_path / "run/api.sock",
        listen_node="0.0.0.0:7700",
        listen_http="0.0.0.0:80",
        listen_https="0.0.0.0:443",
        listen_metrics="127.0.0.1:9101",
        public=True,
        hardening=Hardening.preset(True),
        limits={"body_bytes": 1 << 20, "connections_per_address": 100},
        sites=(SiteSpec(("a.example",), ((pem, None),)),),
        identity=IdentitySpec(certificate, key, certificate),
        file=str(write(tmp_path / "node.toml", "", 0o644)),
        hooks={"pay": HookProgram((str(write(tmp_path / "hook", "", 0o755)),))},
    )


def audit(config: NodeConfig, result: str) -> list[Finding]:
    return [each for each in findings(config, 0, (0, "")) if each.result == result]


def test_a_node_as_it_should_be(good: NodeConfig) -> None:
    assert audit(good, "fail") == []
    expected = {"shared-ports", "user"} if os.geteuid() == 0 else {"shared-ports"}
    assert {each.check for each in audit(good, "warn")} == expected, "what needs a running node is not passed"
    assert all(each.fix for each in audit(good, "warn")) and not any(each.fix for each in audit(good, "pass"))
    assert {each.setting for each in audit(good, "pass") if each.check == "hardening"} > {
        "hardening.hsts_s",
        "hardening.tls_min",
    }
    assert all(each.why for each in findings(good, 0, (0, "")))


def test_every_part_of_the_preset_has_a_line(good: NodeConfig) -> None:
    """Also those that no key changes. Two have a check of their own, which looks at the running node."""
    own = {"listen.shared_port": "shared-ports", "listen.metrics": "private-listeners"}
    found = list(findings(good, 0, (0, "")))
    lines = {each.setting for each in found if each.check == "hardening"}
    assert lines == {*KEYS, *FIXED} - own.keys()
    assert set(own.values()) <= {each.check for each in found}


def changed(config: NodeConfig, path: str, mode: int) -> NodeConfig:
    (Path(config.file).parent / path).chmod(mode)
    return config


def site(config: NodeConfig, text: str) -> NodeConfig:
    write(Path(config.sites[0].certificates[0][0].path), text)
    return config


FAULTS: dict[str, tuple[Callable[[NodeConfig], NodeConfig], str, str, str]] = {
    "others read a site's key": (lambda c: changed(c, "a.pem", 0o644), "key-files", "mode 0644", "chmod 600 "),
    "others read the HMAC key of the external account": (
        lambda c: replace(c, acme=AcmeSettings("https://ca/", eab=ExternalAccount("k", _eab(c)))),
        "key-files",
        "mode 0644",
        "chmod 600 ",
    ),
    "the group writes the node's key": (
        lambda c: changed(c, "node.key", 0o660),
        "key-files",
        "mode 0660",
        "chmod 600 ",
    ),
    "others write the node file": (lambda c: changed(c, "node.toml", 0o666), "node-file", "mode 0666", "chmod go-w "),
    "others write the state folder": (lambda c: changed(c, "state", 0o777), "state-folder", "mode 0777", "chmod go-w "),
    "others write the run folder": (lambda c: changed(c, "run", 0o770), "run-folder", "mode 0770", "chmod go-w "),
    "others write a hook": (lambda c: changed(c, "hook", 0o757), "programs", "mode 0757", "chmod go-w "),
    "metrics on all addresses": (
        lambda c: replace(c, listen_metrics="0.0.0.0:9101"),
        "private-listeners",
        "all addresses",
        'metrics = "127.0.0.1:9101"',
    ),
    "metrics on all addresses of IPv6": (
        lambda c: replace(c, listen_metrics="[::]:9101"),
        "private-listeners",
        "all addresses",
        'metrics = "127.0.0.1:9101"',
    ),
    "no identity": (lambda c: replace(c, identity=None), "node-links", "unencrypted, and reachable", "add [identity]"),
    "an unencrypted parent": (
        lambda c: replace(c, identity=None, listen_node="127.0.0.1:7700", parents=("127.0.0.1:1", "rack-1:7700")),
        "node-links",
        "unencrypted, and reachable",
        "insecure = true",
    ),
    "another name in the certificate": (
        lambda c: site(c, make("b.example").pem),
        "certificates",
        "does not name a.example",
        "request one that names it",
    ),
    "an expired certificate": (
        lambda c: site(c, make("a.example", begins=NOW - 9 * DAY, lives=DAY).pem),
        "certificates",
        "expired on",
        "renew it",
    ),
    "must-staple": (
        lambda c: site(c, make("a.example", must_staple=True).pem),
        "certificates",
        "must-staple",
        "request one",
    ),
    "no certificate": (lambda c: site(c, "\n"), "certificates", "is empty", "write its text"),
    "an expired identity": (
        lambda c: (write(Path(c.file).parent / "node.crt", make("edge-1", begins=NOW - 9 * DAY, lives=DAY).chain), c)[
            1
        ],
        "identity",
        "has expired",
        "renew it",
    ),
    "an old HAProxy": (
        lambda c: replace(c, engine="haproxy", haproxy_binary=str(_haproxy(c, "2.6.12-1"))),
        "engine",
        "HAProxy 2.6",
        "3.0 or newer",
    ),
}


def _eab(config: NodeConfig) -> str:
    return str(write(Path(config.file).parent / "eab.key", "c2VjcmV0", 0o644))


def _dh(config: NodeConfig) -> str:
    text = (Path(__file__).parent / "data" / "dh512.pem").read_text()
    return str(write(Path(config.file).parent / "dh.pem", text))


def _haproxy(config: NodeConfig, number: str) -> Path:
    return write(
        Path(config.file).parent / "haproxy", f"#!/bin/sh\necho 'HAProxy version {number} 2023/12/16'\n", 0o755
    )


@pytest.mark.parametrize(("spoil", "check", "seen", "fix"), FAULTS.values(), ids=FAULTS)
def test_each_fault_fails_alone(
    good: NodeConfig, spoil: Callable[[NodeConfig], NodeConfig], check: str, seen: str, fix: str
) -> None:
    (found,) = audit(spoil(good), "fail")
    assert found.check == check and found.why == CHECKS[check].why
    assert seen in found.seen and fix in found.fix


WARNINGS: dict[str, tuple[Callable[[NodeConfig], NodeConfig], str, str]] = {
    "a tenth of the lifetime": (
        lambda c: site(c, make("a.example", begins=NOW - 9 * DAY, lives=10 * DAY).pem),
        "certificates",
        "of 10 days are left",
    ),
    "finite-field Diffie-Hellman": (
        lambda c: replace(c, sites=(replace(c.sites[0], dh=PemFile(_dh(c))), *c.sites[1:])),
        "certificates",
        "DHEat",
    ),
    "a part of the preset is off": (
        lambda c: replace(c, hardening=replace(c.hardening, hsts_s=0)),
        "hardening",
        "0, the preset has 63072000",
    ),
    "no limit": (lambda c: replace(c, limits={}), "hardening", "0, the preset has"),
    "not public": (lambda c: replace(c, public=False), "public", 'public is not set, and listen.http = "0.0.0.0:80"'),
    "links on this machine": (
        lambda c: replace(c, identity=None, listen_node="127.0.0.1:7700"),
        "node-links",
        "on this machine only",
    ),
}


@pytest.mark.parametrize(("spoil", "check", "seen"), WARNINGS.values(), ids=WARNINGS)
def test_warnings(good: NodeConfig, spoil: Callable[[NodeConfig], NodeConfig], check: str, seen: str) -> None:
    config = spoil(good)
    assert audit(config, "fail") == []
    found = [each for each in audit(config, "warn") if each.check == check]
    assert found and all(seen in each.seen and each.fix for each in found)


def test_files_with_secrets_in_a_folder_that_others_enter(good: NodeConfig) -> None:
    write(good.state_dir / "ticket-keys", "", 0o644)
    assert audit(good, "fail") == [], "nobody else can enter"
    good.state_dir.chmod(0o755)
    (found,) = audit(good, "fail")
    assert (found.check, found.fix) == ("state-folder", f"chmod 600 {good.state_dir}/ticket-keys")


@pytest.mark.parametrize(("mode", "result"), [(0o600, "pass"), (0o660, "warn"), (0o666, "fail")])
def test_the_mode_of_the_api_socket(good: NodeConfig, mode: int, result: str) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(good.socket))
        good.socket.chmod(mode)
        (found,) = [each for each in findings(good, 0, (0, "")) if each.check == "sockets"]
    assert found.result == result


def test_the_version_of_the_engine_and_a_current_haproxy(good: NodeConfig) -> None:
    for running, result in ((version(), "pass"), ("0.0.1", "warn")):
        (found,) = [each for each in findings(good, 0, (0, running)) if each.check == "engine"]
        assert found.result == result
    current = replace(good, engine="haproxy", haproxy_binary=str(_haproxy(good, "3.2.1")))
    assert audit(current, "fail") == []
    (found,) = [each for each in findings(current, 0, (1, "2.6.12-1")) if each.check == "engine"]
    assert (found.result, found.seen) == ("fail", "HAProxy 2.6"), (
        "the one that runs counts, not the one that would be started"
    )


LISTENS = """
import socket, sys
made = socket.create_server(("127.0.0.1", int(sys.argv[1])), reuse_port=True)
print(made.getsockname()[1], flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def listener(port: int = 0) -> Generator[tuple[int, int]]:
    """A process that listens, and lets others listen too: its id and its port."""
    words = [sys.executable, "-c", LISTENS, str(port)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
        process.kill()


def test_a_port_that_another_process_shares(good: NodeConfig) -> None:
    with listener() as (node, port):
        http = f"127.0.0.1:{port}"
        config = replace(good, listen_http=http, listen_https="", listen_node="127.0.0.1:0", listen_metrics="")

        def shared() -> Finding:
            (found,) = [each for each in findings(config, node, (0, "")) if each.check == "shared-ports"]
            return found

        assert shared().result == "pass"
        with listener(port) as (other, _):
            found = shared()
            assert found.result == "fail" and found.fix == f"kill {other}"
            assert f"(process {other}) listens on it too" in found.seen
        assert shared().result == "pass"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("0.0.0.0", "127.0.0.2", True),
        ("127.0.0.1", "::", True),
        ("127.0.0.1", "::1", False),
        ("::", "0.0.0.0", True),
        ("::1", "0.0.0.0", False),
        ("::1", "::", True),
    ],
)
def test_addresses_that_share_connections(one: str, other: str, expected: bool) -> None:
    assert ports.overlaps(ip_address(one), ip_address(other)) is expected
    assert ports.overlaps(ip_address(other), ip_address(one)) is expected


def test_what_only_the_native_engine_has_names_no_other_key(good: NodeConfig) -> None:
    config = replace(good, engine="haproxy", hardening=replace(good.hardening, hsts_s=0))
    fixes = {each.setting: each.fix for each in audit(config, "warn") if each.check == "hardening"}
    assert fixes.pop("hardening.hsts_s").startswith("remove hsts_s from [hardening]")
    assert fixes.keys() == HAPROXY.keys() - {"listen.shared_port"}
    assert set(fixes.values()) == {'set engine = "native"'}
