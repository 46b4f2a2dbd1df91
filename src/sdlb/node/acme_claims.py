"""Hosts that active claims name, inside the patterns of `on_claim`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from sdlb.model.acme import exact_host, inside


class ClaimedHosts:
    """`active`: the routes of a service's active claims at this node."""

    def __init__(self, active: Callable[[str], Iterable[str]]) -> None:
        self._active = active
        self._services: dict[str, set[str]] = {}  # host -> services whose active claims name it
        self._hosts_of: dict[str, set[str]] = {}  # service -> hosts

    def __iter__(self) -> Iterator[str]:
        return iter(self._services)

    def __contains__(self, host: object) -> bool:
        return host in self._services

    def update(self, patterns: tuple[str, ...], services: Iterable[str]) -> bool:
        """The claims of these services may have changed. Returns whether the hosts have."""
        changed = False
        for service in services:
            hosts = {host for route in self._active(service) if (host := exact_host(route)) and inside(host, patterns)}
            before = self._hosts_of.get(service, set())
            if hosts == before:
                continue
            changed = True
            for host in before - hosts:
                self._services[host].discard(service)
                if not self._services[host]:
                    del self._services[host]
            for host in hosts - before:
                self._services.setdefault(host, set()).add(service)
            if hosts:
                self._hosts_of[service] = hosts
            else:
                self._hosts_of.pop(service, None)
        return changed
