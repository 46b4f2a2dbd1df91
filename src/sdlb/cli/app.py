"""From the arguments to a command's exit code.

A command is a module with `add_parser(commands)`, which adds its parser, and `run(args) -> int`.
"""

from __future__ import annotations

import importlib
import signal
import sys
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from sdlb.cli.args import Commands

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("sdlb.cli.demo", "run a whole tree with real services and traffic on this machine"),
    "node": ("sdlb.cli.node", "run one node"),
    "run": ("sdlb.cli.run", "run a program as an instance of a service"),
    "register": ("sdlb.cli.register", "register a program that already runs"),
    "deregister": ("sdlb.cli.deregister", "drain an instance and remove it"),
    "status": ("sdlb.cli.status", "services and versions: active, waiting and why, or refused"),
    "tree": ("sdlb.cli.tree", "the node, its parents, children and instances"),
    "forget": ("sdlb.cli.forget", "remove a child node that has stopped for good"),
    "routes": ("sdlb.cli.routes", "the route table, with the routes that shadow others"),
    "explain": ("sdlb.cli.explain", "where a request for a URL would go, and why"),
    "events": ("sdlb.cli.events", "the events of this node"),
    "policy": ("sdlb.cli.policy", "get or set a service's policy: priority, shares, compatibility"),
    "release": ("sdlb.cli.release", "versions that rollouts may bring to the nodes"),
    "rollout": ("sdlb.cli.rollout", "bring a release to the nodes of a role, node by node"),
    "role": ("sdlb.cli.role", "the services that this node or the tree runs as roles"),
    "route": ("sdlb.cli.route", "give a route to another service"),
    "audit": ("sdlb.cli.audit", "check the security of this node, with fixes"),
    "tls": ("sdlb.cli.tls", "revoke certificates; make DH parameters and PEM files"),
    "sim": ("sdlb.cli.sim", "simulate hundreds of nodes with faults and check the promises"),
    "version": ("sdlb.cli.version", "the version of this program"),
}
"""name -> (module, what it does), in the order of the help text."""

LATER = frozenset({"top", "ca", "token", "join"})
"""Commands that a later version will have; they get a clear message instead of a guess."""

USAGE = frozenset(
    (
        *("usage", "bad-service", "bad-version", "bad-name", "bad-compatible", "bad-route", "bad-host", "bad-path"),
        *("bad-endpoint", "bad-protocol", "bad-health", "bad-id", "bad-label", "bad-ttl", "bad-url", "bad-query"),
    )
)
"""Problem codes that mean an invalid argument (exit code 2), whether the client or the node finds it. Problems of a
policy are not among them: they depend on the current policy or on a file."""


class Command(Protocol):
    def add_parser(self, commands: Commands) -> object: ...
    def run(self, args: object) -> int: ...


def help_text() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: sdlb COMMAND [options]",
            "",
            "A software-defined load balancer: a tree of nodes. Programs register at the",
            "node on their host; policies decide which version of a service gets traffic.",
            "",
            *lines,
            "",
            "'sdlb COMMAND --help' lists the options of a command. --socket or SDLB_SOCKET",
            "names the local node's API socket. Every command that reads has --json.",
            "Exit codes: 0 done, 1 refused or failed, 2 wrong usage.",
        ]
    )


def execute(argv: list[str]) -> int:
    name = next((word for word in argv if not word.startswith("-")), "")
    if argv and argv[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if argv and argv[0] in ("-V", "--version"):
        argv, name = ["version"], "version"
    if not argv:
        print("sdlb: no command given; 'sdlb --help' lists the commands", file=sys.stderr)
        return 2
    if argv[0] != name:
        print(f"sdlb: put options after the command ('{argv[0]}' came first); see 'sdlb --help'", file=sys.stderr)
        return 2
    if name in LATER:
        print(f"sdlb {name}: not supported in this version", file=sys.stderr)
        return 2
    if name not in COMMANDS:
        print(f"sdlb: unknown command '{name}'{_near(name)}; 'sdlb --help' lists the commands", file=sys.stderr)
        return 2
    return _run(name, argv)


def _run(name: str, argv: list[str]) -> int:
    from sdlb.cli.args import Parser, Usage

    try:
        command = cast(Command, importlib.import_module(COMMANDS[name][0]))
        parser = Parser(prog="sdlb", add_help=False)
        commands = parser.add_subparsers(parser_class=Parser)
        command.add_parser(commands)
        program: list[str] = []
        if getattr(command, "TAKES_PROGRAM", False) and "--" in argv:
            at = argv.index("--")
            argv, program = argv[:at], argv[at + 1 :]
        args = parser.parse_args(argv)
        args.program = program
        if getattr(command, "TAKES_INTERRUPTS", False) and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return command.run(args)
    except Usage as error:
        # The top-level parser reports unknown arguments and does not know the command's name.
        prog = error.prog if error.prog != "sdlb" else f"sdlb {name}"
        print(f"{prog}: {error}; see '{prog} --help'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        raise  # for `main`
    except Exception as error:
        line = _one_line(error)
        if line is None:
            raise
        print(f"sdlb {name}: {line}", file=sys.stderr)
        return 2 if getattr(error, "code", "") in USAGE else 1


def _one_line(error: Exception) -> str | None:
    """The message for an error of the user or of the node. None: an internal error, which is shown with its
    traceback."""
    from sdlb.model.problem import Invalid
    from sdlb.sdk.problem import Problem

    if isinstance(error, Problem):
        return error.detail
    if isinstance(error, Invalid):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return None


def _near(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""
