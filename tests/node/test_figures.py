"""What a host counts for the analysis of a rollout: each attempt once, in the block in which it ended, whatever the clocks do."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import grpc
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sdlb.core.effects import Apply, EndpointPut, Pick, RoutePut, ServicePut, UpstreamPut
from sdlb.core.events import EndpointKey, EngineApplied, EngineAttached, Event, FiguresCounted, InstancePut, Tick
from sdlb.core.figures import Analysed
from sdlb.core.messages import TARGET, ClaimKey
from sdlb.model.canary import BLOCK_S, HEAD_BUCKETS_S, Analysis, Figures
from sdlb.model.rollout import PAUSED, Rollout, RolloutSpec, Target, target_body
from sdlb.model.traffic import Traffic
from sdlb.node.figures import FigureCounter, figures_of
from sdlb.seams.engine import EngineStats, GroupTotals, InstanceTotals
from tests.e2e.backend import Backend
from tests.node.lone import lone
from tests.node.test_loop import active, spec
from tests.seams.test_engine import started

OLD, NEW = "1.0.1", "1.0.2"


@dataclass
class Host:
    """A counter with a clock and an engine that a test plays."""

    wall_s: float = 1000.0
    stats: EngineStats = field(default_factory=lambda: EngineStats(counters={"connections_total": 1}))
    analysed: list[Analysed] = field(default_factory=lambda: [Analysed("web", (OLD, NEW), frozenset())])
    events: list[FiguresCounted] = field(default_factory=list[FiguresCounted])

    def __post_init__(self) -> None:
        self.counter = FigureCounter(lambda: self.analysed, lambda: self.stats, self._post, lambda: self.wall_s)

    def _post(self, event: Event) -> None:
        assert isinstance(event, FiguresCounted)
        self.events.append(event)

    def answer(self, version: str, ok: int, failed: int = 0) -> None:
        key = ("web", version)
        before = self.stats.groups.get(key, GroupTotals()).at_instances or InstanceTotals(answers=(0,) * 5)
        answers = (0, before.answers[1] + ok, 0, 0, before.answers[4] + failed)
        self.stats.groups[key] = GroupTotals(at_instances=replace(before, answers=answers))

    def end(self, by_s: float = BLOCK_S) -> bool:
        self.wall_s += by_s
        return self.counter.take()

    def totals(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for event in self.events:
            for version, each in event.figures.items():
                total = found.setdefault(version, [0, 0])
                total[0] += each.asked + each.early_asked
                total[1] += each.errors + each.early_errors
        return found


# ---------------------------------------------------------------------- blocks


def test_the_first_sample_is_only_where_counting_begins() -> None:
    host = Host()
    host.answer(OLD, 1_000_000)
    assert host.end() and host.events == []
    host.answer(OLD, 10, 1)
    host.answer(NEW, 5)
    host.end()
    assert host.events == [FiguresCounted("web", 101, {OLD: Figures(11, 1, hosts=1), NEW: Figures(5, hosts=1)})]
    host.end()
    assert host.events[1:] == [FiguresCounted("web", 102, {OLD: Figures(hosts=1), NEW: Figures(hosts=1)})]


def test_a_version_that_fails_at_once_is_found_at_the_end_of_the_block_in_which_its_rollout_began() -> None:
    """Also if the host counts another service already."""

    async def run() -> None:
        host = Host(wall_s=1003.0)
        host.answer(OLD, 1_000_000)
        host.counter.look()
        host.answer(OLD, 2)
        host.answer(NEW, 0, 30)
        host.stats.groups["mail", OLD] = GroupTotals(at_instances=InstanceTotals(answers=(0, 500, 0, 0, 0)))
        host.analysed = [*host.analysed, Analysed("mail", (OLD,), frozenset())]
        host.counter.look()
        host.stats.groups["mail", OLD] = GroupTotals(at_instances=InstanceTotals(answers=(0, 507, 0, 0, 0)))
        host.counter.look()
        host.end(7.0)
        web, mail = host.events
        assert web == FiguresCounted("web", 100, {OLD: Figures(2, hosts=1), NEW: Figures(30, 30, hosts=1)})
        assert mail == FiguresCounted("mail", 100, {OLD: Figures(7, hosts=1)})
        host.counter.close()

    asyncio.run(run())


def test_a_control_that_has_no_statistics_yet_does_not_begin() -> None:
    host = Host(stats=EngineStats())
    assert host.end() and host.events == []
    host.stats.counters["connections_total"] = 1
    host.answer(OLD, 1_000_000)  # of the time before it started
    host.end()
    host.answer(OLD, 3)
    host.end()
    assert host.events == [FiguresCounted("web", 102, {OLD: Figures(3, hosts=1), NEW: Figures(hosts=1)})]


def test_a_version_is_early_if_it_was_at_the_beginning_or_at_the_end_of_the_block() -> None:
    host = Host()
    for early in ((), (NEW,), (), ()):
        host.analysed = [Analysed("web", (OLD, NEW), frozenset(early))]
        host.end()
        host.answer(NEW, 8, 2)
    seen = [event.figures[NEW] for event in host.events]
    assert seen == [Figures(0, 0, 0, {}, 10, 2, 1), Figures(0, 0, 0, {}, 10, 2, 1), Figures(10, 2, hosts=1)]
    assert all(event.figures[OLD] == Figures(hosts=1) for event in host.events)


def test_a_version_whose_last_instance_leaves_is_counted_to_the_end_of_the_block() -> None:
    host = Host()
    host.end()
    host.answer(OLD, 3, 3)
    host.analysed = [Analysed("web", (NEW,), frozenset())]
    host.end()
    assert host.events[-1].figures[OLD] == Figures(6, 3, hosts=1)
    host.end()
    assert OLD not in host.events[-1].figures
    host.analysed = []
    assert not host.end(), "nothing is left to count"
    host.end()
    assert len(host.events) == 3


@pytest.mark.parametrize("jump_s", [3 * BLOCK_S, 1e6, -BLOCK_S, -500.0])
def test_what_was_counted_over_a_jump_of_the_clock_is_in_no_block(jump_s: float) -> None:
    """Or while control did not run: nobody knows how much of it is in which block."""
    host = Host()
    host.end()
    host.answer(OLD, 50)
    host.end(jump_s)
    assert host.events == []
    host.answer(OLD, 3)
    host.end()
    assert [event.figures[OLD] for event in host.events] == [Figures(3, hosts=1)]


def test_totals_that_were_lost_are_no_figures() -> None:
    host = Host()
    host.answer(OLD, 100)
    host.end()
    host.stats.groups["web", OLD] = GroupTotals(at_instances=InstanceTotals(answers=(0, 7, 0, 0, 0)))
    host.end()
    assert host.events[-1].figures == {NEW: Figures(hosts=1)}
    host.answer(OLD, 1)
    host.end()
    assert host.events[-1].figures[OLD] == Figures(1, hosts=1)


STEPS = st.lists(
    st.tuples(st.sampled_from([BLOCK_S, BLOCK_S, BLOCK_S, 0.0, -3.0, 4.0, 25.0, 1e6, -1e6, -10.0]), st.integers(0, 9)),
    max_size=30,
)


@given(STEPS)
def test_no_attempt_is_counted_twice_and_no_count_is_negative(steps: list[tuple[float, int]]) -> None:
    """The clock jumps forwards and backwards, and control stalls."""
    host = Host(wall_s=1e7)
    asked = 0
    for by_s, count in steps:
        host.answer(OLD, count, 1)
        asked += count + 1
        host.end(by_s)
    assert all(min(each.asked, each.errors) >= 0 for event in host.events for each in event.figures.values())
    assert host.totals().get(OLD, [0, 0])[0] <= asked


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20))
def test_with_a_steady_clock_nothing_is_left_out(counts: list[tuple[int, int]]) -> None:
    host = Host()
    host.end()
    for ok, failed in counts:
        host.answer(OLD, ok, failed)
        host.end()
    assert host.totals()[OLD] == [sum(ok + failed for ok, failed in counts), sum(failed for _, failed in counts)]
    assert [event.block for event in host.events] == list(range(101, 101 + len(counts)))


# ---------------------------------------------------------------------- what is an error


def grpc_totals(codes: dict[int, int], answers: tuple[int, ...], broken: int = 0, failed: int = 0) -> GroupTotals:
    status = tuple(codes.get(code, 0) for code in range(18))
    return GroupTotals(failed=failed, grpc_status=status, at_instances=InstanceTotals(answers=answers, broken=broken))


def test_the_status_of_a_call_decides_and_not_only_that_of_http() -> None:
    codes = dict.fromkeys(range(18), 1)
    assert figures_of(None, grpc_totals(codes, (0, 18, 0, 0, 0))) == Figures(18, 6, hosts=1)


def test_a_call_that_the_engine_answers_after_a_broken_attempt_is_one_error() -> None:
    """The engine reports it as UNAVAILABLE, and the attempt as broken."""
    after = grpc_totals({0: 5, 13: 2, 14: 3}, (0, 7, 0, 0, 0), broken=3, failed=3)
    assert figures_of(None, after) == Figures(10, 5, hosts=1)


def test_errors_are_never_more_than_attempts() -> None:
    """Calls that children answered, and those refused before any attempt, are among the statuses."""
    assert figures_of(None, grpc_totals({14: 9}, (0, 2, 0, 0, 0))) == Figures(2, 2, hosts=1)
    assert figures_of(None, grpc_totals({14: 9}, (), failed=9)) == Figures(hosts=1)


def test_an_engine_that_counts_failed_calls_is_exact_beside_children_and_other_requests() -> None:
    """Of 9 statuses UNAVAILABLE, 2 came from instances of this host: the others were answered by children and by this engine."""

    def totals(errors: int | None) -> GroupTotals:
        counted = InstanceTotals(answers=(0, 20, 0, 1, 3), broken=1, grpc_errors=errors)
        return GroupTotals(failed=1, grpc_status=(*[0] * 14, 9, *[0] * 3), at_instances=counted)

    assert figures_of(None, totals(2)) == Figures(25, 3 + 1 + 2, 1, hosts=1)
    assert figures_of(None, totals(None)) == Figures(25, 3 + 1 + 8, 1, hosts=1), "an older engine: an estimate"
    assert figures_of(totals(2), totals(2)) == Figures(hosts=1)
    assert figures_of(totals(None), totals(2)) == Figures(0, 0, hosts=1), "never more than there were answers"


# ---------------------------------------------------------------------- the loop


def test_a_timer_runs_only_while_there_is_something_to_count() -> None:
    async def run() -> None:
        host = Host(analysed=[])
        host.counter.look()
        assert host.counter._timer is None
        host.analysed = [Analysed("web", (OLD,), frozenset())]
        host.wall_s += BLOCK_S - 0.001
        for _ in range(3):
            host.counter.look()
        timer = host.counter._timer
        assert timer is not None
        host.counter.look()
        assert host.counter._timer is timer, "only one"
        host.analysed, host.wall_s = [], host.wall_s + 0.002
        async with asyncio.timeout(20):
            while host.counter._timer is not None:
                await asyncio.sleep(0.01)
        host.analysed = [Analysed("web", (OLD,), frozenset())]
        host.counter.look()
        assert host.counter._timer is not None
        host.counter.close()

    asyncio.run(run())


def test_a_node_begins_to_count_when_a_rollout_with_an_analysis_begins(tmp_path: Path) -> None:
    async def run() -> None:
        async with lone(tmp_path) as node:
            await node.loop.do(InstancePut(spec("a", OLD)))
            await active(node, "a")
            assert node.loop._figures._timer is None
            how = RolloutSpec(analysis=Analysis())
            rollout = Rollout("r-1", NEW, OLD, PAUSED, "edge-1", "other", spec=how, baseline=1)
            node.balancer._state.policies.put_doc(TARGET, "web", target_body(Target("web", OLD, rollout)))
            await node.loop.do(Tick())
            await node.loop.do(Tick())
            assert node.loop._figures._timer is not None
            await node.loop.do(FiguresCounted("web", 5, {OLD: Figures(3, hosts=1)}))
            assert node.balancer._state.reports.total("web").blocks == {5: {OLD: Figures(3, hosts=1)}}
            node.loop._figures.close()

    asyncio.run(run())


# ---------------------------------------------------------------------- a real engine

SAY = "/sdlb.test.Echo/Say"


class Echo(grpc.GenericRpcHandler):
    """Ends a call with the status that its only byte names."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return cast("Any", grpc.unary_unary_rpc_method_handler(self._say))

    def _say(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        if request[0]:
            context.abort(next(each for each in grpc.StatusCode if each.value[0] == request[0]), "as asked")
        return request


@pytest.fixture
def echo() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4), handlers=[Echo()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait(5)


def whole(epoch: int, endpoints: dict[str, str]) -> Apply:
    """Service NAME at NAME.example."""
    claims = {name: ClaimKey(name, OLD, f"{name}.example/*") for name in endpoints}
    protocols = {name: "h2c" if name == "echo" else "http1" for name in endpoints}
    return Apply(
        epoch,
        True,
        tuple(UpstreamPut(f"i:{name}", False, address, protocols[name]) for name, address in endpoints.items()),
        tuple(EndpointPut(EndpointKey(claim, f"i:{name}"), 10) for name, claim in claims.items()),
        tuple(RoutePut(claim.route, name, (Pick(OLD, 0, 0),)) for name, claim in claims.items()),
        put_services=tuple(ServicePut(name, Traffic(retries_max=0)) for name in endpoints),
    )


def test_the_figures_are_those_of_a_clients_log(tmp_path: Path, echo: str) -> None:
    """5xx, refused and broken connections, statuses of gRPC; and the engine is killed between two blocks."""
    tmp_path.chmod(0o700)
    with socket.create_server(("127.0.0.1", 0)) as gone, Backend() as web, Backend(handler=_breaks) as bad:
        refusing = f"127.0.0.1:{gone.getsockname()[1]}"
        endpoints = {"web": web.endpoint, "bad": bad.endpoint, "gone": refusing, "echo": echo}
        gone.close()
        asyncio.run(asyncio.wait_for(_compare(tmp_path, endpoints), 60))


async def _breaks(*_: object) -> bool:
    raise ConnectionResetError


async def _compare(folder: Path, endpoints: dict[str, str]) -> None:
    async with started(folder) as made:
        stats = made.engine.stats
        host = Host(stats=stats, analysed=[Analysed(name, (OLD,), frozenset()) for name in endpoints])
        while not stats.counters:
            await asyncio.sleep(0.02)
        host.end()
        sums = Counter[str]()
        for life in (1, 2):
            await made.wait(EngineAttached, life)
            made.engine.apply(whole(10 * life, endpoints))
            await made.wait(EngineApplied, life)
            log = await asyncio.to_thread(_ask, stats.bound["http"], 2 + life)
            sums += Counter({name: each.asked for name, each in log.items()})
            for name, count in sums.items():
                while _asked(stats, name) < count:
                    await asyncio.sleep(0.02)
            of_calls = stats.groups["echo", OLD].at_instances
            assert of_calls is not None and of_calls.grpc_errors, "counted by the engine"
            host.events.clear()
            host.end()
            found = {event.service: event.figures[OLD] for event in host.events}
            for name, figures in found.items():
                assert sum(figures.head.values()) == figures.asked - (figures.errors if name in ("bad", "gone") else 0)
                assert all(0 <= bucket <= len(HEAD_BUCKETS_S) for bucket in figures.head)
            assert {name: replace(each, head={}) for name, each in found.items()} == log
            if life == 1:
                os.kill(stats.pid, signal.SIGKILL)


def _asked(stats: EngineStats, name: str) -> int:
    figures = figures_of(None, stats.groups.get((name, OLD)))
    return figures.asked if figures is not None else 0


def _ask(address: str, count: int) -> dict[str, Figures]:
    """Each kind of request `count` times. Returns the client's log."""
    log: dict[str, list[int]] = {name: [0, 0, 0] for name in ("web", "bad", "gone", "echo")}

    def note(name: str, *, failed: bool, refused: bool = False) -> None:
        for place, counts in enumerate((True, failed, refused)):
            log[name][place] += counts

    with (
        httpx.Client(base_url=f"http://{address}") as http,
        grpc.insecure_channel(address, [("grpc.default_authority", "echo.example")]) as channel,
    ):
        for _ in range(count):
            for path in ("/", "/status/404", "/status/500", "/status/503", "/status/302"):
                status = http.get(path, headers={"host": "web.example"}).status_code
                note("web", failed=status >= 500, refused=400 <= status < 500)
            for name in ("bad", "gone"):
                status = http.post("/", content=b"x", headers={"host": f"{name}.example"}).status_code
                assert status == 502
                note(name, failed=True)
            for wanted in range(17):
                try:
                    channel.unary_unary(SAY)(bytes([wanted]), timeout=20)
                    code = 0
                except grpc.RpcError as error:
                    code = error.code().value[0]  # pyright: ignore[reportAttributeAccessIssue]
                assert code == wanted
                note("echo", failed=code in (2, 4, 12, 13, 14, 15))
    return {name: Figures(asked, errors, refused, hosts=1) for name, (asked, errors, refused) in log.items()}
