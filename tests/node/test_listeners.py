"""The program at an endpoint is identified by its listening sockets."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from sdlb.node.listeners import listeners

V4, V6 = socket.AF_INET, socket.AF_INET6


def listening(family: int, host: str, port: int = 0) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((host, port))
    made.listen()
    return made


@pytest.mark.parametrize(
    ("family", "at", "asked"),
    [(V4, "127.0.0.1", "127.0.0.1"), (V4, "0.0.0.0", "127.0.0.1"), (V6, "::1", "[::1]"), (V6, "::", "127.0.0.1")],
)
def test_the_same_socket_has_one_name_and_another_has_another(family: int, at: str, asked: str) -> None:
    with listening(family, at) as first:
        port = first.getsockname()[1]
        endpoint = f"{asked}:{port}"
        names = listeners(endpoint)
        assert len(names) == 1 and listeners(endpoint) == names
        assert listeners(f"127.0.0.2:{port}") == (names if at in ("0.0.0.0", "::") else frozenset())
        with socket.create_connection((asked.strip("[]"), port)):
            assert listeners(endpoint) == names
    assert listeners(endpoint) == frozenset()
    with listening(family, at, port):
        assert listeners(endpoint) and not listeners(endpoint) & names


def test_an_address_with_the_number_of_its_interface() -> None:
    with listening(V6, "::1") as first:
        port = first.getsockname()[1]
        assert listeners(f"[::1%1]:{port}") == listeners(f"[::1]:{port}") != frozenset()


def test_a_unix_socket_is_known_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    endpoint = f"unix:{path}"
    assert listeners(endpoint) == frozenset()
    with socket.socket(socket.AF_UNIX) as first:
        first.bind(str(path))
        names = listeners(endpoint)
        assert len(names) == 1
    path.unlink()
    with socket.socket(socket.AF_UNIX) as second:
        second.bind(str(path))
        assert not listeners(endpoint) & names
