"""`python -m tools.mutate`: breaks core and model in one place at a time and prints which check finds it."""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from tools.mutate import generated, report, sandbox, table
from tools.mutate.checks import CHECKS, RECORD, UNIT, Check, by_scenarios, by_tests
from tools.mutate.place import PlaceError
from tools.mutate.run import Verdict, judge_all
from tools.mutate.table import ROOT, Mutation


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make mutate",
        description="Breaks src/sdlb/core and src/sdlb/model in one place at a time and prints which check finds it, after "
        "how many CPU seconds. A hand-written mutation is to be found by a unit test and by the simulator or the "
        "exploration. Exit code 0: no mutation survived; 1: one did, or its place is gone.",
    )
    parser.add_argument("--list", action="store_true", help="print the hand-written mutations and what they break")
    parser.add_argument("--root", metavar="DIR", type=Path, default=ROOT, help="the sources and tests of this checkout")
    parser.add_argument("--drafts", action="store_true", help="also run planned mutations with a draft that applies")
    parser.add_argument("--only", metavar="NAME", action="append", default=[], help="this one; may be repeated")
    parser.add_argument(
        "--changed", metavar="REF", nargs="?", const="main", help="only files that differ from REF (main)"
    )
    parser.add_argument("--hand", action="store_true", help="only the hand-written ones")
    parser.add_argument("--generated", metavar="N", type=_number, help="only generated ones: N of them, or 'all'")
    parser.add_argument("--sample", metavar="N", type=int, help="only N of each kind")
    parser.add_argument("--seed", metavar="S", type=int, default=1, help="which ones --sample and --generated take (1)")
    parser.add_argument(
        "--named",
        action="store_true",
        help="only hand-written ones that name a test, and only the test and scenario that they name; each has to find it",
    )
    parser.add_argument("--both", action="store_true", help="exit code 1 too when only one of the two kinds finds it")
    parser.add_argument("--jobs", metavar="N", type=int, default=2, help="mutations at the same time (2)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also append one line of JSON for each mutation")
    return parser.parse_args(argv)


def _number(text: str) -> int:
    return sys.maxsize if text == "all" else int(text)


def main(argv: list[str]) -> int:
    options = arguments(argv)
    mutations, planned = table.read()
    if options.list:
        _list(mutations, planned, options.root)
        return 0
    broken = [text for each in mutations for text in _problem(each, options.root)]
    broken += [f"explained.toml: {each.file} no longer has: {each.old}" for each in _out_of_date(options.root)]
    if broken:
        print(*broken, sep="\n", file=sys.stderr)
        return 1
    if options.drafts:
        drafts = [each.draft for each in planned if each.draft is not None]
        mutations = mutations + [each for each in drafts if not _problem(each, options.root)]
    selected = chosen(mutations, options)
    made = _generated(options)
    whole = not (options.only or options.sample or options.changed or options.generated or options.named)
    if planned and whole:
        print(f"{len(planned)} planned mutations have no place yet; `--list` names them", file=sys.stderr)
    if options.named:
        failed = _run(selected, options, (), [*by_tests(selected), *by_scenarios(selected)])
    else:
        proofs = [check for check in CHECKS if check.kind != UNIT] if whole else []
        failed = _run(chain(selected, made), options, CHECKS, [RECORD, *proofs])
    return 1 if failed or (planned and whole) else 0


def _problem(mutation: Mutation, root: Path) -> list[str]:
    try:
        mutation.apply(root)
    except PlaceError as error:
        return [f"{mutation.name}: {mutation.file}: {error}"]
    return []


def _out_of_date(root: Path) -> list[generated.Explained]:
    return generated.out_of_date(root, generated.explained())


def _list(mutations: list[Mutation], planned: list[table.Planned], root: Path) -> None:
    for each in mutations:
        print(f"{each.name}\n    {each.file}:{each.scope}\n    {each.breaks} {each.matters}")
    for plan in planned:
        state = "no place yet"
        if plan.draft is not None:
            state = "; ".join(_problem(plan.draft, root)) or "the draft applies"
        print(f"{plan.name}    PLANNED, {state}\n    {plan.rule}\n    {plan.breaks} {plan.matters}")
    print(f"{len(mutations)} hand-written mutations, {len(planned)} planned")


# ---------------------------------------------------------------------- selection


