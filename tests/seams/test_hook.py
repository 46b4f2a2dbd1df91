"""Hooks of gates with real programs and a real HTTP server: each outcome, and what must not happen."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import signal
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sdlb.adapters import hook_program
from sdlb.adapters.hook import ANSWER_BYTES_MAX, Hooks
from sdlb.adapters.hook_program import CHARS_MAX, LINES_MAX, _is_held  # pyright: ignore[reportPrivateUsage]
from sdlb.core.effects import RunHook
from sdlb.model.gate import Hook
from sdlb.model.hook_program import HookProgram
from tests.certificates import Authority, needs_openssl

FILE = "/etc/sdlb/node.toml"


def asked(key: str = "k-1", version: str = "2.5.1", **hook: Any) -> RunHook:
    return RunHook(key, "catalog", version, Hook("migrate", "gap", **hook), ("1.0.1", "1.0.2"))


def program(folder: Path, text: str) -> tuple[str, ...]:
    """A Python program as a command."""
    file = folder / "program.py"
    file.write_text(textwrap.dedent(text))
    return (sys.executable, str(file))


def hooks(folder: Path, command: tuple[str, ...], **more: Any) -> Hooks:
    return Hooks(folder / "hooks", {"migrate": HookProgram(command, **more)}, FILE)


def run(folder: Path, text: str, timeout_s: float = 20.0, **more: Any) -> tuple[str, str]:
    return asyncio.run(hooks(folder, program(folder, text), **more).run(asked(run="migrate", timeout_s=timeout_s)))


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# ---------------------------------------------------------------------- programs


@pytest.mark.parametrize(("code", "outcome"), [(0, "yes"), (75, "later"), (1, "no"), (2, "no"), (255, "no")])
def test_the_exit_code_decides(tmp_path: Path, code: int, outcome: str) -> None:
    found, detail = run(tmp_path, f"print('a line'); raise SystemExit({code})")
    assert found == outcome
    assert f"exited with code {code}: a line" in detail


def test_killed_by_a_signal_is_no_decision(tmp_path: Path) -> None:
    outcome, detail = run(tmp_path, "import os; print('x', flush=True); os.kill(os.getpid(), 9)")
    assert (outcome, detail) == ("failed", "the program was killed by signal 9: x")


@pytest.mark.parametrize(
    ("command", "why"), [("/no/such/program", "No such file or directory"), ("/etc/passwd", "Permission denied")]
)
def test_a_program_that_cannot_be_started(tmp_path: Path, command: str, why: str) -> None:
    outcome, detail = asyncio.run(hooks(tmp_path, (command,)).run(asked(run="migrate")))
    assert outcome == "failed"
    assert detail == f"the program of hook migrate cannot be started: {command}: {why}"
    assert list((tmp_path / "hooks").iterdir()) == []


def test_a_folder_or_a_disk_that_cannot_be_used(tmp_path: Path) -> None:
    found = asyncio.run(hooks(tmp_path, ("/bin/true",), cwd="/no/such/folder").run(asked(run="migrate")))
    assert found[0] == "failed" and "/no/such/folder" in found[1]
    (tmp_path / "hooks").rmdir()
    (tmp_path / "hooks").write_text("a file")
    found = asyncio.run(hooks(tmp_path, ("/bin/true",)).run(asked(run="migrate")))
    assert found[0] == "failed"


def test_a_hook_that_the_node_file_does_not_have(tmp_path: Path) -> None:
    some = hooks(tmp_path, ("/bin/true",))
    outcome, detail = asyncio.run(some.run(asked(run="migrat")))
    assert (outcome, detail) == ("failed", f"{FILE} has no table [hook.migrat]; did you mean 'migrate'?")
    outcome, detail = asyncio.run(some.run(asked(run="x\x1b[2Jy")))
    assert detail == f"{FILE} has no table [hook.x [2Jy]; add it and send control SIGHUP"
    some.file = ""
    assert "no node file" in asyncio.run(some.run(asked(run="other")))[1]


SHOW = """
import json, os, sys
print(json.dumps({"env": dict(os.environ), "argv": sys.argv[1:], "cwd": os.getcwd(), "stdin": sys.stdin.read(),
                  "group": os.getpgid(0) == os.getpid(), "session": os.getsid(0) == os.getpid()}))
