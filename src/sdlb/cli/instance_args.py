"""The arguments that `run` and `register` share: the service, its routes and the other fields of an instance."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from sdlb.cli import args as options
from sdlb.node.probe import STATUS
from sdlb.sdk.problem import Problem
from sdlb.sdk.types import Health, Spec, split_name


class Several(argparse.Action):
    """One or more values, and the option may come again: `--route a b --route c`."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        had: list[str] = getattr(namespace, self.dest) or []
        setattr(namespace, self.dest, [*had, *(values or ())])
        namespace.last_several = self.dest


def add_instance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name_version", nargs="?", metavar="NAME-VERSION", help="for example catalog-1.0.1")
    parser.add_argument("--service", metavar="NAME", help="the service, if it cannot be written as NAME-VERSION")
    parser.add_argument("--version", metavar="VERSION", help="the version, together with --service")
    parser.add_argument(
        "--route",
        dest="routes",
        action=Several,
        nargs="+",
        metavar="ROUTE",
        help="a route pattern, for example 'example.com/catalog*'; one or more, may be repeated",
    )
    parser.add_argument(
        "--compatible",
        action=Several,
        nargs="+",
        default=[],
        metavar="C",
        help="versions compatible with this one, for example '>=1.0,<1.2'; one or more, may be repeated",
    )
    parser.add_argument(
        "--health",
        type=options.health,
        default="tcp",
        metavar="PATH|tcp|none",
        help="the health check: an HTTP path that answers 2xx or 3xx, or a TCP connection (default tcp)",
    )
    parser.add_argument(
        "--health-host", default="", metavar="HOST", help="the Host header of the check (default: the endpoint)"
    )
    parser.add_argument(
        "--health-status",
        default=STATUS,
        metavar="RANGE",
        help=f"the status codes of a healthy response, for example 200-299 or 200,204 ({STATUS})",
    )
    parser.add_argument(
        "--health-interval", type=options.seconds, default=2.0, metavar="S", help="the interval between checks (2)"
    )
    parser.add_argument(
        "--health-timeout", type=options.seconds, default=1.0, metavar="S", help="the timeout of a check (1)"
    )
    parser.add_argument(
        "--health-rise",
        type=options.count,
        default=1,
        metavar="N",
        help="successful checks in a row until the instance is healthy (1)",
    )
    parser.add_argument(
        "--health-fall",
        type=options.count,
        default=2,
        metavar="N",
        help="failed checks in a row until the instance is unhealthy (2)",
    )
    parser.add_argument(
        "--capacity",
        type=options.count,
        default=100,
        metavar="N",
        help="concurrent requests that the instance can handle; its weight in load balancing (default 100)",
    )
    parser.add_argument(
        "--protocol",
        choices=("http1", "h2c", "tcp"),
        default="http1",
        help="the protocol of the endpoint (default http1; tcp is not supported in this version)",
    )
    parser.add_argument(
        "--label",
        dest="labels",
        action="append",
        type=options.label,
        default=[],
        metavar="NAME=VALUE",
        help="a label of the instance; may be repeated",
    )
    parser.add_argument("--id", metavar="ID", help="the instance's id on this host (default: generated)")
    options.add_socket(parser)


def name_of(args: argparse.Namespace, prog: str) -> tuple[str, str]:
    """(service, version). Raises Usage.

    `--route a b catalog-1.0.1` leaves the name among the routes: an option with several values takes all that follow.
    """
    last: str | None = getattr(args, "last_several", None)
    apart = args.service is not None or args.version is not None
    if args.name_version is None and not apart and last is not None and len(getattr(args, last)) > 1:
        args.name_version = getattr(args, last).pop()
    if not args.routes:
        raise options.Usage(prog, "--route is required, for example --route 'example.com/catalog*'")
    if apart:
        if args.service is None or args.version is None or args.name_version is not None:
            raise options.Usage(prog, "give NAME-VERSION, or both --service and --version")
        return args.service, args.version
    if args.name_version is None:
        raise options.Usage(prog, "NAME-VERSION is missing, for example catalog-1.0.1")
    try:
        return split_name(args.name_version)
    except Problem as problem:
        raise options.Usage(prog, problem.detail) from problem


def check(spec: Spec) -> None:
    """Checks the spec as the node does, before a program is started for it. Raises Invalid."""
    import msgspec

    from sdlb.model.version import check_service, check_version
    from sdlb.node.specs import InstanceBody, decode, read_spec

    check_service(spec.service)  # before the id that is made of them
    check_version(spec.version)
    body = decode(InstanceBody, msgspec.json.encode(spec.body()), "usage", f"instance {spec.id}")
    read_spec(spec.id, body)


def health_of(args: argparse.Namespace) -> Health:
    kind, path = ("http", args.health) if args.health.startswith("/") else (args.health, "/")
    return Health(
        kind=kind,
        path=path,
        interval_s=args.health_interval,
        timeout_s=args.health_timeout,
        rise=args.health_rise,
        fall=args.health_fall,
        host=args.health_host,
        status=args.health_status,
    )


def spec_of(args: argparse.Namespace, name: tuple[str, str], *, endpoint: str, pid: int = 0) -> Spec:
    return Spec.of(
        name,
        routes=args.routes,
        endpoint=endpoint,
        id=args.id,
        health=health_of(args),
        protocol=args.protocol,
        compatible=args.compatible,
        capacity=args.capacity,
        ttl_s=args.ttl,
        pid=pid,
        labels=dict(args.labels),
    )
