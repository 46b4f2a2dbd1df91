"""The API matches /openapi.json: schemathesis sends a bounded number of allowed and forbidden requests."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import hypothesis
import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck
from hypothesis import strategies as st
from schemathesis import GenerationMode

from sdlb.model.policy_layers import covers
from sdlb.model.version import SERVICE
from sdlb.node import openapi, schema, schema_rollouts
from sdlb.node.idempotency import KEY
from sdlb.node.parameters import ETAG
from tests.node.lone import lone

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
HOST = st.lists(LABEL, min_size=1, max_size=3).map(".".join).filter(lambda host: not host[-1:].isdigit())
PATH = st.from_regex(r"/[A-Za-z0-9_~/-]{0,12}\*?", fullmatch=True)
ROUTE = st.builds("{}{}{}".format, st.sampled_from(["", "*."]), HOST, PATH) | PATH
ENDPOINT = st.builds("127.0.0.1:{}".format, st.integers(1, 65535)) | st.just("[::1]:8001") | st.just("unix:/run/x.sock")
NUMBERS = st.from_regex(r"[1-9][0-9]?(\.[0-9]{1,2}){0,2}", fullmatch=True)
VERSIONS = st.lists(st.builds("{}{}".format, st.sampled_from([">=", "<", "="]), NUMBERS), min_size=1, max_size=2).map(
    ",".join
)

URL = st.builds("{}{}{}".format, st.sampled_from(["", "http://", "https://"]), HOST, PATH)
FORMATS = {
    "sdlb-route": ROUTE,
    "sdlb-endpoint": ENDPOINT,
    "sdlb-versions": VERSIONS,
    "sdlb-url": URL,
    "sdlb-held": VERSIONS | st.just("*"),
    "sdlb-hours": st.sampled_from(["00:00-24:00", "09:00-16:30", "22:00-02:00"]),
    "sdlb-zone": st.sampled_from(["UTC", "Europe/Berlin"]),
    "sdlb-printable": st.text(st.characters(codec="ascii", categories=("L", "N", "P")), min_size=1, max_size=20),
}
for name, strategy in FORMATS.items():
    schemathesis.openapi.format(name, strategy)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """A node in a thread of its own, by TCP: schemathesis speaks no Unix sockets."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    started, ending = threading.Event(), threading.Event()

    async def run() -> None:
        async with lone(folder, listening=listening) as node:
            node.engine.upgrades = True
            started.set()
            await asyncio.to_thread(ending.wait)

    thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        ending.set()
        thread.join(10)


SCHEMA = schemathesis.openapi.from_dict(openapi.document())


def _short(case: Any) -> None:
    """Nothing waits for long: what may take an hour takes no time, and a stream of events ends."""
    for name in ("timeout_s", "deadline_s"):
        with contextlib.suppress(TypeError, ValueError):
            if float(case.query.get(name, 0)) > 0.02:
                case.query[name] = 0.02
    if len(str(case.query.get("url", ""))) > 8192:
        case.query["url"] = "x" * 8193  # the server itself refuses a head over 64 KiB
    if case.operation.path == "/v1/events" and "since" not in case.query:
        case.query.setdefault("follow", "0")
    elif "wait" in case.query:
        case.query.setdefault("timeout_s", 0.02)


def _documents(case: Any) -> list[dict[str, Any]]:
    """The policy documents in the body."""
    body = case.body if isinstance(case.body, dict) else {}
    policies = body.get("policies")
    found = [body, *(policies.values() if isinstance(policies, dict) else ())]
    return [each for each in found if isinstance(each, dict)]


def _at_most_100(case: Any) -> None:
    """The sum of shares is bounded, which JSON Schema cannot express."""
    for document in _documents(case):
        shares = document.get("shares")
        percents = list(shares.values()) if isinstance(shares, dict) else []
        if all(isinstance(each, int | float) and 0 <= each <= 100 for each in percents) and sum(percents) > 100:
            document["shares"] = {version: percent / (len(shares) + 1) for version, percent in shares.items()}


GATE_TEXTS = (
    ("zone", re.compile(r"^.{1,64}\Z", re.DOTALL), "UTC"),
    ("hours", re.compile(schema.HOURS), "09:00-16:30"),
    ("version", re.compile(r"^.{1,256}\Z", re.DOTALL), ">=1"),
    ("run", re.compile(r"^.{1,64}\Z", re.DOTALL), "migrate"),
    ("url", re.compile(r"^https?://.{,1000}\Z", re.DOTALL), "http://127.0.0.1/x"),
)


def _gates(case: Any) -> None:
    """What JSON Schema cannot express: their names differ, a window has a length, and no more approve than may. The strategies of
    formats are not always used inside of an object. Documents of a set that contradict each other are rare, but refused."""
    for document in _documents(case):
        gates = document.get("gate")
        for number, gate in enumerate(gates) if isinstance(gates, list) else ():
            if not isinstance(gate, dict):
                continue
            if isinstance(gate.get("name"), str) and re.fullmatch(SERVICE.pattern, gate["name"]):
                gate["name"] = f"g{number}"
            for key, pattern, good in GATE_TEXTS:
                if isinstance(gate.get(key), str) and pattern.search(gate[key]):
                    gate[key] = good
            if isinstance(gate.get("by"), list) and all(isinstance(each, str) and each for each in gate["by"]):
                gate["by"] = [f"p{at}" for at, _ in enumerate(gate["by"])]
                if isinstance(gate.get("count"), int | float) and 1 <= gate["count"] <= 64:
                    gate["count"] = min(gate["count"], max(1, len(gate["by"])))


