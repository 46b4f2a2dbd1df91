"""A repeated request with the same `Idempotency-Key` gets the first answer, and is carried out once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from sdlb.node import idempotency, repeats_file
from sdlb.node.idempotency import KEPT_S, Repeats
from sdlb.node.problems import Refusal
from tests.node import rollout_acts as acts
from tests.node.lone import Lone
from tests.node.test_api import problem, scenario


def asked(
    key: str, content: bytes = b"{}", path: str = "/v1/rollouts", uid: int = 1, method: str = "POST", match: str = ""
) -> Request:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": content, "more_body": False}

    headers = [(b"idempotency-key", key.encode()), (b"host", b"localhost")]
    headers += [(b"if-match", match.encode())] if match else []
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers}
    return Request({**scope, "scheme": "http", "server": ("localhost", 80), "state": {"uid": uid}}, receive)


class Desk:
    """Counts what it carries out. `wait`: it takes that long. `status`: of its answers."""

    def __init__(self, file: Path | None = None) -> None:
        self.now, self.count, self.status, self.size = 0.0, 0, 200, 1
        self.wait: asyncio.Event | None = None
        self.file = file
        self.restart()

    def restart(self) -> None:
        self.repeats = Repeats(self.file, lambda: self.now)

    async def ask(self, key: str, content: bytes = b"{}", **how: Any) -> bytes:
        return bytes((await self.repeats.answer(asked(key, content, **how), self._do)).body)

    async def _do(self, request: Request) -> Response:
        self.count += 1
        if self.wait is not None:
            await self.wait.wait()
        return Response(b"%d" % self.count * self.size, self.status)


@pytest.mark.asyncio
async def test_a_key_belongs_to_one_request_of_one_user_for_a_day() -> None:
    desk = Desk()
    assert [await desk.ask("a"), await desk.ask("a"), await desk.ask("b")] == [b"1", b"1", b"2"]
    assert await desk.ask("a", uid=2) == b"3"
    others: list[dict[str, Any]] = [
        {"content": b"{} "},
        {"path": "/v1/rollouts/catalog/abort"},
        {"match": '"7"'},
        {"method": "PUT"},
    ]
    for other in others:
        with pytest.raises(Refusal, match="belongs to another request") as refused:
            await desk.ask("a", **other)
        assert (refused.value.code, refused.value.status) == ("key-reused", 422)
    desk.now = KEPT_S - 1
    assert await desk.ask("a") == b"1"
    desk.now = KEPT_S
    assert await desk.ask("a") == b"4"


@pytest.mark.asyncio
async def test_while_the_first_request_is_in_progress_another_one_is_refused() -> None:
    desk = Desk()
    desk.wait = asyncio.Event()
    first = asyncio.create_task(desk.ask("a"))
    while not desk.count:
        await asyncio.sleep(0)
    with pytest.raises(Refusal, match="is in progress") as refused:
        await desk.ask("a")
    assert (refused.value.code, refused.value.status) == ("key-in-use", 409)
    desk.wait.set()
    assert await first == await desk.ask("a") == b"1"


@pytest.mark.asyncio
async def test_what_failed_is_carried_out_again() -> None:
    desk = Desk()
    desk.status = 503
    assert await desk.ask("a") == b"1"
    desk.status = 200
    assert await desk.ask("a") == await desk.ask("a") == b"2"


@pytest.mark.asyncio
async def test_keys_outlive_control_and_what_was_in_progress_is_not_done_twice(tmp_path: Path) -> None:
    """Nobody knows whether a request in progress was done. To repeat a PUT or DELETE changes nothing; a POST is refused."""
    desk = Desk(tmp_path / "repeats")
    for key, status in (("a", 200), ("b", 503)):
        desk.status = status
        await desk.ask(key)
    desk.status, desk.wait = 200, asyncio.Event()
    cut = [asyncio.create_task(desk.ask(method, method=method)) for method in ("POST", "PUT")]
    while desk.count < 4:
        await asyncio.sleep(0.001)
    desk.restart()
    desk.wait = None
    assert await desk.ask("a") == b"1"
    with pytest.raises(Refusal, match="belongs to another request"):
        await desk.ask("a", b"other")
    assert await desk.ask("b") == b"5", "an error is not kept"
    with pytest.raises(Refusal, match="look whether it was done") as refused:
        await desk.ask("POST", method="POST")
    assert (refused.value.code, refused.value.status) == ("outcome-unknown", 409)
    with pytest.raises(Refusal, match="belongs to another request"):
        await desk.ask("PUT", b"other", method="PUT")
    assert await desk.ask("PUT", method="PUT") == await desk.ask("PUT", method="PUT") == b"6"
    for each in cut:
        each.cancel()
    await asyncio.gather(*cut, return_exceptions=True)
    desk.now = KEPT_S
    assert await desk.ask("POST") == b"7", "for a day"


@pytest.mark.asyncio
async def test_a_control_that_stops_while_it_carries_a_request_out_does_not_know_whether_it_was_done(
    tmp_path: Path,
) -> None:
    desk = Desk(tmp_path / "repeats")
    desk.wait = asyncio.Event()
    stopped = asyncio.create_task(desk.ask("a"))
    while not desk.count:
        await asyncio.sleep(0.001)
    stopped.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopped
    for _ in range(2):
        with pytest.raises(Refusal, match="control stopped while"):
            await desk.ask("a")
        desk.restart()


@pytest.mark.asyncio
async def test_a_key_that_cannot_be_written_starts_nothing(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "gone" / "repeats")
    with pytest.raises(Refusal, match="nothing was done") as refused:
        await desk.ask("a")
    assert refused.value.code == "not-written" and desk.count == 0
    (tmp_path / "gone").mkdir()
    assert await desk.ask("a") == b"1"


@pytest.mark.asyncio
async def test_the_file_is_bounded_and_a_torn_line_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats_file, "LINES_MAX", 20)
    monkeypatch.setattr(idempotency, "KEYS_MAX", 5)
    desk = Desk(tmp_path / "repeats")
    for number in range(50):
        await desk.ask(f"k{number}")
        assert len((tmp_path / "repeats").read_bytes().splitlines()) <= 22
    with (tmp_path / "repeats").open("ab") as file:
        file.write(b'\n{"uid":1,"key":"to')
    desk.restart()
    assert await desk.ask("k49") == b"50" and (tmp_path / "repeats").stat().st_mode & 0o777 == 0o600
    assert await desk.ask("new") == b"51"
    desk.restart()
    assert await desk.ask("new") == b"51"
    assert await desk.ask("k3") == b"52"


@pytest.mark.parametrize("limit", ["KEYS_MAX", "BYTES_MAX"])
@pytest.mark.asyncio
async def test_the_oldest_answers_are_forgotten_first(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, limit, 3)
    desk = Desk()
    for key in "abcd":
        await desk.ask(key)
    assert [await desk.ask(key) for key in "bcd"] == [b"2", b"3", b"4"]
    assert await desk.ask("a") == b"5"


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "a\t"])
@pytest.mark.asyncio
async def test_a_bad_key_is_refused(key: str) -> None:
    desk = Desk()
    with pytest.raises(Refusal, match="use 1 to 255 visible ASCII characters"):
        await desk.ask(key)
    assert not desk.count


@scenario
async def test_a_rollout_starts_once(node: Lone) -> None:
    await acts.release(node, "1.0.1")
    await acts.report(node)
    body, key = {"service": "catalog", "version": "1.0.1"}, {"Idempotency-Key": "deploy-17"}
    refused = await node.http.post("/v1/rollouts", json={**body, "version": "9.9.9"}, headers=key)
    assert refused.status_code == 409, "it is not kept"
    first = await node.http.post("/v1/rollouts", json=body, headers=key)
    again = await node.http.post("/v1/rollouts", json=body, headers=key)
    assert (first.status_code, again.status_code) == (200, 200) and first.json() == again.json()
    assert again.headers["content-type"] == "application/json"
    problem(await node.http.post("/v1/rollouts", json={**body, "first": 2}, headers=key), "key-reused")
    problem(await node.http.post("/v1/rollouts", json=body), "rollout-refused")
    release = {**acts.RELEASE, "version": "1.0.2"}
    changed = [
        (await node.http.post("/v1/releases", json=release, headers={"Idempotency-Key": "r"})).json()["changed"]
        for _ in range(2)
    ]
    assert changed == [True, True]
