"""Wrong usage: exit code 2 and one line on stderr with the reason. Without a node: exit code 1."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sdlb.cli import main
from sdlb.cli.app import COMMANDS, LATER

RUN = ["run", "--route", "example.com/x"]
WRONG: list[tuple[list[str], str]] = [
    ([], "no command given"),
    (["stauts"], "did you mean 'status'"),
    (["--socket", "x", "status"], "after the command"),
    (["status", "--nonesuch"], "sdlb status: unrecognized arguments: --nonesuch"),
    (["status", "a", "b"], "unrecognized arguments: b"),
    (["status", "--js"], "--js"),
    (["explain"], "URL"),
    (["policy"], "get | set"),
    (["policy", "get"], "NAME"),
    (["policy", "set", "x"], "give either settings"),
    (["policy", "set", "x", "--rule", "any", "--file", "f"], "give either settings"),
    (["policy", "set", "x", "--share", "1.0.2"], "VERSION=PERCENT"),
    (["policy", "set", "x", "--share", "1.0.2=101"], "0 to 100"),
    (["policy", "set", "x", "--share", "1.0.2=nan"], "0 to 100"),
    (["policy", "set", "x", "--sticky", "cookie"], "cookie:NAME"),
    (["policy", "set", "x", "--sticky", "cookie:"], "cookie:NAME"),
    (["policy", "set", "x", "--allow", "1.0"], "A~B"),
    (["policy", "set", "x", "--priority", "best"], "'best'"),
    (["policy", "set", "x", "--park-timeout", "-1"], "'-1'"),
    (["policy", "set", "x", "--park-max", "1.5"], "'1.5'"),
    (["node"], "--config FILE, or --root, or --parent"),
    (["node", "--root", "--parent", "a:1"], "a root has no parents"),
    (["run"], "after '--'"),
    (["run", "--"], "after '--'"),
    ([*RUN, "x-1"], "after '--'"),
    ([*RUN, "--", "true"], "NAME-VERSION is missing"),
    ([*RUN, "x", "--", "true"], "'x': has no version"),
    (["run", "x-1", "--", "true"], "--route is required"),
    ([*RUN, "--service", "x", "--", "true"], "both --service and --version"),
    ([*RUN, "--service", "x", "--version", "1", "--id", "i", "x-1", "--", "true"], "both --service and --version"),
    ([*RUN, "--ttl", "0", "x-1", "--", "true"], "greater than 0"),
    ([*RUN, "--ttl", "inf", "x-1", "--", "true"], "'inf'"),
    ([*RUN, "--capacity", "0", "x-1", "--", "true"], "'0'"),
    ([*RUN, "--port", "65536", "x-1", "--", "true"], "'65536'"),
    ([*RUN, "--health", "well", "x-1", "--", "true"], "'well'"),
    ([*RUN, "--label", "zone", "x-1", "--", "true"], "NAME=VALUE"),
    (["register", "--route", "x", "x-1"], "--port"),
    (["register", "--route", "x", "--port", "1", "--endpoint", "unix:/x", "x-1"], "not allowed with"),
    ([*RUN, "--route", "a b", "x-1", "--", "true"], "route 'a b'"),
    ([*RUN, "--compatible", ">>1", "x-1", "--", "true"], "not a condition"),
    ([*RUN, "--id", "a b", "x-1", "--", "true"], "instance id 'a b'"),
    ([*RUN, "--label", "zone=\n", "x-1", "--", "true"], "has the label 'zone'"),
    ([*RUN, "--ttl", "0.01", "x-1", "--", "true"], "ttl_s of 0.01"),
    ([*RUN, "--health", "/a b", "x-1", "--", "true"], "health path '/a b'"),
    ([*RUN, "--health-status", "2xx", "x-1", "--", "true"], "health status '2xx'"),
    ([*RUN, "--health-host", "a b", "x-1", "--", "true"], "health host 'a b'"),
    ([*RUN, "--health-rise", "101", "x-1", "--", "true"], "rise"),
    ([*RUN, "--health-fall", "0", "x-1", "--", "true"], "'0'"),
    ([*RUN, "--unix", "--port", "1", "x-1", "--", "true"], "--unix cannot be combined"),
    ([*RUN, "--unix", "relative", "x-1", "--", "true"], "unix:relative"),
    ([*RUN, "--host", "0.0.0.0", "x-1", "--", "true"], "'0.0.0.0'"),
    (["register", "--route", "a.example/*/b", "--port", "9", "x-1"], "a * inside the path"),
    (["register", "--route", "x", "--endpoint", "nonsense", "x-1"], "endpoint 'nonsense'"),
    (["register", "--route", "x", "--port", "1", "--service", "a/b", "--version", "1"], "service 'a/b'"),
    (["deregister"], "ID"),
    (["forget"], "NODE"),
    (["rollout"], "approve | promote"),
    (["rollout", "start"], "SERVICE"),
    (["rollout", "start", "catalog"], "give SERVICE VERSION, or the path of a rollout file"),
    (["rollout", "start", "catalog", "1", "--first", "0"], "'0' is not a whole number from 1"),
    (["rollout", "start", "catalog", "1", "--soak", "nan"], "'nan'"),
    (["rollout", "start", "catalog", "1", "--progress", "0"], "'0' is not a number of seconds from 1"),
    (["rollout", "start", "catalog", "1", "--nodes-out-max", "0%"], "'0%' is not a percentage"),
    (["rollout", "start", "catalog", "1", "--side-by-side", "no"], "invalid choice: 'no'"),
    (["rollout", "plan", "catalog", "1", "--wait"], "--wait"),
    (["rollout", "promote", "catalog", "--no-gates", "x"], "--no-gates needs a VERSION"),
    (["rollout", "pause"], "SERVICE"),
    (["rollout", "history"], "SERVICE"),
    (["release"], "add | list | withdraw"),
    (["release", "add"], "FILE"),
    (["release", "withdraw"], "NAME"),
    (["rollout", "aprove", "x", "1"], "invalid choice: 'aprove'"),
    (["rollout", "approve", "x"], "VERSION"),
    (["rollout", "promote", "x", "1", "--no-gates", " "], "--no-gates needs a reason"),
    (["route"], "transfer"),
    (["route", "transfer", "example.com/x"], "--to"),
]


@pytest.mark.parametrize(("argv", "says"), WRONG, ids=[" ".join(argv) for argv, _ in WRONG])
def test_wrong_usage_is_one_line_and_code_2(argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert told.err.startswith("sdlb")
    assert says in told.err


@pytest.mark.parametrize(
    "words",
    [
        *([name] for name in sorted(LATER)),
    ],
)
def test_commands_of_later_versions_are_refused_with_a_clear_message(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "anything", "--at-all"]) == 2
    assert capsys.readouterr().err == f"sdlb {' '.join(words)}: not supported in this version\n"
    main(["--help"])
    assert not LATER & set(capsys.readouterr().out.split("thousands")[0].split())


NEEDS_NODE = [
    ["status"],
    ["status", "x"],
    ["tree", "--json"],
    ["routes"],
    ["explain", "example.com/x"],
    ["events"],
    ["events", "-f"],
    ["policy", "get", "x"],
    ["release", "list"],
    ["release", "withdraw", "x-1"],
    ["rollout", "start", "x", "1.0.0"],
    ["rollout", "status"],
    ["rollout", "status", "--watch"],
    ["rollout", "undo", "x"],
    ["rollout", "history", "x"],
    ["role"],
    ["role", "x"],
    ["rollout", "approve", "x", "1.0.0"],
    ["rollout", "promote", "x", "1.0.0"],
    ["route", "transfer", "example.com/x", "--to", "x"],
    ["policy", "set", "x", "--rule", "any"],
    ["register", "--route", "x", "--port", "1", "x-1"],
    ["deregister", "x"],
    ["forget", "x"],
]


@pytest.mark.parametrize("argv", NEEDS_NODE, ids=" ".join)
def test_without_a_node_the_message_has_the_path_and_what_to_do(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "none.sock")
    monkeypatch.setenv("SDLB_SOCKET", path)
    assert main(argv) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert told.err.startswith(f"sdlb {argv[0]}: no node answers at {path} (No such file or directory); start one with")
    assert main([*argv, "--socket", path + "2"]) == 1
    assert path + "2" in capsys.readouterr().err


def test_a_socket_of_another_program_is_reported_as_such(tmp_path: Path) -> None:
    """Root may use every socket: then another user tries."""
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0)
        for folder in (tmp_path, *tmp_path.parents[:3]):
            folder.chmod(folder.stat().st_mode | 0o011)
        code = (
            "import os, sys; from sdlb.cli import main; "
            "main([*sys.argv[1:-1], '/nowhere']); "
            "os.geteuid() or os.setuid(65534); sys.exit(main(sys.argv[1:]))"  # all is imported while it may be read
        )
        words = [sys.executable, "-c", code, "tree", "--socket", str(path)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"sdlb tree: this user has no access to the socket {path} (Permission denied); use the user that runs the node, "
        'or grant a group access with listen.socket_mode = "0660"'
    )


@pytest.mark.parametrize("after_s", [0.02, 0.06, 0.1, 0.2])
def test_an_interrupt_is_quiet_however_early(after_s: float, tmp_path: Path) -> None:
    """The output from the program's first line on, without what Python prints at its start."""
    code = "import sys; from sdlb.cli import main; print(flush=True); sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "events", "-f", "--socket", str(tmp_path / "hangs.sock")]
    with socket.socket(socket.AF_UNIX) as hangs:
        hangs.bind(str(tmp_path / "hangs.sock"))
        hangs.listen()
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(after_s)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, b"")


def test_the_list_of_commands_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        if name in ("demo", "sim"):
            continue  # theirs
        with pytest.raises(SystemExit) as caught:
            main([name, "--help"])
        assert caught.value.code == 0
        assert f"sdlb {name}" in capsys.readouterr().out


def test_help_imports_no_command() -> None:
    """What makes `sdlb --help` quick: nothing is imported for it but the names of the commands."""
    code = (
        "import sys; from sdlb.cli import main; main(['--help']); "
        "print(sorted(m for m in sys.modules if m in ('argparse', 'httpx', 'rich', 'msgspec', 'grpc', 'asyncio')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_a_node_without_certificates_loads_no_cryptography() -> None:
    """It costs each node 8 MiB and some of its start."""
    code = "import sys, sdlb.node.compose; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_reader_that_closes_the_pipe_early_is_not_an_error() -> None:
    words = [sys.executable, "-m", "sdlb", "--help"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        err = process.stderr.read()
    process.wait()
    assert err == b""
