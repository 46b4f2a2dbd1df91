"""Fixtures of the end-to-end tests, and the nodes' logs with every failure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator

import pytest

from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node

_open: list[Cluster] = []
_numbers = itertools.count(1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and report.when in ("call", "setup"):
        for cluster in _open:
            report.sections.append((f"logs in {cluster.folder}", cluster.dump()))
    return report


def _cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        _open.append(cluster)
        try:
            yield cluster
        finally:
            _open.remove(cluster)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A cluster of the test's own, empty: for tests that break things."""
    yield from _cluster()


@pytest.fixture(scope="session")
def shared() -> Iterator[Cluster]:
    """One tree for all tests that break nothing: edge-1, edge-2; rack-1 below both; host-1, host-2 below that."""
    for cluster in _cluster():
        cluster.tiers(2, 1, 2)
        yield cluster


@pytest.fixture(scope="session")
def edges(shared: Cluster) -> list[Node]:
    return [shared.nodes["edge-1"], shared.nodes["edge-2"]]


@pytest.fixture(scope="session")
def hosts(shared: Cluster) -> list[Node]:
    return [shared.nodes["host-1"], shared.nodes["host-2"]]


@pytest.fixture
def site() -> str:
    """A host name that no other test uses."""
    return f"t{next(_numbers)}.example"


@pytest.fixture
def backend() -> Iterator[Callable[..., Backend]]:
    """Makes backends; they are closed at the end of the test."""
    made: list[Backend] = []

    def make(*words: str, **options: object) -> Backend:
        made.append(Backend(*words, **options))  # pyright: ignore[reportArgumentType]
        return made[-1]

    yield make
    for item in made:
        item.close()
