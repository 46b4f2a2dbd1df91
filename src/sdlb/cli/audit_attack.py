"""`sdlb audit --attack`: an own canary route for each listener, the attacks on it, and the removal of the canary."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network

from msgspec import Struct

from sdlb.node.audit.attack import play
from sdlb.node.audit.attack_endpoints import play_endpoints
from sdlb.node.audit.attack_slow import SlowAttacks
from sdlb.node.audit.attack_target import Target
from sdlb.node.audit.canary import Canary
from sdlb.node.audit.checks import CHECKS, FAIL, WARN, Finding
from sdlb.node.config import NodeConfig
from sdlb.sdk.client import Client
from sdlb.sdk.types import Health, Spec

SERVICE = "sdlb-audit-canary"
ACTIVE_S = 10.0
TTL_S = 90.0
"""The canary's registration lapses after this time if the audit is killed; it is renewed for each listener."""
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
            targets = [_target(config, place, bound.get(place.key) or place.address, canary) for place in places]
            listeners = list(zip(places, targets, strict=True))
            yield from _attacks(config, listeners, lambda: client.register(spec))
        finally:
            client.deregister(spec.id, 5.0)


def _attacks(
    config: NodeConfig, listeners: list[tuple[Place, Target]], renew: Callable[[], object]
) -> Iterator[Finding]:
    reached: list[Target] = []
    for place, target in listeners:
        if target.reaches_canary():
            reached.append(target)
            continue
        seen = "the canary behind this listener does not answer"
        do = f"see: sdlb explain {place.route[:-1]}"
        yield Finding("attacks", FAIL, place.setting, seen, CHECKS["attacks"].why, do)
    with contextlib.ExitStack() as begun:
        slow = [begun.enter_context(SlowAttacks(target, config.limits)) for target in reached]
        for target in reached:
            renew()
            yield from play(target)
            renew()
            yield from play_endpoints(target)
        for each in slow:
            yield from each.findings()


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
