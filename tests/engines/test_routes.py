"""Both engines answer a request by the same route, for tables and requests that hypothesis makes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdlb.core.effects import Apply, EndpointPut, RoutePut
from sdlb.model.route import Pattern, best
from tests.engines.play import endpoints, key, needs_haproxy, one, started, upstream

HOSTS = ("a.example", "b.a.example", "c.b.a.example", "example", "x.y", "[::1]", "1.2.3.4")
SUFFIXES = ("example", "a.example", "b.a.example", "y")
PATHS = ("/", "/a", "/a/", "/a/b", "/ab", "/a;b", "/a%2Fb", "/~a", "/a,b", "/a$b&c='d'", "/a+b", "/a:b@c")
hosts = st.sampled_from(["*", *HOSTS, *(f"*.{suffix}" for suffix in SUFFIXES)])
paths = st.sampled_from([*PATHS, *(f"{path}*" for path in PATHS)])
tables = st.sets(st.builds(Pattern, hosts, paths), max_size=12)
asked = st.lists(
    st.tuples(
        st.sampled_from([*HOSTS, "A.Example", "a.example.", "a.example:81", "z.b.a.example", "other"]),
        st.sampled_from(
            [
                *PATHS,
                "/a/c/../b",
                "/%61",
                "/a%2fb",
                "/a/./b?x=/../y",
                "/a/b/c",
                "//a",
                "/../a",
                "/b",
                "/a%5C",
                '/a"',
                "/a/%2F../b",
            ]
        ),
    ),
    min_size=1,
    max_size=6,
)


def canonical(host: str) -> str:
    name = host.lower()
    return name if name.startswith("[") else name.partition(":")[0].removesuffix(".")


@needs_haproxy
def test_both_engines_find_the_same_route(tmp_path: Path) -> None:
    async def everything() -> None:
        (tmp_path / "n").mkdir()
        (tmp_path / "h").mkdir()
        async with (
            endpoints("e") as (e,),
            started("native", tmp_path / "n") as native,
            started("haproxy", tmp_path / "h") as haproxy,
        ):
            loop = asyncio.get_running_loop()

            async def check(table: set[Pattern], requests: list[tuple[str, str]]) -> None:
                puts = tuple(
                    EndpointPut(key(f"1.0.{n}", "i:e", str(pattern)), 1) for n, pattern in enumerate(sorted(table))
                )
                routes = tuple(
                    RoutePut(str(pattern), "web", tuple(one(f"1.0.{n}"))) for n, pattern in enumerate(sorted(table))
                )
                for played in (native, haproxy):
                    await played.apply(Apply(0, True, (upstream(e),) if table else (), puts, routes))
                for host, path in requests:
                    one_answer, other = [await played.ask(host, path) for played in (native, haproxy)]
                    assert (one_answer.status, one_answer.body if one_answer.status == 200 else "") == (
                        other.status,
                        other.body if other.status == 200 else "",
                    ), (host, path)

            @settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
            @given(tables, asked)
            def example(table: set[Pattern], requests: list[tuple[str, str]]) -> None:
                asyncio.run_coroutine_threadsafe(check(table, requests), loop).result(60)

            await asyncio.to_thread(example)

    asyncio.run(asyncio.wait_for(everything(), 200))


@needs_haproxy
def test_the_route_that_wins_is_the_one_of_the_model(tmp_path: Path) -> None:
    """Each route has an endpoint of its own, so that the answer tells which one has won."""
    table = [
        Pattern.parse(text)
        for text in (
            "*/a*",
            "*.example/*",
            "*.a.example/a/b",
            "*.b.a.example/*",
            "b.a.example/a*",
            "a.example/a",
            "a.example/ab*",
        )
    ]
    names = [str(n) for n in range(len(table))]

    async def scenario() -> None:
        async with endpoints(*names) as made, started("haproxy", tmp_path) as played:
            puts = tuple(EndpointPut(key("1.0.0", f"i:{n}", str(table[int(n)])), 1) for n in names)
            routes = tuple(RoutePut(str(pattern), "web", tuple(one("1.0.0"))) for pattern in table)
            await played.apply(Apply(0, True, tuple(map(upstream, made)), puts, routes))
            for host in HOSTS:
                for path in PATHS:
                    won = best(table, canonical(host), path)
                    got = await played.ask(host, path)
                    if won is None:
                        assert got.status in (404, 421), (host, path)
                    else:
                        assert (got.status, got.body) == (200, str(table.index(won))), (host, path)

    asyncio.run(asyncio.wait_for(scenario(), 60))
