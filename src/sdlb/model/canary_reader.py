"""Reads the keys `step` and `analysis` of a rollout, as TOML or JSON gives them. Each error names the place of the key."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Final, NoReturn, cast

from sdlb.model.canary import NODES, QUERIES_MAX, STEPS_MAX, Analysis, Query, Step
from sdlb.model.problem import Invalid, shown

STEP_KEYS: Final = ("nodes", "share", "for")
ANALYSIS_KEYS: Final = ("tolerate", "alpha", "requests_min", "warm_up_s", "query", "hook", "hook_each")
QUERY_KEYS: Final = ("name", "source", "bad", "total", "value", "max", "min")
TEXT_CHARS_MAX = 4096
FOR_MAX_S = 30 * 86_400.0
RATIO: Final = (1.0, 100.0)
ALPHA: Final = (0.000001, 0.5)
WARM_UP_S: Final = (0.0, 86_400.0)
REQUESTS: Final = (1, 1_000_000_000)
"""The least and the greatest value of `tolerate`, `alpha`, `warm_up_s` and `requests_min`."""
DEFAULT: Final = Analysis()
FOR = re.compile(r"^([0-9]{1,7})(s|m|h|d)?\Z")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
HOOK = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63}|https?://[!-~]{1,2000})\Z")
"""A name or a URL."""
HOOK_EACH: Final = ("step", "block")

Path = tuple[str, ...]
Fail = Callable[[Path, str, str], NoReturn]
"""Raises Invalid: place of the key, what is wrong, what to do."""


def read_steps(data: object, fail: Fail) -> tuple[Step, ...]:
    path = ("step",)
    if not isinstance(data, list | tuple) or len(cast("Sequence[object]", data)) > STEPS_MAX:
        do = f'use at most {STEPS_MAX} tables like {{nodes = 1, share = 5, for = "10m"}}'
        fail(path, "is not a list of steps", do)
    steps: list[Step] = []
    for number, each in enumerate(cast("Sequence[object]", data), 1):
        step = _step(each, fail, number)
        before = steps[-1] if steps else None
        if before is not None and step.share < before.share:
            what = f"step {number} has the share {step.share:g}, less than the step before"
            fail((*path, "share"), what, "let shares grow from step to step")
        if before is not None and _is_less(step.nodes, before.nodes):
            what = f"step {number} has {step.nodes} nodes, fewer than the step before"
            fail((*path, "nodes"), what, "let the nodes grow from step to step")
        steps.append(step)
    return tuple(steps)


def _step(data: object, fail: Fail, number: int) -> Step:
    path, where = ("step",), f"step {number}"
    table = _table(data, fail, path, STEP_KEYS, where)
    nodes = table.get("nodes", "100%")
    text = str(nodes) if isinstance(nodes, int) and not isinstance(nodes, bool) else nodes
    if not isinstance(text, str) or not NODES.match(text):
        fail(
            (*path, "nodes"),
            f"{where} has the value {shown(nodes)}",
            'use a number of nodes, or a percentage like "25%"',
        )
    share = _number(table, "share", 100.0, (0.0, 100.0), fail, path, where, "a percentage from 0 to 100")
    return Step(text, share, _for(table.get("for", 0), fail, where))


def _for(value: object, fail: Fail, where: str) -> float:
    seconds = -1.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and (found := FOR.match(value)):
        seconds = float(int(found[1]) * _UNIT_S[found[2] or "s"])
    if not 0 <= seconds <= FOR_MAX_S:
        fail(
            ("step", "for"),
            f"{where} has the value {shown(value)}",
            'use seconds, or a time like "90s", "10m" or "2h", at most 30 days',
        )
    return seconds


def _is_less(nodes: str, before: str) -> bool:
    """Of a number and a percentage, neither is known to be less."""
    return nodes.endswith("%") == before.endswith("%") and int(nodes.rstrip("%")) < int(before.rstrip("%"))


def read_analysis(data: object, fail: Fail, steps: Sequence[Step] | None) -> Analysis:
    """`steps`: that it is about; None: they stand elsewhere."""
    path = ("analysis",)
    table = _table(data, fail, path, ANALYSIS_KEYS, "")
    if steps is not None and not steps:
        fail(path, "stands without a step", 'add steps, for example step = [{nodes = 1, share = 5, for = "10m"}]')
    for number, step in enumerate(steps or (), 1):
        if not step.for_s:
            fail(("step", "for"), f"step {number} has no time in which it could be analysed", 'add for = "10m"')
    requests = table.get("requests_min", DEFAULT.requests_min)
    if isinstance(requests, bool) or not isinstance(requests, int) or not REQUESTS[0] <= requests <= REQUESTS[1]:
        fail(
            (*path, "requests_min"),
            f"has the value {shown(requests)}",
            f"use a whole number from {REQUESTS[0]} to {REQUESTS[1]}",
        )
    hook, hook_each = table.get("hook", ""), table.get("hook_each", DEFAULT.hook_each)
    if not isinstance(hook, str) or (hook and not HOOK.match(hook)):
        do = "use the name of a hook of the roots' node files, or a URL that starts with https:// or http://"
        fail((*path, "hook"), f"has the value {shown(hook)}", do)
    if hook_each not in HOOK_EACH:
        fail((*path, "hook_each"), f"has the value {shown(hook_each)}", 'use "step" or "block"')
    return Analysis(
        tolerate=_number(table, "tolerate", DEFAULT.tolerate, RATIO, fail, path, "", "a ratio from 1 to 100"),
        alpha=_number(table, "alpha", DEFAULT.alpha, ALPHA, fail, path, "", "a probability from 0.000001 to 0.5"),
        requests_min=requests,
        warm_up_s=_number(table, "warm_up_s", DEFAULT.warm_up_s, WARM_UP_S, fail, path, "", "seconds from 0 to 86400"),
        queries=_queries(table.get("query", []), fail),
        hook=hook,
        hook_each=str(hook_each),
    )


def to_data(steps: Sequence[Step], analysis: Analysis | None) -> dict[str, object]:
    """As `read_steps` and `read_analysis` take it."""
    return {
        "step": [{"nodes": each.nodes, "share": each.share, "for": each.for_s} for each in steps],
        "analysis": None if analysis is None else _analysis_data(analysis),
    }


def _analysis_data(analysis: Analysis) -> dict[str, object]:
    names = [key for key in ANALYSIS_KEYS if key != "query"]
    queries: list[dict[str, object]] = []
    for each in analysis.queries:
        values = {"max": each.max_value, "min": each.min_value}
        texts = {key: getattr(each, key) for key in ("name", "source", "bad", "total", "value")}
        queries.append({key: value for key, value in {**texts, **values}.items() if value not in ("", None)})
    return {**{key: getattr(analysis, key) for key in names}, "query": queries}


def _queries(data: object, fail: Fail) -> tuple[Query, ...]:
    path = ("analysis", "query")
    if not isinstance(data, list | tuple) or len(cast("Sequence[object]", data)) > QUERIES_MAX:
        fail(
            path,
            "is not a list of queries",
            f"use at most {QUERIES_MAX} tables with name, source, and bad and total or value",
        )
    found = [_query(each, fail, number) for number, each in enumerate(cast("Sequence[object]", data), 1)]
    names = [each.name for each in found]
    for name in names:
        if names.count(name) > 1:
            fail((*path, "name"), f"has {name} twice", "use another name for one of them")
    return tuple(found)


def _query(data: object, fail: Fail, number: int) -> Query:
    path, where = ("analysis", "query"), f"query {number}"
    table = _table(data, fail, path, QUERY_KEYS, where)
    texts: dict[str, str] = {}
    for key in ("name", "source", "bad", "total", "value"):
        text = table.get(key, "")
        if not isinstance(text, str) or len(text) > TEXT_CHARS_MAX or not text.isprintable():
            fail(
                (*path, key),
                f"{where} has the value {shown(text)}",
                f"use a text of at most {TEXT_CHARS_MAX} characters",
            )
        texts[key] = text
    for key in ("name", "source"):
        if not NAME.match(texts[key]):
            fail((*path, key), f"{where} has the value {shown(texts[key])}", "use letters, digits, '.', '_' and '-'")
    bounds = {key: _bound(table, key, fail, where) for key in ("max", "min")}
    counted, valued = bool(texts["bad"] and texts["total"]), bool(texts["value"])
    if counted == valued or bool(texts["bad"]) != bool(texts["total"]):
        fail(
            path, f"{where} has neither bad and total nor value, or both", "use bad and total, or value with max or min"
        )
    if valued and bounds["max"] is None and bounds["min"] is None:
        fail(path, f"{where} has a value without a bound", "add max or min")
    if counted and (bounds["max"] is not None or bounds["min"] is not None):
        fail(
            path,
            f"{where} has a bound, but no value",
            "bad and total are compared with the old version; remove max and min",
        )
    for key in ("bad", "total", "value"):
        if texts[key] and "{version}" not in texts[key]:
            fail((*path, key), f"{where} does not ask for a version", "write {version} where the version stands")
    return Query(**texts, max_value=bounds["max"], min_value=bounds["min"])


def _bound(table: Mapping[str, object], key: str, fail: Fail, where: str) -> float | None:
    value = table.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        fail(("analysis", "query", key), f"{where} has the value {shown(value)}", "use a number")
    return float(value)


def _table(data: object, fail: Fail, path: Path, keys: Sequence[str], where: str) -> Mapping[str, object]:
    if not isinstance(data, dict):
        fail(path, f"{where} is not a table".strip(), f"use the keys {', '.join(keys)}")
    table = cast("dict[str, object]", data)
    for key in table:
        if key not in keys:
            near = get_close_matches(str(key), keys, 1)
            do = f"did you mean {near[0]!r}?" if near else f"use {', '.join(keys)}"
            fail((*path, shown(key)), "is not a known key", do)
    return table


def _number(
    table: Mapping[str, object],
    key: str,
    default: float,
    limits: tuple[float, float],
    fail: Fail,
    path: Path,
    where: str,
    expected: str,
) -> float:
    value = table.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not limits[0] <= value <= limits[1]:
        fail((*path, key), f"{where} has the value {shown(value)}".strip(), f"use {expected}")
    return float(value)


def bad(place: Callable[[Path], str], code: str) -> Fail:
    """Errors of this code, with the place as the caller knows it."""

    def fail(path: Path, what: str, do: str) -> NoReturn:
        raise Invalid(code, place(path), what, do)

    return fail
