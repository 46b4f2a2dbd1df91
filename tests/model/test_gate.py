"""Gates and the opening rules of a policy: what is read, and one clear error for each bad value."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from sdlb.model.gate import Approval, DependsOn, Gate, Hook, MinReady, Soak, Window
from sdlb.model.opening import ALL, CUT_OVERS, Opening
from sdlb.model.policy import Policy
from sdlb.model.problem import Invalid
from tests.model.gates import GATES, OPENING


@given(GATES, OPENING)
def test_what_is_written_is_read_again(gates: tuple[Gate, ...], opening: Opening) -> None:
    policy = Policy(gates=gates, opening=opening)
    assert Policy.from_json(policy.to_json()) == policy


def gate(**keys: Any) -> Gate:
    (found,) = Policy.from_data({"gate": [{"name": "g", **keys}]}, "policy of web").gates
    return found


def test_what_is_left_out_has_its_default() -> None:
    assert gate(kind="min_ready", instances=2) == MinReady("g", instances=2)
    assert gate(kind="soak") == Soak("g", healthy_s=30.0)
    assert gate(kind="window") == Window("g")
    assert gate(kind="depends_on", service="db", version=">=3.1") == DependsOn("g", service="db", version=">=3.1")
    assert gate(kind="approval", by=["a", "b", "a"]) == Approval("g", by=("a", "b"))
    assert gate(kind="hook", run="migrate") == Hook("g", timeout_s=300.0, run="migrate")
    assert gate(kind="hook", url="https://ci.example/ok", back=False, at="gap").at == "gap"
    assert Policy.from_data({}).opening == Opening()


BAD_GATES: dict[str, tuple[dict[str, Any], str]] = {
    "no kind": ({}, r"gate\[0\]: kind: has the value null; use one of min_ready, soak"),
    "an unknown kind": ({"kind": "moon"}, r"gate\[0\]: kind: has the value \"moon\"; use one of min_ready"),
    "a key of another kind": ({"kind": "soak", "hours": "00:00-24:00"}, r"gate\[0\]: hours: is not a known key"),
    "a typing error": ({"kind": "soak", "healty_s": 3}, "did you mean 'healthy_s'"),
    "no name": ({"kind": "soak", "name": ""}, r"gate\[0\]: name: .*name the gate"),
    "a bad name": ({"kind": "soak", "name": "a b"}, r"gate\[0\]: name: .*name the gate"),
    "at": ({"kind": "soak", "at": "later"}, r"gate\[0\]: at: .*before, gap, after"),
    "for": ({"kind": "soak", "for": "all"}, r"gate\[0\]: for: .*incompatible, every"),
    "timeout": ({"kind": "soak", "timeout_s": -1}, r"gate\[0\]: timeout_s: .*a number from 0"),
    "on_timeout": ({"kind": "soak", "on_timeout": "go"}, r"gate\[0\]: on_timeout: .*hold, abort"),
    "no number required": ({"kind": "min_ready"}, r"gate\[0\]: instances: .*set instances, percent or both"),
    "half an instance": ({"kind": "min_ready", "instances": 0.5}, r"gate\[0\]: instances: .*whole number"),
    "percent": ({"kind": "min_ready", "percent": 1001}, r"gate\[0\]: percent: .*0 to 1000"),
    "healthy": ({"kind": "soak", "healthy_s": "long"}, r"gate\[0\]: healthy_s: .*a number"),
    "no day": ({"kind": "window", "days": []}, r"gate\[0\]: days: .*mon, tue"),
    "an unknown day": ({"kind": "window", "days": ["monday"]}, r"gate\[0\]: days: .*mon, tue"),
    "hours without end": ({"kind": "window", "hours": "09:00"}, r"gate\[0\]: hours: .*HH:MM-HH:MM"),
    "hours past midnight": ({"kind": "window", "hours": "09:00-25:00"}, r"gate\[0\]: hours: .*HH:MM-HH:MM"),
    "minutes": ({"kind": "window", "hours": "09:00-10:60"}, r"gate\[0\]: hours: .*HH:MM-HH:MM"),
    "a short hour": ({"kind": "window", "hours": "9:00-10:00"}, r"gate\[0\]: hours: .*HH:MM-HH:MM"),
    "no hours": ({"kind": "window", "hours": "09:00-09:00"}, r"gate\[0\]: hours: .*HH:MM-HH:MM"),
    "a start at the end": ({"kind": "window", "hours": "24:00-08:00"}, r"gate\[0\]: hours: .*HH:MM-HH:MM"),
    "no zone": ({"kind": "window", "zone": ""}, r"gate\[0\]: zone: .*Europe/Berlin"),
    "no service": ({"kind": "depends_on", "version": "1"}, r"gate\[0\]: service: .*name the service"),
    "a bad service": (
        {"kind": "depends_on", "service": "a b", "version": "1"},
        r"gate\[0\]: service: .*name the service",
    ),
    "no version": ({"kind": "depends_on", "service": "db"}, r"gate\[0\]: version: .*a version or a range"),
    "a bad range": (
        {"kind": "depends_on", "service": "db", "version": ">=x"},
        r"gate\[0\]: version: .*version or a range",
    ),
    "nobody": ({"kind": "approval"}, r"gate\[0\]: by: .*that may approve"),
    "nobody in the list": ({"kind": "approval", "by": [""]}, r"gate\[0\]: by: .*that may approve"),
    "a text": ({"kind": "approval", "by": "anna"}, r"gate\[0\]: by: .*that may approve"),
    "too many": ({"kind": "approval", "by": ["a", "b"], "count": 3}, r"gate\[0\]: count: .*1 to 2"),
    "no approval": ({"kind": "approval", "by": ["a"], "count": 0}, r"gate\[0\]: count: .*1 to 1"),
    "no hook": ({"kind": "hook"}, r"gate\[0\]: run: .*either run"),
    "two hooks": ({"kind": "hook", "run": "a", "url": "http://a"}, r"gate\[0\]: run: .*either run"),
    "another scheme": ({"kind": "hook", "url": "ftp://a"}, r"gate\[0\]: url: .*http or https"),
    "back": ({"kind": "hook", "run": "a", "back": 1}, r"gate\[0\]: back: .*true or false"),
}


@pytest.mark.parametrize(("keys", "told"), BAD_GATES.values(), ids=BAD_GATES)
def test_a_bad_gate_is_one_clear_error(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(Invalid, match=f"^policy of web: {told}" if told.startswith("gate") else told):
        gate(**keys)


def test_the_list_of_gates_is_checked() -> None:
    soak = {"name": "a", "kind": "soak"}
    for value, told in (
        ({}, "gate: .*a list of at most 16"),
        ([soak] * 17, "gate: .*a list of at most 16"),
        ([soak, 7], r"gate\[1\]: is not an object"),
        ([soak, {**soak, "healthy_s": 5}], "gate: has two gates named a"),
    ):
        with pytest.raises(Invalid, match=told):
            Policy.from_data({"gate": value})


BAD_OPENINGS: dict[str, tuple[dict[str, Any], str]] = {
    "cut-over": ({"cut_over": "fast"}, "cut_over: .*stopped, flip"),
    "percent": ({"max_unavailable": "101%"}, "max_unavailable: .*25%"),
    "a fraction": ({"max_unavailable": 0.5}, "max_unavailable: .*25%"),
    "a flag": ({"max_unavailable": True}, "max_unavailable: .*25%"),
    "negative": ({"max_unavailable": -1}, "max_unavailable: .*25%"),
    "no list": ({"hold": "1.0"}, "hold: .*a list of versions"),
    "held what": ({"hold": ["a b"]}, "hold: .*use versions or ranges"),
    "pinned to all": ({"pin": [ALL]}, "pin: .*use versions or ranges"),
    "a range": ({"pin": [">=x"]}, "pin: .*use versions or ranges"),
    "a floor": ({"never_below": ">=2"}, "never_below: .*use a version"),
    "a list of floors": ({"never_below": ["2"]}, "never_below: .*use a version"),
}


@pytest.mark.parametrize(("keys", "told"), BAD_OPENINGS.values(), ids=BAD_OPENINGS)
def test_a_bad_opening_is_one_clear_error(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(Invalid, match=told):
        Policy.from_data(keys)


# ---------------------------------------------------------------------- what they decide


@pytest.mark.parametrize(
    ("weekday", "second", "holds"),
    [(0, 8 * 3600, False), (0, 9 * 3600, True), (0, 16 * 3600 - 1, True), (0, 16 * 3600, False), (5, 10 * 3600, False)],
)
def test_a_window_in_a_day(weekday: int, second: int, holds: bool) -> None:
    assert Window("g", days=(0, 1), start_s=9 * 3600, end_s=16 * 3600).holds(weekday, second) is holds


@pytest.mark.parametrize(
    ("weekday", "second", "holds"),
    [(4, 23 * 3600, True), (5, 1 * 3600, True), (5, 2 * 3600, False), (5, 23 * 3600, False), (4, 1 * 3600, False)],
)
def test_a_window_past_midnight_belongs_to_the_day_on_which_it_starts(weekday: int, second: int, holds: bool) -> None:
    assert Window("g", days=(4,), start_s=22 * 3600, end_s=2 * 3600).holds(weekday, second) is holds
    assert Window("g", days=(6,), start_s=22 * 3600, end_s=2 * 3600).holds(0, 3600), "Sunday to Monday"


def test_hold_pin_and_floor() -> None:
    assert Opening(hold=(ALL,)).held("1.0", returns=False) and not Opening(hold=(ALL,)).held("1.0", returns=True)
    assert Opening(hold=(">=2",)).held("2.1", returns=True) and not Opening(hold=(">=2",)).held("1.9", returns=False)
    assert Opening(pin=("1.0.1", ">=2")).pinned_out("1.0.2") and not Opening(pin=("1.0.1",)).pinned_out("1.0.1")
    assert not Opening().pinned_out("1.0")
    assert Opening(never_below="2.5").below_floor("2.4.9", "numeric")
    assert not Opening(never_below="2.5").below_floor("2.5", "numeric")
    assert not Opening().below_floor("0", "numeric")


def test_the_capacity_floor() -> None:
    assert CUT_OVERS[0] == Opening().cut_over
    assert Opening(max_unavailable="25%").floor(1000, 4) == 750
    assert Opening(max_unavailable="0").floor(1000, 4) == 1000
    assert Opening(max_unavailable="1").floor(1000, 4) == 750
    assert Opening(max_unavailable="100%").floor(1000, 4) == 0
    assert Opening(max_unavailable="9").floor(1000, 4) == 0
    assert Opening(max_unavailable="33%").floor(10, 1) == 7, "rounded up"
