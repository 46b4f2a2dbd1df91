"""Repeated `sdlb node upgrade` under four kinds of full load at once: no request may be lost.

One real node; wrk over kept-alive connections, over new ones and over TLS, h2load over HTTP/2, each as fast as it gets answers.
tests/e2e/test_upgrade.py upgrades under WebSockets.
"""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

from bench import backend, certificates, processes
from bench.certificates import HOST
from bench.client import Client
from bench.report import CannotRun, Report, Row
from sdlb.cli.demo.launch import SDLB, Launcher, Node, WaitTimeout

LUA = """
wrk.headers["Host"] = "{host}"
{more}
"""
SECONDS, UPGRADES = 30, 5
RATE = 5000


def run(quick: bool = False) -> Report:
    """Raises CannotRun."""
    for tool, package in (("wrk", "wrk"), ("h2load", "nghttp2-client"), ("nginx", "nginx")):
        processes.tool(tool, package)
    seconds, upgrades = (10, 2) if quick else (SECONDS, UPGRADES)
    launcher = Launcher("sdlb-bench-")
    started: list[subprocess.Popen[bytes]] = []
    try:
        folder = launcher.folder
        certificates.site(folder)
        folder.chmod(0o755)
        server, origin = backend.start(folder, launcher.ports)
        started.append(server)
        processes.listening(server, origin, folder / "backend.log")
        https = f"127.0.0.1:{launcher.ports.take()}"
        node = launcher.node("edge-1", entry=True, start=False, listen={"https": https})
        node.settings[""]["site"] = [{"hosts": ["*"], "certificate": str(folder / "site.pem")}]
        node.start()
        launcher.wait_ready()
        _register(node, origin)
        loads = _loads(folder, node, https, seconds)
        began = time.monotonic()
        running = {name: subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for name, words in loads.items()}
        took = [_upgrade(launcher, node, began + (number + 1) * seconds / (upgrades + 1)) for number in range(upgrades)]
        outputs = {name: process.communicate(timeout=seconds + 60)[0] for name, process in running.items()}
    except WaitTimeout as error:
        raise CannotRun(str(error)) from None
    finally:
        processes.end(started)
        launcher.close()
    return _report(outputs, took, seconds)


def _register(node: Node, origin: str) -> None:
    body = {"service": "web", "version": "1.0.0", "routes": ["*/*"], "endpoint": origin, "ttl_s": 0}
    with Client(node.socket) as client:
        status, content = client.json("PUT", "/v1/instances/web", {**body, "health": {"kind": "none"}})
        if status not in (200, 201):
            raise CannotRun(f"registering was answered {status}: {content}")
        processes.until("it is active", lambda: client.json("GET", "/v1/instances/web")[1]["state"] == "active")


def _loads(folder: Path, node: Node, https: str, seconds: int) -> dict[str, list[str]]:
    kept, once = folder / "kept.lua", folder / "once.lua"
    kept.write_text(LUA.format(host=HOST, more=""))
    once.write_text(LUA.format(host=HOST, more='wrk.headers["Connection"] = "close"'))
    wrk = ["wrk", "-t1", f"-d{seconds}s", "--timeout", "20s"]
    return {
        "kept alive": [*wrk, "-c16", "-s", str(kept), f"http://{node.http}/"],
        "new": [*wrk, "-c4", "-s", str(once), f"http://{node.http}/"],
        "TLS": [*wrk, "-c8", "-s", str(kept), f"https://{https}/"],
        "HTTP/2 over TLS": [
            "h2load",
            "-c4",
            "-m8",
            f"-D{seconds}",
            "-t1",
            f"https://{https}/",
            "-H",
            f":authority: {HOST}",
        ],
    }


def _upgrade(launcher: Launcher, node: Node, at: float) -> float:
    """Milliseconds from the command until the new engine serves."""
    time.sleep(max(0.0, at - time.monotonic()))
    began = time.monotonic()
    done = subprocess.run(
        [*SDLB, "node", "upgrade", "--deadline", "5", "--socket", node.socket],
        env=launcher.environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if done.returncode:
        raise CannotRun(f"the upgrade failed: {done.stderr.strip()}")
    return (time.monotonic() - began) * 1000


def _report(outputs: dict[str, str], took: list[float], seconds: int) -> Report:
    rows: list[Row] = []
    total = 0
    for name, text in outputs.items():
        answered, lost = _count(text)
        total += answered
        rows.append(Row(f"lost, {name}", "0", f"{lost} of {answered:,}", lost == 0))
    rows.append(
        Row("requests a second, all together", f">= {RATE}", f"{total / seconds:,.0f}", total / seconds >= RATE)
    )
    rows.append(Row("from the command to a new engine that serves", "", f"{processes.median(took):.0f} ms (median)"))
    how = [f"{len(took)} upgrades in {seconds} s, one real node, four loads at once as fast as they get answers."]
    return Report("upgrade", "Requests lost in hot restarts of the engine", how, rows, {"said": outputs})


def _count(text: str) -> tuple[int, int]:
    """The numbers of answered and lost requests."""
    if wrk := re.search(r"(\d+) requests in", text):
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
        wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
        broken = sum(map(int, errors.groups())) if errors else 0
        return int(wrk[1]), broken + (int(wrong[1]) if wrong else 0)
    if h2load := re.search(
        r"requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", text
    ):
        return int(h2load[3]), int(h2load[4]) + int(h2load[5])
    raise CannotRun(f"a load generator printed: {text.strip()[-400:] or 'nothing'}")
