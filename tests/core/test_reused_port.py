"""A program exits and another one gets its port: the program that listens now is not the registered one."""

from __future__ import annotations

import pytest

from sdlb.core.messages import ClaimKey
from tests.core.forest import Forest, key_of

TREE: dict[str, tuple[str, ...]] = {"edge": (), "host": ("edge",)}
SHOP = ClaimKey("shop", "1.0.0", "shop.example/*")
PORT = "127.0.0.1:8000"


def put(forest: Forest, name: str, owner: str = "", **spec: object) -> None:
    if name == "shop":
        spec = {"service": "shop", "version": "1.0.0", "route": "shop.example/*", **spec}
    first = {"version": "1.0.1", "endpoint": PORT, "listeners": frozenset({name})}
    forest.put("host", name, owner=owner, **{**first, **spec})  # type: ignore[arg-type]


def served(forest: Forest) -> set[str]:
    return {key.service for key in (key_of("1.0.1"), SHOP) if forest.endpoints("edge", key)}


@pytest.mark.parametrize("ttl_s", [0.0, 30.0])
def test_the_one_before_gets_no_requests_from_that_moment(ttl_s: float) -> None:
    forest = Forest(TREE)
    put(forest, "a", ttl_s=ttl_s)
    assert served(forest) == {"catalog"}
    put(forest, "shop")
    assert served(forest) == {"shop"}
    view = forest["host"].balancer.view.instance("a")
    assert (view["state"], view["reason_code"]) == ("unhealthy", "superseded")
    assert "shop" in view["reason"]
    version = forest["host"].balancer.view.service("catalog")["versions"][0]  # type: ignore[index]
    assert version["reason_code"] == "nothing-ready" and view["reason"] in version["reason"]
    forest["host"].restart()
    forest.run(5.0)
    assert served(forest) == {"shop"}, "also over a restart"


@pytest.mark.promise(1)
def test_it_is_not_known_to_have_stopped() -> None:
    forest = Forest(TREE)
    put(forest, "a")
    put(forest, "shop")
    put(forest, "next", version="2.0.0", endpoint="127.0.0.1:8001")
    assert forest["host"].state("next") == "waiting"


def test_it_serves_again_when_it_registers_again() -> None:
    forest = Forest(TREE)
    put(forest, "a")
    put(forest, "shop")
    put(forest, "a")
    assert served(forest) == {"catalog", "shop"}


def test_one_program_may_serve_several_services_at_one_endpoint() -> None:
    forest = Forest(TREE)
    put(forest, "a", "process 7")
    put(forest, "shop", "process 7")
    assert served(forest) == {"catalog", "shop"}


@pytest.mark.parametrize(("before", "after", "both"), [("7", "7", True), ("7", "7 8", True), ("7", "8", False)])
def test_as_long_as_the_socket_is_the_same_one_program_answers_for_both(before: str, after: str, both: bool) -> None:
    forest = Forest(TREE)
    put(forest, "a", listeners=frozenset({before}))
    forest["host"].restart()
    forest.run(5.0)
    put(forest, "shop", listeners=frozenset(after.split()))
    assert served(forest) == ({"catalog", "shop"} if both else {"shop"})


@pytest.mark.parametrize("owners", [("process 7", "process 8"), ("", "")])
def test_several_programs_may_share_an_endpoint_for_one_service(owners: tuple[str, str]) -> None:
    """Workers that listen on one port, each with its own registration, do not supersede each other."""
    forest = Forest(TREE)
    put(forest, "a", owners[0])
    put(forest, "b", owners[1])
    assert forest.endpoints("edge", key_of("1.0.1")) == {"host/i:a", "host/i:b"}


def test_what_is_registered_elsewhere_by_now_is_not_concerned() -> None:
    forest = Forest(TREE)
    put(forest, "a")
    put(forest, "a", endpoint="127.0.0.1:8001")
    put(forest, "shop")
    assert served(forest) == {"catalog", "shop"}
    forest.remove("host", "a")
    assert set(forest["host"].balancer._local._at) == {PORT}


@pytest.mark.parametrize(("before", "after"), [("", "8"), ("7", ""), ("", "")])
def test_nothing_is_known_without_sockets_to_compare(before: str, after: str) -> None:
    """A program in another namespace, or one that does not listen yet, supersedes no registration."""
    forest = Forest(TREE)
    put(forest, "a", listeners=frozenset(before.split()))
    put(forest, "shop", listeners=frozenset(after.split()))
    assert served(forest) == {"catalog", "shop"}
