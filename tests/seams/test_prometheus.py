"""Queries of analyses, asked of a real Prometheus and of servers that misbehave: a number, or a reason why there is none."""

from __future__ import annotations

import asyncio
import http.server
import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sdlb.adapters.prometheus import ANSWER_BYTES_MAX, MetricSources
from sdlb.core.effects import AskMetrics, MetricAsk
from sdlb.model.metric_source import MetricSource
from tests.prometheus import Exporter, needs_prometheus, prometheus

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


def ask(source: MetricSource, *queries: str, at: float = 1000.0, name: str = "prom") -> tuple[float | str, ...]:
    sources = MetricSources({"prom": source}, "/etc/sdlb/node.toml")
    return asyncio.run(sources.ask(AskMetrics("k", tuple(MetricAsk(name, each) for each in queries), at)))


@contextmanager
def server(answer: Answer) -> Generator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            answer(self)

        def log_message(self, format: str, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


def answers(status: int, body: str) -> Answer:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.end_headers()
        handler.wfile.write(body.encode())

    return answer


@needs_prometheus
def test_a_real_server_gives_numbers_and_reasons(tmp_path: Path) -> None:
    with Exporter() as exporter, prometheus(tmp_path, exporter) as url:
        exporter.text = 'orders_total{version="1"} 500\norders_total{version="2"} 7\n'
        source = MetricSource(url)
        end = time.monotonic() + 20
        while ask(source, 'orders_total{version="2"}', at=time.time()) != (7.0,):
            assert time.monotonic() < end
            time.sleep(0.1)
        found = ask(
            source,
            "sum(orders_total)",
            "scalar(sum(orders_total))",
            "orders_total",
            "other_total",
            "sum(",
            "orders_total[5m]",
            "vector(0)/0",
            at=time.time(),
        )
        assert found[:2] == (507.0, 507.0)
        assert found[2] == "prom: the result has 2 samples; it must have one"
        assert found[3] == "prom: the result is empty"
        assert isinstance(found[4], str) and found[4].startswith("prom: it answered 400: ")
        assert found[5] == "prom: the result is a matrix; it must be one number"
        assert found[6] != found[6], "NaN, which the core takes for no data"
        assert ask(source, "sum(orders_total)", at=time.time() - 3600) == ("prom: the result is empty",)


def test_a_server_that_is_down() -> None:
    [found] = ask(MetricSource("http://127.0.0.1:1"), "up")
    assert isinstance(found, str) and found.startswith("prom could not be asked: ")


def test_an_unknown_source_costs_only_its_own_queries() -> None:
    assert ask(MetricSource("http://127.0.0.1:1"), "up", name="other") == ("/etc/sdlb/node.toml has no [source.other]",)


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (200, "[" * 50_000, "not one of the API"),
        (200, "not JSON", "not one of the API"),
        (200, '{"status":"success","data":{"resultType":"vector","result":[{"value":[1]}]}}', "not one of the API"),
        (200, '{"status":"success","data":{"resultType":"scalar","result":[1,"x"]}}', "not one of the API"),
        (200, '{"status":"success"}', "not one of the API"),
        (200, '{"status":"error","error":"busy"}', "prom: it answered 200: busy"),
        (302, "", "prom: it answered 302"),
        (401, '{"status":"error","error":"\\u001b[2Jno"}', "prom: it answered 401: [2Jno"),
        (200, " " * (ANSWER_BYTES_MAX + 1), "longer than 64 KiB"),
    ],
)
def test_answers_that_are_no_numbers(status: int, body: str, why: str) -> None:
    with server(answers(status, body)) as url:
        [found] = ask(MetricSource(url), "up")
    assert isinstance(found, str) and why in found


def test_one_time_limit_for_all_queries_of_a_source() -> None:
    release = threading.Event()

    def slow(handler: http.server.BaseHTTPRequestHandler) -> None:
        if len(handled) >= 2:
            release.wait(20)
        handled.append(1)
        answers(200, '{"status":"success","data":{"resultType":"scalar","result":[1,"4"]}}')(handler)

    handled: list[int] = []
    with server(slow) as url:
        found = ask(MetricSource(url, timeout_s=0.5), *["up"] * 8)
        release.set()
    assert set(found) <= {4.0, "prom did not answer within 0.5 s"}
    assert found.count("prom did not answer within 0.5 s") >= 4


def test_the_token_is_read_each_time(tmp_path: Path) -> None:
    seen: list[str | None] = []

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        seen.append(handler.headers["authorization"])
        answers(200, '{"status":"success","data":{"resultType":"scalar","result":[1,"4"]}}')(handler)

    token = tmp_path / "token"
    with server(answer) as url:
        source = MetricSource(url, str(token))
        assert ask(source, "up") == (f"prom: {token} cannot be read (No such file or directory)",)
        token.write_text("s3cret\n")
        assert ask(source, "up") == (4.0,)
        token.write_text("n3w\nline")
        [found] = ask(source, "up")
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        assert ask(MetricSource(url, str(pipe)), "up") == (f"prom: {pipe} cannot be read (Not a regular file)",)
    assert seen == ["Bearer s3cret"]
    assert isinstance(found, str) and "has no token" in found and "n3w" not in found
