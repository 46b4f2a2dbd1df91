"""`drain` of a policy with real engines: two edges, a rack, a host; drains by calls without a deadline of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.e2e.backend import Backend, Seen
from tests.e2e.cluster import Cluster, Node, get, until

Make = Callable[..., Backend]


def drain(node: Node, instance: str) -> dict[str, object]:
    with httpx.Client(transport=httpx.HTTPTransport(uds=node.socket), timeout=30.0) as client:
        return client.post(f"http://localhost/v1/instances/{instance}/drain").json()


def slow(node: Node, instance: str) -> str:
    """The text of the event, once there is one."""
    with node.client() as client:
        events = [each for each in client.events(follow=False) if each.fields.get("instance") == instance]
    return next((each.text for each in events if each.code == "drain-slow"), "")


async def _streams(own: Backend, seen: Seen, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Server-sent events, or else an answer, for as long as the gate is shut."""
    if seen.target == "/events":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
    while not own.gate.is_set():
        await asyncio.sleep(0.02)
    if seen.target != "/events":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    return False


@pytest.mark.promise(3)
@pytest.mark.parametrize("then", ["wait", "cut"])
def test_at_its_deadline_a_drain_waits_on_or_cuts_off(
    then: str, shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    service, host = site.partition(".")[0], hosts[0]
    own = backend(service, "1.0.1", handler=_streams)
    with host.client() as client:
        client.set_policy(service, {"drain": {"deadline_s": 2, "then": then, "streams_s": 1}})
    instance = shared.register(host, f"{service}-1.0.1", site, own)
    shared.reachable(edges, f"http://{site}/", f"{service}-1.0.1")
    with ThreadPoolExecutor(2) as pool:
        plain = pool.submit(get, edges[0], site, "/plain")
        events = pool.submit(get, edges[1], site, "/events")
        until("both are in flight", lambda: len(own.seen) == 2)
        drained = drain(host, instance.spec.id)["drained"]
        with pytest.raises(httpx.RemoteProtocolError):
            events.result(20)
        until("the event", lambda: bool(slow(host, instance.spec.id)))
        assert "(1 request in flight on this node)" in slow(host, instance.spec.id)
        if then == "wait":
            assert not drained and not plain.done() and instance.get().state == "draining"
            own.gate.set()
            assert plain.result(20).text == "ok"
        else:
            answer = plain.result(20)
            assert answer.status_code == 503 and "drain deadline" in answer.text
    instance.wait("drained")
