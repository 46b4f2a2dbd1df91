"""A node with a full pipe without a reader as its standard output and error."""

from __future__ import annotations

import os
import signal
import subprocess
import threading

import httpx

from sdlb.cli.demo.launch import SDLB
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster
from tests.node.test_log_writer import full_pipe

REGISTRATIONS = 600
"""Each is logged in at least two lines: more than the queue takes."""


def test_control_keeps_running_when_its_log_is_not_read(cluster: Cluster) -> None:
    reads, writes = full_pipe()
    node = cluster.node("solo", entry=True, start=False)
    node.write_config()
    words = [*SDLB, "node", "--config", str(node.config)]
    node.process = subprocess.Popen(
        words,
        env=node.environment,
        stdin=subprocess.DEVNULL,
        stdout=writes,
        stderr=writes,
        start_new_session=True,
    )
    os.close(writes)
    node.wait_ready()
    with Backend() as backend, node.client() as client:
        for number in range(REGISTRATIONS):
            name = f"s{number}-1.0.0"
            cluster.register(node, name, f"s{number}.example/*", backend, wait="", id=f"i{number}")
        assert client.instance(f"i{REGISTRATIONS - 1}", wait="active").state == "active"
        answer = httpx.get(f"http://{node.http}/", headers={"host": "s1.example"}, timeout=10)
        assert answer.status_code == 200
        assert [event.code for event in client.events(follow=False)].count("log-blocked") == 1
        for number in range(REGISTRATIONS):
            client.deregister(f"i{number}", gone=True)
    said: list[bytes] = []

    def read() -> None:
        while part := os.read(reads, 65536):
            said.append(part)

    node.process.send_signal(signal.SIGTERM)
    reading = threading.Thread(target=read)
    reading.start()
    assert node.process.wait(40) == 0
    reading.join(10)
    os.close(reads)
    assert b"log-lines-dropped" in b"".join(said)
