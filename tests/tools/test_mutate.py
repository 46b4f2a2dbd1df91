"""Every hand-written mutation still has its place, and the tool finds a mutation that a test finds."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from sdlb.sim.scenarios import SCENARIOS
from tools.mutate import generated, reach, report, run, sandbox, table
from tools.mutate.__main__ import arguments, chosen, is_failed
from tools.mutate.checks import CHECKS, PROOF, RUN, TEST, UNIT, Check, by_scenario, by_scenarios, by_test
from tools.mutate.place import PlaceError, mutated
from tools.mutate.table import ROOT, Mutation

MUTATIONS, PLANNED = table.read()
SOURCE = """class A:
    def f(self, x):
        if x > 1:
            y = x
            return y
        return 0

    def g(self, x):
        return x > 1
"""


# ---------------------------------------------------------------------- the table of this project


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_has_its_place_and_makes_a_difference(mutation: Mutation) -> None:
    changed = mutation.apply(ROOT)
    assert changed != (ROOT / mutation.file).read_text()


def test_every_entry_says_what_it_breaks_in_sentences() -> None:
    for each in MUTATIONS:
        assert re.fullmatch(r"[a-z0-9-]+", each.name)
        assert each.breaks.endswith(".") and each.matters.endswith(".")
        assert set(each.promise) <= set(range(1, 10)), each.name


@pytest.mark.parametrize("mutation", [each for each in MUTATIONS if each.test], ids=lambda mutation: mutation.name)
def test_the_test_that_a_mutation_names_exists(mutation: Mutation) -> None:
    file, _, name = mutation.test.partition("::")
    function = name.partition("[")[0].partition("::")[0]
    assert re.search(rf"^ *(def|class) {function}\b|^{function} = ", (ROOT / "tests" / file).read_text(), re.MULTILINE)


def test_the_scenarios_that_mutations_name_exist() -> None:
    assert {each.scenario for each in MUTATIONS if each.scenario} <= set(SCENARIOS)


def test_a_quick_run_first_tries_only_the_scenarios_that_its_mutations_name() -> None:
    """What another one says is no word about these mutations."""
    named = [each for each in MUTATIONS if each.scenario][:2]
    others = [each for each in MUTATIONS if not (each.scenario or each.explored)]
    tried = by_scenarios([*named, *others])
    assert {check.command[-1] for check in tried} == {each.scenario for each in named}


def test_no_planned_mutation_has_a_name_that_is_taken() -> None:
    names = [each.name for each in (*MUTATIONS, *PLANNED)]
    assert len(set(names)) == len(names)


def test_explained_survivors_are_still_in_the_sources() -> None:
    known = generated.explained()
    assert generated.out_of_date(ROOT, known) == []
    assert all(each.reason.endswith(".") for each in known)


# ---------------------------------------------------------------------- places


@pytest.mark.parametrize(
    ("scope", "old", "new", "expected"),
    [
        ("A.f", "x > 1", "x >= 1", SOURCE.replace("if x > 1", "if x >= 1")),
        ("A.g", "x > 1", "x >= 1", SOURCE.replace("return x > 1", "return x >= 1")),
        ("A.f", "y = x\nreturn y", "return x", SOURCE.replace("y = x\n            return y", "return x")),
        ("", "return 0", "y = 2\nreturn y", SOURCE.replace("return 0", "y = 2\n        return y")),
    ],
)
def test_a_text_is_replaced_where_it_stands(scope: str, old: str, new: str, expected: str) -> None:
    assert mutated(SOURCE, scope, old, new) == expected


@pytest.mark.parametrize(
    ("scope", "old", "new", "told"),
    [
        ("", "x > 1", "x >= 1", "the text occurs 2 times, expected once: x > 1"),
        ("A.f", "x < 1", "x >= 1", "the text occurs 0 times"),
        ("A.h", "x > 1", "x >= 1", "A.h is defined 0 times"),
        ("A.f", "x > 1", "x >", "does not compile"),
        ("A.f", "x > 1", "(x > 1)", "makes no difference"),
        ("A.f", "x > 1", "x\n> 1", "several lines can only replace whole lines"),
        ("A.f", "", "x", "there is no text to replace"),
        ("A.f", "y = x\nreturn x", "return x", "the text occurs 0 times"),
    ],
)
def test_a_place_that_is_not_exactly_one_is_an_error(scope: str, old: str, new: str, told: str) -> None:
    with pytest.raises(PlaceError, match=re.escape(told)):
        mutated(SOURCE, scope, old, new)


# ---------------------------------------------------------------------- the table's format


ENTRY = """
[[mutation]]
name = "a"
place = "core/x.py:f"
old = "1"
new = "2"
breaks = "It breaks."
matters = "It matters."
promise = [1]
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (ENTRY + ENTRY, "a is the name of 2 entries"),
        (ENTRY.replace("core/x.py", "node/x.py"), "the place is not in core/ or model/"),
        (ENTRY.replace('old = "1"', ""), "missing keys ['old']"),
        (ENTRY + 'also = "b"', "unknown keys ['also']"),
        (ENTRY.replace("It matters.", ""), "empty keys ['matters']"),
        (ENTRY.replace("mutation", "mutations"), "unknown table [[mutations]]"),
    ],
)
def test_an_entry_that_is_not_well_formed_is_an_error(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ValueError, match=re.escape(told)):
        table.read(tmp_path)


