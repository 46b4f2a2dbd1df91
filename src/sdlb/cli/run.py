"""`sdlb run ... NAME-VERSION -- CMD...`: runs any program as an instance of a service."""

from __future__ import annotations

import argparse
import asyncio
import random

from sdlb.cli import args as options
from sdlb.cli import instance_args, out
from sdlb.sdk.calls import default_socket

PROG = "sdlb run"
TAKES_PROGRAM = True
"""What follows `--` is not parsed but comes as `args.program`."""


def add_parser(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "run",
        usage="sdlb run --route ROUTE... [options] NAME-VERSION -- CMD...",
        description="Picks a free port, starts CMD with it in the environment ('{port}' in CMD is replaced too), waits "
        "until it is healthy, registers it and keeps its lease. SIGTERM: drains it, then stops it. Ends with CMD's "
        "exit code.",
    )
    instance_args.add_instance(parser)
    parser.add_argument(
        "--port-env", default="PORT", metavar="NAME", help="the variable that tells CMD its port (PORT)"
    )
    parser.add_argument("--port", type=options.port, metavar="N", help="this port instead of a free one")
    parser.add_argument(
        "--ttl", type=options.positive, default=10.0, metavar="S", help="the lease; renewed after a third of it (10)"
    )
    parser.add_argument(
        "--start-timeout", type=options.positive, default=60.0, metavar="S", help="how long to become healthy (60)"
    )
    parser.add_argument(
        "--drain-deadline",
        type=options.not_negative,
        default=30.0,
        metavar="S",
        help="how long requests in flight may take when it is stopped (30)",
    )
    parser.add_argument(
        "--stop-grace", type=options.positive, default=10.0, metavar="S", help="from SIGTERM to SIGKILL for CMD (10)"
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors on stderr")


def run(args: argparse.Namespace) -> int:
    if not args.program:
        raise options.Usage(PROG, "the program is missing: put its command line behind '--'")
    name = instance_args.name_of(args, PROG)  # before a port is taken: wrong usage does nothing
    instance_args.check(args, name)
    from sdlb.cli.ports import HeldPort, hold_free_port, is_free
    from sdlb.cli.running import Job, Run

    if args.port and not is_free(args.port):
        # Whoever has it would be taken for the program, and be sent its requests.
        out.tell(f"{PROG}: port {args.port} is in use already; name another, or leave --port out")
        return 1
    held = HeldPort(args.port, None) if args.port else hold_free_port(random.Random())
    spec = instance_args.spec_of(args, name, endpoint=f"127.0.0.1:{held.port}")
    job = Job(
        spec=spec,
        words=tuple(word.replace("{port}", str(held.port)) for word in args.program),
        port=held.port,
        port_env=args.port_env,
        socket=args.socket or default_socket(),
        start_timeout_s=args.start_timeout,
        drain_deadline_s=args.drain_deadline,
        stop_grace_s=args.stop_grace,
    )

    def fail(text: str) -> None:
        out.tell(f"{PROG}: {text}")

    return asyncio.run(Run(job, _silence if args.quiet else fail, fail).live())


def _silence(_: str) -> None:
    """--quiet"""
