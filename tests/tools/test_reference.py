"""The tables of docs/reference say what the code has: nothing less, nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import get_args

import pytest

from sdlb.core.balancer import PASSING
from sdlb.model.event_texts import EVENTS
from sdlb.model.policy import Policy
from sdlb.model.policy_text import lines
from sdlb.model.policy_texts import SETTINGS
from sdlb.model.reason import KINDS, NothingReady
from sdlb.model.reason_texts import REASONS
from sdlb.node import (
    config,
    config_acme,
    config_hardening,
    config_hooks,
    config_identity,
    config_roles,
    config_sites,
    config_texts,
    metric_texts,
    schema,
)
from sdlb.node.metrics import ALERTS
from tools.reference import OPERATE, PAGES, ROOT, filled, generators, options

SOURCES = [path for path in sorted((ROOT / "src/sdlb").rglob("*.py")) if "sim" not in path.parts]
REFUSALS = ("protocol", "cycle", "bad-hello", "name-taken", "older-incarnation", "cloned")
INSTANCES = ("healthy", "unhealthy", "gone", "removed", "presumed-stopped")
MADE = {
    *(f"refused-{each}" for each in REFUSALS),
    *(f"instance-{each}" for each in INSTANCES),
    *("claim-active", "claim-refused", "claim-waiting"),
    *("certificate-issued", "certificate-renewed"),
    *("identity-unreadable", "identity-refused", "identity-ends", "identity-ended"),
    *(f"gate-{each}" for each in ("opened", "refused", "timeout")),
    *(f"cutover-{each}" for each in ("closing", "gap", "opened", "reverted", "stuck", "undone")),
    *("node-updated", "node-failed", "node-reverted"),
    *("engine-hangs", "engine-answers", "engine-memory-full", "engine-memory-high", "log-lines-dropped"),
}
"""Codes that are made of parts or handed on, so that no call shows them."""


def literal_codes() -> Iterator[str]:
    """Those that stand in a call which reports an event."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and "cli" not in path.parts:
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                at = {"Note": 0, "note": 0, "_note": 1 if path.name == "certificates.py" else 0}.get(name)
                code = node.args[at] if at is not None and len(node.args) > at else None
                if isinstance(code, ast.Constant) and isinstance(code.value, str):
                    yield code.value


def test_every_event_is_described_and_no_other() -> None:
    assert set(EVENTS) == {*literal_codes(), *MADE}


def test_codes_that_are_made_of_parts_are_in_the_sources() -> None:
    sources = "".join(path.read_text() for path in SOURCES if path.name != "event_texts.py")
    for code in MADE:
        part = code.removeprefix("refused-").removeprefix("instance-")
        assert f'"{code}"' in sources or f'"{part}"' in sources, code


def test_events_of_the_alerts_have_their_level() -> None:
    assert [code for level, code in ALERTS if level not in EVENTS[code].levels] == []
    assert {level for each in EVENTS.values() for level in each.levels} == {"info", "warning", "error"}


def test_every_reason_is_described() -> None:
    local = {"opening", "lapsed", "unhealthy", "superseded"}
    certificates = {f"certificate-{each}" for each in ("unreadable", "refused", "not-issued")}
    assert set(REASONS) == {*KINDS, NothingReady.code, *local, *certificates}
    view = (ROOT / "src/sdlb/core/view.py").read_text()
    assert [code for code in local if f'"{code}"' not in view] == []
    assert set(REASONS) >= PASSING


def test_every_setting_of_a_policy_is_described() -> None:
    """By the key that `policy get` prints and that `policy set --set` takes."""
    assert set(SETTINGS) == {*(key for key, _ in lines(Policy().to_data())), "sticky.by", "sticky.name"}
    assert set(schema.PolicyDocument.__struct_fields__) == {key.partition(".")[0] for key in SETTINGS}


def test_every_key_of_the_node_file_is_described() -> None:
    tables = {
        "listen",
        "hardening",
        "timing",
        "limits",
        "log",
        "store",
        "identity",
        "site",
        "hook",
        "role",
        "acme",
        "haproxy",
        "source",
    }
    top = {key for key in config_texts.KEYS if "." not in key}
    assert top == set(config.TOP) - tables
    below = {
        name: {key.partition(".")[2] for key in config_texts.KEYS if key.startswith(f"{name}.")} for name in tables
    }
    assert below["limits"] == set(config.LIMITS)
    assert below["site"] == set(config_sites.KEYS)
    assert below["acme"] == set(config_acme.KEYS)
    assert below["identity"] == set(config_identity.KEYS)
    assert below["hook"] == set(config_hooks.KEYS)
    assert below["hardening"] == set(config_hardening.KEYS)
    assert below["role"] == set(config_roles.KEYS)
    assert below["listen"] >= set(config.LISTENERS)
    source = (ROOT / "src/sdlb/node/config.py").read_text()
    for name in ("listen", "timing", "log", "store"):
        listed = re.search(rf'table\(\s*"{name}", \(("[^)]+)\)', source)
        assert listed is not None
        assert {key.partition(".")[0] for key in below[name]} == set(re.findall(r'"(\w+)"', listed[1]))


def test_default_limits_are_those_of_the_engine() -> None:
    source = (ROOT / "engine/crates/engine/src/settings.rs").read_text()
    defaults = source.partition("impl Default for Limits {")[2].partition("\n}\n")[0]
    found = dict(re.findall(r"^ +(\w+): (.+),$", defaults, re.MULTILINE))
    for name in config.LIMITS:
        default, _ = config_texts.KEYS[f"limits.{name}"]
        text = found.get(name.removesuffix("_ms"))
        if text is None or text == "None":
            assert not default.isdecimal(), name
            continue
        number = int(re.sub(r"\D", "", text.replace("from_millis", "").replace("from_secs", "")))
        assert default == str(number * 1000 if "from_secs" in text else number), name


def test_every_metric_is_in_one_table() -> None:
    groups = (metric_texts.NODE, metric_texts.TREE, metric_texts.CERTIFICATES, metric_texts.TRAFFIC)
    assert sum(map(len, groups)) == len(metric_texts.FAMILIES)
    assert {each.kind for each in metric_texts.FAMILIES.values()} == {"gauge", "counter", "histogram"}
    assert [
        name for name, each in metric_texts.FAMILIES.items() if name.endswith("_total") != (each.kind == "counter")
    ] == []


def test_the_pages_are_current() -> None:
    known, used = generators(), set[str]()
    for path in [*PAGES.glob("*.md"), *OPERATE]:
        assert filled(path.read_text(), path.name, known, used) == path.read_text(), "run: make reference"
    assert used == set(known)


def test_an_unknown_table_is_an_error() -> None:
    page = "<!-- generated: none -->\nold\n<!-- end -->\n"
    with pytest.raises(ValueError, match=r"a\.md: there is no table 'none'"):
        filled(page, "a.md", {"events": str}, set())
    assert filled(page, "a.md", {"none": lambda: "new\n"}, set()) == page.replace("old", "new")


def test_options_are_spelled_as_they_are_typed() -> None:
    table = options("run")
    assert "| `NAME-VERSION` | " in table
    assert "| `--health PATH`, `tcp`, `none` | " in table
    assert "| `--protocol http1`, `h2c`, `tcp` | " in table
    assert "| `--quiet` | " in table
    assert get_args(schema.Priority)[0] in options("policy set")
