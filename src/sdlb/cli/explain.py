"""`sdlb explain URL`: where a request would go from this node, by which rule, and why not elsewhere."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from sdlb.cli import args as options
from sdlb.cli import out
from sdlb.sdk.client import Client
from sdlb.sdk.types import Explanation, TargetChoice


def add_parser(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "explain",
        description="Shows where a request for URL would go if it entered at this node: the route that matches, the "
        "version, the instance or child node, and the rejected alternatives. Exit code 1 when the request "
        "would reach no endpoint.",
    )
    parser.add_argument("url", metavar="URL", help="for example http://example.com/catalog/7 or example.com/catalog/7")
    options.add_socket(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    with Client(args.socket) as client:
        explanation = client.explain(args.url)
    if args.json:
        out.json(explanation)
    else:
        for label, *line in lines(explanation):
            out.line((f"{label:<9}", "bold"), *line, hang=" " * 9)
    return 1 if explanation.status else 0


def lines(explanation: Explanation) -> Iterator[tuple[str, *tuple[out.Piece, ...]]]:
    """Labelled lines: first the result, then the rejected alternatives ("not")."""
    yield ("request", explanation.url, (f"  entering at {explanation.node}", "dim"))
    if explanation.route:
        yield ("route", (explanation.route, "bold"), _note(explanation.rule))
        yield ("service", explanation.service)
    for choice in explanation.versions:
        if choice.chosen:
            share = f"  {choice.share:.4g}%" if choice.share else ""
            yield ("version", (choice.version, "green"), share, _note(choice.why))
    for (name, address), versions in _reached(explanation.targets).items():
        yield ("goes to", (name, "green"), f"  {address}", _note(", ".join(versions)))
    for target in explanation.targets:
        if target.chosen and target.why:
            yield ("note", (f"{_name(target)}: {target.why}", "yellow"))
    if explanation.status:
        reason = explanation.reason or "no reason given"
        yield ("answer", (f"{explanation.status} from {explanation.node}: {reason}", "red"))
    elif explanation.reason:
        yield ("note", explanation.reason)
    for choice in explanation.versions:
        if not choice.chosen:
            yield ("not", f"{explanation.service} {choice.version}", _because(choice.why))
    for target in explanation.targets:
        if not target.chosen:
            yield ("not", f"{_name(target)} ({target.version})", _because(target.why))
    for other in explanation.others:
        yield ("not", f"{other.route} of {other.service}", _because(other.why))


def _reached(targets: Sequence[TargetChoice]) -> dict[tuple[str, str], list[str]]:
    """Where the request may go -> with which versions."""
    reached: dict[tuple[str, str], list[str]] = {}
    for target in targets:
        if target.chosen:
            reached.setdefault((_name(target), target.address), []).append(target.version)
    return reached


def _name(target: TargetChoice) -> str:
    """ "n:rack-1" and "i:catalog-a" without the engine's prefix."""
    kind, colon, name = target.name.partition(":")
    return f"{target.kind or 'target'} {name if colon and kind in ('n', 'i') else target.name}"


def _note(text: str) -> out.Piece:
    return (f"  ({text})", "dim") if text else ""


def _because(text: str) -> out.Piece:
    return (f": {text}", "dim") if text else ""
