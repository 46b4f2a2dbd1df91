"""One running process of a service version, as its host registers it (`PUT /v1/instances/{id}`)."""

from __future__ import annotations

from msgspec import Struct


class HealthCheck(Struct, frozen=True):
    """The health check that the host node runs. `kind`: "http", "tcp" or "none".

    `rise`, `fall`: consecutive results that change the state. `host`: the Host header of an HTTP check ("": the endpoint).
    `status`: the response codes that count as healthy, "200-399" or "200,204".
    """

    kind: str = "tcp"
    path: str = "/"
    interval_s: float = 2.0
    timeout_s: float = 1.0
    rise: int = 1
    fall: int = 2
    host: str = ""
    status: str = "200-399"


class InstanceSpec(Struct, frozen=True):
    """Validated and canonical: routes are `str(Pattern)`, endpoint is "host:port" or "unix:/path".

    `protocol`: "http1", or "h2c" (unencrypted HTTP/2 with prior knowledge, as gRPC servers speak it). `capacity`: requests
    at once. `ttl_s` 0: the registration has no lease. `pid` 0: the process is not watched.
    """

    id: str
    service: str
    version: str
    routes: tuple[str, ...]
    endpoint: str
    protocol: str = "http1"
    compatible: tuple[str, ...] = ()
    capacity: int = 100
    health: HealthCheck = HealthCheck()
    ttl_s: float = 10.0
    pid: int = 0
    labels: tuple[tuple[str, str], ...] = ()
