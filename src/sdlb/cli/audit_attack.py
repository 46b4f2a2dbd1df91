"""`sdlb audit --attack`: an own canary route for each listener, the attacks on it, and the removal of the canary."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from msgspec import Struct

from sdlb.node.audit.attack import Target, play
from sdlb.node.audit.canary import Canary
from sdlb.node.audit.checks import CHECKS, FAIL, WARN, Finding
from sdlb.node.config import NodeConfig
from sdlb.sdk.client import Client
from sdlb.sdk.types import Health, Spec

SERVICE = "sdlb-audit-canary"
ACTIVE_S = 10.0
TTL_S = 30.0
"""The canary's registration lapses after this time if the audit is killed; it is renewed before each listener."""
LOCAL = ip_address("127.0.0.1")


class Place(Struct, frozen=True):
    """A listener with the host and path of its canary."""

    key: str
    address: str
    host: str
    path: str

    @property
    def route(self) -> str:
        return f"{self.host}{self.path}*"

    @property
    def setting(self) -> str:
        return f'listen.{self.key} = "{self.address}"'


def attack_findings(config: NodeConfig) -> Iterator[Finding]:
    """Plays all attacks. Nothing of the canary is left. Raises Problem when the node does not answer."""
    run = secrets.token_hex(6)
    places: list[Place] = []
    for key in ("http", "https"):
        address: str = getattr(config, f"listen_{key}")
        if not address:
            continue
        host = f"audit-{run}.invalid" if key == "http" else _site(config)
        if not host:
            seen = "not attacked: no site has an exact host and needs no client certificate"
            yield Finding(
                "attacks", WARN, f'listen.{key} = "{address}"', seen, CHECKS["attacks"].why, "add such a site"
            )
            continue
        places.append(Place(key, address, host, f"/.sdlb-audit-{run}-"))
    if not places:
        return
    with Canary() as canary, Client(str(config.socket)) as client:
        spec = Spec.of(
            f"{SERVICE}-0.{int(time.time())}",
            routes=[place.route for place in places],
            endpoint=canary.endpoint,
            id=f"{SERVICE}-{run}",
            ttl_s=TTL_S,
            health=Health(kind="none"),
        )
        bound = client.tree().listen
        try:
            client.register(spec)
            active = client.instance(spec.id, "active", ACTIVE_S)
            if active.state != "active":
                seen = f"its canary is {active.state}: {active.reason}"
                yield Finding("attacks", FAIL, "canary", seen, CHECKS["attacks"].why, "see: sdlb status")
                return
            for place in places:
                client.register(spec)
                target = _target(config, place, bound.get(place.key) or place.address, canary)
                yield from _attack(place, target)
        finally:
            client.deregister(spec.id, 5.0)


def _attack(place: Place, target: Target) -> Iterator[Finding]:
    if target.reaches_canary():
        yield from play(target)
        return
    seen = "the canary behind this listener does not answer"
    yield Finding("attacks", FAIL, place.setting, seen, CHECKS["attacks"].why, f"see: sdlb explain {place.route[:-1]}")


def _site(config: NodeConfig) -> str:
    """A host with a certificate that clients get without one of their own."""
    hosts = (host for spec in config.sites if spec.client_ca is None for host in spec.hosts)
    return next((host for host in hosts if "*" not in host), "")


def _target(config: NodeConfig, place: Place, bound: str, canary: Canary) -> Target:
    host, _, port = bound.rpartition(":")
    ip = ip_address(host.strip("[]"))
    if ip.is_unspecified:
        ip = ip_address("::1") if ip.version == 6 else LOCAL
    proxies = config.http_proxies if place.key == "http" else config.https_proxies
    return Target(
        listener=f"listen.{place.key}",
        address=(str(ip), int(port)),
        host=place.host,
        path=place.path,
        canary=canary,
        tls=place.key == "https",
        public=config.hardening.refuse_encoded_paths,
        forges=not any(ip in ip_network(proxy) for proxy in proxies),
        every_name=any("*" in spec.hosts for spec in config.sites),
        dhe=any(spec.dh is not None for spec in config.sites),
    )
