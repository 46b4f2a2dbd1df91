"""The alert rules and the dashboard of docs/monitor name metrics that a node exports, and the rules pass their unit tests."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdlb.node import metrics
from sdlb.node.metric_texts import TEXTS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/monitor"
RULES = (FOLDER / "alerts.yml").read_text()
RULE_TESTS = (FOLDER / "alerts_test.yml").read_text()
RUNBOOK = (FOLDER / "alerts.md").read_text()
NAME = re.compile(r"\bsdlb_[a-z0-9_]+")
ALERT = re.compile(r"^ +- alert: (\w+)$", re.MULTILINE)
HISTOGRAM_PARTS = ("_bucket", "_sum", "_count")
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian package prometheus)"
)


def exported() -> set[str]:
    """Names of all samples that `/metrics` may have, as src/sdlb/node/metrics.py builds them."""
    assert metrics.__file__ is not None
    names: set[str] = set()
    for node in ast.walk(ast.parse(Path(metrics.__file__).read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and NAME.fullmatch(node.value):
            names.add(node.value)
    for end in ("parent", "child"):  # f"sdlb_{kind}_link"
        names |= {f"sdlb_{end}_link", f"sdlb_{end}_silent_seconds"}
    names |= {name + part for name in names if name.endswith("_seconds") for part in HISTOGRAM_PARTS}
    return names | {f"sdlb_engine_{name}" for name in TEXTS}


def expressions() -> Iterator[str]:
    """PromQL of the dashboard, its variables included."""
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield re.sub(r"^label_values\((.*), \w+\)$", r"\1", variable["query"]["query"])


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", sorted(path.name for path in FOLDER.iterdir()))
def test_every_metric_that_is_named_is_exported(page: str) -> None:
    named = {name for name in NAME.findall((FOLDER / page).read_text()) if not name.endswith("_")}
    assert named - exported() == set()


def test_the_parts_without_which_these_tests_prove_nothing() -> None:
    assert len(exported()) > 100
    assert len(NAME.findall(RULES)) > 30
    assert len(list(expressions())) > 40


def test_every_event_that_is_named_is_counted_from_the_start() -> None:
    """`increase()` misses the first event of a series that begins with it."""
    named = set(re.findall(r'\bcode="([a-z-]+)"', RULES))
    assert named
    assert named <= {code for _, code in metrics.ALERTS}


def test_every_alert_has_a_unit_test_and_a_row_in_the_runbook() -> None:
    alerts = ALERT.findall(RULES)
    assert len(alerts) == len(set(alerts)) > 20
    assert set(re.findall(r"^ +- alertname: (\w+)$", RULE_TESTS, re.MULTILINE)) == set(alerts)
    assert set(re.findall(r"^\| `(Sdlb\w+)` \|", RUNBOOK, re.MULTILINE)) == set(alerts)


@needs_promtool
def test_promtool_accepts_the_rules() -> None:
    promtool("check", "rules", str(FOLDER / "alerts.yml"))


@needs_promtool
def test_the_unit_tests_of_the_rules_pass() -> None:
    promtool("test", "rules", str(FOLDER / "alerts_test.yml"))


@needs_promtool
def test_promtool_accepts_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{index}", "expr": expression.replace("$__rate_interval", "5m")}
        for index, expression in enumerate(expressions())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(file))


@needs_promtool
def test_promtool_accepts_the_scrape_configuration(tmp_path: Path) -> None:
    page = (FOLDER / "prometheus.md").read_text()
    (block,) = re.findall(r"^```yaml\n(scrape_configs:.*?)^```", page, re.MULTILINE | re.DOTALL)
    file = tmp_path / "prometheus.yml"
    file.write_text(block)
    promtool("check", "config", "--syntax-only", str(file))