def _no_circle(case: Any) -> None:
    """No service waits for itself. A document of a pattern applies to the service for which its gates wait."""
    body = case.body if isinstance(case.body, dict) else {}
    policies = body.get("policies")
    found = dict(policies) if isinstance(policies, dict) else {}
    found[unquote(str((case.path_parameters or {}).get("policy", "")))] = body
    for name, document in found.items():
        gates = document.get("gate") if isinstance(document, dict) else None
        if isinstance(gates, list):
            document["gate"] = [each for each in gates if not (isinstance(each, dict) and _waits(name, each))]


def _waits(name: str, gate: dict[str, Any]) -> bool:
    service = gate.get("service")
    return gate.get("kind") == "depends_on" and isinstance(service, str) and covers(name, service)


def _current(case: Any) -> None:
    """A valid etag is that of other policies."""
    if ETAG.match(str((case.headers or {}).get("If-Match", ""))):
        del case.headers["If-Match"]
    if KEY.match(str((case.headers or {}).get("Idempotency-Key", ""))):
        del case.headers["Idempotency-Key"]  # another request has it already


def _printable(case: Any) -> None:
    """The strategy of a format is not always used: not inside of an object, and not for what is valid in a request that shall not be."""
    labels = case.body.get("labels") if isinstance(case.body, dict) else None
    if isinstance(labels, dict) and all(isinstance(value, str) for value in labels.values()):
        case.body["labels"] = {name: value for name, value in labels.items() if (name + value).isprintable()}
    for place in (case.query, case.body):
        by = place.get("by") if isinstance(place, dict) else None
        if isinstance(by, str) and 1 <= len(by) <= 128 and not by.isprintable():
            place["by"] = "ann"


def _canary(case: Any) -> None:
    """What JSON Schema cannot express: steps grow, an analysis needs steps with a time, and a query needs either counters or a bound."""
    body = case.body if isinstance(case.body, dict) else {}
    policies = body.get("policies")
    documents = [body, *(policies.values() if isinstance(policies, dict) else ())]
    for settings in (body, *(each.get("rollout") for each in documents if isinstance(each, dict))):
        if isinstance(settings, dict):
            _simple_canary(settings)


def _whole(value: Any) -> Any:
    """With 5 for 5.0: to JSON Schema both are integers."""
    if isinstance(value, dict):
        return {key: _whole(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _simple_canary(settings: dict[str, Any]) -> None:
    with contextlib.suppress(msgspec.ValidationError):
        if msgspec.convert(_whole(settings.get("step")), list[schema_rollouts.CanaryStep]):
            settings["step"] = [{"for": 1}]
    with contextlib.suppress(msgspec.ValidationError):
        msgspec.convert(_whole(settings.get("analysis")), schema_rollouts.CanaryAnalysis)
        settings["analysis"] = {}
        settings["step"] = settings.get("step") or [{"for": 1}]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("openapi")) as address:
        yield address


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("method", "path"), [(call.method, call.path) for call in openapi.CALLS])
def test_schemathesis_finds_no_violation(method: str, path: str, mode: GenerationMode, address: str) -> None:
    """Not its `parametrize`: that makes its examples while tests are collected, which takes a minute."""
    operation = SCHEMA[path][method]
    if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query or operation.path_parameters):
        pytest.skip("there is nothing to get wrong")

    @hypothesis.settings(
        max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        case.query = case.query or {}
        _short(case)
        _at_most_100(case)
        _gates(case)
        _no_circle(case)
        _canary(case)
        _current(case)
        _printable(case)
        case.call_and_validate(base_url=address)

    send()


def test_the_answer_to_a_bad_query_has_the_reason(address: str) -> None:
    with httpx.Client(base_url=address, trust_env=False) as http:
        for target, says in (
            ("/v1/instances/x?wait=nonsense", "wait is 'nonsense'; use waiting, active, draining"),
            ("/v1/instances/x?timeout_s=nan", "use a number of seconds from 0 to 3600"),
            ("/v1/instances/x?timeout_s=1_0", "timeout_s is '1_0'"),
            ("/v1/instances/x?timeout_s=3601", "timeout_s is '3601'"),
            ("/v1/instances/x?timout_s=3", "unknown parameter 'timout_s'; this call takes: wait, timeout_s"),
            ("/v1/services?scope=local&scope=local", "scope is given twice"),
            ("/v1/services?scope=all", "use local, or leave it out"),
            ("/v1/tree?x", "this call takes: none"),
            ("/v1/events?since=-1", "use a whole number from 0"),
            ("/v1/explain", "url is missing"),
        ):
            answer = http.get(target)
            assert answer.status_code == 400 and says in answer.json()["detail"], answer.text


def test_a_method_that_is_not_taken_is_answered_with_those_that_are(address: str) -> None:
    with httpx.Client(base_url=address, trust_env=False) as http:
        for method, path, allowed in (
            ("POST", "/v1/instances/x", "DELETE, GET, HEAD, PUT"),
            ("GET", "/v1/instances/x/drain", "POST"),
            ("DELETE", "/v1/tree", "GET, HEAD"),
            ("OPTIONS", "/v1/policies/x", "GET, HEAD, PUT"),
            ("PUT", "/metrics", "GET, HEAD"),
        ):
            answer = http.request(method, path)
            assert (answer.status_code, answer.headers["allow"]) == (405, allowed), path
        assert "allow" not in http.get("/v1/nothing").headers
