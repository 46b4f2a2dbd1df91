"""The network of `make chaos`: faults hold for what they name, for connections that are open already, and end."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tools.chaos.network import PREFIX, Network, NoNetworkError, Rule, remove_left

ONE, TWO, THREE = "host-1", "host-2", "host-3"


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    try:
        with Network((ONE, TWO, THREE), 1) as made:
            yield made
    except NoNetworkError as error:
        pytest.skip(f"no network namespaces can be made here: {error}")


class Echo:
    """A connection between two machines, with an echo at its end."""

    def __init__(self, network: Network, source: str, target: str) -> None:
        address = network[target].address
        self._server = network[target].make(lambda: socket.create_server((address, 0)))
        port = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()
        self.socket = network[source].make(lambda: socket.create_connection((address, port), 5))

    def _answer(self) -> None:
        connection, _ = self._server.accept()
        with connection, suppress(OSError):
            while said := connection.recv(1 << 20):
                connection.sendall(said)

    def says(self, content: bytes = b"x", timeout_s: float = 5.0) -> bool:
        """True: it came back in time."""
        self.socket.settimeout(timeout_s)
        came = 0
        try:
            self.socket.sendall(content)
            while came < len(content):
                came += len(self.socket.recv(1 << 20))
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        self.socket.close()
        self._thread.join(5)
        self._server.close()


def rules(network: Network, source: str, target: str, loss: float = 0.0, delay_ms: float = 0.0) -> list[Rule]:
    return [Rule(network[source].address, network[target].address, loss, delay_ms)]


def test_a_cut_holds_between_two_machines_only(network: Network) -> None:
    with closing(Echo(network, ONE, TWO)) as cut, closing(Echo(network, THREE, TWO)) as other:
        assert cut.says() and other.says()
        network.fault(TWO, rules(network, ONE, TWO, 1.0) + rules(network, TWO, ONE, 1.0))
        assert not cut.says(timeout_s=0.7)
        assert other.says()
        assert network.heal(TWO) > 0
        assert cut.says(b"", 5.0) and other.says()
        cut.socket.settimeout(10)
        assert cut.socket.recv(10) == b"x", "what was lost is sent again"


@pytest.mark.parametrize(("source", "target"), [(ONE, TWO), (TWO, ONE)])
def test_one_way(network: Network, source: str, target: str) -> None:
    with closing(Echo(network, ONE, TWO)) as echo:
        assert echo.says()
        network.fault(TWO, rules(network, source, target, 1.0))
        assert not echo.says(timeout_s=0.7)
        network.heal(TWO)
        echo.socket.settimeout(10)
        assert echo.socket.recv(10) == b"x"


def test_a_delay_is_at_least_so_long_and_loses_nothing(network: Network) -> None:
    with closing(Echo(network, ONE, TWO)) as echo:
        network.fault(TWO, rules(network, ONE, TWO, delay_ms=100.0))
        began = time.monotonic()
        assert echo.says()
        assert time.monotonic() - began >= 0.1
        assert echo.says(b"x" * 300_000, 30.0), "in large segments, too"
        assert network.heal(TWO) > 0
        assert echo.says()


def test_loss_loses_some_and_the_rest_is_sent_again(network: Network) -> None:
    with closing(Echo(network, ONE, TWO)) as echo:
        network.fault(TWO, rules(network, ONE, TWO, 0.2))
        assert all(echo.says(timeout_s=20.0) for _ in range(30))
        assert network.heal(TWO) > 0


def test_an_unplugged_machine_says_nothing(network: Network) -> None:
    with closing(Echo(network, ONE, TWO)) as echo:
        network.plug(TWO, False)
        assert not echo.says(timeout_s=0.7)
        network.plug(TWO, True)
        echo.socket.settimeout(10)
        assert echo.socket.recv(10) == b"x"


def test_nothing_leads_out_of_it(network: Network) -> None:
    def out() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only looks for a route

    with pytest.raises(OSError, match="unreachable"):
        network[ONE].make(out)


def test_nothing_is_left_behind() -> None:
    """Of a run that was killed the next one removes what is left; of the living it touches nothing."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and the program ip")
    code = (
        "import sys; from tools.chaos.network import *\n"
        "network = Network(['host-1']); network.__enter__(); print(os.getpid(), flush=True); sys.stdin.read()\n"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        if not process.stdout.readline().strip():
            pytest.skip("no network namespaces can be made here")
        left = list(Path("/run/netns").glob(f"{PREFIX}{process.pid}-*"))
        assert len(left) == 2
        remove_left()
        assert all(each.exists() for each in left)
        process.kill()
    remove_left()
    assert not any(each.exists() for each in left)
