"""Asks Prometheus servers for the queries of analyses, over their HTTP API (https://prometheus.io/docs/prometheus/latest/querying/api/).

Each query is one instant query. Its result has to be one number: a scalar, or a vector with one sample. All else is no data, with the
reason as a text: no connection, another status than 200, an answer that is too late or too long, an empty result, several samples.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, cast

from sdlb.adapters.hook_program import printable
from sdlb.adapters.http_client import error_text, load_http, new_client, read_start
from sdlb.adapters.regular_file import read_regular
from sdlb.core.effects import AskMetrics, MetricAsk
from sdlb.model.metric_source import MetricSource

PATH = "/api/v1/query"
ANSWER_BYTES_MAX = 64 * 1024
TOKEN_BYTES_MAX = 4096
AT_ONCE = 4
"""Queries that one source gets at a time."""
SHOWN_CHARS = 200


class NoData(Exception):
    """Why a query has no number as its result."""


class MetricSources:
    """`sources`, `file`: the tables `[source.NAME]` of the node file, and its name. They may be replaced at any time."""

    def __init__(self, sources: Mapping[str, MetricSource], file: str) -> None:
        self.sources = sources
        self.file = file
        self._http: tuple[Any, ssl.SSLContext] | None = None

    async def ask(self, effect: AskMetrics) -> tuple[float | str, ...]:
        """In the order of the queries. Never raises."""
        names = dict.fromkeys(each.source for each in effect.asks)
        of_source = await asyncio.gather(
            *(self._of_source(name, [each for each in effect.asks if each.source == name], effect.at) for name in names)
        )
        left = {name: iter(results) for name, results in zip(names, of_source, strict=True)}
        return tuple(next(left[each.source]) for each in effect.asks)

    async def _of_source(self, name: str, asks: Sequence[MetricAsk], at: float) -> Sequence[float | str]:
        source = self.sources.get(name)
        if source is None:
            return [f"{self.file or 'this node'} has no [source.{printable(name)}]"] * len(asks)
        try:
            if self._http is None:
                self._http = await asyncio.to_thread(load_http)
            return await self._queries(name, source, asks, at)
        except Exception as error:
            return [_words(name, error)] * len(asks)

    async def _queries(
        self, name: str, source: MetricSource, asks: Sequence[MetricAsk], at: float
    ) -> Sequence[float | str]:
        assert self._http is not None
        httpx, tls = self._http
        headers = {"accept-encoding": "identity", "user-agent": "sdlb-metrics"}
        if source.token_file:
            headers["authorization"] = f"Bearer {await asyncio.to_thread(_token, source.token_file)}"
        turn = asyncio.Semaphore(AT_ONCE)
        async with new_client(tls) as client:

            async def one(ask: MetricAsk) -> float | str:
                form = {"query": ask.query, "time": f"{at:.3f}", "timeout": f"{source.timeout_s:g}s"}
                try:
                    async with turn, client.stream("POST", source.url + PATH, data=form, headers=headers) as answer:
                        return _number(answer.status_code, await _body(answer))
                except NoData as error:
                    return f"{name}: {error}"
                except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
                    return _words(name, error)

            tasks = [asyncio.create_task(one(each)) for each in asks]
            await asyncio.wait(tasks, timeout=source.timeout_s)
            late = [task for task in tasks if not task.done()]
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        too_late = f"{name} did not answer within {source.timeout_s:g} s"
        return [too_late if task in late else task.result() for task in tasks]


def _token(path: str) -> str:
    """Raises NoData. It is read each time, so that it can be rotated."""
    try:
        raw = read_regular(path, TOKEN_BYTES_MAX)
    except OSError as error:
        raise NoData(f"{path} cannot be read ({error.strerror})") from None
    text = raw.decode("ascii", "replace").strip()
    if not text or len(raw) > TOKEN_BYTES_MAX or not text.isascii() or not text.isprintable():
        raise NoData(f"{path} has no token: one line of at most {TOKEN_BYTES_MAX} ASCII characters")
    return text


async def _body(answer: Any) -> bytes:
    """Raises NoData if it is too long."""
    found = await read_start(answer.aiter_raw(), ANSWER_BYTES_MAX + 1)
    if len(found) > ANSWER_BYTES_MAX:
        raise NoData(f"the answer is longer than {ANSWER_BYTES_MAX // 1024} KiB")
    return found


def _number(status: int, body: bytes) -> float:
    """Raises NoData."""
    try:
        data: Any = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    answer = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    if status != 200 or (answer and answer.get("status") != "success"):
        why = printable(str(answer.get("error", "")))[:SHOWN_CHARS]
        raise NoData(f"it answered {status}{f': {why}' if why else ''}")
    try:
        kind, result = answer["data"]["resultType"], answer["data"]["result"]
        if kind == "vector" and len(result) != 1:
            raise NoData(f"the result has {len(result)} samples; it must have one" if result else "the result is empty")
        sample = result[0]["value"] if kind == "vector" else result
        if kind not in ("vector", "scalar"):
            raise NoData(f"the result is a {printable(str(kind))[:20]}; it must be one number")
        return float(sample[1])
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        raise NoData("the answer is not one of the API of Prometheus") from None


def _words(name: str, error: BaseException) -> str:
    if isinstance(error, NoData):
        return f"{name}: {error}"
    return f"{name} could not be asked: {error_text(error, SHOWN_CHARS)}"