def chosen(mutations: list[Mutation], options: argparse.Namespace) -> list[Mutation]:
    """The hand-written mutations that the options select."""
    if options.only:
        unknown = set(options.only) - {each.name for each in mutations}
        if unknown:
            sys.exit(f"no mutation is named {', '.join(sorted(unknown))}")
        return [each for each in mutations if each.name in options.only]
    if options.generated is not None:
        return []
    if options.changed:
        files = _changed(options.changed, options.root)
        mutations = [each for each in mutations if each.file in files]
    if options.named:
        mutations = [each for each in mutations if each.test]
    if options.sample is not None:
        mutations = sorted(mutations, key=lambda each: _draw(each.name, options.seed))[: options.sample]
    return mutations


def _draw(name: str, seed: int) -> str:
    """A new entry of the table changes a sample by one entry at most."""
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


def _changed(ref: str, root: Path) -> set[str]:
    """Files that differ from the merge base with `ref`, committed or not."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout

    return set(git("diff", "--name-only", git("merge-base", ref, "HEAD").strip()).split())


def _generated(options: argparse.Namespace) -> Iterator[Mutation]:
    if options.hand or options.only or options.named:
        return
    places = generated.positions(options.root)
    if options.changed:
        files = _changed(options.changed, options.root)
        places = [each for each in places if each.file in files]
    number = options.generated or options.sample
    if number is not None and number >= len(places):
        number = None
    yield from generated.sample(options.root, places, number, options.seed)


# ---------------------------------------------------------------------- the run


def _run(
    mutations: Iterable[Mutation],
    options: argparse.Namespace,
    checks: tuple[Check, ...],
    tried_first: Iterable[Check],
) -> bool:
    """Whether one failed. `tried_first`: checks that have to pass without a mutation before."""
    log: Path | None = options.json
    known = generated.explained()
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory(prefix="sdlb-mutate-") as folder:
        base = Path(folder) / "base"
        base.mkdir()
        sandbox.prepare(options.root, base)
        problems = _without_mutation(tried_first, base)
        if problems:
            sys.exit(problems[0])
        print(report.head(), flush=True)
        for verdict in judge_all(mutations, options.root, base, checks, options.jobs):
            verdicts.append(verdict)
            print(report.line(verdict, generated.reason_of(verdict.mutation, known)), flush=True)
            if log is not None:
                with log.open("a") as file:
                    file.write(json.dumps(report.data(verdict)) + "\n")
        problems = [] if options.named else _without_mutation(_as_long_as_needed(verdicts), base)
    failed = [v for v in verdicts if is_failed(v, known, options)]
    half = sum(not v.caught and not v.survived for v in verdicts)
    survived = sum(v.survived for v in verdicts)
    cpu_s = sum(outcome.cpu_s for v in verdicts for outcome in v.outcomes)
    print(
        f"{len(verdicts)} mutations: {survived} survived, {half} were found by one kind of check only; {cpu_s:.0f} CPU seconds"
    )
    for verdict in failed:
        _explain(verdict)
    print(*problems, sep="\n", end="\n" if problems else "", file=sys.stderr)
    return bool(failed or problems)


def is_failed(verdict: Verdict, known: list[generated.Explained], options: argparse.Namespace) -> bool:
    if generated.reason_of(verdict.mutation, known):
        return False
    if options.named:
        return not all(outcome.found for outcome in verdict.outcomes)
    return verdict.survived or (options.both and not verdict.caught)


def _explain(verdict: Verdict) -> None:
    mutation = verdict.mutation
    print(f"\n{mutation.name}: {report.word(verdict)}\n    {mutation.file}:{mutation.scope}\n    {mutation.breaks}")
    print("".join(f"    - {text}\n" for text in mutation.old.strip("\n").splitlines()), end="")
    print("".join(f"    + {text}\n" for text in mutation.new.strip("\n").splitlines()), end="", flush=True)


def _as_long_as_needed(verdicts: list[Verdict]) -> list[Check]:
    """The other checks, limited to the time of the slowest finding plus a margin."""
    needed: list[Check] = []
    for check in CHECKS:
        times = [o.cpu_s for v in verdicts for o in v.outcomes if o.found and o.check == check.name]
        if times and check.kind != UNIT:
            needed.append(replace(check, cpu_s=min(check.cpu_s, 1.5 * max(times) + 5.0)))
    return needed


def _without_mutation(checks: Iterable[Check], base: Path) -> list[str]:
    """Checks that all pass without a mutation: one that fails anyway shows nothing about mutations."""
    outcomes = [sandbox.run(check, base) for check in checks]
    return [f"{o.check} fails without a mutation: {o.what}: {o.how}" for o in outcomes if o.found]


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (ValueError, PlaceError, sandbox.CheckError) as error:
        sys.exit(str(error))
