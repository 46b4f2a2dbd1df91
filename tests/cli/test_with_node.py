"""Commands and the Python client against a real node, which is root, entry and host in one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

import sdlb
from sdlb.cli.demo.launch import SDLB, Launcher, Node, until

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher("sdlb-cli-") as launcher:
        yield launcher


@pytest.fixture(scope="module")
def node(launcher: Launcher) -> Node:
    node = launcher.node("solo", entry=True)
    node.wait_ready()
    return node


def command(node: Node, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    environment = {**node.environment, "SDLB_SOCKET": node.socket}
    return subprocess.run([*SDLB, *words], env=environment, capture_output=True, text=True, timeout=40, check=False)


def get(node: Node, host: str, path: str = "/") -> httpx.Response:
    return httpx.get(f"http://{node.http}{path}", headers={"host": host}, timeout=10)


@contextlib.contextmanager
def web(said: str, gate: threading.Event | None = None) -> Generator[int]:
    """A web server; its port. `/slow` takes a second, or until the gate is opened."""

    class Web(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/slow":
                time.sleep(1.0) if gate is None else gate.wait(30)
            self.send_response(200)
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A health check hangs up."""

    server = Server(("127.0.0.1", 0), Web)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_node_without_services_shows_what_to_do(launcher: Launcher) -> None:
    node = launcher.node("empty")
    node.wait_ready()
    assert "sdlb run" in command(node, "status").stdout
    assert "sdlb run" in command(node, "routes").stdout
    assert command(node, "tree").stdout.splitlines()[0].startswith("empty  this node, a root")
    node.stop()


def test_an_id_is_not_taken_from_a_process_that_lives(node: Node) -> None:
    with subprocess.Popen(["sleep", "600"]) as first, subprocess.Popen(["sleep", "600"]) as second:
        try:
            words = ("register", "--route", "owned.example/*", "--id", "owned", "--health", "none", "--port", "9")
            done = command(node, *words, "--pid", str(first.pid), "owned-1.0.0")
            assert done.returncode == 0, done.stderr
            done = command(node, *words, "--pid", str(second.pid), "owned-2.0.0")
            assert done.returncode == 1
            assert f"owned is registered by process {first.pid} as owned-1.0.0 on 127.0.0.1:9" in done.stderr
            assert "owned-1.0.0  active" in command(node, "tree").stdout
            first.kill()
            first.wait()
            done = command(node, *words, "--pid", str(second.pid), "owned-2.0.0")
            assert done.returncode == 0, done.stderr
        finally:
            first.kill()
            second.kill()


