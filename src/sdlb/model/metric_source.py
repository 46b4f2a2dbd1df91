"""A server of metrics that analyses can ask: the table `[source.NAME]` of a root's node file."""

from __future__ import annotations

from msgspec import Struct

DEFAULT_TIMEOUT_S = 5.0


class MetricSource(Struct, frozen=True):
    """`url`: of a Prometheus server, without the path of its API. `token_file` "": it is asked without a token. `timeout_s`: for all
    queries of one block."""

    url: str
    token_file: str = ""
    timeout_s: float = DEFAULT_TIMEOUT_S
