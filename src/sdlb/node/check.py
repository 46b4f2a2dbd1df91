"""`sdlb node --check`: all errors of a node file at once, and the resources that this machine lacks. Changes nothing.

After each error the key is replaced by a valid one and the rest is read again. Ports that a running node of the same
state folder has bound are not checked.
"""

from __future__ import annotations

import contextlib
import copy
import os
import pwd
import socket
import stat
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, cast

from sdlb.model.problem import Invalid
from sdlb.model.role import Commands, Container, RoleService, Unit
from sdlb.node import certificate_faults, pem
from sdlb.node.config import LISTENERS, NodeConfig, Options, build, read_config, read_file
from sdlb.node.config_reader import CODE, Mistake
from sdlb.node.config_runs import KEYS_OF
from sdlb.node.local_paths import SOCKET_PATH_BYTES_MAX
from sdlb.node.toml_lines import line_of

MISTAKES_MAX = 100
BOOTED = "/run/systemd/system"
"""It exists if systemd is process 1: sd_booted(3)."""
Bound = Callable[[Path], Collection[str]]
"""The addresses that the running node at this API socket listens on; empty if there is no such node."""
_SITE: dict[str, object] = {"certificate": "/dev/null"}


def mistakes(options: Options, bound: Bound = lambda socket: ()) -> list[str]:
    """One line each, in the order of the file; none: the node would start."""
    data: dict[str, object] = {}
    where, lines = "", dict[tuple[str, ...], int]()
    if options.config is not None:
        try:
            data, where, lines = read_file(options.config)
        except Invalid as error:
            return [str(error)]
    found: list[tuple[int, str]] = []
    config = _read(data, where, lines, options, found)
    if config is not None:
        place = _Places(where, lines)
        found += [
            (place.line(error), str(error))
            for error in _of_machine(config, place, bound)
            if not _already_reported(error, found)
        ]
    return list(dict.fromkeys(text for _, text in sorted(found, key=lambda each: each[0])))


def certificate_warnings(options: Options) -> list[str]:
    """What is wrong with the certificates of sites. The node starts nevertheless: each site serves with what it has."""
    try:
        config = read_config(options)
    except Invalid:
        return []
    found: list[str] = []
    for spec in config.sites:
        with contextlib.suppress(Invalid):
            site = pem.read_site(spec)
            found += map(str, certificate_faults.check(spec, site).all_faults(int(time.time())))
    return found


def _already_reported(error: Invalid, found: list[tuple[int, str]]) -> bool:
    """Whether an error about this key is already in the list: the valid value that replaced it causes another one."""
    return any(text.startswith(f"{error.where}:") for _, text in found)


def _read(
    data: dict[str, object],
    where: str,
    lines: dict[tuple[str, ...], int],
    options: Options,
    found: list[tuple[int, str]],
) -> NodeConfig | None:
    """The configuration; None if it stays incomplete."""
    data = copy.deepcopy(data)
    seen: set[tuple[str, ...]] = set()
    for _ in range(MISTAKES_MAX):
        try:
            return build(data, where, lines, options)
        except Mistake as error:
            path = error.path
            if path in seen:  # its replacement is invalid too, which is no mistake of the file: replace the table
                path = path[:-1]
            else:
                found.append((line_of(lines, path), str(error)))
            seen.add(error.path)
            if not path:
                return None
            _replace(data, path)
        except Invalid as error:  # of a command-line option: the rest cannot be validated without it
            found.append((0, str(error)))
            return None
    return None


