"""What of a policy the engines carry out by themselves: which endpoint gets a request, limits, time-outs, who is taken out.

It holds for all versions of the service, at entries and below.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

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
RETRIES_MAX = 30


@dataclass(frozen=True, slots=True)
class Balance:
    """`hash_load`: a member has at most so many times its fair share of what is in flight. `slow_start_s`: a member that is
    new, or back, gets its full share after so long. `zones`: "prefer" sends to other zones what the own has no room for."""

    algorithm: str = "least_requests"
    hash_by: str = "client"
    hash_name: str = ""
    hash_load: float = 1.25
    slow_start_s: float = 0.0
    zones: str = "ignore"


@dataclass(frozen=True, slots=True)
class Outlier:
    """Members that do worse than the others are taken out for a while. `success_deviations`: below the mean success rate by
    so many standard deviations; `latency_factor`: above the median latency by so many times; 0: not by this."""

    success_deviations: float = 0.0
    latency_factor: float = 0.0
    ejected_percent_max: int = 10
    interval_s: float = 10.0
    requests_min: int = 100


@dataclass(frozen=True, slots=True)
class Limits:
    """0: no limit. `in_flight`: requests at each entry; `endpoint_*`: of each engine to each endpoint; `pending`: how many wait,
    `pending_timeout_s` at most, for one of those in flight to end. `adaptive`: the limit in flight follows the latency."""

    in_flight: int = 0
    endpoint_in_flight: int = 0
    endpoint_connections: int = 0
    pending: int = 0
    pending_timeout_s: float = 1.0
    adaptive: bool = False


@dataclass(frozen=True, slots=True)
class Path:
    """`encoded_slash`: a path with `%2F` is refused on public nodes, or kept as it is."""

    encoded_slash: str = "refuse"


@dataclass(frozen=True, slots=True)
class Traffic:
    """`timeout_s`: from the first try to the head of the answer; `try_timeout_s`: the same for each try that may be repeated;
    0: none but the node's. `retries_max`: tries after the first, as far as the retry budget pays for them; -1: any number.
    `hedge_s`: a request that may be done twice and has no answer after so long is asked of a second endpoint; 0: never.
    `proxy_protocol`: a header of that version goes ahead of each request to an instance."""

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
            raise top.fail("retries_max", f"use a whole number up to {RETRIES_MAX}, or -1 for any number")
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
        return asdict(self)


def _seconds(reader: Reader, key: str, default: float) -> float:
    """0, or from a millisecond on: what is less would be none."""
    value = reader.number(key, default, 0, 3600)
    if 0 < value < 0.001:
        raise reader.fail(key, "use 0, or a number from 0.001 to 3600")
    return value


def _path(top: Reader) -> Path:
    reader = top.inner("path", ("encoded_slash",))
    return Path() if reader is None else Path(reader.one_of("encoded_slash", ENCODED_SLASH, "refuse"))


def _balance(top: Reader) -> Balance:
    reader = top.inner("balance", tuple(Balance.__dataclass_fields__))
    if reader is None:
        return Balance()
    algorithm = reader.one_of("algorithm", ALGORITHMS, "least_requests")
    by = reader.one_of("hash_by", HASH_BY, "client")
    name = reader.name("hash_name", f"name the {by} that tells one request from another")
    if algorithm == "hash" and by in ("header", "cookie") and not name:
        raise reader.fail("hash_name", f"name the {by} that tells one request from another")
    return Balance(
        algorithm=algorithm,
        hash_by=by,
        hash_name=name,
        hash_load=reader.number("hash_load", 1.25, 1, 100),
        slow_start_s=_seconds(reader, "slow_start_s", 0.0),
        zones=reader.one_of("zones", ZONES, "ignore"),
    )


def _outlier(top: Reader) -> Outlier:
    reader = top.inner("outlier", tuple(Outlier.__dataclass_fields__))
    if reader is None:
        return Outlier()
    factor = reader.number("latency_factor", 0.0, 0, 1000)
    if 0 < factor <= 1:
        raise reader.fail("latency_factor", "use 0, or a number over 1: half of the members are at the median or above")
    return Outlier(
        success_deviations=reader.number("success_deviations", 0.0, 0, 100),
        latency_factor=factor,
        ejected_percent_max=reader.count("ejected_percent_max", 10, 100),
        interval_s=reader.number("interval_s", 10.0, 1, 3600),
        requests_min=reader.count("requests_min", 100, COUNT_MAX),
    )


def _limits(top: Reader) -> Limits:
    reader = top.inner("limits", tuple(Limits.__dataclass_fields__))
    if reader is None:
        return Limits()
    return Limits(
        in_flight=reader.count("in_flight", 0, COUNT_MAX),
        endpoint_in_flight=reader.count("endpoint_in_flight", 0, COUNT_MAX),
        endpoint_connections=reader.count("endpoint_connections", 0, COUNT_MAX),
        pending=reader.count("pending", 0, COUNT_MAX),
        pending_timeout_s=_seconds(reader, "pending_timeout_s", 1.0),
        adaptive=reader.flag("adaptive", False),
    )
