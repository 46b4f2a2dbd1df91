"""One running process of a service version, as its host registers it (`PUT /v1/instances/{id}`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How the host node asks the instance whether it is well. `kind`: "http", "tcp" or "none".

    `host`: what an HTTP check asks for ("": the endpoint); `status`: which answers are well, "200-399" or "200,204".
    """

    kind: str = "tcp"
    path: str = "/"
    interval_s: float = 2.0
    timeout_s: float = 1.0
    rise: int = 1
    fall: int = 2
    host: str = ""
    status: str = "200-399"


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """Validated and canonical: routes are `str(Pattern)`, endpoint is "host:port" or "unix:/path".

    `protocol`: "http1", or "h2c" (HTTP/2 in clear text with prior knowledge: gRPC servers).
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
    ttl_s: float = 10.0  # 0: no lease
    pid: int = 0  # 0: not watched
    labels: tuple[tuple[str, str], ...] = ()