def test_register_status_explain_deregister(node: Node) -> None:
    with web("one") as one, web("two") as two:
        register = ("register", "--route", "words.example/a*", "--id")
        done = command(node, *register, "w1", "--port", str(one), "--wait", "10", "words-1.0.1")
        assert (done.returncode, done.stdout, done.stderr) == (0, "w1  active\n", "")
        done = command(node, *register, "w2", "--port", str(two), "--wait", "0.5", "words-2.0.0")
        waiting = "waiting: 1.0.1 still has 1 instance on solo"
        assert done.returncode == 1
        assert done.stdout == f"w2  {waiting}\n"
        assert done.stderr.startswith("sdlb register: words-2.0.0 is waiting, not active, after 0.5 s: 1.0.1 still")
        thief = command(node, *register, "t", "--port", str(two), "--wait", "0.5", "--json", "thief-1.0.0")
        assert thief.returncode == 1
        assert json.loads(thief.stdout)["state"] == "refused"

        lines = command(node, "status", "words").stdout.splitlines()
        assert lines[0].split() == ["SERVICE", "VERSION", "INSTANCES", "CAPACITY", "SHARE", "HOSTS", "STATE"]
        assert lines[1].split() == ["words", "1.0.1", "1", "100", "100%", "solo", "active"]
        assert lines[2].endswith(waiting)
        assert len(lines) == 3
        tree = command(node, "tree").stdout
        assert "words-1.0.1  active" in tree
        assert f"words-2.0.0  {waiting}" in tree
        routes = command(node, "routes").stdout
        assert "words.example/a*" in routes
        assert "refused: words.example/a* is held by words" in routes

        told = command(node, "explain", "words.example/abc").stdout
        assert "route    words.example/a*  (exact host, prefix /a)" in told
        assert f"goes to  instance w1  127.0.0.1:{one}" in told
        assert f"not      words 2.0.0: {waiting}" in told
        nothing = command(node, "explain", "http://words.example/b")
        assert nothing.returncode == 1
        assert "404 from solo" in nothing.stdout and get(node, "words.example", "/b").status_code == 404
        elsewhere = command(node, "explain", "http://other-words.example/b")
        assert "421 from solo: no claim has this host" in elsewhere.stdout
        assert get(node, "other-words.example", "/b").status_code == 421
        assert get(node, "words.example", "/abc").text == "one"

        gone = command(node, "deregister", "w1")
        assert (gone.returncode, gone.stdout) == (0, "w1 is drained and removed\n")
        until("2.0.0 serves", lambda: get(node, "words.example", "/abc").text == "two")
        again = command(node, "deregister", "w1")
        assert again.returncode == 1
        assert "w1" in again.stderr
        assert again.stderr.count("\n") == 1
        assert command(node, "deregister", "t", "--json").returncode == 0
        assert command(node, "deregister", "w2", "--gone").stdout == "w2 is removed\n"


def test_a_service_without_a_ready_instance_shows_this(node: Node) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with web("wide") as wide:
        done = command(node, "register", "--route", "ready.example/*", "--id", "r1", "--port", str(wide), "wide-1.0.0")
        assert done.returncode == 0, done.stderr
        words = ("register", "--route", "ready.example/narrow*", "--id", "r2", "--port", port, "--wait", "1")
        assert command(node, *words, "narrow-1.0.0").returncode == 1
        row = next(line for line in command(node, "status").stdout.splitlines() if line.startswith("narrow"))
        why = "(r2: cannot connect: Connection refused)"
        assert row.endswith(f"active, but no instance is ready on solo {why}")
        told = command(node, "explain", "http://ready.example/narrow").stdout
        assert "more specific than ready.example/*, but it has never served" in told
        assert get(node, "ready.example", "/narrow").text == "wide"
        for name in ("r1", "r2"):
            assert command(node, "deregister", name).returncode == 0


def test_an_instance_registered_by_hand_needs_no_renewal(node: Node) -> None:
    with web("hand") as port:
        words = ("register", "--route", "hand.example/*", "--port", str(port), "--wait", "10", "--id")
        assert command(node, *words, "h1", "hand-1.0.0").returncode == 0
        assert command(node, *words, "h2", "--ttl", "0.5", "hand-1.0.0").returncode == 0
        with node.client() as client:
            until("the lease of h2 ran out", lambda: {"h1", "h2"} & {i.id for i in client.instances()} == {"h1"})
            client.deregister("h1")


@pytest.mark.parametrize(("deadline", "code"), [("10", 0), ("0.2", 1)])
def test_deregister_waits_for_what_is_in_flight_up_to_its_deadline(node: Node, deadline: str, code: int) -> None:
    host = f"slow{code}.example"
    gate = threading.Event()
    with web("slow", gate if code else None) as port:
        words = ("--route", f"{host}/*", "--port", str(port), "--id", "s", "--wait", "10", f"slow{code}-1")
        assert command(node, "register", *words).returncode == 0
        answers: list[int] = []
        asking = threading.Thread(target=lambda: answers.append(get(node, host, "/slow").status_code))
        asking.start()
        time.sleep(0.3)
        done = command(node, "deregister", "s", "--deadline", deadline)
        gate.set()
        assert done.returncode == code, done.stderr
        if code:
            assert "in flight after 0.2 s" in done.stderr
        else:
            asking.join(1.0)  # its answer was on its way before the command returned
        assert code or answers
        asking.join()
        assert answers == [200]


