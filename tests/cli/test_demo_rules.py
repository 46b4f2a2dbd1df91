"""The rules of the demo: they must find every violation."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlb.cli.demo.check import Answer, Rules, Tally, line_of
from sdlb.cli.demo.load import Load

CATALOG = frozenset({"catalog"})


def rules(*versions: str, at_ns: int = 0) -> Rules:
    made = Rules()
    for version in versions:
        made.start("catalog", version, at_ns)
    return made


def answer(version: str, received_ns: int, finished_ns: int | None = None, service: str = "catalog") -> Answer:
    return Answer(service, version, received_ns, received_ns if finished_ns is None else finished_ns)


def test_a_version_answers_only_while_it_may() -> None:
    judge = rules("1.0.1", at_ns=100)
    assert "not permitted" in judge.wrong(answer("1.0.1", 99), CATALOG)
    assert judge.wrong(answer("1.0.1", 100), CATALOG) == ""
    judge.end("catalog", "1.0.1", 200)
    assert judge.wrong(answer("1.0.1", 200, 300), CATALOG) == ""
    assert "not permitted" in judge.wrong(answer("1.0.1", 201), CATALOG)
    judge.start("catalog", "1.0.1", 400)  # it may come back
    assert judge.wrong(answer("1.0.1", 401), CATALOG) == ""
    assert "not permitted" in judge.wrong(answer("1.0.1", 300), CATALOG)


def test_unknown_versions_and_other_services_are_wrong() -> None:
    judge = rules("1.0.1")
    assert "not permitted" in judge.wrong(answer("1.0.2", 1), CATALOG)
    assert "a request for catalog" in judge.wrong(answer("1.0.1", 1, service="search"), CATALOG)


def test_compatible_versions_may_overlap() -> None:
    judge = rules("1.0.1", "1.0.2")
    assert judge.wrong(answer("1.0.2", 10, 20), CATALOG) == ""
    assert judge.wrong(answer("1.0.1", 5, 30), CATALOG) == ""


@given(
    st.lists(
        st.tuples(st.sampled_from(["1.0.1", "1.0.2", "2.5.1"]), st.integers(0, 60), st.integers(0, 30)), min_size=1
    ),
    st.randoms(),
)
def test_an_overlap_is_found_in_whatever_order_the_answers_come(
    seen: list[tuple[str, int, int]], shuffled: random.Random
) -> None:
    """Against the definition: some request of 2.5 was received no later than the end of some answer of 1.0."""
    judge = rules("1.0.1", "1.0.2", "2.5.1")
    told = [answer(version, received, received + took) for version, received, took in seen]
    shuffled.shuffle(told)
    found = any(judge.wrong(item, CATALOG) for item in told)
    old_ends = [item.finished_ns for item in told if line_of(item.version) == "1.0"]
    new_begins = [item.received_ns for item in told if line_of(item.version) == "2.5"]
    assert found == (bool(old_ends) and bool(new_begins) and min(new_begins) <= max(old_ends))


def test_a_tally_adds_up() -> None:
    tally = Tally()
    for _ in range(3):
        tally.sent()
    tally.answer("catalog-1.0.1", 3.0, wrong=False)
    tally.answer("catalog-1.0.2", 150.0, wrong=True)
    assert tally.open == 1
    tally.lose(7.0)
    told = tally.to_dict()
    assert (told["requests"], told["answered"], told["lost"], told["wrong_version"]) == (3, 2, 1, 1)
    assert (told["longest_wait_ms"], told["waited"], tally.open) == (150.0, 1, 0)


BODY = b'{"service": "catalog", "version": "1.0.1", "method": "GET", "target": "%s", "body_sha256": "%s", '
EMPTY = b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
BAD: dict[str, Callable[[bytes], bytes]] = {
    "an error status": lambda target: b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",
    "no HTTP": lambda target: b"hello\r\n\r\n",
    "a shorter body": lambda target: b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort",
    "no length": lambda target: b"HTTP/1.1 200 OK\r\n\r\n",
    "another's body": lambda target: _ok(b"/another"),
    "not the application's": lambda target: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "a broken chunk": lambda target: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a chunk without its end": lambda target: (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n"
    ),
    "nothing": lambda target: b"",
}


def _ok(target: bytes) -> bytes:
    now = time.monotonic_ns()
    body = BODY % (target, EMPTY) + b'"received_ns": %d, "finished_ns": %d}' % (now, now)
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


async def _play(answers: list[Callable[[bytes], bytes]]) -> Tally:
    """One request for each answer, of the real load generator to a server that gives these."""
    rest = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            made = good
            while made is good:
                head = await reader.readuntil(b"\r\n\r\n")
                made = rest.pop(0) if rest else answers[-1]  # it sends until it is stopped
                writer.write(made(head.split(b" ")[1]))
                await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    load = Load([server.sockets[0].getsockname()[:2]], random.Random(1))
    load.obey({"do": "phase", "name": "x"})
    load.obey({"do": "start", "service": "catalog", "version": "1.0.1", "at_ns": 0})
    load.obey({"do": "expect", "kind": "catalog", "services": ["catalog"]})
    load.obey({"do": "traffic", "rate": 500, "posts": False, "slow": False})
    running = asyncio.create_task(load.run())
    tally = load._tally  # pyright: ignore[reportPrivateUsage]
    while tally.requests < len(answers):
        await asyncio.sleep(0.001)
    load.obey({"do": "stop"})
    await running
    server.close()
    return tally


def good(target: bytes) -> bytes:
    return _ok(target)


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_the_load_generator_counts_lost_requests_and_retries_none(bad: Callable[[bytes], bytes]) -> None:
    tally = asyncio.run(asyncio.wait_for(_play([bad]), 20))
    assert (tally.answered, tally.lost) == (0, tally.requests)


def test_the_load_generator_counts_what_is_answered() -> None:
    tally = asyncio.run(asyncio.wait_for(_play([good] * 20), 20))
    assert tally.answered >= 20 and tally.by_version == {"catalog-1.0.1": tally.answered}
