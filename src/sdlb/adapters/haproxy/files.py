"""The files that HAProxy loads, and what control must know about them after a restart."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import socket
from pathlib import Path

from msgspec import Struct, field

from sdlb.adapters.haproxy import lua, program
from sdlb.adapters.haproxy.rules import CONFIG, LUA, MAPS, Bind, Settings, configuration
from sdlb.adapters.haproxy.sites import Sites, write, write_identity
from sdlb.adapters.haproxy.tables import Tables
from sdlb.model.hardening import Hardening
from sdlb.seams.engine import EngineConfig, Listener

STATE = "state.json"
CONNECTIONS = 65_536


class State(Struct, frozen=True):
    """`groups`: slots of the running workers. `ports`: "http 127.0.0.1:0" -> the address that was chosen for it. `digest`: of the
    configuration without servers. `number`: see `Files`."""

    groups: int
    ports: dict[str, str] = field(default_factory=dict[str, str])
    digest: str = ""
    number: str = ""


class Files:
    """`number`: with the node's name, what `Via` names this HAProxy by. Another node may have the same name."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.ports: dict[str, str] = {}
        self.number = secrets.token_hex(4)
        self.pid = 0
        self._folder = folder
        self._threads = threads
        self._before: dict[str, bytes] = {}
        self._log_size = 0

    @property
    def config_path(self) -> Path:
        return self._folder / CONFIG

    def bound(self, listener: Listener) -> str:
        return self.ports.get(f"{listener.key} {listener.address}", listener.address)

    def entries(self, config: EngineConfig) -> list[str]:
        """The frontends that have the addresses for clients."""
        return [bind.door.names[0] for bind in self._binds(config) if bind.key != "node"]

    def write(self, config: EngineConfig, found: program.Program, tables: Tables, sites: Sites) -> None:
        self._before = {name: path.read_bytes() for name in (CONFIG, STATE) if (path := self._folder / name).exists()}
        for listener in config.listeners:
            if listener.address.endswith(":0"):
                self.ports.setdefault(f"{listener.key} {listener.address}", _free_port(listener.address))
        if config.identity is not None:
            write_identity(self._folder, config.identity)
        for name in MAPS:
            write(self._folder / f"{name}.map", tables.map_text(name).encode())
        write(self._folder / LUA, lua.PROGRAM.encode())
        settings = self._settings(config, found, tables, sites)
        write(self.config_path, configuration(settings, tables.server_lines()).encode())
        state = {"groups": tables.groups, "ports": self.ports, "digest": _digest(settings), "number": self.number}
        write(self._folder / STATE, json.dumps(state).encode())

    def are_of(self, config: EngineConfig, found: program.Program, tables: Tables, sites: Sites) -> bool:
        """Whether the files on disk have these settings. They may be of an earlier control, and of another version."""
        return self.read_state().digest == _digest(self._settings(config, found, tables, sites))

    def _settings(self, config: EngineConfig, found: program.Program, tables: Tables, sites: Sites) -> Settings:
        return Settings(
            node=config.node,
            pseudonym=f"{config.node}-{self.number}",
            folder=str(self._folder),
            binds=self._binds(config),
            groups=tables.groups,
            limits=config.limits,
            threads=self._threads,
            connections=program.connections(config.limits.get("connections", CONNECTIONS)),
            lua=found.lua,
            limits_floods=found.limits_floods,
            slows_resets=found.slows_resets,
            drops_trailers=found.drops_trailers,
            access_log=bool(config.access_log),
            strict_sni=not sites.any_host,
            client_ca=sites.client_ca,
            node_tls=config.identity is not None,
            control_socket=config.control_socket,
        )

    def _binds(self, config: EngineConfig) -> list[Bind]:
        return [
            Bind(
                each.key,
                self.bound(each),
                each.hardening or Hardening.preset(each.public),
                each.trusted_proxies,
                config.tls_challenges and each.key == "https",
            )
            for each in config.listeners
        ]

    def undo(self) -> None:
        """Puts the former files back, so that the folder has what the workers were loaded with."""
        for name, content in self._before.items():
            write(self._folder / name, content)

    def read_state(self) -> State:
        try:
            data = json.loads((self._folder / STATE).read_text())
            ports = {str(key): str(value) for key, value in data["ports"].items()}
            return State(int(data["groups"]), ports, str(data.get("digest", "")), str(data.get("number", "")))
        except (OSError, ValueError, KeyError, AttributeError):
            return State(len(re.findall(r"^backend g\d+$", self.config_path.read_text(), re.M)))

    # ------------------------------------------------------------------ HAProxy's own log

    def mark(self, log: Path) -> None:
        self._log_size = log.stat().st_size if log.exists() else 0

    def complaint(self, log: Path) -> str:
        """The first alert since `mark`."""
        try:
            with log.open("rb") as file:
                file.seek(self._log_size)
                text = file.read(1 << 20).decode("utf-8", "replace")
        except OSError:
            return ""
        return program.first_alert(text)

    def trim(self, log: Path, size_max: int) -> None:
        """HAProxy logs each change of a server, and it appends, so the file may be cut."""
        if log.exists() and log.stat().st_size > size_max:
            with log.open("r+b") as file:
                file.truncate(0)


def _digest(settings: Settings) -> str:
    return hashlib.sha256(configuration(settings, {}).encode()).hexdigest()


def _free_port(address: str) -> str:
    host = address.rpartition(":")[0]
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host.strip("[]"), 0))
        return f"{host}:{probe.getsockname()[1]}"