def test_policy_set_changes_the_named_settings_and_reports_errors(node: Node) -> None:
    default = json.loads(command(node, "policy", "get", "pol", "--json").stdout)
    assert default["revision"] == 0
    done = command(node, "policy", "set", "pol", "--share", "1.0.2=5", "--on-silence", "wait", "--yes")
    assert done.returncode == 0, done.stderr
    assert [line.strip() for line in done.stdout.splitlines()] == [
        "pol  revision 1",
        "priority: even -> share",
        "shares: - -> 1.0.2=5",
        "on_silence: open -> wait",
    ]
    assert "warning: no root knows a service named pol" in done.stderr
    command(node, "policy", "set", "pol", "--rule", "minor")
    told = json.loads(command(node, "policy", "get", "pol", "--json").stdout)
    assert told["policy"] == {
        **default["policy"],
        "priority": "share",
        "shares": {"1.0.2": 5},
        "on_silence": "wait",
        "compatibility": {**default["policy"]["compatibility"], "rule": "minor"},
    }
    whole = node.folder / "pol.json"  # what was printed can be given back
    whole.write_text(json.dumps({**told, "policy": {**told["policy"], "on_silence": "open"}}))
    done = command(node, "policy", "set", "pol", "--file", str(whole))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == ["  on_silence: wait -> open"]
    assert command(node, "policy", "set", "pol", "--on-silence", "open").stdout.splitlines()[1:] == [
        "  nothing changed"
    ]
    shown = command(node, "policy", "get", "pol", "--all").stdout
    settings = {line.split()[0]: line.split()[1:] for line in shown.splitlines()[1:]}
    assert settings["on_silence"] == ["open", '("pol")']
    assert settings["limits.adaptive"] == ["false", "(default)"]
    assert settings["outlier.success_deviations"] == ["0", "(default)"]
    told = json.loads(command(node, "policy", "get", "pol", "--json").stdout)
    bad = command(node, "policy", "set", "pol", "--share", "1.0.1=96")
    assert bad.returncode == 1
    assert "shares" in bad.stderr
    assert json.loads(command(node, "policy", "get", "pol", "--json").stdout) == told


def test_policies_of_patterns_and_where_each_value_comes_from(node: Node) -> None:
    done = command(node, "policy", "set", "shop*", "--park-timeout", "5", "--hold", "all", "--yes")
    assert done.returncode == 0, done.stderr
    assert "warning: no root knows a service that matches shop*" in done.stderr
    done = command(node, "policy", "set", "shop-1", "--hold", "2.5.1", "--never-below", "1.0", "--yes")
    assert done.stdout.splitlines() == ["shop-1  revision 1", "  hold: * -> *, 2.5.1", "  never_below: - -> 1.0"]
    assert command(node, "policy", "get", "shop-1").stdout.splitlines() == [
        "shop-1  revision 1",
        '  park.timeout_s  5         ("shop*")',
        '  hold            *, 2.5.1  ("shop-1")',
        '  never_below     1.0       ("shop-1")',
    ]
    told = json.loads(command(node, "policy", "get", "shop-1", "--json").stdout)
    assert told["document"] == {"hold": ["*", "2.5.1"], "never_below": "1.0"}
    assert told["sources"] == {"park.timeout_s": "shop*", "hold": "shop-1", "never_below": "shop-1"}
    assert told["policy"]["park"] == {"timeout_s": 5, "requests_max": 1000}
    done = command(node, "policy", "set", "shop-1", "--unset", "hold", "--set", "park.timeout_s=30")
    assert done.stdout.splitlines()[1:] == ["  park.timeout_s: 5 -> 30", "  hold: *, 2.5.1 -> *"]
    assert '("shop-1")' in command(node, "policy", "get", "shop-1").stdout.splitlines()[1], "a default that is set"
    bad = command(node, "policy", "set", "shop-1", "--unset", "prioirty")
    assert bad.returncode == 2 and "did you mean priority?" in bad.stderr
    assert command(node, "policy", "get", "other").stdout.splitlines() == [
        "other  the defaults (no policy was set)",
        "  every setting has its default",
    ]
    for name in ("shop*", "shop-1"):
        empty = node.folder / "empty.json"
        empty.write_text("{}")
        assert command(node, "policy", "set", name, "--file", str(empty)).returncode == 0


