"""A site that requires client certificates: another name, no name and another listener do not bypass this."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import pytest

from sdlb.wire.engine_pb2 import Listener, ToEngine
from tests.certificates import needs_openssl
from tests.compliance.recorder import Recorder
from tests.engine.certificates import Authority, Pair
from tests.engine.engine import Engine
from tests.engine.frames import Client as Http2
from tests.engine.frames import request
from tests.engine.http1 import status as answered

pytestmark = needs_openssl

CLOSED, OPEN, OTHER = "closed.example", "open.example", "other.example"


@pytest.fixture
def engine(recorder: Recorder, authority: Authority) -> Iterator[Engine]:
    """All hosts belong to the site `*`, except one that requires client certificates and one that does not."""
    listeners = [
        Listener(key="http", address="127.0.0.1:0"),
        Listener(key="https", address="127.0.0.1:0", tls=True),
        Listener(key="public", address="127.0.0.1:0", tls=True, public=True),
    ]
    with Engine(listeners, workers=1) as engine:
        engine.serve("*", recorder.endpoint)
        message = ToEngine()
        add(message, "any", "*", authority.issue(OTHER))
        add(message, "open", OPEN, authority.issue(OPEN))
        add(message, "closed", CLOSED, authority.issue(CLOSED), authority)
        assert not any(state.error for state in engine.sites(message).sites)
        yield engine


def add(message: ToEngine, key: str, host: str, pair: Pair, clients: Authority | None = None) -> None:
    site = message.sites.put.add(key=key, hosts=[host])
    site.certificates.add(pem=pair.pem)
    if clients is not None:
        site.client_ca_pem = clients.root.certificate.read_bytes()
        site.client_certificate_required = True


def connect(
    engine: Engine, authority: Authority, name: str | None, *, listener: str = "https", shown: Pair | None = None,
    protocol: str = "http/1.1",
) -> ssl.SSLSocket:  # fmt: skip
    """`name`: the server name in SNI; an address is never sent."""
    context = ssl.create_default_context(cafile=str(authority.root.certificate))
    context.check_hostname = False
    context.set_alpn_protocols([protocol])
    if shown is not None:
        context.load_cert_chain(shown.certificate, shown.key)
    plain = socket.create_connection(engine.address[listener], timeout=10)
    return context.wrap_socket(plain, server_hostname=name)


def status(connection: socket.socket, host: str) -> int:
    connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return answered(connection)


@pytest.mark.parametrize("listener", ["https", "public"])
@pytest.mark.parametrize("name", [None, "127.0.0.1", OPEN, OTHER])
def test_no_other_handshake_opens_it(engine: Engine, authority: Authority, name: str | None, listener: str) -> None:
    with connect(engine, authority, name, listener=listener) as connection:
        assert status(connection, CLOSED) == 421
    with connect(engine, authority, name, listener=listener, protocol="h2") as connection, Http2(connection) as client:
        assert client.ask(1, request(CLOSED)) == "421"
        assert client.ask(3, request(f"{CLOSED.upper()}.")) == "421"
    engine.counter("misdirected_total", 3)


def test_a_client_with_a_certificate_is_accepted(engine: Engine, authority: Authority) -> None:
    shown = authority.issue("partner", client=True)
    with connect(engine, authority, CLOSED, shown=shown) as connection:
        assert status(connection, CLOSED) == 200
    with pytest.raises((ssl.SSLError, ConnectionError)), connect(engine, authority, CLOSED) as connection:
        status(connection, CLOSED)


def test_it_binds_its_hosts_in_plaintext_too(engine: Engine) -> None:
    for host, wanted in ((CLOSED, 421), (f"{CLOSED}:8080", 421), (OPEN, 200), (OTHER, 200)):
        with socket.create_connection(engine.address["http"], timeout=10) as connection:
            assert status(connection, host) == wanted
    with Http2(engine.address["http"]) as client:
        assert client.ask(1, request(CLOSED)) == "421"
        assert client.ask(3, request(OPEN)) == "200"


def test_without_a_name_only_the_site_of_the_handshake_is_served(engine: Engine, authority: Authority) -> None:
    with connect(engine, authority, None) as connection:
        assert status(connection, OTHER) == 200
    with connect(engine, authority, None) as connection:
        assert status(connection, OPEN) == 421


def test_terms_that_change_hold_for_connections_that_are_open(engine: Engine, authority: Authority) -> None:
    with connect(engine, authority, OPEN) as connection:
        assert status(connection, OPEN) == 200
        message = ToEngine()
        add(message, "open", OPEN, authority.issue(OPEN))
        engine.sites(message)  # another certificate, the same terms
        assert status(connection, OPEN) == 200
        message = ToEngine()
        add(message, "open", OPEN, authority.issue(OPEN), authority)
        engine.sites(message)
        assert status(connection, OPEN) == 421
