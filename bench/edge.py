"""CPU per request at the public edge, in the typical cases of an edge: beside nginx, HAProxy, Envoy and a blind forwarder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc

from bench import load, processes
from bench.certificates import HOST
from bench.peers import GRPC_PATH, Addresses
from bench.report import CannotRun, Report, Row
from bench.stand import Stand

ROUTES = 10_000
MESSAGE = b"x" * 64
DEBIAN = ("nginx", "haproxy")
BEST = (*DEBIAN, "envoy")
PEERS = (*BEST, "floor")


@dataclass(frozen=True, slots=True)
class Limit:
    """The maximum cost of the engine, relative to the cheapest of these peers."""

    share: float
    of: Sequence[str]

    @property
    def words(self) -> str:
        return self.of[0] if len(self.of) == 1 else "the best of " + ", ".join(self.of)


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    title: str
    words: Callable[[Stand, Addresses, int], Sequence[str]]
    limits: Sequence[Limit]
    peers: Sequence[str] = BEST


def _wrk(tail: str, connections: int, scheme: str, close: bool = False) -> Callable[..., Sequence[str]]:
    def build(stand: Stand, to: Addresses, seconds: int) -> Sequence[str]:
        script = load.script(stand.folder / "ask.lua", stand.routes, tail, close)
        return load.wrk(script, f"{scheme}://{to.https if scheme == 'https' else to.http}", connections, seconds)

    return build


def _h2(stand: Stand, to: Addresses, seconds: int) -> Sequence[str]:
    return load.h2load([f"https://{to.https}/service-{n * 7 % stand.routes}/x" for n in range(1000)], seconds)


def _grpc(stand: Stand, to: Addresses, seconds: int) -> Sequence[str]:
    body = stand.folder / "message"
    body.write_bytes(b"\0" + len(MESSAGE).to_bytes(4, "big") + MESSAGE)
    fields = ("-H", "content-type: application/grpc", "-H", "te: trailers")
    return load.h2load([f"http://{to.h2c}{GRPC_PATH}Unary"], seconds, "-d", str(body), *fields)


HTTP1 = Case(
    *("h1", "HTTP/1.1, 64 connections, 512 bytes", _wrk("/x", 64, "http")),
    *((Limit(0.80, DEBIAN), Limit(1.25, ("floor",))), PEERS),
)
CASES = (
    HTTP1,
    Case("mib", "HTTP/1.1, 16 connections, 1 MiB", _wrk("/large", 16, "http"), (Limit(0.90, BEST),)),
    Case(
        *("h2-tls", "HTTP/2 over TLS, 8 connections, 32 streams", _h2),
        (Limit(1.0, ("haproxy",)), Limit(0.30, ("envoy",))),
    ),
    Case("h1-tls", "HTTP/1.1 over TLS, 64 connections", _wrk("/x", 64, "https"), (Limit(0.85, BEST),)),
    Case(
        *("handshakes", "a full handshake and one request", _wrk("/x", 16, "https", close=True)),
        (Limit(0.55, ("haproxy",)),),
    ),
    Case("grpc", "gRPC unary unencrypted, 8 connections, 32 streams", _grpc, (Limit(0.50, ("envoy",)),)),
)


def run(quick: bool) -> Report:
    """Raises CannotRun."""
    load.need("h2load", "openssl", "nginx", "haproxy")
    rounds = 3 if quick else 9
    took: dict[str, dict[str, list[float]]] = {}
    with Stand(ROUTES, PEERS) as stand:
        for case in CASES:
            names = [name for name in ("sdlb", *case.peers) if name in stand.addresses]
            if case.name == "grpc":
                for name in names:
                    _call(name, stand.addresses[name])
            took[case.name] = cost(stand, case, names, rounds, 1 if quick else 2)
        versions, absent = stand.versions, stand.absent
    rows = [row for case in CASES for row in rows_of(case, took[case.name])]
    how = [
        f"CPU time a request (user and system), {ROUTES:,} routes, statistics and access log on, one worker each on the same",
        f"core; median (lowest to highest) of {rounds} runs in turn. " + "; ".join(versions.values()) + ".",
        *(f"{name} was not measured: {why}." for name, why in absent.items()),
    ]
    return Report(
        "edge", "CPU per request at the public edge", how, rows, {"us_per_request": took, "versions": versions}
    )


def cost(stand: Stand, case: Case, names: Sequence[str], rounds: int, seconds: int) -> dict[str, list[float]]:
    """Microseconds of CPU a request, by proxy."""

    def one(name: str, warm_up: bool) -> float:
        return stand.cost_us(name, case.words(stand, stand.addresses[name], 1 if warm_up else seconds))[0]

    return processes.interleaved(names, rounds, one)


def rows_of(case: Case, took: dict[str, list[float]]) -> list[Row]:
    us = {name: processes.median(values) for name, values in took.items()}
    rows: list[Row] = []
    for limit in case.limits:
        there = [us[name] for name in limit.of if name in us]
        others = ", ".join(f"{name} {us[name]:.1f}" for name in us if name != "sdlb")
        measured = f"{us['sdlb']:.1f} us ({min(took['sdlb']):.1f} to {max(took['sdlb']):.1f}); {others}"
        if not there:
            rows.append(Row(case.title, f"{limit.share:.2f} x {limit.words}", f"{measured}; no {limit.words}"))
            continue
        most = limit.share * min(there)
        target = f"<= {most:.1f} us ({limit.share:.2f} x {limit.words})"
        rows.append(Row(case.title, target, f"{us['sdlb'] / min(there):.2f} x: {measured}", us["sdlb"] <= most))
    return rows


def _call(name: str, to: Addresses) -> None:
    """Verifies that gRPC is measured, by one call of a complete gRPC client. Raises CannotRun."""
    with grpc.insecure_channel(to.h2c, [("grpc.default_authority", HOST)]) as channel:
        unary = channel.unary_unary(f"{GRPC_PATH}Unary")
        try:
            answer = unary(MESSAGE, timeout=10)
        except grpc.RpcError as error:
            raise CannotRun(f"gRPC through {name}: {error}") from None
    if answer != MESSAGE:
        raise CannotRun(f"gRPC through {name} was answered {answer!r}")
