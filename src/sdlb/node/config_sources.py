"""`[source.NAME]` of the node file: the Prometheus servers that queries of an analysis can name."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from sdlb.model.location import parse_location
from sdlb.model.metric_source import DEFAULT_TIMEOUT_S, MetricSource
from sdlb.node.config_reader import Reader

SOURCES_MAX = 16
TIMEOUT_S: tuple[float, float] = (0.1, 8.0)
"""Less than a block: an answer that comes later is of no use."""
KEYS = ("url", "token_file", "timeout_s")
EXAMPLE = 'url = "https://prometheus.example"'


def read_sources(top: Reader) -> Mapping[str, MetricSource]:
    """The servers by name. Raises Invalid."""
    return {name: _source(table) for name, table in top.named("source", KEYS, SOURCES_MAX, EXAMPLE)}


def _source(table: Reader) -> MetricSource:
    if "url" not in table:
        table.refuse("url", "is missing", f"add it, for example {EXAMPLE}")
    token_file = table.path("token_file")
    return MetricSource(
        table.text("url", "", _url),
        "" if token_file is None else str(token_file),
        table.number("timeout_s", DEFAULT_TIMEOUT_S, *TIMEOUT_S),
    )


def _url(text: str) -> str:
    """Without a final slash."""
    try:
        found = parse_location(text)
    except ValueError:
        raise ValueError('a URL like "https://prometheus.example", without user name, query and fragment') from None
    if found.scheme not in ("https", "http") or found.query:
        raise ValueError('a URL like "https://prometheus.example", without user name, query and fragment')
    if found.scheme == "http" and not _is_private(found.host):
        raise ValueError(
            "https, or http to a loopback or private address: a token must not cross the internet unencrypted"
        )
    return str(found).rstrip("/")


def _is_private(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    try:
        ip = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name == "localhost"
    return ip.is_loopback or (ip.is_private and not ip.is_unspecified)
