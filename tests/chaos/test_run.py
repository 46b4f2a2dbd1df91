"""Three minutes of `make chaos`, with a fixed seed: all goals hold. And what it says where it cannot be run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sdlb.cli.demo.launch import until
from tools.chaos.network import PREFIX, Network, NoNetworkError
from tools.chaos.plan import KINDS, steps

ROOT = Path(__file__).parents[2]
CHAOS = (sys.executable, "-m", "tools.chaos")
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}/src"}
SEED = 7
MINUTES = 2.5
"""In which steps begin; the start and the end of the tree take some more."""


def chaos(*words: str, code: str = "", timeout_s: float = 60.0, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *words] if code else [*CHAOS, *words],
        cwd=ROOT,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.mark.promise(3)
def test_three_minutes_of_faults_in_a_tree_of_namespaces(tmp_path: Path) -> None:
    """Two edges, two racks and four hosts in namespaces: planned changes lose nothing, faults only what was in flight."""
    _needs_namespaces()
    file, logs = tmp_path / "chaos.json", tmp_path / "logs"
    done = chaos(
        *("--seed", str(SEED), "--minutes", str(MINUTES), "--json", str(file), "--logs", str(logs)), timeout_s=480.0
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    told = json.loads(file.read_text())
    assert told["broken"] == []
    count = len(told["steps"])
    assert count >= 8, done.stdout
    planned = [step.kind for step, _ in zip(steps(SEED), range(count), strict=False)]
    assert [step["step"]["kind"] for step in told["steps"]] == planned
    rows = told["table"]
    assert sum(row["sent"] for row in rows) > 1000
    assert len((logs / "clients-1.jsonl").read_text().splitlines()) > 500


SABOTAGE = """
import sys
from tools.chaos.__main__ import main
from tools.chaos.acts import Acts
Acts._policy = lambda acts, step: acts._tree.nodes["edge-1"].kill_engine()
sys.exit(main())
"""


def test_what_is_lost_in_a_planned_change_breaks_a_run(tmp_path: Path) -> None:
    """An engine that is killed where only a policy was to be changed: the run says which requests it cost."""
    _needs_namespaces()
    words = ("--faults", "policy", "--seed", "1", "--steps", "1")
    done = chaos(*words, code=SABOTAGE, timeout_s=120.0, TMPDIR=str(tmp_path))
    assert done.returncode == 1, f"{done.stdout}\n{done.stderr}"
    assert "NOT EXCUSED" in done.stdout
    assert "BROKEN: step 1 (policy): " in done.stdout
    assert "  edge-1 edge-1." in done.stdout
    assert "  edge-2 " not in done.stdout
    (logs,) = tmp_path.glob("chaos-logs-*")
    assert f"logs: {logs}\n" in done.stdout and (logs / "clients-1.jsonl").exists()
    assert "again: make chaos CHAOS_ARGS='--seed 1 --minutes 60 --faults policy'" in done.stdout


def test_an_interrupted_run_leaves_nothing_behind() -> None:
    """Ctrl-C while the tree starts: its namespaces, processes and folders are gone."""
    _needs_namespaces()
    with subprocess.Popen([*CHAOS, "--minutes", "1"], cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE) as process:
        mine = f"{PREFIX}{process.pid}-"
        until("its nodes run", lambda: _processes(f"{mine}host-1"), 40.0)
        pids = _processes(f"{mine}host-1")
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told == b"make chaos: interrupted; all its processes were stopped\n"
    assert not list(Path("/run/netns").glob(f"{mine}*"))
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def _needs_namespaces() -> None:
    if shutil.which("openssl") is None:
        pytest.skip("the program openssl is not installed")
    try:
        with Network(("host-1",)):
            pass
    except NoNetworkError as error:
        pytest.skip(f"no network namespaces can be made here: {error}")


def _processes(namespace: str) -> list[int]:
    """Those of the network namespace of this name."""
    words = ["ip", "netns", "pids", namespace]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    return [int(pid) for pid in done.stdout.split()]


def test_where_it_cannot_be_run_it_says_so(tmp_path: Path) -> None:
    """Without the program `ip`, or not root."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the program openssl is not installed")
    (tmp_path / "openssl").symlink_to(openssl)
    done = chaos("--minutes", "1", PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("make chaos cannot be run here: ") and done.stderr.count("\n") == 1


def test_an_unknown_fault_is_wrong_usage() -> None:
    done = chaos("--faults", "cut,flood")
    assert done.returncode == 2
    assert "flood: not one of" in done.stderr
    assert all(name in done.stderr for name in KINDS)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--minutes", "nan"), "nan: more than 0"),
        (("--minutes", "-1"), "-1: more than 0"),
        (("--minutes", "1e9"), "1e9: more than 0 and at most 1440"),
        (("--steps", "-3"), "-3: 0 (no limit) or more"),
        (
            ("--json", "/nonexistent/chaos.json"),
            "/nonexistent/chaos.json: cannot be written: No such file or directory",
        ),
        (("--logs", "/dev/null/logs"), "/dev/null/logs: cannot be written: Not a directory"),
    ],
)
def test_what_cannot_be_run_is_refused_before_the_run(words: tuple[str, ...], error: str) -> None:
    done = chaos(*words)
    assert done.returncode == 2 and done.stdout == ""
    assert error in done.stderr.splitlines()[-1]


def test_a_run_has_at_least_one_step() -> None:
    _needs_namespaces()
    done = chaos("--minutes", "0.001", "--faults", "policy", timeout_s=120.0)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "chaos:    1 policy" in done.stdout and "chaos:    2" not in done.stdout
