"""The part of a policy that engines apply: load balancing, outlier ejection, limits, timeouts, retries.

It applies to all versions of the service, at every node. The field names are the keys of the JSON document.
"""

from __future__ import annotations

from msgspec import Struct, to_builtins

from sdlb.model.policy_reader import Reader

ALGORITHMS = ("least_requests", "peak_ewma", "prequal", "round_robin", "hash")
HASH_BY = ("client", "header", "cookie", "path")
ZONES = ("ignore", "prefer")
TRAFFIC_KEYS = (
    "balance",
    "outlier",
    "limits",
    "timeout_s",
    "try_timeout_s",
    "retries_max",
    "hedge_s",
    "path",
    "proxy_protocol",
)
PROXY_PROTOCOLS = ("off", "v1", "v2")
ENCODED_SLASH = ("refuse", "keep")
COUNT_MAX = 1_000_000
BODY_BYTES_MAX = 1 << 50
RETRIES_MAX = 30


class Balance(Struct, frozen=True):
    """How an endpoint is chosen.

    `hash_load`: with "hash", an endpoint gets at most this multiple of its fair share of requests in flight.
    `slow_start_s`: a new or returning endpoint gets its full share after this time. `zones`: with "prefer", other zones get
    only the requests for which the node's own zone has no capacity.
    """

    algorithm: str = "least_requests"
    hash_by: str = "client"
    hash_name: str = ""
    hash_load: float = 1.25
    slow_start_s: float = 0.0
    zones: str = "ignore"


class Outlier(Struct, frozen=True):
    """Outlier ejection: an endpoint that does worse than the others gets no requests for a while. 0 turns a criterion off.

    `success_deviations`: its success rate is this many standard deviations below the mean. `latency_factor`: its latency is
    this multiple of the median. Endpoints are compared every `interval_s`, if they had `requests_min` requests.
    """

    success_deviations: float = 0.0
    latency_factor: float = 0.0
    ejected_percent_max: int = 10
    interval_s: float = 10.0
    requests_min: int = 100


class Limits(Struct, frozen=True):
    """0: no limit.

    `in_flight`: requests at once at each entry. `endpoint_in_flight`, `endpoint_connections`: from each engine to each
    endpoint. `pending`: requests that wait, up to `pending_timeout_s`, until one in flight ends. `adaptive`: the limit of
    requests in flight follows the latency. `body_bytes`: of a request body, in place of the limit of the node file.
    """

    in_flight: int = 0
    endpoint_in_flight: int = 0
    endpoint_connections: int = 0
    pending: int = 0
    pending_timeout_s: float = 1.0
    adaptive: bool = False
    body_bytes: int = 0


class Path(Struct, frozen=True):
    """`encoded_slash`: a path with `%2F` is refused on public nodes ("refuse"), or forwarded unchanged ("keep")."""

    encoded_slash: str = "refuse"


class Traffic(Struct, frozen=True):
    """Settings for all requests of a service.

    `timeout_s`: from the first attempt to the response head; 0: the node's limit alone. `try_timeout_s`: the same for each
    attempt that may be retried; 0: none. `retries_max`: retries per request within the retry budget; -1: no limit of its own.
    `hedge_s`: an idempotent request without a response after this time is also sent to a second endpoint; 0: never.
    `proxy_protocol`: version of the PROXY protocol header that precedes each request to an instance.
    """

    balance: Balance = Balance()
    outlier: Outlier = Outlier()
    limits: Limits = Limits()
    timeout_s: float = 0.0
    try_timeout_s: float = 0.0
    retries_max: int = -1
    hedge_s: float = 0.0
    path: Path = Path()
    proxy_protocol: str = "off"

    @staticmethod
    def read(top: Reader) -> Traffic:
        """Raises Invalid."""
        default = Traffic()
        retries_max = top.number("retries_max", default.retries_max, -1, RETRIES_MAX)
        if retries_max != int(retries_max):
            raise top.fail("retries_max", f"use a whole number up to {RETRIES_MAX}, or -1 for no limit")
        return Traffic(
            balance=_balance(top),
            outlier=_outlier(top),
            limits=_limits(top),
            timeout_s=_seconds(top, "timeout_s", 0.0),
            try_timeout_s=_seconds(top, "try_timeout_s", 0.0),
            retries_max=int(retries_max),
            hedge_s=_seconds(top, "hedge_s", 0.0),
            path=_path(top),
            proxy_protocol=top.one_of("proxy_protocol", PROXY_PROTOCOLS, "off"),
        )

    def to_data(self) -> dict[str, object]:
        return to_builtins(self)


def _seconds(reader: Reader, key: str, default: float) -> float:
    """0, or at least a millisecond: the engine counts in milliseconds, and less would be rounded to 0."""
    value = reader.number(key, default, 0, 3600)
    if 0 < value < 0.001:
        raise reader.fail(key, "use 0, or a number from 0.001 to 3600")
    return value


def _path(top: Reader) -> Path:
    reader = top.inner("path", ("encoded_slash",))
    return Path() if reader is None else Path(reader.one_of("encoded_slash", ENCODED_SLASH, "refuse"))


def _balance(top: Reader) -> Balance:
    reader = top.inner("balance", Balance.__struct_fields__)
    if reader is None:
        return Balance()
    algorithm = reader.one_of("algorithm", ALGORITHMS, "least_requests")
    by = reader.one_of("hash_by", HASH_BY, "client")
    name = reader.name("hash_name", f"name the {by} to hash")
    if algorithm == "hash" and by in ("header", "cookie") and not name:
        raise reader.fail("hash_name", f"name the {by} to hash")
    return Balance(
        algorithm=algorithm,
        hash_by=by,
        hash_name=name,
        hash_load=reader.number("hash_load", 1.25, 1, 100),
        slow_start_s=_seconds(reader, "slow_start_s", 0.0),
        zones=reader.one_of("zones", ZONES, "ignore"),
    )


def _outlier(top: Reader) -> Outlier:
    reader = top.inner("outlier", Outlier.__struct_fields__)
    if reader is None:
        return Outlier()
    factor = reader.number("latency_factor", 0.0, 0, 1000)
    if 0 < factor <= 1:
        raise reader.fail(
            "latency_factor", "use 0, or a number over 1: half of the endpoints are at the median or above"
        )
    return Outlier(
        success_deviations=reader.number("success_deviations", 0.0, 0, 100),
        latency_factor=factor,
        ejected_percent_max=reader.count("ejected_percent_max", 10, 100),
        interval_s=reader.number("interval_s", 10.0, 1, 3600),
        requests_min=reader.count("requests_min", 100, COUNT_MAX),
    )


def _limits(top: Reader) -> Limits:
    reader = top.inner("limits", Limits.__struct_fields__)
    if reader is None:
        return Limits()
    return Limits(
        in_flight=reader.count("in_flight", 0, COUNT_MAX),
        endpoint_in_flight=reader.count("endpoint_in_flight", 0, COUNT_MAX),
        endpoint_connections=reader.count("endpoint_connections", 0, COUNT_MAX),
        pending=reader.count("pending", 0, COUNT_MAX),
        pending_timeout_s=_seconds(reader, "pending_timeout_s", 1.0),
        adaptive=reader.flag("adaptive", False),
        body_bytes=reader.count("body_bytes", 0, BODY_BYTES_MAX),
    )
