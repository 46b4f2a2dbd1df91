"""`sticky = {by = "session"}`: two edges, growing shares, clients that keep cookies."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node
from tests.e2e.test_policy import applied

Make = Callable[..., Backend]


class Client:
    """One person with a browser: the cookies of the last answers, whichever edge they came from."""

    def __init__(self, site: str) -> None:
        self.site = site
        self._http = httpx.Client(trust_env=False, timeout=20.0, headers={"connection": "close"})
        self.set_cookies: list[str] = []

    def version(self, edge: Node) -> str:
        answer = self._http.get(f"http://{edge.http}/", headers={"host": self.site})
        assert answer.status_code == 200, answer.text
        self.set_cookies += answer.headers.get_list("set-cookie")
        return answer.json()["version"]


@pytest.mark.promise(1)
def test_a_session_stays_on_its_version_at_both_edges_while_that_is_active(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    service, url = site.partition(".")[0], f"http://{site}/"
    clients: dict[Client, str] = {}

    def come(count: int) -> list[str]:
        """New clients, in turn at both edges; returns their versions."""
        new = [Client(site) for _ in range(count)]
        clients.update((client, client.version(edges[at % 2])) for at, client in enumerate(new))
        return [clients[client] for client in new]

    def stay() -> None:
        for client, version in clients.items():
            assert [client.version(edge) for edge in edges] == [version] * 2
            assert len(client.set_cookies) == 1 and client.set_cookies[0].startswith(f"sdlb-{service}=")

    with hosts[0].client() as api:
        api.set_policy(service, {"sticky": {"by": "session"}})
        old = shared.register(hosts[0], f"{service}-1.0.1", site, backend(service, "1.0.1"))
        shared.reachable(edges, url, f"{service}-1.0.1")
        assert come(8) == ["1.0.1"] * 8
        shared.register(hosts[1], f"{service}-1.0.2", site, backend(service, "1.0.2"))
        shared.reachable(edges, url, f"{service}-1.0.2")
        for percent in (50, 100):
            shares = {"priority": "share", "shares": {"1.0.2": percent, "1.0.1": 100 - percent}}
            api.set_policy(service, {**shares, "sticky": {"by": "session"}})
            applied(edges, site, {"1.0.1": 50, "1.0.2": 50} if percent == 50 else {"1.0.2": 100})
            stay()
            came = come(16)
            assert abs(came.count("1.0.2") - 16 * percent // 100) <= (3 if percent == 50 else 0), came
            stay()
        old.deregister()
        assert {client.version(edge) for client in clients for edge in edges} == {"1.0.2"}
        assert all(len(client.set_cookies) == 1 + (version == "1.0.1") for client, version in clients.items())
