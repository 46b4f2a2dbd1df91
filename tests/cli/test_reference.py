"""docs/reference/cli.md names every command and every option; the API's page every call of the client."""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import sdlb
from sdlb.cli.app import COMMANDS, LATER
from sdlb.cli.args import Parser

DOCS = Path(__file__).parents[2] / "docs" / "reference"
CLI = (DOCS / "cli.md").read_text(encoding="utf-8")
API = (DOCS / "api.md").read_text(encoding="utf-8")
OURS = [name for name in COMMANDS if name not in ("demo", "sim")]


def section(name: str) -> str:
    """The part of the page under the heading that names the command."""
    for part in re.split(r"^## ", CLI, flags=re.MULTILINE):
        if re.search(rf"\bsdlb {name}\b", part.partition("\n")[0]):
            return part
    raise AssertionError(f"docs/reference/cli.md has no section for sdlb {name}")


def options_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:  # pyright: ignore[reportPrivateUsage]
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
            for below in action.choices.values():
                if below.add_help:  # else it is reserved for a later version
                    yield from options_of(below)
        elif not isinstance(action, argparse._HelpAction):  # pyright: ignore[reportPrivateUsage]
            yield from action.option_strings or [str(action.metavar)]


@pytest.mark.parametrize("name", OURS)
def test_every_option_is_documented(name: str) -> None:
    parser = Parser(prog="sdlb")
    importlib.import_module(COMMANDS[name][0]).add_parser(parser.add_subparsers(parser_class=Parser))
    text = section(name)
    missing = [option for option in options_of(parser) if not re.search(rf"`[^`]*{re.escape(option)}\b[^`]*`", text)]
    assert not missing


def test_every_documented_option_exists() -> None:
    known: set[str] = {"--help"}
    for name in (*OURS, "sim"):
        parser = Parser(prog="sdlb")
        importlib.import_module(COMMANDS[name][0]).add_parser(parser.add_subparsers(parser_class=Parser))
        known |= set(options_of(parser))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", CLI))
    assert named <= known


def test_commands_that_come_later_are_named() -> None:
    for name in LATER:
        assert f"`{name}`" in CLI


@pytest.mark.parametrize("client", [sdlb.Client, sdlb.AsyncClient])
def test_every_method_of_the_clients_is_documented_and_both_have_the_same(client: type) -> None:
    methods = {name for name in vars(client) if not name.startswith("_")}
    assert methods == {name for name in vars(sdlb.Client) if not name.startswith("_")}
    missing = [name for name in methods - {"close"} if f"`{name}(" not in API and f" `{name}(" not in API]
    assert not missing


def test_every_argument_of_serve_is_in_the_put_body_or_named() -> None:
    for name in inspect.signature(sdlb.serve).parameters:
        assert f'"{name}"' in API or f"`{name}`" in API or f"{name}=" in API or name == "name_version", name
