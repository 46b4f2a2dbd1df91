"""State folder and sockets: files that another user may have prepared are not used."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sdlb.model.problem import Invalid
from sdlb.node.local_paths import StateFolder, listen_unix, remove_socket


def test_a_new_state_folder_is_ours_alone(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "a" / "state")
    assert stat.S_IMODE(os.stat(folder.path).st_mode) == 0o700
    folder.close()


def test_two_controls_never_share_a_state_folder(tmp_path: Path) -> None:
    first = StateFolder(tmp_path / "state")
    with pytest.raises(Invalid, match=f"process {os.getpid()}") as told:
        StateFolder(tmp_path / "state")
    assert told.value.code == "state-in-use"
    first.close()
    StateFolder(tmp_path / "state").close()


def test_the_lock_goes_with_a_process_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from sdlb.node.local_paths import StateFolder;"
        "folder = StateFolder(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "state")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    holder = subprocess.Popen(words, stdout=subprocess.PIPE, env=environment)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(Invalid):
        StateFolder(tmp_path / "state")
    holder.kill()
    holder.communicate()
    StateFolder(tmp_path / "state").close()


def test_a_state_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    with pytest.raises(Invalid, match="chmod go-w"):
        StateFolder(tmp_path / "state")


def test_a_state_folder_that_is_a_symbolic_link_or_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").write_text("")
    for name in ("link", "file"):
        with pytest.raises(Invalid):
            StateFolder(tmp_path / name)


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_a_socket_has_its_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "run" / "api.sock"
    made = listen_unix(path, mode)
    assert stat.S_IMODE(os.lstat(path).st_mode) == mode
    remove_socket(path, made)
    assert not path.exists()
    assert list((tmp_path / "run").iterdir()) == []


def test_a_stale_socket_is_replaced_and_a_used_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    first = listen_unix(path)
    with pytest.raises(Invalid) as told:
        listen_unix(path)
    assert told.value.code == "socket-in-use"
    first.close()
    second = listen_unix(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    second.close()


def test_whatever_else_is_there_stays(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    path = tmp_path / "api.sock"
    path.symlink_to(target)
    with pytest.raises(Invalid, match="symbolic link"):
        listen_unix(path)
    with pytest.raises(Invalid, match="not a socket"):
        listen_unix(target)
    assert target.read_text() == "precious"
    assert path.is_symlink()


def test_a_replaced_socket_file_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    first = listen_unix(path)
    path.unlink()
    second = listen_unix(path)
    remove_socket(path, first)
    assert path.exists()
    remove_socket(path, second)
    assert not path.exists()


def test_a_path_that_is_too_long_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="longer than"):
        listen_unix(tmp_path / ("x" * 120))
    folder = StateFolder(tmp_path / ("y" * 100))
    with pytest.raises(Invalid, match="too long"):
        folder.socket_path("engine.sock")
    folder.close()