def test_a_planned_mutation_may_have_a_draft(tmp_path: Path) -> None:
    plan = '\n[[planned]]\nname = "b"\nrule = "R."\nbreaks = "B."\nmatters = "M."\npromise = [2]\n'
    (tmp_path / "a.toml").write_text(plan + ENTRY.replace("mutation", "planned") + 'rule = "R."\n')
    mutations, planned = table.read(tmp_path)
    assert mutations == []
    assert [(each.name, each.promise, each.draft is None) for each in planned] == [
        ("b", (2,), True),
        ("a", (1,), False),
    ]
    (tmp_path / "a.toml").write_text(plan + 'old = "1"')
    with pytest.raises(ValueError, match=re.escape("b: missing keys [], unknown keys ['old']")):
        table.read(tmp_path)


def test_a_sample_is_fixed_and_hardly_changes_with_a_new_entry() -> None:
    options = arguments(["--sample", "5", "--seed", "3"])
    first = [each.name for each in chosen(MUTATIONS, options)]
    assert [each.name for each in chosen(MUTATIONS[::-1], options)] == first
    without = [each for each in MUTATIONS if each.name != first[0]]
    assert set(first[1:]) < {each.name for each in chosen(without, options)}


# ---------------------------------------------------------------------- checks in a copy of the sources


def check(*lines: str, kind: str = UNIT, cpu_s: float = 20.0, quiet_cpu_s: float = 10.0) -> Check:
    return Check(
        "check", kind, ("-c", "\n".join(lines)), re.compile("^FOUND (?P<what>.*):(?P<how>.*)"), cpu_s, quiet_cpu_s
    )


@pytest.mark.parametrize(
    ("each", "found", "what"),
    [
        (check("print('fine')"), False, ""),
        (check("print('FOUND it: here', flush=True)", "while True: pass"), True, "it"),
        (check("raise SystemExit(3)"), True, "exit code 3"),
        (check("while True: pass", cpu_s=0.3), False, ""),
        (check("while True: pass", quiet_cpu_s=0.3), True, "no end"),
    ],
    ids=["passes", "prints", "fails", "uses up its time", "has no end"],
)
def test_what_a_check_says(tmp_path: Path, each: Check, found: bool, what: str) -> None:
    outcome = sandbox.run(each, tmp_path)
    assert (outcome.found, outcome.what) == (found, what)


