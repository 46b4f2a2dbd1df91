"""Files of policies: TOML and JSON, and errors that name the line."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from sdlb.cli.policy_file import json_lines, parse, read, toml
from sdlb.sdk.problem import Problem
from tests.model.test_policy_layers import documents

TOML = """\
[policy."*"]                      # a name, a prefix with a final *, or *
park = {timeout_s = 30}

[policy.catalog]
cut_over = "flip"
max_unavailable = "25%"
gate = [{name = "migrate", kind = "hook", at = "gap", run = "migrate-catalog", timeout_s = 20, back = false}]

[[policy.shop.gate]]
name = "night"
kind = "window"
hours = "22:00-04:00"
"""
DOCUMENTS: dict[str, Any] = {
    "*": {"park": {"timeout_s": 30}},
    "catalog": {
        "cut_over": "flip",
        "max_unavailable": "25%",
        "gate": [
            {"name": "migrate", "kind": "hook", "at": "gap", "run": "migrate-catalog", "timeout_s": 20, "back": False}
        ],
    },
    "shop": {"gate": [{"name": "night", "kind": "window", "hours": "22:00-04:00"}]},
}


def test_toml_and_json(tmp_path: Path) -> None:
    assert parse(TOML, "p.toml") == DOCUMENTS
    assert parse(json.dumps({"policy": DOCUMENTS}, indent=2), "p.json") == DOCUMENTS
    assert parse("", "p.toml") == parse("{}", "p.json") == {}
    file = tmp_path / "policies"
    file.write_text(TOML)
    assert read(str(file)) == DOCUMENTS


BAD = {
    "an unknown key": (
        '[policy.catalog]\npriority = "even"\nprioirty = "even"\n',
        3,
        "prioirty.*did you mean 'priority'",
    ),
    "an unknown inner key": ("[policy.catalog.park]\ntimeout = 3\n", 2, "policy.catalog: park: timeout.*'timeout_s'"),
    "an inline table": ("[policy.catalog]\n\npark = {timeout = 3}\n", 3, "park: timeout.*'timeout_s'"),
    "a value": ('[policy."*"]\n[policy."cat*"]\ntimeout_s = "long"\n', 3, 'policy."cat\\*": timeout_s: has the value'),
    "a gate": (
        '[policy.c]\n[[policy.c.gate]]\nname="a"\nkind="soak"\n[[policy.c.gate]]\nname="b"\nkind="moon"\n',
        7,
        "gate",
    ),
    "a version": ('[policy.catalog]\n[policy.catalog.shares]\n"a b" = 5\n', 1, "policy.catalog: version 'a b'"),
    "a name": ('[policy.catalog]\n[policy."a*b"]\n', 2, "policy.*a\\*b"),
    "no table": ("policy = 5\n", 1, "policy: is not a table"),
    "no document": ("[policy]\ncatalog = 5\n", 2, "policy.catalog: is not an object"),
    "a table outside": ("[policy.catalog]\n[catalog]\n", 2, "catalog: is not a known key; write tables like"),
    "no TOML": ('[policy.catalog]\npriority = "even\n', 2, ""),
    "a bare pattern": ("\n[policy.cat*]\n", 2, r'\[policy."cat\*"\]'),
    "a time": ("[policy.catalog]\nhold = [2020-01-01]\n", 2, "hold"),
    "no end": ("[policy.catalog]\nshares = {", 2, ""),
    "a duplicate": ('[policy.catalog]\npriority = "even"\npriority = "even"\n', 3, ""),
    "no JSON": ('{"policy":\n {,}}', 2, ""),
    "JSON: an unknown key": ('{"policy": {\n"catalog": {"priority": "even",\n "prioirty": 1}}}', 3, "prioirty"),
    "JSON: a gate": (
        '{"policy": {"c": {\n"gate": [\n{"name": "a", "kind": "soak"},\n{"name": "b",\n "kind": "moon"}]}}}',
        5,
        "gate",
    ),
    "JSON: outside": ('{\n"policies": {}}', 2, "policies: is not a known key"),
    "JSON: deep": ("{" + '"a":{' * 100_000, 1, ""),
}


@pytest.mark.parametrize(("text", "line", "says"), BAD.values(), ids=BAD)
def test_an_error_names_file_and_line(text: str, line: int, says: str) -> None:
    with pytest.raises(Problem, match=f"^p:{line}: .*{says}") as failure:
        parse(text, "p")
    assert "\n" not in failure.value.detail


def test_lines_of_json() -> None:
    text = '{"a": [1, {"b":\n 2}, [\n3, 4]],\n"c\\"d": {},\n"e": [],\n "f": {"g": "}"}, "h": 1}'
    data = json.loads(text)
    lines = json_lines(text)
    found: dict[tuple[str, ...], object] = {}

    def visit(value: object, path: tuple[str, ...]) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, each in items:
            found[*path, str(key)] = each
            visit(each, (*path, str(key)))

    visit(data, ())
    assert {path for path in lines if path[-1] != "0" or path in found} == set(found)
    assert lines["a",] == 1 and lines["a", "1", "b"] == 1 and lines["a", "2", "1"] == 3
    assert lines['c"d',] == 4 and lines["e",] == 5 and lines["f", "g"] == lines["h",] == 6


@given(documents(), documents())
def test_what_is_written_for_the_editor_is_read_again(a: dict[str, Any], b: dict[str, Any]) -> None:
    """Except null, which TOML does not have."""
    text = toml({"*": a, "cat-1.x": b})
    expected = _without_null({"*": a, "cat-1.x": b})
    assert tomllib.loads(text) == {"policy": json.loads(json.dumps(expected))}


def _without_null(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_null(each) for key, each in value.items() if each is not None}