"""


def test_what_a_program_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_CONTROL", "s3cret")
    monkeypatch.setenv("LD_PRELOAD_OF_CONTROL", "x")
    monkeypatch.setenv("HOME", "/root")
    command = (*program(tmp_path, SHOW), "--to", "$(id); `id` | *")
    some = hooks(tmp_path, command, env=(("DATABASE", "main"), ("PATH", "/opt/bin")), cwd=str(tmp_path))
    outcome, detail = asyncio.run(some.run(asked(run="migrate")))
    assert outcome == "yes"
    shown = json.loads(detail.partition(": ")[2])
    env: dict[str, str] = shown["env"]
    for name in ("LC_CTYPE", "LANG", "TZ", "USER", "LOGNAME", "PYTHONPATH"):
        env.pop(name, None)
    assert env == {
        "PATH": "/opt/bin",
        "HOME": "/root",
        "DATABASE": "main",
        "SDLB_SERVICE": "catalog",
        "SDLB_VERSION": "2.5.1",
        "SDLB_REPLACES": "1.0.1 1.0.2",
        "SDLB_KEY": "k-1",
        "SDLB_GATE": "migrate",
    }
    assert shown["argv"] == ["--to", "$(id); `id` | *"]
    assert (shown["cwd"], shown["stdin"], shown["group"], shown["session"]) == (str(tmp_path), "", True, True)


@pytest.mark.parametrize(
    "name", ["1; touch owned", "$(touch owned)", "`touch owned`", "a\nb", "--help", "../x", "\U0001f600"]
)
def test_hostile_names_reach_the_program_as_they_are(tmp_path: Path, name: str) -> None:
    some = hooks(tmp_path, program(tmp_path, SHOW), cwd=str(tmp_path))
    outcome, detail = asyncio.run(some.run(asked(name, name, run="migrate")))
    assert outcome == "yes"
    env = json.loads(detail.partition(": ")[2])["env"]
    assert (env["SDLB_VERSION"], env["SDLB_KEY"]) == (name, name)
    assert not (tmp_path / "owned").exists()


def test_a_name_that_no_process_can_get(tmp_path: Path) -> None:
    outcome, detail = asyncio.run(hooks(tmp_path, ("/bin/true",)).run(asked(version="1\0", run="migrate")))
    assert outcome == "failed" and "null byte" in detail


def test_huge_output_costs_no_memory_and_the_end_of_it_is_kept(tmp_path: Path) -> None:
    text = """
    import sys
    for _ in range(64):
        sys.stdout.write("x" * (1 << 20))
    print()
    for number in range(40):
        print("\\x1b[31mline", number, "\\x07")
    raise SystemExit(3)
    """
    outcome, detail = run(tmp_path, text)
    lines = detail.split(" | ")
    assert outcome == "no"
    assert lines[0] == "the program exited with code 3: [31mline 20"
    assert lines[-1] == "[31mline 39" and len(lines) == LINES_MAX
    outcome, detail = run(tmp_path, "print('y' * 1000000)")
    assert len(detail) < CHARS_MAX + 100 and detail.endswith("yyy")


def test_binary_output_is_shown_as_text(tmp_path: Path) -> None:
    _, detail = run(
        tmp_path, "import sys; sys.stdout.buffer.write(b'\\xff\\0a\\x9b1m'); sys.stderr.write('and errors')"
    )
    assert detail.isprintable() and "and errors" in detail


def test_past_its_time_a_program_is_stopped(tmp_path: Path) -> None:
    text = """
    import signal, sys, time
    def stop(number, frame):
        print("cleaned up", flush=True)
        sys.exit(0)
    signal.signal(signal.SIGTERM, stop)
    print("works", flush=True)
    time.sleep(600)
    """
    outcome, detail = run(tmp_path, text, timeout_s=1.0)
    assert outcome == "failed"
    assert detail == "the program ran for more than 1 s and was stopped: works | cleaned up"


def test_the_limit_of_the_node_file_counts_too(tmp_path: Path) -> None:
    some = hooks(tmp_path, ("/bin/sleep", "600"), timeout_s=0.3)
    assert asyncio.run(some.run(asked(run="migrate", timeout_s=300.0)))[0] == "failed"
    some = hooks(tmp_path, ("/bin/sleep", "600"), timeout_s=300.0)
    assert asyncio.run(some.run(asked(run="migrate", timeout_s=0.3)))[0] == "failed"


STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for number in range(3):
    if os.fork() == 0:
        break
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()}\\n")
time.sleep(600)
"""


