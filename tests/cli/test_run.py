"""`sdlb run` with a real program and no node: what it does for the program must not need one."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sdlb.node.ports import hold_free_port

PY = sys.executable
SERVER = (
    "import os, sys, time, http.server as h\n"
    "class H(h.BaseHTTPRequestHandler):\n"
    "    def do_GET(self):\n"
    "        self.send_response(int(os.environ.get('ANSWER', '200'))); self.end_headers()\n"
    "    def log_message(self, *a): pass\n"
    "s = h.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), H)\n"
    "print('listening', os.getpid(), flush=True)\n"
    "s.serve_forever()\n"
)
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `sdlb run [options] -- program`; whatever is left is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def run(*words: str, program: tuple[str, ...] = (PY, "-c", SERVER), **env: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [PY, "-m", "sdlb", "run", "--route", "example.com/x", *words, "x-1.0.0", "--", *program],
            env={**os.environ, "SDLB_SOCKET": str(tmp_path / "none.sock"), **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=20)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


def listening(process: subprocess.Popen[str]) -> int:
    """Waits for SERVER; its process id."""
    assert process.stdout is not None
    word, pid = process.stdout.readline().split()
    assert word == "listening"
    return int(pid)


def gone(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def until(done: Callable[[], bool], timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_programs_output_input_and_exit_code_are_passed_through(start: Start) -> None:
    program = (PY, "-c", "import sys; print(sys.stdin.read().upper()); print('e', file=sys.stderr); sys.exit(7)")
    process = start("--health", "none", program=program)
    out, err = process.communicate("hello", timeout=20)
    assert (process.returncode, out) == (7, "HELLO\n")
    assert "e\n" in err


def test_the_port_comes_in_the_environment_and_in_the_arguments(start: Start) -> None:
    words = (PY, "-c", "import os, sys; print(os.environ['HTTP_PORT'], *sys.argv[1:])", "{port}", "at:{port}/{x}")
    _, out, _ = ended(start("--health", "none", "--port-env", "HTTP_PORT", program=words))
    port, *rest = out.split()
    assert rest == [port, f"at:{port}/{{x}}"]
    _, out, _ = ended(start("--health", "none", "--port", "1234", "--port-env", "HTTP_PORT", program=words))
    assert out.split()[0] == "1234"


def test_a_program_that_exits_before_it_is_healthy_is_reported_with_its_status(start: Start) -> None:
    code, _, err = ended(start(program=("sh", "-c", "exit 3")))
    assert code == 3
    assert err == "sdlb run: x-1.0.0 exited with exit status 3 before it was healthy\n"
    code, _, err = ended(start(program=("true",)))
    assert code == 1
    code, _, err = ended(start(program=("sh", "-c", "kill -9 $$")))
    assert code == 128 + 9
    assert "signal 9 (SIGKILL)" in err


@pytest.mark.parametrize(
    ("options", "env", "why"),
    [
        (("--health", "tcp"), {}, "Connection refused"),
        (("--health", "/well"), {}, "Connection refused"),
        (("--health", "/well"), {"ANSWER": "503"}, "GET /well answered 503"),
    ],
)
def test_a_program_that_does_not_become_healthy_is_reported_and_stopped(
    start: Start, options: tuple[str, ...], env: dict[str, str], why: str
) -> None:
    program = (PY, "-c", SERVER) if env else ("sleep", "60")
    code, _, err = ended(start(*options, "--start-timeout", "0.8", program=program, **env))
    assert code == 1
    assert err.count("\n") == 1
    assert "was not healthy within 0.8 s" in err
    assert why in err
    assert "--start-timeout" in err


def test_a_program_that_is_not_there_is_reported(start: Start) -> None:
    code, _, err = ended(start(program=("/nonesuch/program",)))
    assert (code, err) == (1, "sdlb run: /nonesuch/program: No such file or directory\n")


def test_a_missing_node_is_reported_once_and_waited_for(start: Start) -> None:
    process = start("--health", "/well")
    pid = listening(process)
    time.sleep(1.5)  # several attempts
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    code, _, err = ended(process)
    assert code == 0, "as asked"
    assert err.count("no node answers at") == 1
    assert gone(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_program_that_will_not_stop_is_killed_after_the_grace(start: Start, number: signal.Signals) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVER
    process = start("--stop-grace", "0.3", program=(PY, "-c", deaf))
    pid = listening(process)
    process.send_signal(number)
    code, _, err = ended(process)
    assert code == 128 + 9
    assert "did not stop within 0.3 s of SIGTERM and was killed" in err
    assert gone(pid)


def test_the_exit_code_after_sigterm_is_that_of_the_program(start: Start) -> None:
    polite = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n" + SERVER
    process = start(program=(PY, "-c", polite))
    listening(process)
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 5


def test_kill_9_does_not_leave_the_program_running(start: Start) -> None:
    process = start()
    pid = listening(process)
    process.kill()
    process.wait()
    until(lambda: gone(pid))


def test_the_terminals_interrupt_reaches_the_program_only_through_us(start: Start) -> None:
    process = start()
    pid = listening(process)
    assert os.getpgid(pid) == pid != os.getpgid(process.pid)


def test_ports_are_free_below_the_kernels_own_range_and_never_given_twice() -> None:
    held = [hold_free_port(random.Random(7)) for _ in range(40)]  # the same draws each time
    ports = [each.port for each in held]
    assert len(set(ports)) == 40
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(10_000 <= port < lowest for port in ports) or lowest < 10_200
    again = hold_free_port(random.Random(7))
    assert again.port not in ports
    for each in [*held, again]:
        if each.name is not None:
            each.name.close()
    last = hold_free_port(random.Random(7))
    assert last.port == ports[0], "given back with the process"
    if last.name is not None:
        last.name.close()


def test_a_node_that_hangs_does_not_keep_a_second_signal_waiting(start: Start, tmp_path: Path) -> None:
    """A control that is stopped (SIGSTOP) takes connections and answers nothing."""
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(tmp_path / "none.sock"))
        hung.listen()
        process = start()
        pid = listening(process)
        hung.settimeout(10)
        first, _ = hung.accept()  # that we are in its process-id namespace
        second, _ = hung.accept()
        assert second.recv(1) == b"P"
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert process.poll() is None, "the registration may still be carried out"
        process.send_signal(signal.SIGTERM)
        assert ended(process)[0] == 0
        assert gone(pid)
        first.close()
        second.close()


def test_a_port_that_somebody_has_is_refused_before_the_program_starts(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = ended(start("--port", str(port)))
    assert (code, out) == (1, "")
    assert err == f"sdlb run: port {port} is already in use; use another port, or leave out --port\n"
