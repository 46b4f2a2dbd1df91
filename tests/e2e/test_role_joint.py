"""Two services that are rolled out together, on real processes: in order of what they require, and back together."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from tests.e2e import roles
from tests.e2e.cluster import Cluster, Node, until
from tests.e2e.roles import SITE
from tests.e2e.traffic import Traffic
from tests.releases import COMMAND, release

PRICES = "pricing.example"
BROKEN = "import sys\nsys.exit('no table prices')"


def host(cluster: Cluster, name: str, edge: Node) -> Node:
    """A node that runs both services."""
    table: dict[str, object] = {
        "driver": "process",
        "health": {"kind": "http", "path": "/health", "interval_s": 0.25},
        "from": [f"{cluster.folder}/"],
        "restart": {"first_s": 0.1, "max_s": 1.0},
    }
    tables: dict[str, Any] = {
        f"role.web.{service}": {
            **table,
            "routes": [site],
            "command": [service if c == "catalog" else c for c in COMMAND],
        }
        for service, site in (("catalog", SITE), ("pricing", PRICES))
    }
    node = cluster.node(name, [edge], start=False, **tables)
    node.settings[""]["roles"] = ["web"]
    node.start()
    return node


def add(node: Node, cluster: Cluster, service: str, version: str, program: str = "", requires: str = "") -> None:
    body = release(cluster.folder, version, program, service=service)
    roles.post(node, "/v1/releases", {**body, "requires": [requires] if requires else []})


@pytest.mark.promise(3, 9)
def test_two_services_go_together_and_a_bad_build_takes_both_back(cluster: Cluster) -> None:
    edge = cluster.node("edge", entry=True)
    hosts = [host(cluster, f"host-{n}", edge) for n in (1, 2)]
    cluster.wait_ready()
    one = hosts[0]
    add(one, cluster, "pricing", "3.0.1")
    add(one, cluster, "catalog", "1.0.1")
    add(one, cluster, "pricing", "3.0.2")
    add(one, cluster, "catalog", "1.0.2", requires="pricing>=3.0.2")
    add(one, cluster, "pricing", "3.0.3")
    add(one, cluster, "catalog", "1.0.3", BROKEN, requires="pricing>=3.0.3")
    quick = ("--soak", "0.3", "--wait")
    code, lines = roles.command(one, "start", "catalog", "1.0.1", "pricing", "3.0.1", *quick)
    assert code == 0, lines
    cluster.reachable([edge], f"http://{SITE}/", "catalog-1.0.1")
    cluster.reachable([edge], f"http://{PRICES}/", "pricing-3.0.1")

    code, lines = roles.command(one, "start", "catalog", "1.0.2")
    assert code == 1 and "catalog-1.0.2 requires pricing>=3.0.2, and pricing 3.0.1 is active" in lines[-1]
    with ExitStack() as stack:
        both = [stack.enter_context(Traffic([edge], site)) for site in (SITE, PRICES)]
        code, lines = roles.command(one, "start", "catalog", "1.0.2", "pricing", "3.0.2", *quick)
        assert code == 0, lines
        assert any("started r-3 of pricing, then r-4 of catalog" in line for line in lines)
        assert [roles.rollout(one, service)["settled"] for service in ("pricing", "catalog")] == ["3.0.2", "1.0.2"]

        code, lines = roles.command(one, "start", "catalog", "1.0.3", "pricing", "3.0.3", *quick)
        assert code == 1 and "r-6 of catalog is undone (host-" in lines[-1], lines
        [why] = roles.rollout(one)["failed"].values()
        assert "no table prices" in why
        assert roles.rollout(one, "pricing")["undoes"] == "r-5"
        for each in both:
            each.wait_for(20)
    for each in both:
        each.assert_nothing_lost()
    for each in hosts:
        until(f"{each.name} as before", lambda each=each: sorted(roles.versions(each)) == ["1.0.2", "3.0.2"])

    code, lines = roles.command(one, "history", "pricing")
    assert code == 0 and "with catalog r-6" in lines[1] and "undoes r-5" in lines[1], lines
    for words in (("status", "pricing"), ("show", "r-7")):
        assert any(
            "together  catalog 1.0.2 -> 1.0.3 r-6 undone, then pricing" in x for x in roles.command(one, *words)[1]
        )
