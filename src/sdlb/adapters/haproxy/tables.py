"""The routing table as HAProxy has it: slots, servers and map entries, and the commands that a delta needs.

A group (service, version, route) gets a spare backend; its endpoints are servers with numbers as names. Its child nodes
have a backend of their own, because requests to nodes have fields that no instance gets. A changed route gets a new id:
its draws are added first, then the route points to the new id in one command, so that no request sees half of a change.
The old id's draws are deleted a moment later (`stale`), when no request uses them any more.

An endpoint that is deleted, or changed in a way that HAProxy cannot change, is put into maintenance and deleted when nothing
is in flight there. `names.map` holds what each slot and server is, so a restarted control finds its table in the workers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from msgspec import Struct, field
from msgspec.structs import replace

from sdlb.adapters.haproxy import draws
from sdlb.adapters.haproxy.names import (
    NODE,
    SLOT,
    UNSAFE,
    decode,
    encode,
    is_node,
    is_node_name,
    node_words,
    server_address,
)
from sdlb.adapters.haproxy.rules import LEVELS, MAPS, ServerLine
from sdlb.core.effects import Apply, EndpointPut, RoutePut, UpstreamPut
from sdlb.core.events import EndpointKey
from sdlb.core.messages import ClaimKey

WEIGHT_MAX = 256
SHARE_UNITS = 1_000_000
"""The share of a version is cut into so many parts, for its slots."""


class Refused(ValueError):
    """No part of the delta was applied."""


class NoSlots(Refused):
    """More groups than slots: a reload must add some first."""


class MapPut(Struct, frozen=True):
    map: str
    key: str
    value: str
    known: bool  # the key is there and gets another value


class MapDelete(Struct, frozen=True):
    map: str
    key: str


class ServerCommand(Struct, frozen=True):
    """For the current worker only: leaving workers refuse changes of servers."""

    text: str


Command = MapPut | MapDelete | ServerCommand


class Server(Struct, frozen=True):
    """`name`: "s12". `epoch`: of its deletion, while it is leaving; 0: it serves."""

    name: str
    slot: int
    key: EndpointKey
    endpoint: str
    protocol: str
    capacity: int
    backup: bool
    epoch: int = 0

    @property
    def full_name(self) -> str:
        return f"{SLOT}{self.slot}/{self.name}"

    @property
    def copies(self) -> tuple[str, ...]:
        """Its names in HAProxy; the full name is the first."""
        return (self.full_name, f"{UNSAFE}{self.slot}/{self.name}") if self.protocol == NODE else (self.full_name,)


class Pool(NamedTuple):
    """The instances of a group, or its child nodes."""

    claim: ClaimKey
    nodes: bool


def _pool(key: EndpointKey) -> Pool:
    return Pool(key.claim, is_node(key.target))


class Group(Struct):
    """The endpoints of a pool."""

    slot: int
    servers: dict[str, Server] = field(default_factory=dict[str, Server])  # by the key of the upstream


class Tables:
    """`groups`: number of slots that the workers have. `node_tls`: requests to child nodes go over mutual TLS. `chooses_sni`: see
    `program.py`."""

    def __init__(self, groups: int, *, node_tls: bool = False, chooses_sni: bool = False) -> None:
        self.groups = groups
        self.node_tls = node_tls
        self.chooses_sni = chooses_sni
        self.epoch = 0
        self.maps: dict[str, dict[str, str]] = {name: {} for name in MAPS}
        self.pools: dict[Pool, Group] = {}
        self.leaving: dict[str, Server] = {}  # by full name
        self._serving: dict[str, Server] = {}  # by full name
        self.ejected: set[str] = set()  # full names of servers in maintenance because requests failed there
        self.full: set[int] = set()  # slots whose endpoints have no free capacity
        self.refused: dict[EndpointKey, str] = {}  # endpoints that HAProxy cannot have -> why
        self._free = list(range(groups, 0, -1))
        self._upstreams: dict[str, UpstreamPut] = {}
        self._routes: dict[str, RoutePut] = {}
        self._by_group: dict[ClaimKey, set[str]] = {}  # group -> patterns of the routes that name it
        self._ids: dict[str, str] = {}  # pattern -> id of its route
        self._spilled: dict[str, int] = {}
        self._counter = 0
        self._entries_of: dict[str, dict[tuple[str, str], str]] = {}  # id of a route -> its entries
        self._stale: list[tuple[str, str]] = []
        self._commands: list[Command] = []

    # ------------------------------------------------------------------ deltas

    @property
    def sessions(self) -> list[str]:
        """Services that ask for affinity of sessions."""
        return [route.service for route in self._routes.values() if route.sticky_by == "session"]

    def names_of(self, endpoints: Collection[EndpointKey]) -> list[str]:
        """The names of their servers in HAProxy, leaving ones included."""
        servers = {**self._serving, **self.leaving}.values()
        return [name for server in servers if server.key in endpoints for name in server.copies]

    def apply(self, delta: Apply) -> list[Command]:
        """Changes the table; returns the commands that change the workers alike. Raises Refused: nothing was changed."""
        self._check(delta)
        self._commands = []
        touched: set[ClaimKey] = set()
        for upstream in delta.put_upstreams:
            if self._upstreams.get(upstream.key) not in (None, upstream):
                touched |= self._replace_upstream(upstream, delta.epoch)
            self._upstreams[upstream.key] = upstream
        for endpoint in delta.put_endpoints:
            self._put(endpoint, delta.epoch)
            touched.add(endpoint.key.claim)
        gone = list(delta.delete_endpoints)
        if delta.replace:
            put = {endpoint.key for endpoint in delta.put_endpoints}
            gone = [key for key in self.endpoints() if key not in put]
        touched.update(key.claim for key in gone)
        changed = {route.pattern: route for route in delta.put_routes if self._routes.get(route.pattern) != route}
        deleted = set(delta.delete_routes)
        if delta.replace:
            deleted |= self._ids.keys() - {route.pattern for route in delta.put_routes}
        takers = {key.claim: set[str]() for key in gone}
        for key in gone:
            takers[key.claim].add(key.target)
        for pattern in {p for claim in touched for p in self._by_group.get(claim, ())} - deleted:
            changed.setdefault(pattern, self._routes[pattern])
        for route in changed.values():
            self._put_route(route, takers)
        for pattern in deleted:
            self._delete_route(pattern)
        for key in gone:  # after the routes, so that a version's last endpoint is not asked for another request
            self._leave(key, delta.epoch)
        for claim in touched:
            self._weigh(claim)
        for name in delta.delete_upstreams:
            self._upstreams.pop(name, None)
        self._set("meta", "epoch", str(delta.epoch))
        self.epoch = delta.epoch
        return self._commands

    def _check(self, delta: Apply) -> None:
        known = self._upstreams.keys() | {upstream.key for upstream in delta.put_upstreams}
        for endpoint in delta.put_endpoints:
            if endpoint.key.target not in known:
                raise Refused(f"endpoint {endpoint.key.target} has no address")
        for route in delta.put_routes:
            host = route.pattern.partition("/")[0]
            if host.startswith("*.") and host.count(".") > LEVELS:
                raise Refused(f"route {route.pattern}: HAProxy looks up wildcards of up to {LEVELS} labels")
        wanted = {_pool(endpoint.key) for endpoint in delta.put_endpoints}
        if len(wanted - self.pools.keys()) > len(self._free):
            raise NoSlots(f"{len(wanted)} groups need more backends than the {self.groups} that there are")

    def endpoints(self) -> list[EndpointKey]:
        return [server.key for group in self.pools.values() for server in group.servers.values()]

    def few_left(self) -> bool:
        return len(self._free) * 4 < self.groups

    def grow(self) -> None:
        """Doubles the slots. The workers have them after a reload."""
        self._free = [*range(self.groups * 2, self.groups, -1), *self._free]
        self.groups *= 2

    # ------------------------------------------------------------------ endpoints

    def _put(self, put: EndpointPut, epoch: int) -> None:
        key = put.key
        pool = _pool(key)
        group = self.pools.get(pool)
        if group is None:
            group = self.pools[pool] = Group(self._free.pop())
            self._set("names", f"g{group.slot}", "|".join((*map(encode, key.claim), *((NODE,) * pool.nodes))))
        upstream = self._upstreams[key.target]
        if server_address(upstream.address) is None:
            self.refused[key] = f"HAProxy cannot connect to {upstream.address!r}"
            return
        if pool.nodes and not is_node_name(key.target.removeprefix("n:")):
            self.refused[key] = "HAProxy cannot verify a node of this name"
            return
        self.refused.pop(key, None)
        protocol = NODE if pool.nodes else upstream.protocol
        known = group.servers.get(key.target)
        if known is not None and (known.endpoint, known.protocol, known.backup) == (
            upstream.address,
            protocol,
            put.last_resort,
        ):
            if known.capacity != put.capacity:
                self._keep(group, replace(known, capacity=put.capacity))
            return
        if known is not None:
            self._retire(known, epoch)
        self._counter += 1
        server = Server(f"s{self._counter}", group.slot, key, upstream.address, protocol, put.capacity, put.last_resort)
        self._keep(group, server)
        for name in server.copies:
            self._commands.append(ServerCommand(f"add server {name} {self._words(server)}"))
            self._commands.append(ServerCommand(f"enable server {name}"))

    def _keep(self, group: Group, server: Server) -> None:
        group.servers[server.key.target] = self._serving[server.full_name] = server
        self._name(server)

    def _words(self, server: Server) -> str:
        """As in `add server` and in the configuration."""
        words = [server_address(server.endpoint) or "", f"weight {self._weight(server)}"]
        if server.protocol == "h2c":
            words.append("proto h2")
        if server.protocol == NODE and self.node_tls:
            words.append(node_words(server.key.target, chooses_sni=self.chooses_sni))
        if server.backup:
            words.append("backup")
        return " ".join(words)

    def _weight(self, server: Server) -> int:
        group = self.pools.get(_pool(server.key))
        most = max((each.capacity for each in group.servers.values()), default=1) if group else 1
        return max(1, round(server.capacity * WEIGHT_MAX / max(most, server.capacity, 1)))

    def _weigh(self, claim: ClaimKey) -> None:
        """Weights are relative to the largest capacity in the pool."""
        for group in self._pools(claim).values():
            if len({server.capacity for server in group.servers.values()}) < 2:
                continue
            for server in group.servers.values():
                self._tell(server, f"weight {self._weight(server)}")
        self._put_stamp(claim)

    def _pools(self, claim: ClaimKey) -> dict[bool, Group]:
        """By whether they are child nodes."""
        found = {nodes: self.pools.get(Pool(claim, nodes)) for nodes in (False, True)}
        return {nodes: group for nodes, group in found.items() if group is not None}

    def _put_stamp(self, claim: ClaimKey) -> None:
        """Where requests of parents for this group go: "g3", or "g3.g7.2500" when the first gets 25 % of them."""
        slots = {group.slot: _capacity(group.servers.values()) for group in self._pools(claim).values()}
        value = ".".join(f"g{slot}" for slot in slots)
        if len(slots) > 1:
            first, total = next(iter(slots.values())), sum(slots.values())
            value += f".{first * draws.DRAWS // max(1, total)}"
        self._set("stamps", _stamp(claim), value or None)

    def _leave(self, key: EndpointKey, epoch: int) -> None:
        pool = _pool(key)
        group = self.pools.get(pool)
        if group is None:
            return
        self.refused.pop(key, None)
        server = group.servers.pop(key.target, None)
        if not group.servers and not any(_pool(each) == pool for each in self.refused):
            del self.pools[pool]
        if server is not None:
            self._retire(server, epoch)
        self._recycle(group.slot)

    def _retire(self, server: Server, epoch: int) -> None:
        left = self.leaving[server.full_name] = replace(server, epoch=epoch)
        self._serving.pop(server.full_name, None)
        self.ejected.discard(server.full_name)
        self._tell(server, "state maint")
        self._name(left)

    def _replace_upstream(self, upstream: UpstreamPut, epoch: int) -> set[ClaimKey]:
        """The upstream has another address: its servers leave, and new ones are added."""
        touched: set[ClaimKey] = set()
        self._upstreams[upstream.key] = upstream
        for pool, group in list(self.pools.items()):
            server = group.servers.get(upstream.key)
            if server is not None:
                self._put(EndpointPut(server.key, server.capacity, server.backup), epoch)
                touched.add(pool.claim)
        return touched

    def forget(self, full_name: str) -> list[Command]:
        """Nothing is in flight at a leaving server any more, and the workers have deleted it."""
        self._commands = []
        server = self.leaving.pop(full_name)
        self._set("names", full_name, None)
        self._recycle(server.slot)
        return self._commands

    def _recycle(self, slot: int) -> None:
        used = any(group.slot == slot for group in self.pools.values())
        if not used and not any(each.slot == slot for each in self.leaving.values()):
            self._set("names", f"g{slot}", None)
            self.full.discard(slot)
            if slot not in self._free:
                self._free.append(slot)

    def _name(self, server: Server) -> None:
        words = (
            encode(server.key.target),
            encode(server.endpoint),
            server.protocol,
            str(server.capacity),
            str(int(server.backup)),
            str(server.epoch),
        )
        self._set("names", server.full_name, "|".join(words))

    # ------------------------------------------------------------------ routes

    def _put_route(self, route: RoutePut, gone: Mapping[ClaimKey, set[str]]) -> None:
        old = self._routes.get(route.pattern)
        for pick in old.picks if old is not None else ():
            self._by_group.get(_claim(old, pick.version), set()).discard(route.pattern)
        self._routes[route.pattern] = route
        for pick in route.picks:
            self._by_group.setdefault(_claim(route, pick.version), set()).add(route.pattern)
        entries = self._entries(route, gone)
        known = self._ids.get(route.pattern)
        if known is not None and entries == self._entries_of.get(known):
            return
        self._counter += 1
        id = f"{'m' if sum(map_name == 'picks' for map_name, _ in entries) > 1 else 'r'}{self._counter}"
        self._entries_of[id] = entries
        for (map_name, rest), value in entries.items():
            self._set(map_name, f"{id}{rest}", value)
        map_name, key, host = _place(route.pattern)
        self._set(map_name, key, id)
        self._set("hosts", host, str(int(self.maps["hosts"].get(host, "0")) + (known is None)))
        self._ids[route.pattern] = id
        if known is not None:
            self._discard(known)

    def _entries(self, route: RoutePut, gone: Mapping[ClaimKey, set[str]]) -> dict[tuple[str, str], str]:
        """(map, what follows the id in the key) -> value."""
        entries: dict[tuple[str, str], str] = {}
        ready, slots = self._ready(route, gone)
        shares = draws.weights(route.picks, ready, self._spilled.get(route.pattern, 0))
        of_slots = [
            (slot, share * part * SHARE_UNITS // sum(slots[version].values()))
            for version, share in shares.items()
            for slot, part in slots[version].items()
        ]
        for (slot, _), span in zip(of_slots, draws.spans([share for _, share in of_slots]), strict=True):
            for prefix in draws.prefixes(span):
                entries["picks", f".1{prefix}"] = f"g{slot}"
        if route.park_requests_max:
            terms = f"{route.park_requests_max}:{round(route.park_timeout_s * 1000)}:{encode(route.pattern)}"
            entries["parks", ""] = terms
        if route.sticky_by and route.sticky_by != "session":
            entries["sticky", ""] = f"{route.sticky_by}:{encode(route.sticky_name)}"
        return entries

    def _ready(
        self, route: RoutePut, gone: Mapping[ClaimKey, set[str]]
    ) -> tuple[dict[str, draws.Ready], dict[str, dict[int, int]]]:
        """The versions with a server that can serve; those with servers of last resort alone only if there are no others. And
        for each version slot -> capacity."""
        found: dict[bool, dict[str, dict[int, int]]] = {False: {}, True: {}}
        for pick in route.picks:
            claim = _claim(route, pick.version)
            for group in self._pools(claim).values():
                there = [each for target, each in group.servers.items() if target not in gone.get(claim, ())]
                there = [each for each in there if each.full_name not in self.ejected] or there
                ordinary = [each for each in there if not each.backup]
                if there:
                    slots = found[not ordinary].setdefault(pick.version, {})
                    slots[group.slot] = _capacity(ordinary or there)
        slots_of = found[False] or found[True]
        ready = {
            version: draws.Ready(sum(slots.values()), slots.keys() <= self.full) for version, slots in slots_of.items()
        }
        return ready, slots_of

    def _delete_route(self, pattern: str) -> None:
        id = self._ids.pop(pattern, None)
        old = self._routes.pop(pattern, None)
        self._spilled.pop(pattern, None)
        for pick in old.picks if old is not None else ():
            self._by_group.get(_claim(old, pick.version), set()).discard(pattern)
        if id is None:
            return
        map_name, key, host = _place(pattern)
        self._set(map_name, key, None)
        left = int(self.maps["hosts"].get(host, "1")) - 1
        self._set("hosts", host, str(left) if left else None)
        self._discard(id)

    def challenges(self, answers: Mapping[tuple[str, str], str]) -> list[Command]:
        """Replaces the answers to challenges of a certificate authority: (host, path) -> content."""
        self._commands = []
        wanted = {encode(f"{host}{path}"): encode(content) for (host, path), content in answers.items()}
        for key in [key for key in self.maps["acme"] if key not in wanted]:
            self._set("acme", key, None)
        for key, content in wanted.items():
            self._set("acme", key, content)
        return self._commands

    # ------------------------------------------------------------------ each second

    def sweep(self) -> list[Command]:
        """Deletes the entries of replaced routes."""
        self._commands = []
        for map_name, key in self._stale:
            self._set(map_name, key, None)
        self._stale = []
        return self._commands

    def balance(self, in_flight: Mapping[str, int]) -> list[Command]:
        """Moves overflow between the tiers of routes. `in_flight`: full name of a server -> its requests."""
        self._commands = []
        self.full = {group.slot for group in self.pools.values() if _is_full(group, in_flight)}
        for pattern, route in self._routes.items():
            if len({pick.tier for pick in route.picks}) > 1:
                before = self._spilled.get(pattern, 0)
                full = draws.is_full(route.picks, self._ready(route, {})[0])
                after = max(0, min(draws.SPILL_STEPS, before + (1 if full else -1)))
                if after != before:
                    self._spilled[pattern] = after
                    self._put_route(route, {})
        return self._commands

    def eject(self, full_name: str, ejected: bool) -> list[Command]:
        """Takes a server out after failures, or back. No command: its group has no other server, or it is gone."""
        self._commands = []
        server = self._serving.get(full_name)
        group = self.pools.get(_pool(server.key)) if server is not None else None
        if group is None or server is None or ejected == (full_name in self.ejected):
            return []
        if ejected:
            others = [each.full_name for each in group.servers.values() if each.full_name not in self.ejected]
            if len(others) < 2:
                return []
            self.ejected.add(full_name)
        else:
            self.ejected.discard(full_name)
        self._tell(server, f"state {'maint' if ejected else 'ready'}")
        for pattern in sorted(self._by_group.get(server.key.claim, ())):
            self._put_route(self._routes[pattern], {})
        return self._commands

    def claim_of(self, backend: str) -> ClaimKey | None:
        """The group of a slot ("g7"), also while its last endpoints leave."""
        value = self.maps["names"].get(backend)
        return None if value is None else _named(value)

    def server(self, full_name: str) -> Server | None:
        return self._serving.get(full_name) or self.leaving.get(full_name)

    # ------------------------------------------------------------------ files and restarts

    def server_lines(self) -> dict[str, list[ServerLine]]:
        """The servers that a newly loaded configuration has, by backend. Leaving servers are not among them."""
        lines: dict[str, list[ServerLine]] = {}
        for group in self.pools.values():
            for server in group.servers.values():
                off = " disabled" if server.full_name in self.ejected else ""
                for name in server.copies:
                    backend = name.partition("/")[0]
                    lines.setdefault(backend, []).append(ServerLine(server.name, self._words(server) + off))
        return lines

    def map_text(self, name: str) -> str:
        return "".join(f"{key} {value}\n" for key, value in self.maps[name].items())

    def restore(self, maps: Mapping[str, Mapping[str, str]]) -> None:
        """Takes over what the workers have, after a restart of control. Routes are known by id only: the core puts each again."""
        self.maps = {name: dict(maps.get(name, {})) for name in MAPS}
        self.epoch = int(self.maps["meta"].get("epoch", "0"))
        used: set[int] = set()
        claims: dict[int, ClaimKey] = {}
        for name, value in self.maps["names"].items():
            slot, _, server = name.removeprefix("g").partition("/")
            used.add(int(slot))
            if not server:
                claims[int(slot)] = _named(value)
        for name, value in self.maps["names"].items():
            slot, _, server_name = name.removeprefix("g").partition("/")
            if server_name:
                self._restore_server(claims[int(slot)], int(slot), server_name, value.split("|"))
                self._counter = max(self._counter, int(server_name[1:]))
        self._free = [slot for slot in range(self.groups, 0, -1) if slot not in used]
        for map_name in ("exact", "prefix"):
            for key, id in self.maps[map_name].items():
                self._ids[decode(key) + ("*" if map_name == "prefix" else "")] = id
        for map_name in ("picks", "parks", "sticky"):
            for key, value in self.maps[map_name].items():
                id, dot, rest = key.partition(".")
                self._entries_of.setdefault(id, {})[map_name, dot + rest] = value
                self._counter = max(self._counter, int(id[1:]))
        for id in self._entries_of.keys() - set(self._ids.values()):
            self._discard(id)

    def take_back(self) -> list[Command]:
        """Ends all ejections: after a restart of control their number and ends are unknown."""
        self._commands = []
        for server in self._serving.values():
            self._tell(server, "state ready")
        return self._commands

    def _tell(self, server: Server, what: str) -> None:
        self._commands += [ServerCommand(f"set server {name} {what}") for name in server.copies]

    def _restore_server(self, claim: ClaimKey, slot: int, name: str, words: list[str]) -> None:
        target, endpoint, protocol, capacity, backup, epoch = words
        key = EndpointKey(claim, decode(target))
        server = Server(name, slot, key, decode(endpoint), protocol, int(capacity), backup == "1", int(epoch))
        if server.epoch:
            self.leaving[server.full_name] = server
            return
        self.pools.setdefault(_pool(key), Group(slot)).servers[key.target] = server
        self._serving[server.full_name] = server
        upstream = UpstreamPut(key.target, True, server.endpoint)
        self._upstreams[key.target] = (
            upstream if protocol == NODE else replace(upstream, is_node=False, protocol=protocol)
        )

    # ------------------------------------------------------------------ entries

    def _set(self, map_name: str, key: str, value: str | None) -> None:
        entries = self.maps[map_name]
        old = entries.get(key)
        if old == value:
            return
        if value is None:
            del entries[key]
            self._commands.append(MapDelete(map_name, key))
        else:
            entries[key] = value
            self._commands.append(MapPut(map_name, key, value, old is not None))

    def _discard(self, id: str) -> None:
        self._stale += [(map_name, f"{id}{rest}") for map_name, rest in self._entries_of.pop(id, {})]


def _claim(route: RoutePut | None, version: str) -> ClaimKey:
    assert route is not None
    return ClaimKey(route.service, version, route.pattern)


def _named(value: str) -> ClaimKey:
    """The group of a slot, from its entry in `names.map`."""
    return ClaimKey(*map(decode, value.split("|")[:3]))


def _capacity(servers: Iterable[Server]) -> int:
    return sum(max(1, each.capacity) for each in servers)


def _stamp(claim: ClaimKey) -> str:
    """As in the field `sdlb-to`, encoded."""
    return encode(f"{claim.service}/{claim.version} {claim.route}")


def _place(pattern: str) -> tuple[str, str, str]:
    """The map of a route, its key there, and the key of its host."""
    host, slash, path = pattern.partition("/")
    map_name = "prefix" if path.endswith("*") else "exact"
    return map_name, encode(f"{host}{slash}{path}".removesuffix("*") if map_name == "prefix" else pattern), encode(host)


def _is_full(group: Group, in_flight: Mapping[str, int]) -> bool:
    return bool(group.servers) and all(
        in_flight.get(each.full_name, 0) >= each.capacity for each in group.servers.values()
    )