def test_a_program_that_forks_and_ignores_sigterm_is_killed_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook_program, "KILL_AFTER_S", 0.5)
    pids = tmp_path / "pids"
    some = hooks(tmp_path, (*program(tmp_path, STUBBORN), str(pids)))
    outcome, detail = asyncio.run(some.run(asked(run="migrate", timeout_s=1.5)))
    assert outcome == "failed" and detail.endswith("was killed")
    started = [int(line) for line in pids.read_text().split()]
    assert len(started) == 4
    until(lambda: not any(map(lives, started)))
    assert list((tmp_path / "hooks").iterdir()) == []


def test_the_rest_of_the_group_gets_time_to_clean_up(tmp_path: Path) -> None:
    """The leader ends at SIGTERM immediately, its child a little later."""
    text = """
    import os, signal, sys, time
    if os.fork() == 0:
        def stop(number, frame):
            time.sleep(0.5)
            open(sys.argv[0] + ".cleaned", "w").close()
            os._exit(0)
        signal.signal(signal.SIGTERM, stop)
    time.sleep(600)
    """
    assert run(tmp_path, text, timeout_s=1.0)[1].startswith("the program ran for more than 1 s")
    assert (tmp_path / "program.py.cleaned").exists()


def test_what_the_program_leaves_running_is_left_alone(tmp_path: Path) -> None:
    text = """
    import os, sys, time
    pid = os.fork()
    if pid == 0:
        time.sleep(600)
    print(pid)
    """
    outcome, detail = run(tmp_path, text)
    pid = int(detail.split()[-1])
    assert outcome == "yes" and lives(pid)
    os.kill(pid, signal.SIGKILL)


COUNT = """
import os, sys, time
with open(sys.argv[1], "a") as file:
    file.write(os.environ["SDLB_KEY"] + "\\n")
while not os.path.exists(sys.argv[2]):
    time.sleep(0.02)
    print("waits", flush=True)
print("done")
"""


def test_one_key_runs_once_at_a_time(tmp_path: Path) -> None:
    count, go = tmp_path / "count", tmp_path / "go"
    some = hooks(tmp_path, (*program(tmp_path, COUNT), str(count), str(go)))

    async def main() -> None:
        calls = [asyncio.create_task(some.run(asked(key, run="migrate"))) for key in ("k-1", "k-1", "k-2", "k-1")]
        while not count.exists() or len(count.read_text().split()) < 2:
            await asyncio.sleep(0.02)
        calls[1].cancel()  # one that gives up does not end the program
        await asyncio.sleep(0.2)
        go.touch()
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(found[1], asyncio.CancelledError)
        for each in (found[0], found[2], found[3]):
            assert not isinstance(each, BaseException)
            assert each[0] == "yes" and each[1].endswith("done")
        assert sorted(count.read_text().split()) == ["k-1", "k-2"]
        assert (await some.run(asked("k-1", run="migrate")))[0] == "yes"
        assert sorted(count.read_text().split()) == ["k-1", "k-1", "k-2"]

    asyncio.run(main())


CONTROL = """
import asyncio, sys
from pathlib import Path
from sdlb.adapters.hook import Hooks
from sdlb.core.effects import RunHook
from sdlb.model.gate import Hook
from sdlb.model.hook_program import HookProgram
hooks = Hooks(Path(sys.argv[1]), {"migrate": HookProgram(tuple(sys.argv[2:]))}, "")
print(asyncio.run(hooks.run(RunHook("k-1", "catalog", "2.5.1", Hook("migrate", run="migrate")))), flush=True)
"""


