"""`sdlb policy get | set SERVICE`: how a service's versions share its requests, and which versions are compatible."""

from __future__ import annotations

import argparse
import copy
import json
import sys
from pathlib import Path
from typing import Any, cast

from sdlb.cli import args as options
from sdlb.cli import confirm, out
from sdlb.model.policy_text import changes as changes_of
from sdlb.model.policy_text import lines
from sdlb.sdk.client import Client
from sdlb.sdk.problem import BASE, Problem
from sdlb.sdk.types import Policy

LATER = ("edit", "diff", "apply")
PROG = "sdlb policy"
Document = dict[str, Any]
NONE = "none"


def add_parser(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "policy",
        description="Reads or changes a service's policy. Works on any node's socket; a change takes effect "
        "immediately.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="get | set", required=True, parser_class=options.Parser)
    get = verbs.add_parser("get", description="The policy of a service; the defaults when none was set.")
    get.add_argument("service", metavar="SERVICE")
    options.add_socket(get)
    options.add_json(get)
    change = verbs.add_parser(
        "set", description="Changes the named settings and keeps the others. With --file, replaces the whole policy."
    )
    change.add_argument("service", metavar="SERVICE")
    add_changes(change)
    options.add_socket(change)
    options.add_json(change)
    for name in LATER:
        later = verbs.add_parser(
            name, add_help=False, prefix_chars="\0"
        )  # accepts any further arguments: the verb is not supported yet
        later.add_argument("rest", nargs="*")


def add_changes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--priority",
        choices=("even", "higher", "lower", "share"),
        help="which active version gets requests: all by capacity, the highest or the lowest first (the next ones "
        "when it is full), or by percentages",
    )
    parser.add_argument(
        "--share",
        dest="shares",
        action="append",
        type=_share,
        metavar="VERSION=PERCENT",
        help="a canary: this version gets PERCENT of the requests, the others the rest (implies --priority "
        "share); 'VERSION=' removes it; may be repeated",
    )
    parser.add_argument(
        "--sticky",
        type=_sticky,
        metavar="cookie:NAME|header:NAME|client|none",
        help="what keeps a client on the version that it first got",
    )
    parser.add_argument(
        "--rule", choices=("patch", "minor", "exact", "any"), help="which versions are compatible (patch)"
    )
    parser.add_argument("--scheme", choices=("numeric", "semver", "opaque"), help="how versions are read (numeric)")
    parser.add_argument(
        "--range",
        dest="ranges",
        action="append",
        metavar="RANGE|none",
        help="versions inside this range are compatible, for example '>=1.0,<1.2'; may be repeated; 'none' "
        "removes all ranges",
    )
    parser.add_argument(
        "--allow",
        action="append",
        type=_pair,
        metavar="A~B",
        help="these two versions are compatible, whatever the rule is; may be repeated",
    )
    parser.add_argument(
        "--deny",
        action="append",
        type=_pair,
        metavar="A~B",
        help="these two versions are incompatible; may be repeated",
    )
    parser.add_argument(
        "--on-silence",
        choices=("open", "wait"),
        help="when the hosts of an incompatible version are silent: activate the new version after the fence "
        "time, or wait for them",
    )
    parser.add_argument(
        "--park-timeout",
        type=options.seconds_or_zero,
        metavar="S",
        help="how long a request is parked until a version becomes active (0: not at all)",
    )
    parser.add_argument("--park-max", type=_count, metavar="N", help="maximum number of parked requests at each entry")
    parser.add_argument(
        "--set",
        dest="sets",
        action="append",
        type=_setting,
        metavar="KEY=VALUE",
        help="any other setting by its key, for example balance.algorithm=prequal, limits.in_flight=200 or "
        "timeout_s=5; "
        "'sdlb policy get' shows the keys; may be repeated",
    )
    parser.add_argument(
        "--file",
        metavar="FILE",
        help="the whole policy from a JSON or TOML file ('-': JSON from stdin); settings that it leaves out get "
        "their default",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask about a service or version that no root knows")


def run(args: argparse.Namespace) -> int:
    if args.verb in LATER:
        out.message(f"{PROG} {args.verb}: not supported in this version")
        return 2
    if args.verb == "set":
        return _set(args)
    with Client(args.socket) as client:
        show(client.policy(args.service), args.json)
    return 0


def _set(args: argparse.Namespace) -> int:
    named = changed(args)
    if (args.file is None) == (not named):
        raise options.Usage(f"{PROG} set", "give either settings to change or the whole policy with --file")
    with Client(args.socket) as client:
        document = read_file(args.file) if args.file is not None else {}
        had = client.policy(args.service)
        if args.file is None:
            document = merged(had.policy, named)
        policy = _put(client, args, document)
        if policy is None:
            return 1
    for warning in policy.warnings:
        out.message(f"{PROG} set: warning: {warning}")
    show_changes(had, policy, args.json)
    return 0


def _put(client: Client, args: argparse.Namespace, document: Document) -> Policy | None:
    """Sets the policy. Names that no root knows are probably typing errors and need a confirmation. None: not
    confirmed."""
    if not args.yes:
        try:
            return client.set_policy(args.service, document, unknown="refuse")
        except Problem as problem:
            if problem.code not in ("unknown-service", "unknown-version"):
                raise
            if not confirm.confirmed(f"{PROG} set: {problem.detail}", "set the policy anyway?"):
                return None
    return client.set_policy(args.service, document)


# ---------------------------------------------------------------------- arguments


def _share(text: str) -> tuple[str, float | None]:
    version, equals, percent = text.rpartition("=")
    if not version or not equals:
        raise argparse.ArgumentTypeError(f"'{text}' is not VERSION=PERCENT, for example 1.0.2=5")
    if not percent:
        return version, None
    try:
        value = float(percent.removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"'{text}': '{percent}' is not a percentage from 0 to 100")
    return version, value


def _sticky(text: str) -> dict[str, str] | str:
    by, colon, name = text.partition(":")
    if (by in ("client", "none") and not colon) or (by in ("cookie", "header") and name):
        return NONE if by == "none" else {"by": by, "name": name}
    raise argparse.ArgumentTypeError(f"'{text}' is not one of cookie:NAME, header:NAME, client, none")


def _pair(text: str) -> tuple[str, str]:
    one, tilde, other = text.partition("~")
    if not one or not other or not tilde or "~" in other:  # more than one "~" is ambiguous
        raise argparse.ArgumentTypeError(f"'{text}' is not A~B, for example 1.0.2~2.0.0")
    return one, other


def _setting(text: str) -> tuple[str, object]:
    """The node checks the rest, and names the key."""
    key, equals, value = text.partition("=")
    parts = key.split(".")
    if not equals or not all(parts) or len(parts) > 2:
        raise argparse.ArgumentTypeError(f"'{text}' is not KEY=VALUE, for example balance.algorithm=prequal")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 0 or more")
    return int(text)


def changed(args: argparse.Namespace) -> Document:
    """The named options, by their keys in the policy document ("park.timeout_s": inside of "park"), as given."""
    named: Document = {
        "priority": args.priority or ("share" if args.shares else None),
        "shares": args.shares,
        "sticky": args.sticky,
        "compatibility.rule": args.rule,
        "compatibility.scheme": args.scheme,
        "compatibility.ranges": args.ranges,
        "compatibility.allow": args.allow,
        "compatibility.deny": args.deny,
        "on_silence": args.on_silence,
        "park.timeout_s": args.park_timeout,
        "park.requests_max": args.park_max,
    }
    return {**{key: value for key, value in named.items() if value is not None}, **dict(args.sets or ())}


def merged(had: Document, changes: Document) -> Document:
    """The document with the changes in: shares by version, ranges added, pairs added (and taken off the other list)."""
    document: Document = copy.deepcopy(had)
    for path, value in changes.items():
        outer, _, inner = path.rpartition(".")
        target: Document = document.setdefault(outer, {}) if outer else document
        if not isinstance(cast(object, target), dict):
            raise options.Usage(f"{PROG} set", f"{path}: {outer} is a single value without parts")
        if inner == "shares":
            shares: dict[str, float | None] = {**target.get(inner, {}), **dict(value)}
            target[inner] = {version: percent for version, percent in shares.items() if percent is not None}
        elif inner == "sticky":
            target[inner] = None if value == NONE else value
        elif inner == "ranges":
            target[inner] = _ranges(target.get(inner, []), value)
        elif inner in ("allow", "deny"):
            opposite = "deny" if inner == "allow" else "allow"
            new = [sorted(pair) for pair in value]
            target[inner] = _pairs([*target.get(inner, []), *new])
            target[opposite] = [pair for pair in _pairs(target.get(opposite, [])) if pair not in new]
        else:
            target[inner] = value
    return document


def _ranges(had: list[str], new: list[str]) -> list[str]:
    for text in new:
        had = [] if text == NONE else [*had, *([text] if text not in had else [])]
    return had


def _pairs(pairs: list[Any]) -> list[list[str]]:
    """Each pair once, with its two sides sorted."""
    result: list[list[str]] = []
    for pair in pairs:
        if sorted(pair) not in result:
            result.append(sorted(pair))
    return result


def read_file(name: str) -> Document:
    """Raises Problem, or OSError when it cannot be read."""
    text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    try:
        document = _parse(text, toml=name.endswith(".toml"))
    except ValueError as error:
        raise Problem(BASE + "bad-policy", 400, f"{name}: cannot be read ({error})") from error
    if not isinstance(document, dict):
        raise Problem(
            BASE + "bad-policy",
            400,
            f"{name}: is not an object; write the keys as 'sdlb policy get --json' prints them",
        )
    whole = cast(Document, document)
    # The complete output of `policy get --json`: the policy is one of its keys.
    return cast(Document, whole["policy"]) if isinstance(whole.get("policy"), dict) else whole


def _parse(text: str, *, toml: bool) -> object:
    if toml:
        import tomllib

        return tomllib.loads(text)
    import msgspec

    return msgspec.json.decode(text)


# ---------------------------------------------------------------------- output


def show_changes(had: Policy, policy: Policy, as_json: bool) -> None:
    if as_json:
        out.json(policy)
        return
    out.line((policy.service, "bold"), (f"  revision {policy.revision}", "dim"))
    for text in changes_of(had.policy, policy.policy) or ["nothing changed"]:
        out.line(f"  {text}")
    _tell_roots(policy)


def show(policy: Policy, as_json: bool) -> None:
    if as_json:
        out.json(policy)
        return
    set_by = f"revision {policy.revision}" if policy.revision else "the defaults (no policy was set)"
    out.line((policy.service, "bold"), (f"  {set_by}", "dim"))
    settings = list(lines(policy.policy))
    width = max(len(key) for key, _ in settings) + 2
    for key, value in settings:
        out.line(f"  {key:<{width}}", value, hang=" " * (width + 2))
    _tell_roots(policy)


def _tell_roots(policy: Policy) -> None:
    for disagreement in policy.disagree:
        out.line((f"roots disagree: {disagreement.text}", "red"))
    if policy.unreachable:
        out.line((f"not reached: {', '.join(policy.unreachable)}", "yellow"))
