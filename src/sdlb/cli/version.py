"""`sdlb version`"""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version

from sdlb.cli import args as options
from sdlb.cli import out


def add_parser(commands: options.Commands) -> None:
    parser = commands.add_parser("version", description="Prints the version of this program.")
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    try:
        ours = version("sdlb")
    except PackageNotFoundError:
        ours = "not installed"
    if args.json:
        out.json({"sdlb": ours, "python": platform.python_version()})
    else:
        out.line(f"sdlb {ours} (Python {platform.python_version()})")
    return 0