def test_a_killed_control_neither_ends_the_program_nor_starts_it_twice(tmp_path: Path) -> None:
    """The output goes on, too: a program that writes a lot gets neither SIGPIPE nor a full pipe."""
    count, go, control = tmp_path / "count", tmp_path / "go", tmp_path / "control.py"
    control.write_text(CONTROL)
    noisy = COUNT.replace('print("waits", flush=True)', 'print("w" * 8192, flush=True)')
    words = [sys.executable, str(control), str(tmp_path / "hooks"), *program(tmp_path, noisy), str(count), str(go)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as first:
        until(count.exists)
        first.kill()
    (lock,) = (tmp_path / "hooks").glob("*.lock")
    pid = int(lock.read_text())
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as second:
        time.sleep(1.5)
        found = (lives(pid), _is_held(lock), count.read_text().split())
        go.touch()
        assert found == (True, True, ["k-1"])
        assert second.stdout is not None
        answer = second.stdout.read()
    assert answer.startswith("('yes', 'the program exited with code 0: ")
    assert count.read_text().split() == ["k-1", "k-1"]  # asked again with the same key
    assert not lives(pid)
    assert list((tmp_path / "hooks").iterdir()) == []


def test_a_program_of_an_earlier_control_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook_program, "JOIN_S", 0.5)
    count, go, control = tmp_path / "count", tmp_path / "go", tmp_path / "control.py"
    control.write_text(CONTROL)
    command = (*program(tmp_path, COUNT), str(count), str(go))
    with subprocess.Popen([sys.executable, str(control), str(tmp_path / "hooks"), *command]) as first:
        until(count.exists)
        first.kill()
    outcome, detail = asyncio.run(hooks(tmp_path, command).run(asked(run="migrate")))
    (lock,) = (tmp_path / "hooks").glob("*.lock")
    pid = int(lock.read_text())
    assert (outcome, detail) == (
        "later",
        f"process {pid} still runs for the same key; control was restarted since it began",
    )
    go.touch()
    until(lambda: not lives(pid))
    assert asyncio.run(hooks(tmp_path, command).run(asked(run="migrate")))[0] == "yes"


