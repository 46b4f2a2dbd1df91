"""Assembles one node; the only importer of adapters."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any, cast

from sdlb.adapters import engine_process
from sdlb.adapters.calendar import Zones
from sdlb.adapters.credentials import Insecure, MutualTls
from sdlb.adapters.engine_native import NativeEngine
from sdlb.adapters.folder_watch import FolderWatch
from sdlb.adapters.hook import Hooks
from sdlb.adapters.link_grpc import GrpcChildren, GrpcParents, address_towards
from sdlb.adapters.peers_grpc import METHOD as SHARE
from sdlb.adapters.peers_grpc import GrpcPeers
from sdlb.adapters.prometheus import MetricSources
from sdlb.adapters.store_embedded import EmbeddedStore
from sdlb.core.balancer import Balancer
from sdlb.core.events import NodeFileNames
from sdlb.core.settings import Settings
from sdlb.model.acme import TLS
from sdlb.model.identity import Identity
from sdlb.model.instance import HealthCheck, InstanceSpec
from sdlb.model.problem import Invalid
from sdlb.model.rollout import Target, read_target
from sdlb.node.acme import Acme
from sdlb.node.authority import Authority
from sdlb.node.config import NodeConfig
from sdlb.node.config_reader import CODE
from sdlb.node.drivers import Drivers
from sdlb.node.hardening import parts
from sdlb.node.health import Health
from sdlb.node.identity import IdentityWatch
from sdlb.node.journal import Journal
from sdlb.node.local_paths import StateFolder
from sdlb.node.loop import INCARNATION, NodeLoop
from sdlb.node.programs import Programs
from sdlb.node.reaper import Reaper
from sdlb.node.removed_roles import removed, retire
from sdlb.node.restart import Restart
from sdlb.node.sites import SiteWatch
from sdlb.seams.acme import AcmeParts
from sdlb.seams.driver import Driver
from sdlb.seams.engine import Engine, EngineConfig, EngineFailed, Listener
from sdlb.seams.store import Store

NODE_ID = "node/id"
OURS = ("node/", "pid/")
"""The saved records of the node itself; all others belong to the core."""
SETTLE_S_MAX = 5.0
"""How long a started node waits for its children to reconnect before it answers that a route does not exist. It is the
maximum interval between dials of a child (core/uplink.py)."""
IDENTITY = "identity: "
"""The prefix of the engine's message when it refuses the node's certificate."""


class Node:
    """The parts of a running node."""

    def __init__(
        self, config: NodeConfig, folder: StateFolder, journal: Journal, store: Store, saved: Mapping[str, object]
    ) -> None:
        rng = Random()
        settings = Settings(
            name=config.name,
            node_id=str(saved[NODE_ID]),
            incarnation=int(cast("int", saved[INCARNATION])),
            parents=config.parents,
            labels=tuple(sorted(config.labels.items())),
            beat_s=config.beat_s,
            lease_s=config.lease_s,
            fence_s=config.fence_s,
            nonce=secrets.token_hex(16),
            calendar=Zones(journal.report),
            roles=config.services,
        )
        self.config = config
        self.folder = folder
        self.journal = journal
        self.store = store
        self.balancer = Balancer(settings, {k: v for k, v in saved.items() if not k.startswith(OURS)}, rng)
        self.balancer.view.public = config.hardening.refuse_encoded_paths
        self.hardening = parts(config)
        self.loop = NodeLoop(self.balancer, store, journal.report)
        self._remembered: dict[str, list[int]] = {
            key[4:]: cast("list[int]", value) for key, value in saved.items() if key.startswith("pid/")
        }
        self.health = Health(self.loop.post, rng, self.loop.remember, journal.report, self._proxy_protocol)
        self.loop.watch_instances = self._instances_changed
        # the longest name of an engine's socket
        engine_socket = folder.socket_path("hand-over.sock").with_name("engine.sock")
        self.children_socket = folder.socket_path("links.sock")
        log = folder.path / "engine.log"
        self.engine: Engine = self._engine(engine_socket, log)
        self.sites = SiteWatch(self.engine.sites, journal.report, folder.path / "ticket-keys")
        self.files = FolderWatch(self.sites.changed)
        self.sites.watch_files = self.files.watch
        self.identity = IdentityWatch(journal.report, lambda: self.engine.stats.identity_not_after_s)
        credentials = Insecure() if config.identity is None else MutualTls(self.identity.must)
        self.children = GrpcChildren(str(self.children_socket), self.loop.post, journal.report, credentials)
        peers = GrpcPeers(credentials)
        self.children.calls[SHARE] = peers.handler()
        self._acme_reaps = _reaps_nothing
        view = self.balancer.view
        self.acme = Acme(
            config.name,
            journal.report,
            self.sites,
            self.engine.challenges,
            peers,
            self._acme_parts,
            view.active_routes,
            rng,
        )
        self.parents = GrpcParents(self.loop.post, journal.report, credentials, self.data_address)
        self.authority = Authority(self.loop)
        self.hooks = Hooks(folder.path / "hooks", config.hooks, config.file)
        self.metrics = MetricSources(config.sources, config.file)
        self.drivers, drivers_reap = self._drivers(rng)
        self.reaper = Reaper(
            lambda pid: engine_process.reaps(pid) or self.hooks.reaps(pid) or drivers_reap(pid) or self._acme_reaps(pid)
        )
        self.restart = Restart(self.reaper)
        self.loop.engine = self.engine
        self.loop.children = self.children
        self.loop.parents = self.parents
        self.loop.watch_services = self.acme.claims_changed
        self.loop.run_here = self.authority.run_here
        self.loop.run_hook = self.hooks.run
        self.loop.ask_metrics = self.metrics.ask
        self.adopt_outside(config)
        self.loop.run_driver = self.drivers.run

    def _engine(self, socket: Path, log: Path) -> Engine:
        config, post, report = self.config, self.loop.post, self.journal.report
        if config.engine == "native":
            return NativeEngine(socket, log, config.workers, post, report)
        from sdlb.adapters.haproxy.engine import HaproxyEngine

        return HaproxyEngine(socket.with_name("haproxy"), log, config.workers, post, report, config.haproxy_binary)

    def adopt_outside(self, config: NodeConfig) -> None:
        """The programs and servers of the node file that gates and analyses can name."""
        self.hooks.programs, self.metrics.sources = config.hooks, config.sources
        self.loop.post(NodeFileNames(tuple(config.sources), tuple(config.hooks)))

    async def start_engine(self) -> None:
        """Raises EngineFailed, or Invalid when the node's own certificate cannot be used."""
        await self.identity.adopt(self.config.identity)
        try:
            await self.engine.start(self.engine_config(self.config), min(SETTLE_S_MAX, self.config.lease_s))
        except EngineFailed as error:
            spec, text = self.config.identity, str(error)
            if spec is None or not text.startswith(IDENTITY):
                raise
            what = f"the file {spec.certificate.path} was refused: {text.removeprefix(IDENTITY)}"
            raise Invalid(CODE, spec.certificate.where, what, "see docs/guide/links.md") from None

    def engine_config(self, config: NodeConfig, identity: Identity | None = None) -> EngineConfig:
        """`identity`: replaces the one in use."""
        identity = identity or self.identity.current
        listeners = [Listener("node", config.listen_node, tls=identity is not None)]
        if config.listen_http:
            http = Listener("http", config.listen_http, config.public, False, config.http_proxies, config.hardening)
            listeners.append(http)
        if config.listen_https:
            https = Listener("https", config.listen_https, config.public, True, config.https_proxies, config.hardening)
            listeners.append(https)
        return EngineConfig(
            config.name,
            tuple(listeners),
            str(self.children_socket),
            dict(config.limits),
            config.access_log,
            identity,
            config.acme is not None and config.acme.challenge == TLS,
        )

    def data_address(self, parent: str) -> str:
        """Where `parent` reaches this node's engine: as configured, else the address that the engine listens on."""
        if self.config.advertise:
            return self.config.advertise
        return address_towards(parent, self.engine.stats.bound.get("node", self.config.listen_node))

    def watch_saved(self) -> None:
        """Starts the health checks and process watches of the instances from before the restart."""
        found = [(spec_of(view), bool(view["healthy"])) for view in self.balancer.view.instances()]
        self.health.start(found, self._remembered)
        for spec in self.balancer.view.replaced():
            self.health.watch_former(spec)

    def _drivers(self, rng: Random) -> tuple[Drivers, Callable[[int], bool]]:
        """And which child processes they wait for themselves. Nodes without services of roles do not load any driver."""
        state, services = self.folder.path.absolute(), self.config.services
        folder = state / "roles"
        drivers: dict[str, Driver] = {}
        keep, reaps = _keep_nothing, _reaps_nothing
        self._removed = removed(folder, services)
        if services or self._removed:
            from sdlb.adapters.artifacts import ArtifactStore
            from sdlb.adapters.driver_command import CommandDriver
            from sdlb.adapters.driver_container import ContainerDriver
            from sdlb.adapters.driver_process import ProcessDriver

            store = ArtifactStore(state / "store")
            command = CommandDriver(folder, store)
            drivers = {
                "process": ProcessDriver(folder, store),
                "command": command,
                "container": ContainerDriver(folder),
            }
            if any(each.driver == "systemd" for each in services) or any(folder.glob("*/*/*/unit.json")):
                from sdlb.adapters.driver_systemd import SystemdDriver  # 15 MB with its D-Bus library

                drivers["systemd"] = SystemdDriver(folder, store, state / "units")
            keep, reaps = store.keep, command.reaps
        programs = Programs(self._program_ended, self._program_started)
        made = Drivers(services, drivers, folder, programs, self.journal.report, self._releases, keep, rng)
        return made, reaps

    def _acme_parts(self) -> AcmeParts:
        """Loaded by nodes with `[acme]` only."""
        from sdlb.adapters.acme_parts import Parts

        parts = Parts(self.folder.path.absolute() / "acme")
        self._acme_reaps = parts.reaps
        return parts

    def _releases(self, service: str) -> Iterable[Mapping[str, object]] | None:
        """Those that the target of a service names. None: it cannot be read."""
        doc = self.balancer.view.target(service)
        target = read_target(doc.body) if doc is not None else Target(service)
        return None if target is None else target.releases.values()

    def _program_ended(self, port: int, why: str) -> None:
        for spec in self._at_port(port):
            self.health.suspend(spec.id, why)

    def _program_started(self, port: int) -> None:
        for spec in self._at_port(port):
            self.health.resume(spec.id)

    def _at_port(self, port: int) -> list[InstanceSpec]:
        view = self.balancer.view
        found = [view.of_agent(name) for name in view.at_endpoint(f"127.0.0.1:{port}")]
        return [spec for spec in found if spec is not None]

    async def retire_removed_roles(self) -> None:
        await retire(self._removed, self.drivers, self.loop)

    def _proxy_protocol(self, service: str) -> str:
        return self.balancer.view.traffic(service).proxy_protocol

    def _instances_changed(self, names: tuple[str, ...]) -> None:
        """The API starts the checks of what it registers; what the agent registers is known from here."""
        view = self.balancer.view
        for name in names:
            healthy = view.healthy(name)
            if healthy is None:
                self.health.drop(name)
            elif (spec := view.of_agent(name)) is not None:
                self.health.put(spec, healthy)


async def _keep_nothing(digests: Collection[str]) -> list[str]:
    return []


def _reaps_nothing(pid: int) -> bool:
    return False


def open_store(folder: Path, journal: Journal) -> Store:
    return EmbeddedStore(folder / "state.db", journal.report)


def spec_of(view: dict[str, Any]) -> InstanceSpec:
    """The spec that `Balancer.instance` shows."""
    return InstanceSpec(
        id=view["id"],
        service=view["service"],
        version=view["version"],
        routes=tuple(view["routes"]),
        endpoint=view["endpoint"],
        protocol=view["protocol"],
        compatible=tuple(view["compatible"]),
        capacity=view["capacity"],
        health=HealthCheck(**view["health"]),
        ttl_s=view["ttl_s"],
        pid=view["pid"],
        labels=tuple(sorted(view["labels"].items())),
    )
