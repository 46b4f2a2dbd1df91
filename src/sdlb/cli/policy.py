"""`sdlb policy get | set NAME`: how a service's versions share its requests, which versions are compatible, and which may open.

The other verbs are in `policy_apply`.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from sdlb.cli import args as options
from sdlb.cli import confirm, out, policy_apply
from sdlb.model.opening import ALL
from sdlb.model.policy import KEYS
from sdlb.model.policy import Policy as Default
from sdlb.model.policy_layers import only_known, without_defaults
from sdlb.model.policy_text import TABLES, lines
from sdlb.model.policy_text import changes as changes_of
from sdlb.sdk.client import Client
from sdlb.sdk.problem import BASE, Problem
from sdlb.sdk.types import Policy

PROG = "sdlb policy"
Document = dict[str, Any]
NONE = "none"
NAME = "a service, the first characters of services and * ('catalog*'), or * for all services"


def add_parser(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "policy",
        description="Reads or changes policies of services. Works on any node's socket; a change takes effect "
        "immediately.",
    )
    verbs = parser.add_subparsers(
        dest="verb", metavar="get | set | apply | diff | edit", required=True, parser_class=options.Parser
    )
    get = verbs.add_parser(
        "get",
        description="The settings of a service that differ from their default, and the policy that each comes from.",
    )
    get.add_argument("service", metavar="NAME", help=NAME)
    get.add_argument("--all", action="store_true", help="also the settings that have their default")
    options.add_socket(get)
    options.add_json(get)
    change = verbs.add_parser(
        "set", description="Changes the named settings and keeps the others. With --file, replaces the whole policy."
    )
    change.add_argument("service", metavar="NAME", help=NAME)
    add_changes(change)
    options.add_socket(change)
    options.add_json(change)
    policy_apply.add_parsers(verbs)


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
        metavar="session|session:COOKIE|cookie:NAME|header:NAME|client|none",
        help="what keeps a client on the version that it first got; session: a cookie of the entry's own",
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
        "--drain-deadline",
        type=options.seconds_or_zero,
        metavar="S",
        help="how long requests in flight may take when an instance leaves or its version is recalled (30)",
    )
    parser.add_argument(
        "--drain-then", choices=("wait", "cut"), help="after that deadline: wait on, or cut them off (wait)"
    )
    parser.add_argument(
        "--drain-streams",
        type=options.seconds_or_zero,
        metavar="S",
        help="time that streams (WebSocket, gRPC, server-sent events) get once a drain begins; 0: as other requests (60)",
    )
    parser.add_argument(
        "--cut-over",
        choices=("stopped", "flip"),
        help="an incompatible version replaces the active ones after their last instance has stopped, or as soon as it "
        "is ready and its gates are open",
    )
    parser.add_argument(
        "--max-unavailable",
        metavar="N|PERCENT%",
        help="capacity that a planned action may take away: a number of instances, or a percentage",
    )
    parser.add_argument(
        "--hold",
        action="append",
        metavar="VERSION|all|none",
        help="this version or range must not turn active; 'all': no version that was not active in this generation; "
        "'none' removes all holds; may be repeated",
    )
    parser.add_argument(
        "--pin",
        action="append",
        metavar="VERSION|RANGE|none",
        help="only versions that match may turn active; replaces an earlier pin, 'none' removes it; may be repeated",
    )
    parser.add_argument(
        "--never-below", metavar="VERSION|none", help="versions below this one must not turn active; 'none' removes it"
    )
    parser.add_argument(
        "--unset",
        action="append",
        metavar="KEY",
        help="removes a setting from this policy, so that a less specific one or the default counts; may be repeated",
    )
    parser.add_argument(
        "--set",
        dest="sets",
        action="append",
        type=_setting,
        metavar="KEY=VALUE",
        help="any other setting by its key, for example balance.algorithm=prequal, limits.in_flight=200 or "
        "timeout_s=5; "
        "'sdlb policy get --all' shows the keys; may be repeated",
    )
    parser.add_argument(
        "--file",
        metavar="FILE",
        help="the whole policy from a JSON or TOML file ('-': JSON from stdin); settings that it leaves out get "
        "their default",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask about a service or version that no root knows")


def run(args: argparse.Namespace) -> int:
    if args.verb == "set":
        return _set(args)
    if args.verb != "get":
        return policy_apply.run(args)
    with Client(args.socket) as client:
        show(client.policy(args.service), args.json, everything=args.all)
    return 0


def _set(args: argparse.Namespace) -> int:
    named = changed(args)
    if (args.file is None) == (not named and not args.unset):
        raise options.Usage(f"{PROG} set", "give either settings to change or the whole policy with --file")
    with Client(args.socket) as client:
        document = read_file(args.file) if args.file is not None else {}
        had = client.policy(args.service)
        if args.file is None:
            document = merged(without(had.document, args.unset or ()), named, had.policy)
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
    bare = by in ("client", "session", "none") and not colon
    if bare or (by in ("cookie", "header", "session") and name):
        return NONE if by == "none" else {"by": by, "name": name}
    raise argparse.ArgumentTypeError(
        f"'{text}' is not one of session, session:COOKIE, cookie:NAME, header:NAME, client, none"
    )


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
        "drain.deadline_s": args.drain_deadline,
        "drain.then": args.drain_then,
        "drain.streams_s": args.drain_streams,
        "cut_over": args.cut_over,
        "max_unavailable": args.max_unavailable,
        "hold": args.hold,
        "pin": args.pin,
        "never_below": args.never_below,
    }
    return {**{key: value for key, value in named.items() if value is not None}, **dict(args.sets or ())}


def without(document: Document, keys: Iterable[str]) -> Document:
    """The document without these settings. Raises Usage for an unknown key."""
    found: Document = copy.deepcopy(document)
    for key in keys:
        outer, dot, inner = key.partition(".")
        if key not in KEYS and not (dot and outer in TABLES and key in dict(lines(Default().to_data()))):
            near = get_close_matches(key, [*KEYS, *dict(lines(Default().to_data()))], 1)
            raise options.Usage(
                f"{PROG} set", f"--unset: {key} is not a known key" + (f"; did you mean {near[0]}?" if near else "")
            )
        if dot:
            found.get(outer, {}).pop(inner, None)
        else:
            found.pop(key, None)
    return {key: value for key, value in found.items() if key not in TABLES or value}


def merged(had: Document, changes: Document, policy: Document | None = None) -> Document:
    """The document with the changes in: shares by version, ranges and holds added, pairs added (and taken off the other list).

    `policy`: the merged policy. Lists and shares replace those of less specific policies, so they begin with those in force.
    """
    document: Document = copy.deepcopy(had)
    for path, value in changes.items():
        outer, _, inner = path.rpartition(".")
        target: Document = document.setdefault(outer, {}) if outer else document
        if not isinstance(cast(object, target), dict):
            raise options.Usage(f"{PROG} set", f"{path}: {outer} is a single value without parts")
        inherited = (policy or {}).get(outer, {}) if outer else policy or {}
        before = {**(inherited or {}), **target}
        if inner == "shares":
            shares: dict[str, float | None] = {**(before.get(inner) or {}), **dict(value)}
            target[inner] = {version: percent for version, percent in shares.items() if percent is not None}
        elif inner == "sticky":
            target[inner] = None if value == NONE else value
        elif inner == "ranges":
            target[inner] = _ranges(before.get(inner, []), value)
        elif path == "hold":
            target[inner] = _ranges(before.get(inner, []), [ALL if text == "all" else text for text in value])
        elif path == "pin":
            target[inner] = _ranges([], value)
        elif path == "never_below":
            target[inner] = "" if value == NONE else value
        elif inner in ("allow", "deny"):
            opposite = "deny" if inner == "allow" else "allow"
            new = [sorted(pair) for pair in value]
            target[inner] = _pairs([*before.get(inner, []), *new])
            left = [pair for pair in _pairs(before.get(opposite, [])) if pair not in new]
            if opposite in target or left != _pairs(before.get(opposite, [])):
                target[opposite] = left
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
    return _of_output(whole) if isinstance(whole.get("policy"), dict) else whole


def _of_output(whole: Document) -> Document:
    """The policy in the complete output of `policy get --json`, without the defaults that no document sets."""
    policy, sources = only_known(whole["policy"]), whole.get("sources")
    if not isinstance(sources, dict):
        return cast(Document, whole["policy"])
    differing = {key for key, _ in lines(without_defaults(policy))}
    kept: Document = {}
    for key, value in policy.items():
        if key in TABLES:
            inner = {name: each for name, each in value.items() if f"{key}.{name}" in {*differing, *sources}}
            if inner:
                kept[key] = inner
        elif key in differing or key in sources:
            kept[key] = value
    return kept


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
    found = changes_of(had.policy, policy.policy) or changes_of(had.document, policy.document)
    for text in found or ["nothing changed"]:
        out.line(f"  {text}")
    _tell_roots(policy)


def show(policy: Policy, as_json: bool, *, everything: bool = False) -> None:
    if as_json:
        out.json(policy)
        return
    set_by = "the defaults (no policy was set)" if not policy.sources else "no policy of its own"
    out.line((policy.service, "bold"), (f"  revision {policy.revision}" if policy.revision else f"  {set_by}", "dim"))
    settings = [
        (key, value, policy.sources.get(key, ""))
        for key, value in lines(policy.policy)
        if everything or key in policy.sources
    ]
    width = max((len(key) for key, _, _ in settings), default=0) + 2
    longest = max((len(value) for _, value, _ in settings), default=0) + 2
    for key, value, source in settings:
        shown = (f'("{source}")' if source else "(default)", "dim")
        out.line(
            f"  {key:<{width}}",
            f"{value:<{longest if longest < 40 else len(value) + 2}}",
            shown,
            hang=" " * (width + 2),
        )
    if not settings:
        out.line("  every setting has its default")
    _tell_roots(policy)


def _tell_roots(policy: Policy) -> None:
    for disagreement in policy.disagree:
        out.line((f"roots disagree: {disagreement.text}", "red"))
    if policy.unreachable:
        out.line((f"not reached: {', '.join(policy.unreachable)}", "yellow"))