def test_an_exit_code_that_others_took_is_never_a_yes(tmp_path: Path) -> None:
    """With SIGCHLD ignored, the kernel keeps no exit codes, and `subprocess` would report 0."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        outcome, detail = run(tmp_path, "raise SystemExit(3)")
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert (outcome, detail) == ("failed", "the exit code of the program is not known")


def test_the_number_of_running_hooks_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdlb.adapters.hook.RUNNING_MAX", 2)
    some = hooks(tmp_path, ("/bin/sleep", "0.3"))

    async def main() -> list[tuple[str, str]]:
        return await asyncio.gather(*(some.run(asked(f"k-{n}", run="migrate")) for n in range(3)))

    assert [outcome for outcome, _ in asyncio.run(main())] == ["yes", "yes", "later"]


# ---------------------------------------------------------------------- URLs


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> None:
        self.calls: list[tuple[str, str, Mapping[str, str], Any]] = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None: ...

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                found = {name.lower(): value for name, value in self.headers.items()}
                server.calls.append((self.command, self.path, found, json.loads(body)))
                answer(self)

            do_GET = do_POST

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def port(self) -> int:
        return self.server_address[1]


@contextmanager
def served(
    status: int = 200,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    answer: Callable[[http.server.BaseHTTPRequestHandler], None] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Generator[Server]:
    def plain(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    server = Server(answer or plain)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask(tmp_path: Path, url: str, timeout_s: float = 10.0) -> tuple[str, str]:
    return asyncio.run(hooks(tmp_path, ("/bin/false",)).run(asked(url=url, timeout_s=timeout_s)))


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        *((200, "yes"), (201, "yes"), (204, "yes"), (299, "yes"), (202, "later")),
        *((400, "no"), (403, "no"), (404, "no"), (410, "no"), (408, "later"), (425, "later"), (429, "later")),
        *((301, "failed"), (302, "failed"), (304, "failed"), (307, "failed"), (500, "failed"), (503, "failed")),
    ],
)
def test_the_status_decides(tmp_path: Path, status: int, outcome: str) -> None:
    with served(status, b"" if status in (204, 304) else b"the reason\x1b[0m") as server:
        found, detail = ask(tmp_path, f"http://user:pass@127.0.0.1:{server.port}/hook?token=s3cret")
    assert found == outcome
    assert f"http://127.0.0.1:{server.port}/hook answered {status}" in detail
    assert "pass" not in detail and "s3cret" not in detail and detail.isprintable()
    if status in (202, 403, 500):
        assert detail.endswith(": the reason [0m")


def test_what_a_url_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    with served() as server:
        assert ask(tmp_path, f"http://127.0.0.1:{server.port}/a/b?c=d")[0] == "yes"
    ((method, path, headers, body),) = server.calls
    assert (method, path) == ("POST", "/a/b?c=d")
    assert (headers["idempotency-key"], headers["content-type"]) == ("k-1", "application/json")
    assert body == {
        "service": "catalog",
        "version": "2.5.1",
        "replaces": ["1.0.1", "1.0.2"],
        "gate": "migrate",
        "key": "k-1",
    }


def test_the_hook_of_an_analysis_gets_its_numbers(tmp_path: Path) -> None:
    numbers: dict[str, object] = {"result": "pass", "metrics": {"errors": {"new_bad": 3.0}}}
    with served() as server:
        effect = replace(asked(url=f"http://127.0.0.1:{server.port}/"), analysis=numbers)
        assert asyncio.run(hooks(tmp_path, ("/bin/true",)).run(effect))[0] == "yes"
    assert server.calls[0][3]["analysis"] == numbers
    program_ = program(tmp_path, "import os; print(os.environ['SDLB_ANALYSIS']); raise SystemExit(1)")
    outcome, detail = asyncio.run(hooks(tmp_path, program_).run(replace(asked(run="migrate"), analysis=numbers)))
    assert outcome == "no" and json.loads(detail.partition("code 1: ")[2]) == numbers


def test_redirects_are_not_followed(tmp_path: Path) -> None:
    with served() as other, served(307, headers={"location": f"http://127.0.0.1:{other.port}/"}) as server:
        outcome, detail = ask(tmp_path, f"http://127.0.0.1:{server.port}/")
        assert outcome == "failed" and "redirects are not followed" in detail
        assert (len(server.calls), len(other.calls)) == (1, 0)


def test_no_server_no_name_no_url(tmp_path: Path) -> None:
    with served() as server:
        port = server.port
    for url in (f"http://127.0.0.1:{port}/", "http://no-such-name.invalid/", "http://[::1/", "http://127.0.0.1:99999/"):
        outcome, detail = ask(tmp_path, url)
        assert outcome == "failed" and detail, url


def drip(handler: http.server.BaseHTTPRequestHandler) -> None:
    """A head, then a byte now and then."""
    handler.send_response(409)
    handler.end_headers()
    try:
        for _ in range(400):
            handler.wfile.write(b"x")
            time.sleep(0.05)
    except OSError:
        pass


def test_one_time_limit_for_all_of_an_answer(tmp_path: Path) -> None:
    def silent(handler: http.server.BaseHTTPRequestHandler) -> None:
        time.sleep(2)

    for answer in (silent, drip):
        with served(answer=answer) as server:
            outcome, detail = ask(tmp_path, f"http://127.0.0.1:{server.port}/", timeout_s=0.7)
            assert outcome == "failed" and detail.endswith("did not answer within 0.7 s")


def test_an_endless_answer_is_read_to_its_limit_only(tmp_path: Path) -> None:
    sent = 0

    def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.send_response(403)
        handler.send_header("content-encoding", "gzip")
        handler.end_headers()
        try:
            while sent < 1 << 30:
                handler.wfile.write(b"z" * 65536)
                sent += 65536
        except OSError:
            pass

    with served(answer=endless) as server:
        outcome, detail = ask(tmp_path, f"http://127.0.0.1:{server.port}/")
    assert outcome == "no" and len(detail) < 500
    assert sent < 1 << 27 and ANSWER_BYTES_MAX < 1 << 20


def test_an_answer_that_is_not_http(tmp_path: Path) -> None:
    with served(answer=lambda handler: (handler.wfile.write(b"\x16\x03 not http\r\n\r\n"), None)[1]) as server:
        outcome, detail = ask(tmp_path, f"http://127.0.0.1:{server.port}/")
    assert outcome == "failed" and "could not be asked" in detail


@needs_openssl
def test_certificates_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("localhost")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(issued.chain, issued.key)
    with served(tls=tls) as server:
        outcome, detail = ask(tmp_path, f"https://localhost:{server.port}/")
        assert outcome == "failed" and "CERTIFICATE_VERIFY_FAILED" in detail
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.pem))
        assert ask(tmp_path, f"https://localhost:{server.port}/")[0] == "yes"
        outcome, detail = ask(tmp_path, f"https://127.0.0.1:{server.port}/")
        assert outcome == "failed" and "CERTIFICATE_VERIFY_FAILED" in detail
