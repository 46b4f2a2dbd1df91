"""The node file (TOML; contract.md, "Node file") and the options that stand for one.

`read_config` returns a complete, validated `NodeConfig` or raises `Invalid`. Keys for features that this version does
not have are accepted where they would change nothing; otherwise they are refused.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

from msgspec import Struct, field

from sdlb.model.acme import AcmeSettings, Peer
from sdlb.model.address import check_address, check_name, host_of
from sdlb.model.hardening import Hardening
from sdlb.model.hook_program import HookProgram
from sdlb.model.identity import IdentitySpec
from sdlb.model.metric_source import MetricSource
from sdlb.model.problem import Invalid
from sdlb.model.role import RoleService
from sdlb.model.site import SiteSpec
from sdlb.node.config_acme import read_acme, read_peers
from sdlb.node.config_hardening import public_limits, read_hardening
from sdlb.node.config_hooks import read_hooks
from sdlb.node.config_identity import Links, read_identity
from sdlb.node.config_reader import CODE, Reader, one_of
from sdlb.node.config_roles import read_roles
from sdlb.node.config_sites import read_sites
from sdlb.node.config_sources import read_sources
from sdlb.node.text_files import parse_toml, read_text

NODE_LISTEN = "127.0.0.1:7700"
FILE_MIB_MAX = 16
"""10,000 sites with several hosts each have 3 MiB."""
TOP = (
    *("name", "state_dir", "public", "parents", "advertise", "insecure", "labels", "roles", "engine"),
    *("identity", "listen", "hardening", "store", "timing", "limits", "log", "site", "hook", "role", "acme", "peers"),
    "haproxy",
    "source",
)
LISTENERS = ("http", "https", "node", "metrics")
LIMITS: dict[str, tuple[int, int]] = {
    "head_bytes": (1024, 1 << 20),
    "fields": (8, 10_000),
    "connect_timeout_ms": (1, 600_000),
    "head_timeout_ms": (1, 3_600_000),
    "idle_timeout_ms": (1, 86_400_000),
    "handshake_timeout_ms": (1, 600_000),
    "handshakes": (1, 1_000_000),
    "http2_streams": (1, 10_000),
    "body_timeout_ms": (1, 86_400_000),
    "body_bytes_per_s": (1, 1 << 30),
    "response_timeout_ms": (1, 86_400_000),
    "response_idle_timeout_ms": (1, 86_400_000),
    "event_stream_idle_timeout_ms": (1, 2_000_000_000),
    "upgrade_idle_timeout_ms": (1, 2_000_000_000),
    "connections": (16, 10_000_000),
    "retry_budget_percent": (1, 100),
    "body_bytes": (1, 1 << 62),
    "connections_per_address": (1, 10_000_000),
    "requests_per_s_per_address": (1, 10_000_000),
    "requests_burst_per_address": (1, 10_000_000),
    "memory_mb": (32, 1 << 20),
}
"""Names and units as `Limits` in engine.proto, with the range that is accepted."""


class NodeConfig(Struct, frozen=True):
    """`listen_http`, `listen_https` "": no such listener. `http_proxies`, `https_proxies`: networks of proxies that are
    trusted to name their clients at that listener. `advertise` "": found out for each parent. `workers` 0: one a core.
    `haproxy_binary` "": on the PATH. `file`: the node file, "" without one. `services`: those of `roles`."""

    name: str
    state_dir: Path
    socket: Path
    listen_node: str = NODE_LISTEN
    listen_http: str = ""
    listen_https: str = ""
    listen_metrics: str = ""
    http_proxies: tuple[str, ...] = ()
    https_proxies: tuple[str, ...] = ()
    sites: tuple[SiteSpec, ...] = ()
    advertise: str = ""
    parents: tuple[str, ...] = ()
    public: bool = False
    hardening: Hardening = Hardening()
    insecure: bool = False
    identity: IdentitySpec | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    roles: tuple[str, ...] = ()
    services: tuple[RoleService, ...] = ()
    beat_s: float = 2.0
    lease_s: float = 10.0
    fence_s: float = 10.0
    workers: int = 0
    engine: str = "native"
    haproxy_binary: str = ""
    limits: Mapping[str, int] = field(default_factory=dict[str, int])
    access_log: str = ""
    log_level: str = "info"
    socket_mode: int = 0o600
    file: str = ""
    hooks: Mapping[str, HookProgram] = field(default_factory=dict[str, HookProgram])
    acme: AcmeSettings | None = None
    peers: tuple[Peer, ...] = ()
    sources: Mapping[str, MetricSource] = field(default_factory=dict[str, MetricSource])


class Options(Struct, frozen=True):
    """The options of the command line. None: the file or the default decides."""

    config: str | None = None
    root: bool = False
    parents: tuple[str, ...] | None = None
    listen: str | None = None
    node_listen: str | None = None
    name: str | None = None
    state_dir: str | None = None
    socket: str | None = None
    public: bool | None = None
    insecure: bool = False


def read_config(options: Options, environment: Mapping[str, str] = os.environ) -> NodeConfig:
    """The file, with the options over it. Raises Invalid."""
    if options.config is None:
        return build({}, "", {}, options, environment)
    return build(*read_file(options.config), options, environment)


def read_file(where: str) -> tuple[dict[str, object], str, dict[tuple[str, ...], int]]:
    """The data, the file's name and the lines of its keys. Raises Invalid."""
    text = read_text(where, CODE, "a node file is shorter; see docs/reference/node-file.md", FILE_MIB_MAX)
    data = parse_toml(text, where, CODE, "see docs/reference/node-file.md")
    from sdlb.node.toml_lines import key_lines

    return data, where, key_lines(text)


