"""`sdlb policy apply | diff | edit`: several policy documents at once, from a file."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdlb.cli import args as options
from sdlb.cli import confirm, out, policy_file
from sdlb.sdk.client import Client
from sdlb.sdk.problem import Problem
from sdlb.sdk.types import Policies, PolicyPlan

PROG = "sdlb policy"
Documents = dict[str, dict[str, Any]]


def add_parsers(verbs: options.Commands) -> None:
    diff = verbs.add_parser(
        "diff",
        description="Prints what 'apply' would change. Exit code 0: nothing; 1: something.",
    )
    _add_file(diff)
    options.add_socket(diff)
    options.add_json(diff)
    apply = verbs.add_parser(
        "apply",
        description="Sets the policies in a file, all or none. Policies that the file does not name stay as they are.",
    )
    _add_file(apply)
    apply.add_argument("--dry-run", action="store_true", help="only print what would change")
    apply.add_argument("--yes", action="store_true", help="do not ask about services and versions that no root knows")
    options.add_socket(apply)
    options.add_json(apply)
    edit = verbs.add_parser(
        "edit", description="Opens policies as TOML in $VISUAL or $EDITOR, and applies the file when the editor exits."
    )
    edit.add_argument("names", metavar="NAME", nargs="*", help="services and patterns (all policies that are set)")
    edit.add_argument("--yes", action="store_true", help="do not ask about services and versions that no root knows")
    options.add_socket(edit)
    options.add_json(edit)


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="TOML with tables [policy.NAME], or the same as JSON ('-': stdin)")
    parser.add_argument("--prune", action="store_true", help="also remove the policies that the file does not name")


def run(args: argparse.Namespace) -> int:
    if args.verb == "edit":
        return _edit(args)
    documents = policy_file.read(args.file)
    with Client(args.socket) as client:
        before = client.policies()
        if args.prune:
            documents = _with_removed(documents, before)
        if args.verb == "apply":
            return _apply(client, documents, before, args, dry_run=args.dry_run)
        plan = client.set_policies(documents, if_match=before.etag, dry_run=True)
    show(plan, documents, args.json)
    return 1 if plan.changes else 0


def _with_removed(documents: Documents, before: Policies, names: tuple[str, ...] = ()) -> Documents:
    gone = [each.name for each in before.policies if each.name not in documents and (not names or each.name in names)]
    return {**documents, **{name: {} for name in gone}}


def _apply(
    client: Client, documents: Documents, before: Policies, args: argparse.Namespace, *, dry_run: bool = False
) -> int:
    plan = client.set_policies(documents, if_match=before.etag, dry_run=True)
    sets = bool(plan.changes) and not dry_run
    asks = sets and bool(plan.warnings) and not args.yes
    if asks and not args.json:
        show(plan, documents, False)
    if asks and not confirm.confirmed(f"{PROG} {args.verb}: {'; '.join(plan.warnings)}", "apply anyway?"):
        return 1
    if sets:
        plan = client.set_policies(documents, if_match=before.etag)
    for warning in plan.warnings if not asks else ():
        out.message(f"{PROG} {args.verb}: warning: {warning}")
    if asks and not args.json:
        out.line("applied")
    else:
        show(plan, documents, args.json)
    return 0


# ---------------------------------------------------------------------- edit


def _edit(args: argparse.Namespace) -> int:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise options.Usage(f"{PROG} edit", "set EDITOR to the editor that you want, for example EDITOR=vi")
    with Client(args.socket) as client:
        before = client.policies()
        held = {each.name: each.document for each in before.policies}
        names = tuple(args.names) or tuple(held)
        text = policy_file.toml({name: held.get(name, {}) for name in names})
        path = _written(text or '# write tables like [policy.catalog] or [policy."cat*"]\n')
        try:
            failed = subprocess.call([*shlex.split(editor), str(path)])
            if failed:
                raise Problem("editor-failed", 0, f"{editor} exited with {failed}; nothing was changed")
            if path.read_text(encoding="utf-8") == text:
                out.message(f"{PROG} edit: nothing was changed")
                path.unlink()
                return 0
            documents = _with_removed(policy_file.read(str(path)), before, names)
            for name, document in documents.items():
                if document:  # TOML has no null
                    document |= {key: each for key, each in held.get(name, {}).items() if each is None} | document
            code = _apply(client, documents, before, args)
        except Problem as error:
            kept = f"your text is in {path}; correct it and run: {PROG} apply {path}"
            raise Problem(error.type, error.status, f"{error.detail}; {kept}") from error
    if code:
        out.message(f"{PROG} edit: your text is in {path}")
    else:
        path.unlink()
    return code


def _written(text: str) -> Path:
    with tempfile.NamedTemporaryFile(
        "w", suffix=".toml", prefix="sdlb-policy-", delete=False, encoding="utf-8"
    ) as file:
        file.write(text)
    return Path(file.name)


# ---------------------------------------------------------------------- output


def show(plan: PolicyPlan, documents: Mapping[str, object], as_json: bool) -> None:
    if as_json:
        out.json(plan)
        return
    for change in plan.changes:
        out.line((change.name, "bold"), ("" if documents.get(change.name) else "  removed", "dim"))
        for text in change.changes:
            out.line(f"  {text}")
    if not plan.changes:
        out.line("no difference")
    for effect in plan.effects:
        out.line((f"what happens to {effect.service}", "bold"))
        for version in effect.versions:
            why = f" ({version.reason})" if version.reason else ""
            out.line(f"  {version.version}: {version.before} -> {version.after}{why}")
        for share in effect.shares:
            out.line(f"  share of {share.version}: {share.before:g} % -> {share.after:g} %")
    if plan.unnamed:
        out.line((f"left alone, because the file does not name them: {', '.join(plan.unnamed)}", "dim"))
    for disagreement in plan.disagree:
        out.line((f"roots disagree: {disagreement.text}", "red"))
    if plan.unreachable:
        later = "" if plan.dry_run else " (it gets the policies when it is back)"
        out.line((f"not reached: {', '.join(plan.unreachable)}{later}", "yellow"))
