"""`policy set` changes what is named and nothing else."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlb.cli.args import Parser, Usage
from sdlb.cli.policy import add_changes, changed, merged, read_file, without
from sdlb.model.policy import Policy
from sdlb.model.policy_text import changes, setting_text
from sdlb.sdk.problem import Problem


def after(had: dict[str, Any], *words: str) -> dict[str, Any]:
    parser = Parser(prog="test")
    add_changes(parser)
    return merged(had, changed(parser.parse_args(words)))


HAD: dict[str, Any] = {
    "priority": "even",
    "shares": {"1.0.1": 20.0},
    "sticky": {"by": "client", "name": ""},
    "compatibility": {"rule": "minor", "ranges": ["<2"], "allow": [["1.0", "2.0"]], "deny": [["1.0", "3.0"]]},
    "of_a_newer_node": {"x": 1},
}


def with_rules(**changes: Any) -> dict[str, Any]:
    return {"compatibility": {**HAD["compatibility"], **changes}}


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["--rule", "any"], with_rules(rule="any")),
        (["--priority", "higher"], {"priority": "higher"}),
        (["--share", "1.0.2=5"], {"priority": "share", "shares": {"1.0.1": 20.0, "1.0.2": 5.0}}),
        (["--share", "1.0.1="], {"priority": "share", "shares": {}}),
        (["--share", "1.0.1=0.5%", "--priority", "even"], {"shares": {"1.0.1": 0.5}}),
        (["--sticky", "cookie:sid"], {"sticky": {"by": "cookie", "name": "sid"}}),
        (["--sticky", "client"], {"sticky": {"by": "client", "name": ""}}),
        (["--sticky", "none"], {"sticky": None}),
        (["--allow", "4~1.0"], with_rules(allow=[["1.0", "2.0"], ["1.0", "4"]])),
        (["--allow", "3.0~1.0"], with_rules(allow=[["1.0", "2.0"], ["1.0", "3.0"]], deny=[])),
        (["--deny", "2.0~1.0"], with_rules(allow=[], deny=[["1.0", "3.0"], ["1.0", "2.0"]])),
        (["--range", "3", "--range", "<2"], with_rules(ranges=["<2", "3"])),
        (["--range", "none", "--range", "3"], with_rules(ranges=["3"])),
        (["--scheme", "semver"], with_rules(scheme="semver")),
        (["--on-silence", "wait"], {"on_silence": "wait"}),
        (["--park-timeout", "0"], {"park": {"timeout_s": 0.0}}),
        (["--park-max", "0"], {"park": {"requests_max": 0}}),
        (["--drain-deadline", "5", "--drain-then", "cut"], {"drain": {"deadline_s": 5.0, "then": "cut"}}),
        (["--sticky", "session"], {"sticky": {"by": "session", "name": ""}}),
        (["--drain-streams", "0"], {"drain": {"streams_s": 0.0}}),
        (["--cut-over", "flip", "--max-unavailable", "25%"], {"cut_over": "flip", "max_unavailable": "25%"}),
        (["--hold", "2.5.1", "--hold", "all"], {"hold": ["2.5.1", "*"]}),
        (["--hold", "none"], {"hold": []}),
        (["--pin", ">=2,<3", "--pin", "1.0.1"], {"pin": [">=2,<3", "1.0.1"]}),
        (["--pin", "none"], {"pin": []}),
        (["--never-below", "2.5"], {"never_below": "2.5"}),
        (["--never-below", "none"], {"never_below": ""}),
    ],
)
def test_named_settings_change_and_the_others_stay(words: list[str], changes: dict[str, Any]) -> None:
    assert after(HAD, *words) == {**HAD, **changes}


def test_lists_and_shares_begin_with_those_in_force() -> None:
    """The own document replaces them as a whole, so that what a pattern sets would be lost."""
    policy = {
        "shares": {"1.0.1": 5.0},
        "hold": ["3.0"],
        "pin": ["1.0.1"],
        "compatibility": {"ranges": ["<2"], "allow": [["1", "2"]], "deny": [["1", "3"]]},
    }
    parser = Parser(prog="test")
    add_changes(parser)

    def own(*words: str) -> dict[str, Any]:
        return merged({}, changed(parser.parse_args(words)), policy)

    assert own("--share", "1.0.2=7")["shares"] == {"1.0.1": 5.0, "1.0.2": 7.0}
    assert own("--hold", "4.0") == {"hold": ["3.0", "4.0"]}
    assert own("--pin", "2.0") == {"pin": ["2.0"]}
    assert own("--range", "3") == {"compatibility": {"ranges": ["<2", "3"]}}
    assert own("--allow", "3~1") == {"compatibility": {"allow": [["1", "2"], ["1", "3"]], "deny": []}}
    assert own("--deny", "4~1") == {"compatibility": {"deny": [["1", "3"], ["1", "4"]]}}
    assert own("--rule", "any") == {"compatibility": {"rule": "any"}}


def test_unset_removes_only_what_is_named() -> None:
    assert without(HAD, ["priority", "compatibility.rule", "sticky", "timeout_s"]) == {
        "shares": HAD["shares"],
        "compatibility": {key: value for key, value in HAD["compatibility"].items() if key != "rule"},
        "of_a_newer_node": {"x": 1},
    }
    assert "compatibility" not in without(HAD, ["compatibility"])
    assert without({"park": {"timeout_s": 3}}, ["park.timeout_s"]) == {}
    for key, near in (("prioirty", "priority"), ("park.timeout", "park.timeout_s"), ("sticky.by", ""), ("", "")):
        with pytest.raises(Usage, match=f"{key} is not a known key.*{near}"):
            without(HAD, [key])


def test_the_output_of_get_sets_nothing_that_was_not_set(tmp_path: Path) -> None:
    document = {"priority": "even", "park": {"timeout_s": 5}}
    sources = {"priority": "web", "park.timeout_s": "*"}
    whole = {"service": "web", "policy": Policy.from_data(document).to_data(), "sources": sources}
    file = tmp_path / "get.json"
    file.write_text(json.dumps(whole))
    assert read_file(str(file)) == document
    whole["policy"] |= {"on_silence": "wait"}
    file.write_text(json.dumps(whole))
    assert read_file(str(file)) == {**document, "on_silence": "wait"}


VERSIONS = st.sampled_from(["1.0", "1.1", "2.0", "3"])
PAIRS = st.tuples(st.sampled_from(["--allow", "--deny"]), VERSIONS, VERSIONS)


@given(st.lists(PAIRS, max_size=12))
def test_no_pair_is_ever_allowed_and_denied_and_the_last_word_counts(pairs: list[tuple[str, str, str]]) -> None:
    had: dict[str, Any] = {}
    for option, one, other in pairs:
        had = after(had, option, f"{one}~{other}")
        assert sorted((one, other)) in had["compatibility"][option[2:]]
        rules = had["compatibility"]
        assert not [pair for pair in rules.get("allow", ()) if pair in rules.get("deny", ())]


def test_what_was_there_is_not_touched() -> None:
    before = repr(HAD)
    after(HAD, "--rule", "any", "--deny", "1.0~2.0", "--range", "none", "--share", "7=1")
    assert repr(HAD) == before


def test_what_is_sent_is_what_a_node_accepts() -> None:
    words = ["--share", "1.0.2=5", "--sticky", "header:x-user", "--rule", "any", "--scheme", "semver", "--range", "<2"]
    words += [
        "--allow",
        "1.0~2.0",
        "--deny",
        "1.0~3.0",
        "--on-silence",
        "wait",
        "--park-timeout",
        "3",
        "--park-max",
        "9",
    ]
    sent = after(Policy().to_data(), *words)
    assert Policy.from_data(sent).to_data() == sent


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml = tmp_path / "p.toml"
    toml.write_text('priority = "share"\n[shares]\n"1.0.2" = 5\n')
    other = tmp_path / "p.json"
    other.write_text('{"priority": "share", "shares": {"1.0.2": 5}}')
    assert read_file(str(toml)) == read_file(str(other)) == {"priority": "share", "shares": {"1.0.2": 5}}
    monkeypatch.setattr("sys.stdin", io.StringIO(other.read_text()))
    assert read_file("-") == read_file(str(other))
    for bad in ("{", "[1]", "7", ""):
        other.write_text(bad)
        with pytest.raises(Problem, match=r"p\.json"):
            read_file(str(other))


def test_in_words() -> None:
    assert setting_text({"1.0.2": 5.0, "1.0.3": 2.5}) == "1.0.2=5, 1.0.3=2.5"
    assert setting_text([["1.0", "2.0"], ["1.0", "3.0"]]) == "1.0~2.0, 1.0~3.0"
    assert setting_text({"by": "cookie", "name": "sid"}) == "cookie:sid"
    assert setting_text({"by": "client", "name": ""}) == "client"
    nothings: list[object] = [{}, [], "", None]
    for nothing in nothings:
        assert setting_text(nothing) == "-"


def test_what_a_change_has_changed() -> None:
    had = Policy().to_data()
    has = Policy.from_data({"priority": "share", "shares": {"1.0.2": 5}, "park": {"timeout_s": 5}}).to_data()
    assert changes(had, had) == []
    assert changes(had, has) == ["priority: even -> share", "shares: - -> 1.0.2=5", "park.timeout_s: 30 -> 5"]
    assert changes({"gone": 1}, {"new": True}) == ["new: - -> true", "gone: 1 -> -"]
