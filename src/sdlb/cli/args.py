"""What the commands' parsers share: errors in one line, and the options that several commands have."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn, Protocol

from sdlb.sdk.calls import DEFAULT_SOCKET


class Commands(Protocol):
    """What `ArgumentParser.add_subparsers` returns."""

    def add_parser(self, name: str, **kwargs: Any) -> Any: ...


class Usage(Exception):
    """Wrong usage: exit code 2."""

    def __init__(self, prog: str, text: str) -> None:
        super().__init__(text)
        self.prog = prog


class Parser(argparse.ArgumentParser):
    """Raises `Usage` for an error. Options cannot be abbreviated, so that new ones break no script."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise Usage(self.prog, message)


def add_socket(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--socket",
        metavar="PATH",
        help=f"the local node's API socket (default: SDLB_SOCKET, else {DEFAULT_SOCKET})",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON (its fields: docs/reference/cli.md)")


def add_as(parser: argparse.ArgumentParser) -> None:
    """The value is `as_`."""
    parser.add_argument(
        "--as",
        dest="as_",
        default="",
        metavar="NAME",
        help="record this name instead of yours; only root and the user of the node may give one",
    )


def seconds(text: str) -> float:
    """Seconds, over zero."""
    value = seconds_or_zero(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not greater than 0")
    return value


def seconds_or_zero(text: str) -> float:
    """Seconds, zero or more; "inf" and "nan" are no times."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds")
    return value


def count(text: str) -> int:
    """A whole number of one or more."""
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 1_000_000_000:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 1 or more")
    return int(text)


def port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port (1 to 65535)")
    return int(text)


def health(text: str) -> str:
    if text not in ("tcp", "none") and not text.startswith("/"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a health check; use a path like /health, 'tcp' or 'none'")
    return text


def label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE")
    return name, value