def build(
    data: dict[str, object],
    where: str,
    lines: dict[tuple[str, ...], int],
    options: Options,
    environment: Mapping[str, str] = os.environ,
) -> NodeConfig:
    """Raises Invalid for the first mistake; `Mistake` when it is in the file."""
    top = Reader(data, where, lines, (), TOP if where else ())
    _later(top)
    listen = top.table(
        "listen", ("http", "https", "node", "metrics", "socket", "admin", "socket_mode", "trusted_proxies")
    )
    timing = top.table("timing", ("beat_s", "lease_s", "fence_s"))
    engine, workers, limits = _engine(top)
    beat_s = timing.number("beat_s", 2.0, 0.01, 3600)
    lease_s = timing.number("lease_s", max(10.0, beat_s * 5), 0.01, 86400)
    fence_s = timing.number("fence_s", max(10.0, lease_s), 0, 86400)
    if lease_s < 2 * beat_s:
        timing.fail(
            "lease_s", f"at least two beats ({2 * beat_s:g} s), so that one lost beat does not expire the lease"
        )
    if fence_s < lease_s:
        timing.fail("fence_s", f"at least the lease ({lease_s:g} s): a node below may serve for as long")
    name = _option("--name", options.name, check_name) or top.text("name", "", check_name) or _host_name()
    parents = top.texts("parents", _parent, "host:port of each parent")
    if options.root:
        parents = ()
    elif options.parents is not None:
        parents = tuple(dict.fromkeys(_option("--parent", each, _parent) for each in options.parents))
    listen_node = _option("--node-listen", options.node_listen, _listen) or listen.text("node", NODE_LISTEN, _listen)
    listen_http = _option("--listen", options.listen, _listen) or listen.text("http", "", _listen)
    listen_https = listen.text("https", "", _listen)
    if listen_https and listen_https == listen_http and not listen_https.endswith(":0"):
        listen.fail("https", "another address than listen.http (--listen)")
    proxies = listen.table("trusted_proxies", ("http", "https"))
    links = Links(top, listen, node_listen=options.node_listen is not None, parents=options.parents is not None)
    if listen_node in (listen_http, listen_https) and not listen_node.endswith(":0"):
        links.refuse_listen(listen_node, "another address than clients have (--listen, listen.http, listen.https)")
    public = options.public if options.public is not None else top.flag("public", False)
    listen_metrics = listen.text("metrics", "", _listen)
    _private(listen, listen_metrics, public)
    insecure, identity = options.insecure or top.flag("insecure", False), read_identity(top)
    links.check(listen_node, parents, insecure, identity)
    roles, services = read_roles(top)
    acme, hardening = read_acme(top, listen), read_hardening(top, public)
    state_dir = _path("--state-dir", options.state_dir) or top.path("state_dir") or _state_dir(name, environment)
    return NodeConfig(
        name=name,
        state_dir=state_dir,
        socket=_path("--socket", options.socket) or listen.path("socket") or _socket(name, state_dir, environment),
        listen_node=listen_node,
        listen_http=listen_http,
        listen_https=listen_https,
        listen_metrics=listen_metrics,
        http_proxies=_proxies(proxies, "http", listen_http),
        https_proxies=_proxies(proxies, "https", listen_https),
        sites=read_sites(top, listen, acme, state_dir if engine == "haproxy" else None, hardening),
        advertise=top.text("advertise", "", lambda text: check_address(text, wildcard=False)),
        parents=parents,
        public=public,
        hardening=hardening,
        insecure=insecure,
        identity=identity,
        labels=_labels(top),
        roles=roles,
        services=services,
        beat_s=beat_s,
        lease_s=lease_s,
        fence_s=fence_s,
        workers=workers,
        engine=engine,
        haproxy_binary=_haproxy(top, engine),
        limits=public_limits(limits, public),
        access_log=_access(top),
        log_level=top.table("log", ("access", "level")).text("level", "info", _level),
        socket_mode=int(listen.text("socket_mode", "0600", _mode), 8),
        file=where,
        hooks=read_hooks(top),
        acme=acme,
        peers=read_peers(top, name, identity=identity is not None),
        sources=read_sources(top),
    )


# ------------------------------------------------------------------ tables


def _later(top: Reader) -> None:
    """Known keys whose feature is not supported yet."""
    listen = top.table("listen", ())
    if listen.text("admin", "", _listen):
        listen.later("admin")
    store = top.table("store", ("kind", "endpoints"))
    kind = store.text("kind", "embedded", one_of("embedded", "etcd"))
    if kind == "etcd":
        store.later("kind", "the etcd store")
    if store.texts("endpoints", _parent, "host:port of each server of the store"):
        store.later("endpoints")