APPLIED = """\
[policy."app*"]
park = {timeout_s = 5}
[policy.app-1]
priority = "share"
shares = {"1.0.2" = 5}
"""


def test_a_file_of_policies_is_applied_all_or_none(node: Node) -> None:
    file = node.folder / "policies.toml"
    file.write_text(APPLIED)
    with web("hello") as port, web("hello") as other:
        for number, at in ((1, port), (2, other)):
            words = ("--route", "app.example", "--port", str(at), "--id", f"app{number}", "--wait", "9")
            assert command(node, "register", *words, f"app-1-1.0.{number}").returncode == 0
        diff = command(node, "policy", "diff", str(file))
        assert diff.returncode == 1, diff.stderr
        lines = [line for line in diff.stdout.splitlines() if not line.startswith("left alone")]
        assert lines == [
            "app*",
            "  park.timeout_s: 30 -> 5",
            "app-1",
            "  priority: even -> share",
            "  shares: - -> 1.0.2=5",
            "  park.timeout_s: 30 -> 5",
            "what happens to app-1",
            "  share of 1.0.1: 50 % -> 95 %",
            "  share of 1.0.2: 50 % -> 5 %",
        ]
        dry = command(node, "policy", "apply", str(file), "--dry-run")
        assert (dry.returncode, dry.stdout) == (0, diff.stdout)
        assert json.loads(command(node, "policy", "get", "app-1", "--json").stdout)["revision"] == 0
        done = command(node, "policy", "apply", str(file), "--json")
        assert done.returncode == 0, done.stderr
        assert [change["name"] for change in json.loads(done.stdout)["changes"]] == ["app*", "app-1"]
        again = command(node, "policy", "diff", str(file))
        assert again.returncode == 0 and again.stdout.startswith("no difference\n")
        file.write_text(APPLIED.replace("1.0.2", "1.0.7").replace("5}", "6}", 1))
        refused = command(node, "policy", "apply", str(file))
        assert refused.returncode == 1
        assert "app-1 has no version 1.0.7 (did you mean 1.0.2?)" in refused.stderr
        assert "nothing was changed (--yes" in refused.stderr
        file.write_text('[policy."app*"]\npark = {timeout_s = 6}\n[policy.app-1]\nprioirty = "even"\n')
        bad = command(node, "policy", "apply", str(file), "--yes")
        assert bad.returncode == 1 and bad.stderr.count("\n") == 1
        assert f"{file}:4: policy.app-1: prioirty: is not a known key; did you mean 'priority'?" in bad.stderr
        assert json.loads(command(node, "policy", "get", "app*", "--json").stdout)["policy"]["park"]["timeout_s"] == 5
        file.write_text('[policy."app*"]\npark = {timeout_s = 5}\n')
        diff = command(node, "policy", "diff", str(file))
        assert diff.returncode == 0 and "left alone, because the file does not name them: app-1" in diff.stdout
        pruned = json.loads(command(node, "policy", "apply", str(file), "--prune", "--json").stdout)
        assert "app-1" in [change["name"] for change in pruned["changes"]] and pruned["unnamed"] == []
        assert json.loads(command(node, "policy", "get", "app-1", "--json").stdout)["sources"] == {
            "park.timeout_s": "app*"
        }
        for number in (1, 2):
            command(node, "deregister", f"app{number}")


