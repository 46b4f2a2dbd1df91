"""`make bench` by what it says; what it measures is no test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench import edge, processes, stand
from bench.report import CannotRun, Report, Row, below, targets

ROOT = Path(__file__).parents[2]


def bench(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *words],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}/src", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_names_every_case() -> None:
    done = bench("--help")
    assert done.returncode == 0
    for case in (
        "proxy",
        "edge",
        "latency",
        "cores",
        "tiers",
        "change",
        "reads",
        "idle",
        "register",
        "upgrade",
        "scale",
        "sites",
    ):
        assert f"  {case} " in done.stdout


def test_an_unknown_case_is_a_usage_error() -> None:
    done = bench("proxies")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        "unknown case 'proxies'; choose from proxy, edge, latency, cores, tiers, idle, register, change, reads, upgrade, scale, sites"
    )


def test_what_is_built_for_the_bench_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(CannotRun, match=r"^floor is not installed; `make bench` does that$"):
        processes.installed("floor")
    assert stand.version("envoy") == ""


def test_a_row_without_its_peer_is_no_verdict() -> None:
    """Envoy may be absent; what is compared with the others goes on."""
    h2 = next(case for case in edge.CASES if case.name == "h2-tls")
    rows = edge.rows_of(h2, {"sdlb": [10.0, 12.0], "nginx": [9.0], "haproxy": [11.5]})
    assert [row.verdict for row in rows] == ["met", ""]
    assert rows[0].target == "<= 11.5 us (1.00 x haproxy)"
    assert rows[1].measured.endswith("no envoy")


def test_who_comes_first_changes_and_the_first_round_counts_for_nothing() -> None:
    order: list[str] = []

    def measure(name: str, warm_up: bool) -> bool:
        order.append(name)
        return warm_up

    assert processes.interleaved(["a", "b"], 2, measure) == {"a": [False, False], "b": [False, False]}
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_a_missing_tool_is_one_line_that_says_how_to_install_it(tmp_path: Path) -> None:
    done = bench("proxy", "--json", PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "bench: proxy: wrk is not installed; on Debian: apt-get install wrk\n"
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (below("a", 1.0, 1.0, "s"), "MISSED"),
        (below("a", 0.99, 1.0, "s"), "met"),
        (Row("a", "", "1"), ""),
    ],
)
def test_a_figure_meets_its_target_or_not(row: Row, verdict: str) -> None:
    report = Report("case", "title", ["how"], [row])
    assert row.verdict == verdict
    assert report.met == (verdict != "MISSED")
    assert report.text().splitlines()[-1].split("|")[4].strip() == verdict


def test_one_table_has_all_that_has_a_target() -> None:
    reports = [
        Report("one", "", [], [below("a", 1.0, 2.0, "s"), Row("b", "", "1")]),
        Report("two", "", [], [below("c", 1.0, 0.5, "s")]),
    ]
    lines = targets(reports).splitlines()[4:]
    assert [[cell.strip() for cell in line.split("|")[1:5]] for line in lines] == [
        ["a", "< 2 s", "1.0 s", "met"],
        ["c", "< 0.5 s", "1.0 s", "MISSED"],
    ]


def test_quantiles_are_of_what_was_measured() -> None:
    values = [float(n) for n in range(1, 1001)]
    assert [processes.quantile(values, share) for share in (0.001, 0.5, 0.99, 1)] == [1.0, 500.0, 990.0, 1000.0]
    assert processes.quantile([3.0], 0.99) == 3.0
