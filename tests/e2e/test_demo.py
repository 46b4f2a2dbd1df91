"""The demo, as a newcomer runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from sdlb.cli.demo import sweep
from sdlb.cli.demo.launch import SDLB, until


def folder_of(line: str) -> str:
    return line.strip().rpartition(" ")[2]


@pytest.mark.promise(3)
@pytest.mark.promise(1)
def test_the_story_loses_nothing() -> None:
    begin = time.monotonic()
    done = subprocess.run([*SDLB, "demo", "--json"], capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert set(told) == {"requests", "answered", "lost", "wrong_version", "longest_wait_ms", "phases"}
    assert told["requests"] == told["answered"] > 5000 and told["lost"] == told["wrong_version"] == 0
    assert sum(phase["requests"] for phase in told["phases"].values()) == told["requests"]
    for phase in told["phases"].values():
        assert set(phase) == {"requests", "answered", "lost", "wrong_version", "longest_wait_ms", "by_version"}
        assert sum(phase["by_version"].values()) == phase["answered"] > 0
    versions = {version for phase in told["phases"].values() for version in phase["by_version"]}
    assert versions == {"catalog-1.0.1", "catalog-1.0.2", "catalog-1.0.3", "catalog-2.5.1", "search-1.0.0"}
    assert not os.path.exists(folder_of(done.stderr.splitlines()[0])), "its folder is left behind"
    assert time.monotonic() - begin < 120


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_demo_leaves_nothing_running(how: signal.Signals) -> None:
    demo = subprocess.Popen([*SDLB, "demo", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert demo.stderr is not None
    folder = folder_of(demo.stderr.readline())
    until("some nodes run", lambda: len(sweep.marked(Path(folder))) > 4)
    time.sleep(1.0)
    demo.send_signal(how)
    demo.communicate(timeout=30)
    until("all its processes have ended", lambda: not sweep.marked(Path(folder)), 20)
    until("its folder is gone", lambda: not os.path.exists(folder), 10)


def test_an_interrupt_under_traffic_is_quiet() -> None:
    """Requests that fail because the nodes stop are not reported as lost."""
    demo = subprocess.Popen([*SDLB, "demo"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert demo.stdout is not None
    said: list[str] = []
    while "compatible" not in (line := demo.stdout.readline()):
        assert line, said
        said.append(line)
    time.sleep(1.0)
    demo.send_signal(signal.SIGINT)
    rest, _ = demo.communicate(timeout=30)
    assert demo.returncode == 130
    assert "lost:" not in rest and "Traceback" not in rest
    assert rest.splitlines()[-1] == "interrupted; all processes of the demo were stopped"