def test_policies_in_an_editor(node: Node) -> None:
    editor = node.folder / "editor.sh"
    editor.write_text("#!/bin/sh\nsed -i 's/= 7/= 8/' \"$1\"\n")
    editor.chmod(0o755)
    command(node, "policy", "set", "edited", "--park-timeout", "7", "--yes")
    words = [*SDLB, "policy", "edit", "edited"]
    environment = {**node.environment, "SDLB_SOCKET": node.socket, "EDITOR": str(editor), "TMPDIR": str(node.folder)}

    def edit() -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)

    environment.pop("VISUAL", None)
    done = edit()
    assert done.returncode == 0, done.stderr
    assert "park.timeout_s: 7 -> 8" in done.stdout
    assert "nothing was changed" in edit().stderr
    assert list(node.folder.glob("sdlb-policy-*")) == []
    editor.write_text("#!/bin/sh\nsed -i 's/= {/= 5 # {/' \"$1\"\n")
    failed = edit()
    (kept,) = node.folder.glob("sdlb-policy-*")
    assert failed.returncode == 1 and f"{kept}:2: policy.edited: park" in failed.stderr
    assert f"your text is in {kept}" in failed.stderr
    kept.unlink()
    environment["EDITOR"] = "false"
    assert "false exited with 1; nothing was changed" in edit().stderr
    del environment["EDITOR"]
    assert edit().returncode == 2


def test_a_typing_error_opens_no_canary(node: Node) -> None:
    with web("hello") as port:
        done = command(
            node,
            "register",
            "--route",
            "typo.example",
            "--port",
            str(port),
            "--id",
            "typo",
            "--wait",
            "9",
            "typo-1.0.1",
        )
        assert done.returncode == 0, done.stderr
        refused = command(node, "policy", "set", "typo", "--share", "9.9.9=50")
        assert refused.returncode == 1 and refused.stderr.count("\n") == 1
        assert "typo has no version 9.9.9; it has 1.0.1; nothing was changed (--yes " in refused.stderr
        assert command(node, "policy", "set", "tpyo", "--priority", "higher").returncode == 1
        assert json.loads(command(node, "policy", "get", "typo", "--json").stdout)["revision"] == 0
        assert command(node, "policy", "set", "typo", "--share", "1.0.1=50").returncode == 0
        command(node, "deregister", "typo")


