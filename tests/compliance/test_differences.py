"""Sends the same unusual bytes to a public node, to nginx and to HAProxy, each in front of a recording endpoint.

The result of each is one word (`verdict`). Where the three differ, docs/internals/differences.md has the reason, in a row
with the cases and the verdicts. A difference without a row fails, and so does a row without a difference.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdlb.node.audit.attack_rows import FRAMING, get, post
from tests.compliance.recorder import Recorder
from tests.compliance.test_beside_others import start
from tests.compliance.test_framing import FINE
from tests.compliance.wire import SITE, listen, request
from tests.e2e.cluster import Cluster

PAGE = Path(__file__).parents[2] / "docs/internals/differences.md"
ROW = re.compile(
    r"^\| (?P<cases>[^|]+) \| (?P<sdlb>[^|]+) \| (?P<nginx>[^|]+) \| (?P<haproxy>[^|]+) \| (?P<why>[^|]+) \|$"
)
SPEAKERS = ("sdlb", "nginx", "haproxy")
_numbers = itertools.count(1)

CASES: dict[str, bytes] = {
    **{attack.name: attack.raw for attack in FRAMING},
    **{f"fine: {name}": raw for name, raw in FINE.items()},
    "pipelined: two": get() + get(),
    "pipelined: behind a body": post(b"Content-Length: 5") + get(),
    "pipelined: behind Connection: close": get(b"Connection: close"),
    "length: more than follows": post(b"Content-Length: 500"),
    "length: GET with a body": get(b"Content-Length: 5") + b"hello",
    "trailer: Content-Length": post(b"Transfer-Encoding: chunked", body=b"0\r\nContent-Length: 5\r\n\r\n"),
    "Expect: unknown": post(b"Expect: 200-maybe", b"Content-Length: 5"),
    "path: encoded slash": get(first=b"GET MARK/a%2fb HTTP/1.1"),
    "path: encoded NUL": get(first=b"GET MARK/a%00b HTTP/1.1"),
    "path: dots above the root": get(first=b"GET /../..MARK HTTP/1.1"),
    "path: bad escape": get(first=b"GET MARK/%zz HTTP/1.1"),
    "path: backslash": get(first=b"GET MARK\\x HTTP/1.1"),
}


VERSIONS = {"nginx": (["nginx", "-v"], "nginx/1.22."), "haproxy": (["haproxy", "-v"], "version 2.6.")}
"""Those of the page: others differ otherwise."""


def need(kind: str) -> None:
    words, wanted = VERSIONS[kind]
    binary = shutil.which(words[0], path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if binary is None:
        pytest.skip(f"{kind} is not installed")
    done = subprocess.run([binary, *words[1:]], capture_output=True, text=True, check=True, timeout=10)
    if wanted not in done.stdout + done.stderr:
        pytest.skip(f"{kind} is not {wanted}: {done.stdout + done.stderr}")


@pytest.fixture(scope="module")
def speakers(nodes: Cluster) -> Iterator[dict[str, tuple[str, Recorder]]]:
    """host:port of each, and its endpoint: recorders must not be shared."""
    for kind in VERSIONS:
        need(kind)
    with Recorder() as ours, Recorder() as nginx, Recorder() as haproxy:
        node = nodes.node("differs", entry=True, public=True)
        node.wait_ready()
        nodes.register(node, "web-1.0.0", SITE, ours.endpoint)
        nodes.reachable([node], f"http://{SITE}/", "web-1.0.0")
        yield {
            "sdlb": (node.http, ours),
            "nginx": (start(nodes, "nginx", nginx.endpoint), nginx),
            "haproxy": (start(nodes, "haproxy", haproxy.endpoint), haproxy),
        }


def verdict(address: str, recorder: Recorder, raw: bytes) -> str:
    """`serves`: the endpoint got it whole; else the status of the refusal; `closes` and `waits`: without one.

    `serves, and what is behind`: the next request on the connection was served, too.
    """
    number = next(_numbers)
    mark, behind = f"/mark-{number}-".encode(), f"/behind-{number}-"
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(raw.replace(b"MARK", mark) + request(behind, b"Connection: close"))
        talk = listen(connection, 3.0)
    seen = list(recorder.completed)
    served = any(mark in item for item in seen)
    if any(behind.encode() in item.split(b"\r\n")[0] for item in seen):
        return "serves, and what is behind" if served else "serves what is behind"
    if served:
        return "serves"
    refused = re.match(rb"HTTP/1\.\d (\d+)", talk.raw)
    return refused[1].decode() if refused else "closes" if talk.closed else "waits"


def judge(speakers: dict[str, tuple[str, Recorder]], cases: dict[str, bytes]) -> dict[str, tuple[str, ...]]:
    """By case, what the three make of it. All at once: most of the time is spent waiting for nothing more to come."""
    jobs = [(name, speaker) for name in cases for speaker in SPEAKERS]

    def one(job: tuple[str, str]) -> str:
        name, speaker = job
        return verdict(*speakers[speaker], cases[name])

    with ThreadPoolExecutor(24) as pool:
        told = pool.map(one, jobs)
        each = dict(zip(jobs, told, strict=True))
    return {name: tuple(each[name, speaker] for speaker in SPEAKERS) for name in cases}


def explained() -> dict[str, tuple[str, ...]]:
    """By case, the verdicts that the page explains."""
    rows = [row for line in PAGE.read_text().splitlines() if (row := ROW.match(line)) and "`" in row["cases"]]
    found: dict[str, tuple[str, ...]] = {}
    for row in rows:
        assert row["why"].strip(), row[0]
        for name in re.findall(r"`([^`]+)`", row["cases"]):
            assert name not in found, f"{name} is explained twice"
            found[name] = tuple(row[speaker] for speaker in SPEAKERS)
    return found


def test_every_difference_is_explained_and_every_explanation_needed(
    speakers: dict[str, tuple[str, Recorder]],
) -> None:
    told = judge(speakers, CASES)
    differ = {name: verdicts for name, verdicts in told.items() if len(set(verdicts)) > 1}
    page = explained()
    assert differ == page, "\n".join(
        f"{name}: {differ.get(name, told.get(name))}, the page says {page.get(name)}"
        for name in sorted({*differ, *page})
        if differ.get(name) != page.get(name)
    )


ODD = [b"\r", b"\n", b"\r\n", b" ", b"\t", b"\0", b"\x0b", b":", b",", b";", b"\xff", b"0", b"\r\n ", b"Host: x\r\n"]
edits = st.lists(st.tuples(st.floats(0, 1), st.sampled_from(ODD), st.booleans()), min_size=1, max_size=3)


@settings(
    max_examples=150,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.sampled_from(sorted(FINE)), edits)
def test_whatever_is_forwarded_is_what_was_answered(
    speakers: dict[str, tuple[str, Recorder]], name: str, edits: list[tuple[float, bytes, bool]]
) -> None:
    """Fine requests with up to three odd bytes put in or over others: as many requests at our endpoint as answers from it,
    and none of them would be read otherwise by nginx or HAProxy if they stood behind us: they serve what was forwarded.
    """
    raw = FINE[name].replace(b"MARK", b"/m")
    for at, odd, over in edits:
        place = int(at * len(raw))
        raw = raw[:place] + odd + raw[place + (len(odd) if over else 0) :]
    address, recorder = speakers["sdlb"]
    before = len(recorder.completed)
    answers = ask(address, raw + request("/behind", b"Connection: close"))
    forwarded = recorder.completed[before:]
    assert len(forwarded) == answers, (raw, forwarded)
    for seen in forwarded:
        for speaker in ("nginx", "haproxy"):
            assert ask(speakers[speaker][0], seen, whole=1) == 1, (raw, seen, speaker)


def ask(address: str, raw: bytes, whole: int = 0) -> int:
    """The number of the endpoint's answers, in total or among the first `whole`."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(raw)
            if not whole:  # nginx forwards nothing from a client that has half closed its connection
                connection.shutdown(socket.SHUT_WR)
        return listen(connection, 3.0, whole).raw.count(b"HTTP/1.1 200")