def test_a_mutation_is_seen_by_checks_in_its_copy_alone(tmp_path: Path) -> None:
    mutation = replace(next(each for each in MUTATIONS if not each.unit_only), test="", scenario="")
    base = tmp_path / "base"
    base.mkdir()
    sandbox.prepare(ROOT, base)
    text = mutation.apply(ROOT)
    look = (
        "import sdlb, pathlib, sys",
        f"text = pathlib.Path({mutation.file!r}).read_text()",
        "inside = pathlib.Path(sdlb.__path__[0]).is_relative_to(pathlib.Path.cwd())",
        f"sys.exit(inside and text == {text!r})",
    )
    checks = (check(*look), check(*look, kind=PROOF))
    [verdict] = run.judge_all([mutation], ROOT, base, checks, jobs=2)
    assert verdict.caught and not verdict.survived
    assert [each.what for each in verdict.outcomes] == ["exit code 1", "exit code 1"]
    assert report.line(verdict).endswith("caught")
    assert not sandbox.run(checks[0], base).found
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_mutation_that_nothing_finds_has_survived(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    sandbox.prepare(ROOT, base)
    [verdict] = run.judge_all(
        [replace(MUTATIONS[0], test="", scenario="")], ROOT, base, (check("pass"), check("pass", kind=PROOF)), jobs=1
    )
    assert verdict.survived and not verdict.caught
    assert report.line(verdict).endswith("SURVIVED")


def test_what_a_mutation_names_is_run_first(tmp_path: Path) -> None:
    named = replace(MUTATIONS[0], test="core/test_slot.py::test_x", scenario="cloned-host")
    checks = run.in_order(named, (check("pass"), check("pass", kind=PROOF)))
    assert [each.kind for each in checks] == [UNIT, UNIT, PROOF, PROOF]
    assert checks[0] == by_test(named.test) and checks[2] == by_scenario("cloned-host")


def test_only_named_checks_are_run_of_a_mutation_that_has_to_be_found_by_them() -> None:
    options = arguments(["--named"])
    assert [each for each in chosen(MUTATIONS, options) if not each.test] == []
    found, missed = (sandbox.Outcome("unit", each, 1.0) for each in (True, False))
    assert not is_failed(run.Verdict(MUTATIONS[0], (found,)), [], options)
    assert is_failed(run.Verdict(MUTATIONS[0], (found,), (missed,)), [], options)


def test_only_tests_that_call_the_changed_function_are_run(tmp_path: Path) -> None:
    lines = [
        {"test": "t.py::a[1]", "cpu_s": 0.1, "calls": ["core/slot.py:Slot.count"]},
        {"test": "t.py::a[2]", "cpu_s": 0.2, "calls": ["core/slot.py:Slot.count"]},
        {"test": "t.py::b", "cpu_s": 0.3, "calls": ["core/slot.py:Slot.count", "core/slot.py:includes"]},
        {"test": "t.py::c", "cpu_s": 0.4, "calls": ["core/slot.py:includes"]},
    ]
    (tmp_path / reach.FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    reached = reach.read(tmp_path)
    assert reach.tests_of("core/slot.py:Slot.count", reached) == ["t.py::a[1]", "t.py::b", "t.py::a[2]"]
    assert reach.tests_of("core/slot.py:includes", reached) == ["t.py::b", "t.py::c"]
    assert reach.tests_of("core/slot.py:Slot", reached) == reach.tests_of("core/slot.py:", reached) == []
    assert reach.read(tmp_path / "nowhere") == []


def test_what_simulator_and_tests_print_is_understood() -> None:
    seed = "seed 4     BROKEN  12 nodes\n  at 12.5 s: promise 3: lost\n    trace\n"
    scripted = "rack-leaves-while-its-host-serves               BROKEN  x\n  at 1.000 s: promise 1: both\n"
    assert [(each := RUN.search(text)) and (each["what"], each["how"]) for text in (seed, scripted)] == [
        ("seed 4", "promise 3: lost"),
        ("rack-leaves-while-its-host-serves", "promise 1: both"),
    ]
    assert RUN.search("seed 4     held  12 nodes\n") is None
    failed = TEST.search("FAILED tests/core/test_slot.py::test_x[a-b] - assert 1 == 2\n")
    assert failed is not None and failed["what"] == "tests/core/test_slot.py::test_x[a-b]"


def test_there_are_checks_of_both_kinds() -> None:
    assert {each.kind for each in CHECKS} == {UNIT, PROOF}
    assert len({each.name for each in CHECKS}) == len(CHECKS)


# ---------------------------------------------------------------------- generated mutations


GENERATED_FROM = """from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=64)
def f(x: int | None) -> int:
    return x < 1
"""


def test_generated_mutations_compile_and_can_be_named_by_their_lines(tmp_path: Path) -> None:
    folder = tmp_path / "src/sdlb/core"
    folder.mkdir(parents=True)
    (folder / "a.py").write_text(GENERATED_FROM)
    places = generated.positions(tmp_path)
    made = list(generated.sample(tmp_path, places, None, 1))
    assert {each.new for each in made} == {"return x <= 1", "return x >= 1", "return x < 2", "return x < 0"}
    assert {(each.scope, each.old) for each in made} == {("f", "return x < 1")}
    known = [generated.Explained("core/a.py", "f", "return x < 1", "return x <= 1", "It is the same.")]
    assert sorted(generated.reason_of(each, known) for each in made) == ["", "", "", "It is the same."]
    assert generated.out_of_date(tmp_path, known) == []
    (folder / "a.py").write_text("def f(x):\n    return x < 7\n")
    assert generated.out_of_date(tmp_path, known) == known


def test_a_sample_of_generated_mutations_is_fixed() -> None:
    places = generated.positions(ROOT)
    assert len(places) > 1000
    first, second = (list(generated.sample(ROOT, places, 3, 7)) for _ in range(2))
    assert len(first) == 3 and first == second
    assert all(each.generated for each in first)
