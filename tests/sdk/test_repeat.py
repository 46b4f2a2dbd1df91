"""A write whose connection broke is sent again with the same `Idempotency-Key`; nothing else is."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from sdlb.sdk import calls
from sdlb.sdk.aio import AsyncClient
from sdlb.sdk.client import Client
from sdlb.sdk.problem import Problem, Unreachable
from sdlb.sdk.repeat import AGAIN_S, Repeat

DONE = (200, b'{"service":"catalog"}')
IN_USE = (409, b'{"type":"https://sdlb.dev/problems/key-in-use","detail":"in progress"}')
NO_ROOT = (503, b'{"type":"https://sdlb.dev/problems/no-root","detail":"none"}')
REFUSED = (409, b'{"type":"https://sdlb.dev/problems/rollout-refused","detail":"no"}')


@contextmanager
def node(folder: Path, *answers: tuple[int, bytes] | None) -> Generator[tuple[str, list[bytes]]]:
    """A socket that gives these answers, one on each connection; None: the connection breaks. The heads of the requests come along."""
    path, heads = str(folder / "api.sock"), list[bytes]()

    def serve() -> None:
        for answer in answers:
            connection, _ = listening.accept()
            with connection:
                heads.append(connection.recv(65536))
                if answer is not None:
                    status, body = answer
                    head = b"HTTP/1.1 %d X\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
                    connection.sendall(head + body)
        listening.close()

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield path, heads
        thread.join(10)


def _keys(heads: list[bytes]) -> list[bytes]:
    lines = [line for head in heads for line in head.lower().split(b"\r\n")]
    return [line.partition(b": ")[2] for line in lines if line.startswith(b"idempotency-key: ")]


def _blocking(path: str) -> None:
    with Client(path) as client:
        client.order_rollout("catalog", "undo")


def _asynchronous(path: str) -> None:
    async def run() -> None:
        async with AsyncClient(path) as client:
            await client.order_rollout("catalog", "undo")

    asyncio.run(run())


@pytest.mark.parametrize("undo", [_blocking, _asynchronous])
def test_a_write_is_sent_again_with_the_same_key_until_there_is_an_answer(
    tmp_path: Path, undo: Callable[[str], None]
) -> None:
    with node(tmp_path, None, IN_USE, NO_ROOT, DONE, REFUSED) as (path, heads):
        undo(path)
        with pytest.raises(Problem, match="no"):
            undo(path)
    *same, other = _keys(heads)
    assert len(same) == 4 and len({*same}) == 1 and other not in same and len(other) == 32


def test_reads_and_what_takes_no_key_are_sent_once(tmp_path: Path) -> None:
    with node(tmp_path, None, None) as (path, heads), Client(path) as client:
        for call in (client.tree, lambda: client.drain("x")):
            with pytest.raises(Unreachable):
                call()
    assert len(heads) == 2 and _keys(heads) == []


def test_a_node_that_is_not_there_is_reported_at_once_but_one_that_restarts_is_waited_for(tmp_path: Path) -> None:
    call = calls.order_rollout("catalog", "undo", dry_run=False, by="")
    with pytest.raises(Unreachable), Client(str(tmp_path / "none.sock")) as client:
        client.order_rollout("catalog", "undo")
    now = 0.0
    repeat = Repeat(call, lambda: now)
    refused, broken = httpx.ConnectError("refused"), httpx.RemoteProtocolError("closed")
    assert not repeat.after_error(refused) and not repeat.after_answer(*NO_ROOT)
    assert not repeat.after_error(httpx.ReadTimeout("late"))
    assert repeat.after_error(broken) and repeat.after_error(refused) and repeat.after_answer(*IN_USE)
    now = AGAIN_S
    assert not repeat.after_error(refused) and not repeat.after_answer(*IN_USE)