@pytest.mark.parametrize(("answer", "code", "revision"), [("y", 0, 1), ("n", 1, 0), ("", 1, 0)])
def test_at_a_terminal_it_asks_for_confirmation(node: Node, answer: str, code: int, revision: int) -> None:
    service = f"asked{answer}"
    ours, theirs = pty.openpty()
    words = [*SDLB, "policy", "set", service, "--priority", "higher"]
    environment = {**node.environment, "SDLB_SOCKET": node.socket}
    asking = subprocess.Popen(words, env=environment, stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    said = b""
    while b"[y/N]" not in said:
        said += os.read(ours, 4096)
    os.write(ours, f"{answer}\n".encode())
    assert asking.wait(10) == code
    os.close(ours)
    assert f"no root knows a service named {service}".encode() in said
    assert json.loads(command(node, "policy", "get", service, "--json").stdout)["revision"] == revision


def test_events_go_on_over_a_restart_of_control(launcher: Launcher) -> None:
    node = launcher.node("restarted")
    node.wait_ready()
    words = [*SDLB, "events", "-f", "--json", "--socket", node.socket]
    following = launcher.program(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert following.stdout is not None
    json.loads(following.stdout.readline())
    node.kill_control()
    node.start()
    node.wait_ready()
    with node.client() as client, web("x") as port:
        client.register(sdlb.Spec.of("after-1.0.0", routes=["after.example/"], port=port, id="after"))
        while "after" not in json.loads(following.stdout.readline())["text"]:
            pass
        client.deregister("after")
    following.send_signal(signal.SIGINT)
    _, err = following.communicate(timeout=10)
    assert following.returncode == 130
    assert err.decode().count("retrying") == 1
    once = command(node, "events")
    assert once.returncode == 0
    assert "after" in once.stdout


def test_a_program_started_before_its_node_is_registered_when_it_comes_up(launcher: Launcher) -> None:
    node = launcher.node("late", entry=True, start=False)
    instance = launcher.run(node, "early-1.0.0", "early.example/*")
    until("it says that no node answers", lambda: "no node answers" in instance.log_file.read_text())
    node.start()
    instance.wait("active")
    until("it serves", lambda: get(node, "early.example", "/x").status_code == 200)
    until("it has heard", lambda: "is active" in instance.log_file.read_text())
    assert instance.stop() == 0
    said = [line for line in instance.log_file.read_text().splitlines() if line.startswith("sdlb run: ")]
    assert said[1:] == [
        "sdlb run: the node is reachable now",
        "sdlb run: early-1.0.0 is active",
        "sdlb run: early-1.0.0 is drained",
    ]


def test_serve_registers_drains_and_returns(node: Node) -> None:
    with web("served") as port:
        with sdlb.serve("kept-1.0.0", routes=["kept.example/*"], port=port, ttl_s=1.0, socket=node.socket) as serving:
            assert serving.wait_active(10).state == "active"
            time.sleep(1.5)
            assert get(node, "kept.example").text == "served", "renewed"
            answers: list[int] = []
            asking = threading.Thread(target=lambda: answers.append(get(node, "kept.example", "/slow").status_code))
            asking.start()
            time.sleep(0.3)
        asking.join(0.3)
        assert answers == [200], "left before its request was answered"
        with node.client() as client, pytest.raises(sdlb.Problem) as caught:
            client.instance(serving.spec.id)
        assert caught.value.status == 404


def test_serve_in_a_task_does_the_same(node: Node) -> None:
    async def serve(port: int) -> None:
        serving = sdlb.serve("task-1.0.0", routes=["task.example/*"], port=port, ttl_s=1.0, socket=node.socket)
        async with serving as mine, sdlb.AsyncClient(node.socket) as client:
            assert (await client.instance(mine.spec.id, "active", 10)).state == "active"
            await asyncio.sleep(1.5)
            assert mine.spec.id in {instance.id for instance in await client.instances()}
            events = client.events(follow=False)
            assert [event async for event in events if mine.spec.id in event.text]
        async with sdlb.AsyncClient(node.socket) as client:
            assert mine.spec.id not in {instance.id for instance in await client.instances()}

    with web("task") as port:
        asyncio.run(serve(port))


def test_serve_reports_an_invalid_registration(node: Node) -> None:
    with pytest.raises(sdlb.Problem) as caught, sdlb.serve("x-1", routes=["a b"], port=1, socket=node.socket):
        pytest.fail("entered")
    assert caught.value.status == 400
    assert "a b" in caught.value.detail


def test_a_wrong_route_ends_sdlb_run_and_its_program(node: Node) -> None:
    done = command(node, "run", "--route", "a b", "--health", "none", "x-1.0.0", "--", "sleep", "60")
    assert done.returncode == 2
    assert "a b" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "host"),
    [
        ([str(EXAMPLES / "catalog.py"), "1.0.1"], "example.com"),
        ([str(EXAMPLES / "catalog_async.py"), "1.0.1"], "example.com"),
    ],
    ids=["catalog", "catalog_async"],
)
def test_the_examples_serve_and_leave(launcher: Launcher, node: Node, words: list[str], host: str) -> None:
    program = subprocess.Popen(
        [sys.executable, *words],
        env={**launcher.environment, "SDLB_SOCKET": node.socket},
        stderr=subprocess.PIPE,
        text=True,
    )
    until("it serves", lambda: get(node, host, "/catalog/7").text == "catalog 1.0.1: /catalog/7\n")
    time.sleep(0.6)  # it learns that it is active a moment later
    program.terminate()
    _, err = program.communicate(timeout=15)
    assert program.returncode == 0
    assert err.splitlines() == ["catalog-1.0.1 is active", "catalog-1.0.1 is drained"]
