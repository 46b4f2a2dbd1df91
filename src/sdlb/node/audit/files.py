"""Owners and modes of the files of a node."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from sdlb.adapters.regular_file import EXPOSED
from sdlb.node.audit.checks import CHECKS, FAIL, PASS, WARN, Finding
from sdlb.node.config import NodeConfig

OTHERS_WRITE = 0o022
OTHERS_READ = 0o077
SECRETS = ("state.db", "state.db-wal", "ticket-keys", "lock")
ROOT = 0
CHANGES = "only the user of the node, or root, can change it"
SECRET = "only the user of the node, or root, can write to it or read its secrets"


def file_findings(config: NodeConfig, uid: int) -> Iterator[Finding]:
    """`uid`: the user of the node."""
    if config.file:
        yield from _all("node-file", config.file, CHANGES, _writable([Path(config.file)], uid))
    yield from _all("key-files", "the private keys", "other users cannot read or change them", _keys(config, uid))
    yield from _all("state-folder", f"state_dir = {config.state_dir}", SECRET, _state(config.state_dir, uid))
    yield from _all("run-folder", str(config.socket.parent), CHANGES, _writable([config.socket.parent], uid))
    yield from _api_socket(config)
    programs = [Path(word) for word in _programs(config) if word.startswith("/")]
    if programs:
        places = [*programs, *dict.fromkeys(path.parent for path in programs)]
        yield from _all("programs", "the programs of hooks and roles", CHANGES, _writable(places, uid))


def _all(check: str, what: str, good: str, faults: Iterable[tuple[str, str, str]]) -> Iterator[Finding]:
    """`faults`: setting, what was seen, and the fix. Without any, one line that passes, with `good`."""
    why, found = CHECKS[check].why, False
    for setting, seen, fix in faults:
        found = True
        yield Finding(check, FAIL, setting, seen, why, fix)
    if not found:
        yield Finding(check, PASS, what, good, why)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _owner(path: Path, found: os.stat_result, uid: int) -> Iterator[tuple[str, str, str]]:
    if found.st_uid not in (uid, ROOT):
        yield str(path), f"it belongs to user {found.st_uid}", f"chown {uid} {path}"


def _writable(paths: Iterable[Path], uid: int) -> Iterator[tuple[str, str, str]]:
    for path in paths:
        if (found := _stat(path)) is None:
            continue
        yield from _owner(path, found, uid)
        if found.st_mode & OTHERS_WRITE and not (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX):
            yield str(path), f"mode {stat.S_IMODE(found.st_mode):04o}: others can write", f"chmod go-w {path}"


def _keys(config: NodeConfig, uid: int) -> Iterator[tuple[str, str, str]]:
    pairs = [pair for spec in config.sites for pair in spec.certificates]
    if config.identity is not None:
        pairs.append((config.identity.certificate, config.identity.key))
    paths = [(key or chain).path for chain, key in pairs]
    if config.acme is not None and config.acme.eab is not None:
        paths.append(config.acme.eab.hmac_key_file)
    for path in map(Path, dict.fromkeys(paths)):
        if (found := _stat(path)) is None:
            continue  # a fault of the certificate
        yield from _owner(path, found, uid)
        if found.st_mode & EXPOSED:
            yield (
                str(path),
                f"mode {stat.S_IMODE(found.st_mode):04o}: others can read the key, or its group can write it",
                f"chmod 600 {path}",
            )


def _state(folder: Path, uid: int) -> Iterator[tuple[str, str, str]]:
    yield from _writable([folder], uid)
    top = _stat(folder)
    if top is None or not top.st_mode & 0o011:
        return  # nobody else can enter
    for path in [folder / name for name in SECRETS] + sorted((folder / "dhparam").glob("*.pem")):
        if (found := _stat(path)) is not None and found.st_mode & OTHERS_READ:
            yield str(path), f"mode {stat.S_IMODE(found.st_mode):04o}: others can read it", f"chmod 600 {path}"


def _api_socket(config: NodeConfig) -> Iterator[Finding]:
    path, why = config.socket, CHECKS["sockets"].why
    found = _stat(path)
    if found is None:
        yield Finding("sockets", PASS, f"listen.socket = {path}", "there is no socket: the node does not run", why)
        return
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o007:
        yield Finding(
            "sockets",
            FAIL,
            f"listen.socket = {path}",
            f"mode {mode:04o}: all users can connect",
            why,
            f"chmod 600 {path}",
        )
    elif mode & 0o070:
        fix = 'set socket_mode = "0600" under [listen], unless its group is for operators only'
        yield Finding(
            "sockets", WARN, f"listen.socket = {path}", f"mode {mode:04o}: group {found.st_gid} can connect", why, fix
        )
    else:
        yield Finding("sockets", PASS, f"listen.socket = {path}", f"mode {mode:04o}", why)


def _programs(config: NodeConfig) -> Iterator[str]:
    for hook in config.hooks.values():
        yield hook.command[0]
    for service in config.services:
        for name in ("command", "prepare", "start", "stop", "state", "forget"):
            words = getattr(service.run, name, ())
            if words:
                yield words[0]
    if config.acme is not None and config.acme.hook:
        yield config.acme.hook[0]
