"""Assembles one node; the only importer of adapters."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any, cast

from sdlb.adapters import engine_process
from sdlb.adapters.calendar import Zones
from sdlb.adapters.credentials import Insecure, MutualTls
from sdlb.adapters.engine_native import NativeEngine
from sdlb.adapters.hook import Hooks
from sdlb.adapters.link_grpc import GrpcChildren, GrpcParents, address_towards
from sdlb.adapters.store_embedded import EmbeddedStore
from sdlb.core.balancer import Balancer
from sdlb.core.settings import Settings
from sdlb.model.identity import Identity
from sdlb.model.instance import HealthCheck, InstanceSpec
from sdlb.model.problem import Invalid
from sdlb.node.authority import Authority
from sdlb.node.config import NodeConfig
from sdlb.node.config_reader import CODE
from sdlb.node.health import Health
from sdlb.node.identity import IdentityWatch
from sdlb.node.journal import Journal
from sdlb.node.local_paths import StateFolder
from sdlb.node.loop import INCARNATION, NodeLoop
from sdlb.node.reaper import Reaper
from sdlb.node.restart import Restart
from sdlb.node.sites import SiteWatch
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
        )
        self.config = config
        self.folder = folder
        self.journal = journal
        self.store = store
        self.balancer = Balancer(settings, {k: v for k, v in saved.items() if not k.startswith(OURS)}, rng)
        self.balancer.view.public = config.public
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
        self.engine: Engine = NativeEngine(engine_socket, log, config.workers, self.loop.post, journal.report)
        self.sites = SiteWatch(self.engine.sites, journal.report, folder.path / "ticket-keys")
        self.identity = IdentityWatch(journal.report, lambda: self.engine.stats.identity_not_after_s)
        credentials = Insecure() if config.identity is None else MutualTls(self.identity.must)
        self.children = GrpcChildren(str(self.children_socket), self.loop.post, journal.report, credentials)
        self.parents = GrpcParents(self.loop.post, journal.report, credentials, self.data_address)
        self.authority = Authority(self.loop)
        self.hooks = Hooks(folder.path / "hooks", config.hooks, config.file)
        self.reaper = Reaper(lambda pid: engine_process.reaps(pid) or self.hooks.reaps(pid))
        self.restart = Restart(self.reaper)
        self.loop.engine = self.engine
        self.loop.children = self.children
        self.loop.parents = self.parents
        self.loop.run_here = self.authority.run_here
        self.loop.run_hook = self.hooks.run

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
            listeners.append(Listener("http", config.listen_http, config.public, trusted_proxies=config.http_proxies))
        if config.listen_https:
            https = Listener("https", config.listen_https, config.public, True, config.https_proxies)
            listeners.append(https)
        return EngineConfig(
            config.name,
            tuple(listeners),
            str(self.children_socket),
            dict(config.limits),
            config.access_log,
            identity,
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

    def _proxy_protocol(self, service: str) -> str:
        return self.balancer.view.traffic(service).proxy_protocol

    def _instances_changed(self, names: tuple[str, ...]) -> None:
        for name in names:
            if self.balancer.view.healthy(name) is None:
                self.health.drop(name)


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
