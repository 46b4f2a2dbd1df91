"""`sdlb audit`: the security of one node, line by line, with fixes."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sdlb.cli import args as options
from sdlb.cli import out
from sdlb.cli.node_config import add_config, node_config
from sdlb.model.problem import Invalid
from sdlb.sdk.client import Client
from sdlb.sdk.problem import Problem

if TYPE_CHECKING:
    from sdlb.node.audit.checks import Finding
    from sdlb.node.config import NodeConfig

STYLES = {"pass": "green", "warn": "yellow", "fail": "red"}


def add_parser(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "audit",
        description="Checks the security of one node: its files, listeners, certificates and settings. Nothing is changed. "
        "Exit code 1 when a check fails.",
    )
    parser.add_argument(
        "--attack",
        action="store_true",
        help="also play attacks against the listeners of the running node, through a route of their own",
    )
    add_config(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from sdlb.node.audit.node import findings

    config, pid = node_config(args)
    if args.attack and not pid:
        raise Invalid("no-node", str(config.socket), "no node answers there", "start it: --attack needs a running node")
    found = list(findings(config, pid, _engine(config) if pid else (0, "")))
    if args.attack:
        from sdlb.cli.audit_attack import attack_findings

        found += attack_findings(config)
    return _show(config.name, found, as_json=args.json)


def _engine(config: NodeConfig) -> tuple[int, str]:
    try:
        with Client(str(config.socket)) as client:
            engine = client.tree().engine
        return engine.pid, engine.version
    except Problem:
        return 0, ""


def _show(node: str, found: Sequence[Finding], *, as_json: bool) -> int:
    counts = Counter(each.result for each in found)
    failed = bool(counts["fail"])
    if as_json:
        summary = {result: counts[result] for result in STYLES}
        out.json({"node": node, "failed": failed, "summary": summary, "checks": [each.view() for each in found]})
        return int(failed)
    for each in found:
        if each.check == "attacks" and each.result == "pass":
            continue  # hundreds of them: the last line has their number
        out.line((each.result, STYLES[each.result]), f"  {each.setting}: {each.seen}")
        if each.fix:
            out.line((f"      {each.why}", "dim"))
            out.line(f"      fix: {each.fix}")
    harmless = sum(each.check == "attacks" and each.result == "pass" for each in found)
    if harmless:
        out.line(("pass", "green"), f"  {harmless} attacks had no effect")
    out.line(f"{node}: {counts['fail']} failed, {counts['warn']} warnings, {counts['pass']} passed")
    return int(failed)
