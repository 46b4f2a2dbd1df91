"""Envoy as a peer, from the Python package of its own project (`bench/requirements.lock`): one worker, no admin port.

It looks up routes sequentially unless they are configured as a map of prefixes, as they are here. The request id, the
forwarding fields, pools, HTTP/2 settings and the log are the same as for the others. Statistics are on, its default.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

from bench import processes
from bench.certificates import HOST
from bench.peers import GRPC_PATH, Addresses, Setup

TYPES = "type.googleapis.com/"
FILTERS = "envoy.extensions.filters.http."
STREAMS = {"max_concurrent_streams": 128}
POOL_MAX = 4096


def start(setup: Setup, to: Addresses) -> subprocess.Popen[bytes]:
    config = setup.folder / "envoy.json"
    config.write_text(json.dumps(_config(setup, to)))
    words = [processes.installed("envoy/_bin/envoy"), "-c", str(config), "--concurrency", "1"]
    return processes.start(
        [*words, "--disable-hot-restart", "--log-level", "error"], setup.core, setup.folder / "envoy.log"
    )


def _config(setup: Setup, to: Addresses) -> dict[str, Any]:
    pem = {"filename": f"{setup.folder}/site.pem"}
    tls = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificates": [{"certificate_chain": pem, "private_key": pem}],
        "alpn_protocols": ["h2", "http/1.1"],
    }
    context = {
        **_typed("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
        "common_tls_context": tls,
        "disable_stateless_session_resumption": True,
        "disable_stateful_session_resumption": True,
    }
    manager = _manager(setup)
    listeners = [
        _listener("http", to.http, manager, {}),
        _listener("https", to.https, manager, {"transport_socket": {"name": "tls", "typed_config": context}}),
    ]
    clusters = [
        _cluster("all", setup.http, {"http_protocol_options": {}}),
        _cluster("grpc", setup.grpc, {"http2_protocol_options": STREAMS}),
    ]
    return {"static_resources": {"listeners": listeners, "clusters": clusters}}


def _typed(kind: str) -> dict[str, str]:
    return {"@type": TYPES + kind}


def _address(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def _listener(name: str, address: str, manager: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    chain = {"filters": [{"name": "manager", "typed_config": manager}], **more}
    return {"name": name, "address": _address(address), "filter_chains": [chain], "tcp_backlog_size": 4096}


def _cluster(name: str, address: str, protocol: dict[str, Any]) -> dict[str, Any]:
    options = {
        **_typed("envoy.extensions.upstreams.http.v3.HttpProtocolOptions"),
        "explicit_http_config": protocol,
    }
    limits = [{"max_connections": POOL_MAX, "max_pending_requests": POOL_MAX, "max_requests": POOL_MAX}]
    return {
        "name": name,
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(address)}}]}],
        },
        "circuit_breakers": {"thresholds": limits},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }


def _manager(setup: Setup) -> dict[str, Any]:
    log = {
        **_typed("envoy.extensions.access_loggers.file.v3.FileAccessLog"),
        "path": f"{setup.folder}/envoy-access.log",
    }
    host = {"header": {"key": "X-Forwarded-Host", "value": "%REQ(:AUTHORITY)%"}}
    router = {
        "name": "router",
        "typed_config": {**_typed(f"{FILTERS}router.v3.Router"), "suppress_envoy_headers": True},
    }
    return {
        **_typed("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "all",
        "codec_type": "AUTO",
        "use_remote_address": True,
        "http2_protocol_options": STREAMS,
        "access_log": [{"name": "file", "typed_config": log}] if setup.logged else [],
        "http_filters": [router],
        "route_config": {
            "request_headers_to_add": [host],
            "virtual_hosts": [{"name": "all", "domains": [HOST], "matcher": _routes(setup.routes)}],
        },
    }


def _routes(routes: int) -> dict[str, Any]:
    """Routes that are looked up by the longest prefix of the path."""
    path = {**_typed("envoy.type.matcher.v3.HttpRequestHeaderMatchInput"), "header_name": ":path"}
    prefixes = {f"/service-{n}/": _to("all") for n in range(routes)}
    return {
        "matcher_tree": {
            "input": {"name": "path", "typed_config": path},
            "prefix_match_map": {"map": {**prefixes, GRPC_PATH: _to("grpc")}},
        }
    }


def _to(cluster: str) -> dict[str, Any]:
    route = {**_typed("envoy.config.route.v3.Route"), "match": {"prefix": "/"}, "route": {"cluster": cluster}}
    return {"action": {"name": "route", "typed_config": route}}