def _replace(data: dict[str, object], path: tuple[str, ...]) -> None:
    match path:
        case ("listen", "http" | "https" | "node" | "metrics"):
            cast("dict[str, object]", data.setdefault("listen", {}))[path[1]] = "127.0.0.1:0"
        case ("site", number, *key):
            sites = cast("list[object]", data["site"])
            whole = {**_SITE, "hosts": [f"{number}.in-place-of-a-mistake.invalid"]}
            if key and key[0] in whole:
                cast("dict[str, object]", sites[int(number)])[key[0]] = whole[key[0]]
            elif key:
                cast("dict[str, object]", sites[int(number)]).pop(key[0], None)
            else:
                sites[int(number)] = whole
        case ("hook", name, "command"):
            hooks = cast("dict[str, Any]", data["hook"])
            hooks[name]["command"] = ["/bin/true"]
        case ("source", name, "url"):
            sources = cast("dict[str, Any]", data["source"])
            sources[name]["url"] = "https://in-place-of-a-mistake.invalid"
        case ("role", role, service, ("driver" | "routes" | "command" | "start" | "stop" | "state" | "unit") as key):
            table = cast("dict[str, Any]", data["role"])[role][service]
            table[key] = {
                "driver": max(KEYS_OF, key=lambda kind: len(table.keys() & set(KEYS_OF[kind]))),
                "routes": ["in-place-of-a-mistake.invalid/"],
                "unit": "in-place-of-a-mistake@.service",
            }.get(key, ["/bin/true"])
        case ("identity", ("certificate" | "ca") as key):
            cast("dict[str, object]", data["identity"])[key] = "/dev/null"
        case _:
            inner: dict[str, Any] = data
            for part in path[:-1]:
                inner = inner.get(part, {})
            inner.pop(path[-1], None)


class _Places:
    """The line of a key in the node file, for errors about this machine."""

    def __init__(self, where: str, lines: dict[tuple[str, ...], int]) -> None:
        self._where, self._lines = where, lines

    def __call__(self, *path: str) -> str:
        name = ".".join(path)
        return f"{self._where}:{line_of(self._lines, path)}: {name}" if self._where else name

    def line(self, error: Invalid) -> int:
        rest = error.where.removeprefix(f"{self._where}:").partition(":")[0]
        return int(rest) if rest.isdigit() else 0


# ------------------------------------------------------------------ resources of the machine


def _of_machine(config: NodeConfig, place: _Places, bound: Bound) -> Iterator[Invalid]:
    yield from _folder(config.state_dir, place("state_dir"))
    yield from _socket(config.socket, place("listen", "socket"))
    taken = set(bound(config.socket))
    for name in LISTENERS:
        address: str = getattr(config, f"listen_{name}")
        if address and address not in taken:
            yield from _port(address, place("listen", name))
    for spec in config.sites:
        yield from _raised(lambda spec=spec: pem.read_site(spec))
    if (identity := config.identity) is not None:
        yield from _raised(lambda: pem.read_identity(identity))
    if (acme := config.acme) is not None:
        if acme.hook:
            yield from _program(acme.hook[0], place("acme", "hook"))
        if acme.ca_file and not os.access(acme.ca_file, os.R_OK):
            yield Invalid(CODE, place("acme", "ca_file"), f"{acme.ca_file} cannot be read", "name a PEM file")
        if acme.eab is not None:
            yield from _eab(acme.eab.hmac_key_file, place("acme", "eab", "hmac_key_file"))
    for name, hook in config.hooks.items():
        yield from _program(hook.command[0], place("hook", name, "command"))
        yield from _cwd(hook.cwd, place("hook", name, "cwd"))
    for name, source in config.sources.items():
        if source.token_file and not os.access(source.token_file, os.R_OK):
            where = place("source", name, "token_file")
            yield Invalid(CODE, where, f"{source.token_file} cannot be read", "grant access, or correct the path")
    for service in config.services:
        yield from _service(service, place)
    if config.access_log:
        yield from _log(Path(config.access_log), place("log", "access"))


def _eab(path: str, where: str) -> Iterator[Invalid]:
    from sdlb.adapters.acme_eab import BadKeyFile, read_key

    try:
        read_key(path)
    except BadKeyFile as error:
        yield Invalid(CODE, where, error.what, error.do)


def _service(service: RoleService, places: _Places) -> Iterator[Invalid]:
    def place(key: str) -> str:
        return places("role", service.role, service.service, key)

    for key in service.artifacts.keys:
        if not os.access(key, os.R_OK):
            yield Invalid(CODE, place("keys"), f"{key} cannot be read", "grant access, or correct the path")
    if isinstance(service.run, Commands):
        for name in ("prepare", "start", "stop", "state", "forget"):
            if words := cast("tuple[str, ...]", getattr(service.run, name)):
                yield from _program(words[0], place(name))
        return
    if isinstance(service.run, Container):
        if not os.access(service.run.socket, os.R_OK | os.W_OK):
            do = "start Docker or Podman, grant access to it, or correct the path"
            yield Invalid(CODE, place("socket"), f"{service.run.socket} cannot be used", do)
        return
    if isinstance(service.run, Unit):
        if not os.path.isdir(BOOTED):
            yield Invalid(CODE, place("driver"), "this machine is not managed by systemd", "use another driver")
        return
    if service.run.command[0].startswith("/"):
        yield from _program(service.run.command[0], place("command"))
    if service.run.cwd:
        yield from _cwd(service.run.cwd, place("cwd"))
    if service.run.user:
        yield from _user(service.run.user, place("user"))


