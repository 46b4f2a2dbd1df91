"""TLS towards clients that an operator makes stricter than the preset, with both engines."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from sdlb.core.effects import Apply
from sdlb.model.hardening import Hardening
from sdlb.model.identity import Identity
from sdlb.model.site import Site, TicketKey
from sdlb.seams.engine import Listener
from tests.certificates import Authority, needs_openssl
from tests.engines.play import CONFIG, WITHIN_S, Played, both, endpoints, one, put, route, run, started, upstream

pytestmark = [both, needs_openssl]
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
HOSTS = ("a.example", "b.example")


@asynccontextmanager
async def entry(
    kind: str,
    folder: Path,
    hardening: Hardening,
    *sites: Site,
    hosts: tuple[str, ...] = ("example.com",),
    identity: Identity | None = None,
) -> AsyncGenerator[Played]:
    listener = Listener("https", "127.0.0.1:0", tls=True, hardening=hardening)
    patterns = [f"{host}/*" for host in hosts]
    async with endpoints("a") as (a,), started(kind, folder, CONFIG) as played:
        await played.apply(
            Apply(
                0,
                True,
                (upstream(a),),
                tuple(put("1.0.0", a, each) for each in patterns),
                tuple(route(one("1.0.0"), each) for each in patterns),
            )
        )
        played.engine.sites.ticket_keys([TicketKey(bytes(16), bytes(32), 0)])
        played.engine.sites.put(sites)
        await played.until(lambda: len(played.states) >= len(sites), "sites")
        nodes = (Listener("node", "127.0.0.1:0", tls=True),) if identity is not None else ()
        config = replace(CONFIG, listeners=(listener, *nodes), identity=identity)
        assert await played.engine.configure(config) == ""
        yield played


def sites(authority: Authority) -> list[Site]:
    return [Site(host, (host,), (authority.issue(host).pem.encode(),)) for host in HOSTS]


class Client:
    """One client, which resumes its session where it may."""

    def __init__(self, played: Played, authority: Authority, version: ssl.TLSVersion) -> None:
        self.played = played
        self.context = ssl.create_default_context(cafile=str(authority.pem))
        self.context.minimum_version = self.context.maximum_version = version
        self.session: ssl.SSLSession | None = None
        self.status = 0

    async def connect(self, host: str) -> bool:
        """Whether the session of the last connection was resumed. Raises SSLError."""
        return await asyncio.to_thread(self._connect, host)

    async def takes(self, host: str) -> bool:
        """Whether the handshake succeeds."""
        try:
            await self.connect(host)
        except ssl.SSLError:
            return False
        return True

    def _connect(self, host: str) -> bool:
        address, _, port = self.played.engine.stats.bound["https"].rpartition(":")
        with (
            socket.create_connection((address, int(port)), WITHIN_S) as raw,
            self.context.wrap_socket(raw, server_hostname=host, session=self.session) as client,
        ):
            client.sendall(f"GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
            got = b""
            while data := client.recv(65_536):
                got += data
            self.status = int(got[9:12])
            self.session = client.session
            return bool(client.session_reused)

    def asks_as_node(self) -> bool:
        """Whether the listener for nodes answers in HTTP/2."""
        address, _, port = self.played.engine.stats.bound["node"].rpartition(":")
        try:
            with (
                socket.create_connection((address, int(port)), WITHIN_S) as raw,
                self.context.wrap_socket(raw, server_hostname="n", session=self.session) as client,
            ):
                client.sendall(PREFACE)
                return bool(client.recv(9))
        except (ssl.SSLError, ConnectionError):
            return False


def test_a_site_refuses_clients_without_tls_13(kind: str, tmp_path: Path) -> None:
    """The other one does not, and the setting can be taken back."""

    async def scenario() -> None:
        authority = Authority(tmp_path / "ca")
        (tmp_path / "node").mkdir()
        first, second = sites(authority)
        first = dataclasses.replace(first, tls_min="1.3")
        async with entry(kind, tmp_path / "node", Hardening(tls_min="1.3"), first, second) as played:
            old, new = Client(played, authority, V12), Client(played, authority, V13)
            with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
                await old.connect("a.example")
            await new.connect("a.example")
            await Client(played, authority, V12).connect("b.example")
            played.engine.sites.put([Site("a.example", ("a.example",), first.certificates)])
            end = asyncio.get_running_loop().time() + WITHIN_S
            while not await old.takes("a.example"):
                assert asyncio.get_running_loop().time() < end
                await asyncio.sleep(0.05)

    run(scenario)


@pytest.mark.parametrize("tickets", [True, False])
@pytest.mark.parametrize("version", [V12, V13])
def test_sessions_are_resumed_unless_the_node_file_says_no(
    kind: str, tmp_path: Path, version: ssl.TLSVersion, tickets: bool
) -> None:
    async def scenario() -> None:
        authority = Authority(tmp_path / "ca")
        (tmp_path / "node").mkdir()
        first = dataclasses.replace(sites(authority)[0], tickets=tickets)
        async with entry(kind, tmp_path / "node", Hardening(session_tickets=tickets), first) as played:
            client = Client(played, authority, version)
            resumed = [await client.connect("a.example") for _ in range(4)]
            assert any(resumed) == tickets, resumed

    run(scenario)


@pytest.mark.parametrize("later", [False, True], ids=["from the start", "added later"])
@pytest.mark.parametrize("version", [V12, V13])
def test_a_session_of_another_site_is_no_client_certificate(
    kind: str, tmp_path: Path, version: ssl.TLSVersion, later: bool
) -> None:
    async def scenario() -> None:
        authority = Authority(tmp_path / "ca")
        (tmp_path / "node").mkdir()
        first, second = sites(authority)
        second = dataclasses.replace(second, client_ca=authority.pem.read_bytes(), client_required=True)
        async with entry(
            kind, tmp_path / "node", Hardening(), first, *([] if later else [second]), hosts=HOSTS
        ) as played:
            if later:
                await Client(played, authority, version).connect("a.example")
                played.engine.sites.put([second])
            proven = Client(played, authority, version)
            leaf = authority.issue("client", use="clientAuth")
            proven.context.load_cert_chain(leaf.chain, leaf.key)
            end = asyncio.get_running_loop().time() + WITHIN_S
            while not await proven.takes("b.example"):
                assert asyncio.get_running_loop().time() < end
                await asyncio.sleep(0.05)
            assert proven.status == 200
            for _ in range(4):
                client = Client(played, authority, version)
                await client.connect("a.example")
                assert client.status == 200
                client.status = 0
                assert not await client.takes("b.example") or client.status == 421, client.status

    run(scenario)


def test_a_session_of_a_site_opens_no_link_of_nodes(kind: str, tmp_path: Path) -> None:
    """The listener for nodes requires a certificate, and has the same cache of sessions."""

    async def scenario() -> None:
        authority = Authority(tmp_path / "ca")
        (tmp_path / "node").mkdir()
        issued = authority.issue("n", use="serverAuth,clientAuth")
        identity = Identity(issued.pem.encode(), authority.pem.read_bytes())
        async with entry(kind, tmp_path / "node", Hardening(), sites(authority)[0], identity=identity) as played:
            client = Client(played, authority, V13)
            await client.connect("a.example")
            client.context.set_alpn_protocols(["sdlb/1-preface", "sdlb/1"])
            client.context.check_hostname = False
            assert not await asyncio.to_thread(client.asks_as_node)
            client.context.load_cert_chain(issued.chain, issued.key)
            client.session = None
            assert await asyncio.to_thread(client.asks_as_node)

    run(scenario)
