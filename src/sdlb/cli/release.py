"""`sdlb release add`, `list` and `withdraw`: the versions that rollouts may bring to the nodes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sdlb.cli import args as options
from sdlb.cli import out
from sdlb.model.problem import Invalid
from sdlb.model.release import CODE, read_release
from sdlb.model.release import Release as Added
from sdlb.model.requirements import cycle, cycle_text
from sdlb.sdk.client import Client
from sdlb.sdk.rollout_types import Release, ReleaseChanged

HEADERS = ("RELEASE", "PLATFORMS", "REQUIRES", "STATE")


def add_parser(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "release",
        description="Adds, lists and withdraws releases: versions of services, with the digests of their artifacts. A release never "
        "changes.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="add | list | withdraw", required=True)
    add = verbs.add_parser(
        "add",
        help="make a version available",
        description="Adds the release of a file, in TOML or JSON. A release that is known may get more platforms, and nothing else.",
    )
    add.add_argument("file", metavar="FILE", help="the release file")
    options.add_as(add)
    listed = verbs.add_parser("list", help="list the releases", description="Lists the releases that the roots know.")
    listed.add_argument("service", nargs="?", default="", metavar="SERVICE", help="only this service")
    withdraw = verbs.add_parser(
        "withdraw",
        help="make a version unavailable",
        description="Withdraws a release: no rollout to it can start until it is added again, with the same digests. One that nodes have "
        "cannot be withdrawn.",
    )
    withdraw.add_argument("name", metavar="NAME", help="the release, for example catalog-1.0.2")
    options.add_as(withdraw)
    for each in (add, listed, withdraw):
        options.add_socket(each)
        options.add_json(each)


def run(args: argparse.Namespace) -> int:
    if args.verb == "add":
        return _add(args)
    with Client(args.socket) as client:
        if args.verb == "withdraw":
            return _changed(client.withdraw_release(args.name, by=args.as_), args, "withdrew", "was withdrawn already")
        found = client.releases(args.service)
    if args.json:
        out.json(found)
        return 0
    out.table(HEADERS, [row(each) for each in found.releases])
    if not found.releases:
        of = f" of {args.service}" if args.service else ""
        out.line(f"no releases{of} yet; add one with 'sdlb release add FILE'")
    warn(found.unreachable)
    for each in found.disagree:
        out.line((f"{each.service}: {each.text}", "red"))
    return 0


def _add(args: argparse.Namespace) -> int:
    from sdlb.node.release_file import read_release_file

    release = read_release_file(args.file)
    with Client(args.socket) as client:
        if release.requires:
            _refuse_cycle(client, args.file, release)
        return _changed(client.add_release(release.to_data(), by=args.as_), args, "added", "is known already")


def _refuse_cycle(client: Client, file: str, release: Added) -> None:
    """The roots refuse it too, but do not know the line. Raises Invalid."""
    from sdlb.node.release_file import place_in_release

    there: dict[str, list[Added]] = {}
    for each in client.releases().releases:
        if not each.withdrawn and each.name != release.name:
            data = {"service": each.service, "version": each.version, "requires": list(each.requires)}
            there.setdefault(each.service, []).append(read_release(data, each.name))
    if names := cycle(release, lambda service: there.get(service, [])):
        raise Invalid(CODE, f"{place_in_release(file, 'requires')}: requires", *cycle_text(names))


def _changed(done: ReleaseChanged, args: argparse.Namespace, verb: str, before: str) -> int:
    if args.json:
        out.json(done)
        return 0
    name = done.release.name
    text = f"{done.by} {verb} {name}" if done.changed else f"{name} {before}"
    out.line(f"{text} (recorded by {', '.join(done.roots)})")
    warn(done.unreachable)
    return 0


def row(release: Release) -> list[out.Piece]:
    platforms = ", ".join(f"{each.platform} {each.sha256[:12]}" for each in release.artifacts)
    state: out.Piece = ("withdrawn", "dim") if release.withdrawn else ("available", "green")
    return [(release.name, "bold"), platforms or "-", ", ".join(release.requires) or "-", state]


def warn(unreachable: Sequence[str]) -> None:
    if unreachable:
        out.line((f"not reached: {', '.join(unreachable)}; this is what the others report", "yellow"))