def _user(name: str, where: str) -> Iterator[Invalid]:
    try:
        uid = pwd.getpwnam(name).pw_uid
    except KeyError:
        yield Invalid(CODE, where, f"this machine has no user {name}", "create it, or correct the name")
        return
    if os.geteuid() not in (0, uid):
        yield Invalid(CODE, where, f"only root may run programs as {name}", "run the node as root, or remove the line")


def _raised(read: Callable[[], object]) -> Iterator[Invalid]:
    try:
        read()
    except Invalid as error:
        yield error


def _port(address: str, where: str) -> Iterator[Invalid]:
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
            probe.listen(1)
        except OSError as error:
            yield Invalid(
                CODE,
                where,
                f"{address} cannot be bound ({error.strerror})",
                "use another address, or grant the right to bind it",
            )


def _folder(folder: Path, where: str) -> Iterator[Invalid]:
    """Checks what `local_paths.own_folder` checks, but does not create the folder."""
    try:
        there = os.lstat(folder)
    except FileNotFoundError:
        yield from _writable(next(each for each in folder.parents if each.exists()), where)
        return
    except OSError as error:
        yield Invalid(CODE, where, f"{folder} cannot be read ({error.strerror})", "grant access, or use another folder")
        return
    if not stat.S_ISDIR(there.st_mode):
        yield Invalid(CODE, where, f"{folder} is not a folder", "use another path")
    elif there.st_uid != os.geteuid():
        yield Invalid(CODE, where, f"{folder} belongs to user {there.st_uid}", "use a folder of your own")
    elif there.st_mode & 0o022 and not there.st_mode & stat.S_ISVTX:
        yield Invalid(CODE, where, f"{folder} is writable by others", f"run: chmod go-w {folder}")
    else:
        yield from _writable(folder, where)


def _writable(folder: Path, where: str) -> Iterator[Invalid]:
    if not folder.is_dir():
        yield Invalid(CODE, where, f"{folder} is not a folder", "use another path")
    elif not os.access(folder, os.W_OK | os.X_OK) or os.statvfs(folder).f_flag & os.ST_RDONLY:
        yield Invalid(CODE, where, f"{folder} cannot be written", "grant access, or use another path")


def _socket(path: Path, where: str) -> Iterator[Invalid]:
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        yield Invalid(CODE, where, f"is longer than {SOCKET_PATH_BYTES_MAX} bytes", "use a shorter path")
    elif os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
        yield Invalid(CODE, where, f"{path} exists and is not a socket", "remove it, or use another path")
    else:
        yield from _writable(next(each for each in path.parents if each.exists()), where)


def _program(path: str, where: str) -> Iterator[Invalid]:
    if not os.path.isfile(path):
        yield Invalid(CODE, where, f"{path} is not a file", "install the program, or correct its path")
    elif not os.access(path, os.X_OK):
        yield Invalid(CODE, where, f"{path} is not executable", f"run: chmod +x {path}")


def _cwd(path: str, where: str) -> Iterator[Invalid]:
    if not os.path.isdir(path) or not os.access(path, os.X_OK):
        yield Invalid(CODE, where, f"{path} is not a folder that this user can enter", "create it, or use another path")


def _log(path: Path, where: str) -> Iterator[Invalid]:
    if path.is_dir():
        yield Invalid(CODE, where, f"{path} is a folder", "use the path of a file")
    elif path.exists():
        if not os.access(path, os.W_OK):
            yield Invalid(CODE, where, f"{path} cannot be written", "grant access, or use another path")
    elif not path.parent.is_dir():
        yield Invalid(CODE, where, f"the folder {path.parent} does not exist", "create it, or use another path")
    else:
        yield from _writable(path.parent, where)