def _private(listen: Reader, address: str, public: bool) -> None:
    """Metrics reveal much about a site, so they must not be reachable from the internet."""
    if not address:
        return
    ip = ip_address(host_of(address))
    if ip.is_unspecified:
        if public:
            listen.fail(
                "metrics", "a loopback or private address: a public node must not serve metrics on every address"
            )
    elif ip.is_global:
        listen.fail("metrics", "a loopback or private address: metrics must not be public")


def _engine(top: Reader) -> tuple[str, int, dict[str, int]]:
    """Kind, workers, limits. `engine = "native"`, or a table with `kind`, `workers` and limits; limits may also stand in `[limits]`."""
    check = one_of("native", "haproxy")
    workers = 0
    limits = _limits(top.table("limits", tuple(LIMITS)))
    if isinstance(top.get("engine"), dict):
        engine = top.table("engine", ("kind", "workers", *LIMITS))
        kind = engine.text("kind", "native", check)
        workers = engine.whole("workers", 0, 0, 1024)
        limits.update(_limits(engine))
    else:
        kind = top.text("engine", "native", check)
    return kind, workers, limits


def _haproxy(top: Reader, engine: str) -> str:
    """`[haproxy]`. Settings that this engine does not have are reported as degraded."""
    table = top.table("haproxy", ("binary",))
    if "haproxy" in top and engine != "haproxy":
        top.refuse("haproxy", 'needs engine = "haproxy"', "add it, or remove the table")
    binary = table.path("binary")
    return "" if binary is None else str(binary)


def _limits(table: Reader) -> dict[str, int]:
    return {name: table.whole(name, low, low, high) for name, (low, high) in LIMITS.items() if name in table}


def _labels(top: Reader) -> dict[str, str]:
    found: dict[str, str] = {}
    table = top.table("labels", ())
    data = cast("dict[str, object]", top.get("labels") or {})
    if len(data) > 64:
        top.fail("labels", "at most 64 labels")
    for name in sorted(data):
        try:
            check_name(name)
        except ValueError as error:
            table.fail(name, f"label names to be {error}")
        found[name] = table.text(name, "", _label, "a string of at most 128 characters")
    return found


def _access(top: Reader) -> str:
    log = top.table("log", ("access", "level"))
    path = log.path("access")
    return "" if path is None else str(path)


def _proxies(table: Reader, key: str, listen: str) -> tuple[str, ...]:
    """Networks of proxies that are trusted to name their clients at that listener."""
    found = table.texts(key, _network, 'networks of the proxies in front of the listener, for example ["10.0.0.0/8"]')
    if found and not listen:
        table.refuse(key, f"needs the listener listen.{key}", "add it, or remove the line")
    return found


# ------------------------------------------------------------------ values


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise ValueError('a network, like "10.0.0.0/8", or an address') from None


def _parent(text: str) -> str:
    return check_address(text, wildcard=False, names=True)


def _listen(text: str) -> str:
    return check_address(text, zero=True)


def _label(text: str) -> str:
    if len(text) > 128:
        raise ValueError("a string of at most 128 characters")
    return text


def _level(text: str) -> str:
    return one_of("info", "warning")(text)


def _mode(text: str) -> str:
    return one_of("0600", "0660")(text)


def _option(name: str, value: str | None, check: Any) -> str:
    if value is None:
        return ""
    try:
        return check(value)
    except ValueError as error:
        shown = value if len(value) <= 60 else f"{value[:57]}..."
        raise Invalid("usage", name, f"has the value {shown!r}", f"expected {error}") from None


def _path(name: str, value: str | None) -> Path | None:
    if value is None:
        return None
    if not value or "\0" in value:
        raise Invalid("usage", name, f"has the value {value!r}", "expected a path")
    return Path(value).absolute()


# ------------------------------------------------------------------ defaults


def _host_name() -> str:
    name = socket.gethostname().partition(".")[0]
    try:
        return check_name(name)
    except ValueError:
        return "node"


def _writable_root_folder(folder: Path) -> bool:
    existing = folder if folder.exists() else folder.parent
    return os.geteuid() == 0 and os.access(existing, os.W_OK)


def _state_dir(name: str, environment: Mapping[str, str]) -> Path:
    if _writable_root_folder(Path("/var/lib/sdlb")):
        return Path("/var/lib/sdlb")
    home = environment.get("XDG_STATE_HOME") or f"{environment.get('HOME') or '/tmp'}/.local/state"
    return Path(home) / "sdlb" / name


def _socket(name: str, state_dir: Path, environment: Mapping[str, str]) -> Path:
    if path := environment.get("SDLB_SOCKET"):
        return Path(path).absolute()
    if _writable_root_folder(Path("/run/sdlb")):
        return Path("/run/sdlb/sdlb.sock")
    runtime = environment.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "sdlb" / f"{name}.sock" if runtime else state_dir / "sdlb.sock"
