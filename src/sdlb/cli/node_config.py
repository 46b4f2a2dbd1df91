"""The configuration of the local node, for commands that read its files: `--config FILE`, or that of the running node.

The running node is found by its API socket. Its command, environment and working folder (proc(5)) give the same settings that it
started with.
"""

from __future__ import annotations

import argparse
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sdlb.cli import args as options
from sdlb.model.problem import Invalid

if TYPE_CHECKING:
    from sdlb.node.config import NodeConfig, Options

CODE = "no-node"


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="the node file (default: the settings of the running node)")
    options.add_socket(parser)


def node_config(args: argparse.Namespace) -> tuple[NodeConfig, int]:
    """The configuration, and the process of the running node that has it (0: `--config` names a file and that node does not
    run). Raises Invalid."""
    from sdlb.node.config import Options, read_config

    if args.config is not None:
        config = read_config(Options(config=str(Path(args.config).absolute()), socket=args.socket))
        return config, _listener(str(config.socket))
    from sdlb.sdk.calls import default_socket

    path = args.socket or default_socket()
    pid = _listener(path)
    if not pid:
        raise Invalid(CODE, path, "no node answers there", "start it, or name its node file with --config")
    chosen, environment = _running(pid)
    return read_config(chosen, environment), pid


def _listener(path: str) -> int:
    """The process at the other end of the API socket; 0: none answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        try:
            probe.connect(path)
            raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return 0
    return struct.unpack("3i", raw)[0]


def _running(pid: int) -> tuple[Options, dict[str, str]]:
    from sdlb.cli import node

    proc = Path("/proc") / str(pid)
    try:
        words = (proc / "cmdline").read_bytes().decode("utf-8", "surrogateescape").split("\0")[:-1]
        lines = (proc / "environ").read_bytes().decode("utf-8", "surrogateescape").split("\0")
        folder = os.readlink(proc / "cwd")
    except OSError as error:
        do = "run this command as the user of the node or as root, or name the node file with --config"
        raise Invalid(CODE, f"process {pid}", f"its command cannot be read ({error.strerror})", do) from None
    parser = options.Parser(prog="sdlb", add_help=False)
    node.add_parser(parser.add_subparsers(parser_class=options.Parser))
    try:
        found = node.options_of(parser.parse_args(words[words.index("node") :]))
    except (ValueError, options.Usage):
        do = "name its node file with --config"
        raise Invalid(CODE, f"process {pid}", f"its command is not 'sdlb node': {' '.join(words)[:200]}", do) from None

    def absolute(path: str | None) -> str | None:
        return None if path is None else os.path.join(folder, path)

    found = replace(
        found, config=absolute(found.config), state_dir=absolute(found.state_dir), socket=absolute(found.socket)
    )
    return found, dict(line.split("=", 1) for line in lines if "=" in line)
