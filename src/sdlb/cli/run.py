"""`sdlb run ... NAME-VERSION -- CMD...`: runs any program as an instance of a service."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import socket
import tempfile

from msgspec import Struct

from sdlb.cli import args as options
from sdlb.cli import instance_args, out
from sdlb.sdk.calls import default_socket

PROG = "sdlb run"
TAKES_INTERRUPTS = True
TAKES_PROGRAM = True
"""What follows `--` is not parsed but comes as `args.program`."""


def add_parser(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "run",
        usage="sdlb run --route ROUTE... [options] NAME-VERSION -- CMD...",
        description="Picks a free port, starts CMD with the port in its environment ('{port}' in CMD is replaced too), "
        "waits until it is healthy, registers it and renews its lease. SIGTERM drains the instance, then "
        "stops CMD. Exits with CMD's exit code.",
    )
    instance_args.add_instance(parser)
    parser.add_argument(
        "--port-env", default="PORT", metavar="NAME", help="the environment variable with CMD's port (PORT)"
    )
    parser.add_argument("--port", type=options.port, metavar="N", help="use this port instead of a free one")
    parser.add_argument(
        "--host", choices=("127.0.0.1", "::1"), default="127.0.0.1", help="the address that CMD listens on (127.0.0.1)"
    )
    parser.add_argument(
        "--unix",
        nargs="?",
        const="",
        metavar="PATH",
        help="CMD listens on a Unix socket instead: at PATH, or in a temporary folder. '{socket}' in CMD is "
        "replaced by the path",
    )
    parser.add_argument(
        "--socket-env",
        default="SOCKET",
        metavar="NAME",
        help="the environment variable with CMD's Unix socket (SOCKET)",
    )
    parser.add_argument(
        "--ttl", type=options.seconds, default=10.0, metavar="S", help="the lease, renewed after a third of it (10)"
    )
    parser.add_argument(
        "--start-timeout",
        type=options.seconds,
        default=60.0,
        metavar="S",
        help="maximum time until CMD is healthy (60)",
    )
    parser.add_argument(
        "--drain-deadline",
        type=options.seconds_or_zero,
        default=30.0,
        metavar="S",
        help="maximum time to drain when CMD is stopped (30)",
    )
    parser.add_argument(
        "--stop-grace",
        type=options.seconds,
        default=10.0,
        metavar="S",
        help="the time between SIGTERM and SIGKILL for CMD (10)",
    )
    parser.add_argument("--quiet", action="store_true", help="print only errors on stderr")


def run(args: argparse.Namespace) -> int:
    if not args.program:
        raise options.Usage(PROG, "the program is missing; give its command line after '--'")
    if args.unix is not None and (args.port or args.host == "::1"):
        raise options.Usage(PROG, "--unix cannot be combined with --port or --host")
    name = instance_args.name_of(args, PROG)  # checked before a port is taken, so that wrong usage has no effect
    instance_args.check(instance_args.spec_of(args, name, endpoint=f"unix:{args.unix}" if args.unix else "127.0.0.1:1"))
    with contextlib.ExitStack() as stack:
        place = _unix(args, stack) if args.unix is not None else _tcp(args)
        return 1 if place is None else _run(args, name, place)


class Place(Struct, frozen=True):
    """The address for the program to listen on, and how the program receives it. `held`: kept while the address is in
    use."""

    endpoint: str
    variable: str
    value: str
    marker: str
    listens_at: str
    held: object = None


def _tcp(args: argparse.Namespace) -> Place | None:
    from sdlb.node.ports import HeldPort, hold_free_port, is_free

    if args.port and not is_free(args.port):
        # Another process on this port would be taken for the program and get its requests.
        out.message(f"{PROG}: port {args.port} is already in use; use another port, or leave out --port")
        return None
    held = HeldPort(args.port, None) if args.port else hold_free_port(random.Random())
    host = f"[{args.host}]" if ":" in args.host else args.host
    listens_at = f"the port in {args.port_env}" + (f", at {args.host}" if ":" in args.host else "")
    return Place(f"{host}:{held.port}", args.port_env, str(held.port), "{port}", listens_at, held)


def _unix(args: argparse.Namespace, stack: contextlib.ExitStack) -> Place | None:
    path = args.unix
    if not path:
        path = f"{stack.enter_context(tempfile.TemporaryDirectory(prefix='sdlb-run-'))}/app.sock"
    elif is_taken(path):
        out.message(f"{PROG}: another process listens on {path}; use another path, or leave it out")
        return None
    return Place(f"unix:{path}", args.socket_env, path, "{socket}", f"the Unix socket in {args.socket_env}")


def is_taken(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


def _run(args: argparse.Namespace, name: tuple[str, str], place: Place) -> int:
    from sdlb.cli.running import Job, Run

    job = Job(
        spec=instance_args.spec_of(args, name, endpoint=place.endpoint),
        words=tuple(word.replace(place.marker, place.value) for word in args.program),
        variables={place.variable: place.value},
        listens_at=place.listens_at,
        socket=args.socket or default_socket(),
        start_timeout_s=args.start_timeout,
        drain_deadline_s=args.drain_deadline,
        stop_grace_s=args.stop_grace,
    )

    def fail(text: str) -> None:
        out.message(f"{PROG}: {text}")

    return asyncio.run(Run(job, _silence if args.quiet else fail, fail).live())


def _silence(_: str) -> None:
    """--quiet"""
