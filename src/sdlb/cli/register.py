"""`sdlb register`: registers a program that already runs, by hand."""

from __future__ import annotations

import argparse

from sdlb.cli import args as options
from sdlb.cli import instance_args, out
from sdlb.sdk.calls import default_socket
from sdlb.sdk.client import Client
from sdlb.sdk.pids import visible_pid

PROG = "sdlb register"


def add_parser(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "register",
        usage="sdlb register --route ROUTE... (--port N | --endpoint ADDR) [options] NAME-VERSION",
        description="Registers a program that already runs on this host. It gets traffic while its health check "
        "passes. It stays registered until 'sdlb deregister', until the process --pid exits, or until --ttl "
        "passes without another 'sdlb register'.",
    )
    instance_args.add_instance(parser)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--port", type=options.port, metavar="N", help="the program listens on 127.0.0.1 at this port")
    where.add_argument(
        "--endpoint", metavar="ADDR", help="the address the program listens on: 127.0.0.1:8001 or unix:/path"
    )
    parser.add_argument(
        "--pid",
        type=options.count,
        default=0,
        metavar="N",
        help="the process to watch; when it exits, the instance is removed",
    )
    parser.add_argument(
        "--ttl", type=options.seconds_or_zero, default=0.0, metavar="S", help="the lease (default 0: no lease)"
    )
    parser.add_argument(
        "--wait",
        type=options.seconds,
        metavar="S",
        help="return when the instance is active; exit code 1 when it is not within S",
    )
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    name = instance_args.name_of(args, PROG)
    endpoint = args.endpoint or f"127.0.0.1:{args.port}"
    pid = visible_pid(args.socket or default_socket(), args.pid)
    spec = instance_args.spec_of(args, name, endpoint=endpoint, pid=pid)
    instance_args.check(spec)
    with Client(args.socket) as client:
        instance = client.register(spec)
        if args.wait:
            instance = client.instance(spec.id, "active", args.wait)
    if args.json:
        out.json(instance)
    else:
        out.line(instance.id, "  ", out.state(instance.state, instance.reason))
    if args.wait and instance.state != "active":
        why = f": {instance.reason}" if instance.reason else ""
        out.message(f"{PROG}: {spec.label} is {instance.state}, not active, after {args.wait:g} s{why}")
        return 1
    return 0
