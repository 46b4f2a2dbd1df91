"""All findings about one node, from its configuration, its files and its processes. Nothing is changed."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from ipaddress import ip_address

from sdlb.model.address import host_of, is_loopback
from sdlb.model.problem import Invalid
from sdlb.node import hardening, pem
from sdlb.node.audit import ports
from sdlb.node.audit.checks import CHECKS, FAIL, PASS, WARN, Finding
from sdlb.node.audit.files import file_findings
from sdlb.node.certificate_faults import Leaf, check, leaf_of
from sdlb.node.certificates import EXPIRY_WARNINGS
from sdlb.node.config import NodeConfig
from sdlb.node.openapi import version

CLIENTS = ("http", "https")
HAPROXY_MIN = (3, 0)
OWN_CHECKS = ("listen.shared_port", "listen.metrics")
"""Fixed parts of the preset that have a check of their own."""


def findings(config: NodeConfig, pid: int, engine: tuple[int, str]) -> Iterator[Finding]:
    """`pid`: of control; 0: it does not run. `engine`: process and version of the engine; (0, ""): not known."""
    uid = os.stat(f"/proc/{pid}").st_uid if pid else os.geteuid()
    yield from file_findings(config, uid)
    yield from _private_listeners(config)
    yield from _shared_ports(config, pid, engine[0])
    yield from _node_links(config)
    yield from _certificates(config)
    yield from _identity(config)
    yield from _hardening(config)
    yield from _engine(config, engine[1])
    if uid == 0:
        fix = "run it as a user of its own, with CAP_NET_BIND_SERVICE for ports below 1024"
        yield _found("user", WARN, "the user of the node", "root", fix)
    else:
        yield _found("user", PASS, "the user of the node", f"user {uid}")


def _found(check: str, result: str, setting: str, seen: str, fix: str = "") -> Finding:
    return Finding(check, result, setting, seen, CHECKS[check].why, fix)


def _is_open(address: str) -> bool:
    """On all addresses, or on one of the internet."""
    ip = ip_address(host_of(address))
    return ip.is_unspecified or ip.is_global


# ------------------------------------------------------------------ listeners


def _private_listeners(config: NodeConfig) -> Iterator[Finding]:
    for key in ("metrics", "admin"):
        address: str = getattr(config, f"listen_{key}", "")
        if not address:
            continue
        setting = f'listen.{key} = "{address}"'
        if _is_open(address):
            port = address.rpartition(":")[2]
            yield _found(
                "private-listeners", FAIL, setting, "reachable on all addresses", f'{key} = "127.0.0.1:{port}"'
            )
        else:
            yield _found("private-listeners", PASS, setting, "on a loopback or private address")


def _shared_ports(config: NodeConfig, pid: int, engine_pid: int) -> Iterator[Finding]:
    own = {process for known in (pid, engine_pid) if known for process in ports.family(known)}
    for key in (*CLIENTS, "node", "metrics"):
        address: str = getattr(config, f"listen_{key}")
        port = int(address.rpartition(":")[2]) if address else 0
        if not port:
            continue
        setting = f'listen.{key} = "{address}"'
        if not pid:
            yield _found("shared-ports", WARN, setting, "not checked: the node does not run", "start the node")
            continue
        ours = ip_address(host_of(address))
        sockets = [each for each in ports.listening(port) if ports.overlaps(ours, each.address)]
        holders = ports.owners({each.inode for each in sockets})
        others = sorted({holder for found in holders.values() for holder in found} - own)
        unseen = sorted({each.uid for each in sockets if not holders[each.inode]})
        if others:
            names = ", ".join(f"{ports.name_of(other)} (process {other})" for other in others)
            yield _found(
                "shared-ports", FAIL, setting, f"{names} listens on it too", f"kill {' '.join(map(str, others))}"
            )
        elif unseen:
            seen = f"a process of user {', '.join(map(str, unseen))} listens on it; only root can see which one"
            yield _found("shared-ports", WARN, setting, seen, "run this command as root")
        else:
            yield _found("shared-ports", PASS, setting, "only this node listens on it")


def _node_links(config: NodeConfig) -> Iterator[Finding]:
    setting = f'listen.node = "{config.listen_node}"'
    if config.identity is not None:
        yield _found("node-links", PASS, setting, "mutual TLS")
        return
    far = [f'parents = "{parent}"' for parent in config.parents if not is_loopback(parent)]
    if not is_loopback(config.listen_node):
        far.insert(0, setting)
    fix = "add [identity] with certificate, key and ca, and remove insecure = true"
    for each in far:
        yield _found("node-links", FAIL, each, "unencrypted, and reachable from other machines", fix)
    if not far:
        yield _found("node-links", WARN, setting, "unencrypted, on this machine only", fix)


# ------------------------------------------------------------------ certificates


def _certificates(config: NodeConfig) -> Iterator[Finding]:
    now_s = int(time.time())
    for spec in config.sites:
        setting = f"site {spec.key}"
        if spec.dh is not None:
            seen = (
                "finite-field Diffie-Hellman: a few clients can use up the CPU with handshakes (DHEat, CVE-2002-20001)"
            )
            yield _found("certificates", WARN, f"{setting}, dhe = true", seen, "remove dhe = true from the site")
        if spec.acme:
            yield _found("certificates", PASS, setting, "its certificate is ordered and renewed automatically")
            continue
        try:
            site = pem.read_site(spec)
        except Invalid as error:
            yield _found("certificates", FAIL, setting, error.what, error.do)
            continue
        checked = check(spec, site)
        faults = checked.all_faults(now_s)
        for fault in faults:
            yield _found("certificates", FAIL, setting, fault.what, fault.do)
        if not faults:
            ends = min(checked.leaves, key=lambda leaf: leaf.not_after_s)
            yield _lifetime("certificates", setting, ends, now_s)


def _identity(config: NodeConfig) -> Iterator[Finding]:
    if config.identity is None:
        return
    setting = f"identity.certificate = {config.identity.certificate.path}"
    try:
        identity, _ = pem.read_identity(config.identity)
        leaf = leaf_of(config.identity.certificate, identity.pem)
    except Invalid as error:
        yield _found("identity", FAIL, setting, error.what, error.do)
        return
    now_s = int(time.time())
    if not leaf.not_before_s <= now_s < leaf.not_after_s:
        yield _found("identity", FAIL, setting, "it has expired, or is not valid yet", "renew it")
    else:
        yield _lifetime("identity", setting, leaf, now_s)


def _lifetime(kind: str, setting: str, leaf: Leaf, now_s: int) -> Finding:
    left_s, life_s = leaf.not_after_s - now_s, leaf.not_after_s - leaf.not_before_s
    left = f"{left_s // 86_400} of {life_s // 86_400} days are left"
    if left_s * EXPIRY_WARNINGS[0] <= life_s:
        return _found(kind, WARN, setting, left, f"renew the certificate in {leaf.file}")
    return _found(kind, PASS, setting, left)


# ------------------------------------------------------------------ preset and engine


def _hardening(config: NodeConfig) -> Iterator[Finding]:
    listening = {key: address for key in CLIENTS if (address := getattr(config, f"listen_{key}"))}
    if not listening:
        return
    open_here = [f'listen.{key} = "{address}"' for key, address in listening.items() if _is_open(address)]
    if not config.public:
        seen = (
            f"public is not set, and {open_here[0]}"
            if open_here
            else "public is not set; clients are in private networks"
        )
        yield _found(
            "public", WARN if open_here else PASS, "public = false", seen, "public = true" if open_here else ""
        )
        return
    yield _found("public", PASS, "public = true", "the preset is in force")
    for part in hardening.parts(config):
        if not part.listeners or part.setting in OWN_CHECKS:
            continue
        fix = ""
        if part.weaker and (part.fixed or (config.engine == "haproxy" and part.setting in hardening.HAPROXY)):
            fix = 'set engine = "native"'  # no key of the node file changes it
        elif part.weaker:
            name = part.setting.rpartition(".")[2]
            fix = f"remove {name} from [{part.setting.partition('.')[0]}], or set {name} = {_toml(part.default)}"
        value = f"{_toml(part.value)}, the preset has {_toml(part.default)}" if part.weaker else _toml(part.value)
        yield Finding("hardening", WARN if part.weaker else PASS, part.setting, value, part.why, fix)


def _toml(value: bool | int | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _engine(config: NodeConfig, running: str) -> Iterator[Finding]:
    if config.engine == "haproxy":
        if config.public:
            yield _haproxy(config, running)
        return
    if not running:
        return
    if running != version():
        fix = "run: sdlb node upgrade"
        yield _found("engine", WARN, "engine", f"version {running}, this program is {version()}", fix)
    else:
        yield _found("engine", PASS, "engine", f"version {running}")


def _haproxy(config: NodeConfig, running: str) -> Finding:
    """Of the program that runs, else of the one that would be started."""
    setting = 'engine = "haproxy"'
    said = f"version {running}"
    if not running:
        try:
            words = [config.haproxy_binary or os.environ.get("HAPROXY") or "haproxy", "-v"]
            said = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False).stdout
        except (OSError, subprocess.TimeoutExpired):
            said = ""
    found = re.search(r"version (\d+)\.(\d+)", said)
    if found is None:
        return _found("engine", FAIL, setting, "its version is not known", "install HAProxy 3.0 or newer")
    seen = f"HAProxy {found[1]}.{found[2]}"
    if (int(found[1]), int(found[2])) < HAPROXY_MIN:
        return _found("engine", FAIL, setting, seen, 'install HAProxy 3.0 or newer, or set engine = "native"')
    return _found("engine", PASS, setting, seen)
