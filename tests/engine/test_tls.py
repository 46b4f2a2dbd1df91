"""TLS towards clients, with openssl and curl as the clients."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from sdlb.wire.engine_pb2 import Limits, Listener, ToEngine
from tests.compliance.recorder import Recorder
from tests.engine.certificates import Authority, Pair
from tests.engine.engine import Engine
from tests.engine.frames import Client as Http2
from tests.engine.frames import request
from tests.made_certificates import curve, make, with_another_value

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None or shutil.which("curl") is None, reason="needs openssl and curl"
)

KEYS = [(bytes([number]) * 16, bytes([number + 100]) * 32) for number in range(3)]


@pytest.fixture
def engine(recorder: Recorder) -> Iterator[Engine]:
    listeners = [
        Listener(key="http", address="127.0.0.1:0"),
        Listener(key="https", address="127.0.0.1:0", tls=True, public=True),
    ]
    with Engine(listeners, limits=Limits(handshake_timeout_ms=700)) as engine:
        engine.serve("*", recorder.endpoint)
        yield engine


def put(engine: Engine, key: str, hosts: list[str], *pairs: Pair, **terms: object) -> list[str]:
    """The error and the warnings."""
    message = ToEngine()
    site = message.sites.put.add(key=key, hosts=hosts, **terms)
    for pair in pairs:
        site.certificates.add(pem=pair.pem)
    (state,) = engine.sites(message).sites
    assert state.key == key
    return [state.error, *state.warnings]


def curl(engine: Engine, authority: Authority, host: str, *words: str, path: str = "/") -> tuple[int, str]:
    """Exit code, and what it printed: status, protocol and body."""
    _, port = engine.address["https"]
    done = subprocess.run(
        ["curl", "-sS", "--http1.1", "--cacert", str(authority.root.certificate), "-w", "%{http_code} %{ssl_verify_result}",
         "--resolve", f"{host}:{port}:127.0.0.1", *words, f"https://{host}:{port}{path}"],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def s_client(engine: Engine, *words: str, send: str = "") -> str:
    host, port = engine.address["https"]
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"{host}:{port}", *words],
        input=send, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_a_name_gets_its_own_certificate(engine: Engine, authority: Authority) -> None:
    assert put(engine, "a", ["a.example"], authority.issue("a.example")) == [""]
    assert put(engine, "b", ["*.b.example"], authority.issue("*.b.example")) == [""]
    for host in ("a.example", "x.b.example"):
        assert curl(engine, authority, host) == (0, "ok200 0")
    answer = s_client(engine, "-servername", "deep.x.b.example")
    assert "CN = *.b.example" in answer or "CN=*.b.example" in answer  # ours, by the longest wildcard
    assert "unrecognized name" in s_client(engine, "-servername", "nobody.example")
    assert "unrecognized name" in s_client(engine, "-noservername")
    engine.counter("handshakes_unknown_name_total", 2)


def test_thousands_of_sites(engine: Engine, authority: Authority) -> None:
    pair = authority.issue("*.many.example")
    pem = pair.pem
    message = ToEngine()
    for number in range(3000):
        message.sites.put.add(key=f"s{number}", hosts=[f"s{number}.many.example"]).certificates.add(pem=pem)
    assert not any(state.error for state in engine.sites(message).sites)
    for number in (0, 1234, 2999):
        assert curl(engine, authority, f"s{number}.many.example") == (0, "ok200 0")


def test_ecdsa_and_rsa_side_by_side(engine: Engine, authority: Authority) -> None:
    pairs = authority.issue("a.example"), authority.issue("a.example", kind="RSA")
    assert put(engine, "a", ["a.example"], *pairs) == [""]
    modern = s_client(engine, "-servername", "a.example")
    old = s_client(engine, "-servername", "a.example", "-sigalgs", "RSA-PSS+SHA256:RSA+SHA256")
    assert "ECDSA" in modern.split("Peer signature type:")[1][:10]
    assert "RSA" in old.split("Peer signature type:")[1][:10]


def test_only_safe_versions_and_suites(engine: Engine, authority: Authority) -> None:
    put(engine, "a", ["a.example"], authority.issue("a.example"), authority.issue("a.example", kind="RSA"))
    name = ("-servername", "a.example")
    assert "TLSv1.3" in s_client(engine, *name)
    assert "TLSv1.2" in s_client(engine, *name, "-tls1_2")
    for words in (
        ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"),
        ("-tls1", "-cipher", "ALL:@SECLEVEL=0"),
        ("-tls1_2", "-cipher", "AES128-SHA:AES256-GCM-SHA384:AES128-GCM-SHA256"),  # static RSA
        ("-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA"),  # CBC
        ("-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256"),
        ("-tls1_2", "-cipher", "aNULL:eNULL:@SECLEVEL=0"),
    ):
        assert "Cipher is (NONE)" in s_client(engine, *name, *words), words
    assert "No ALPN negotiated" not in s_client(engine, *name, "-alpn", "http/1.1")
    refused = s_client(engine, *name, "-alpn", "ftp,smtp")
    assert "no application protocol" in refused
    assert "Secure Renegotiation IS supported" in s_client(engine, *name, "-tls1_2")


def test_sessions_are_taken_up_by_every_worker_and_survive_a_rotation(engine: Engine, authority: Authority) -> None:
    put(engine, "a", ["a.example"], authority.issue("a.example"))
    keys(engine, KEYS[:1])
    session = str(engine.folder / "session")
    name = ("-servername", "a.example")
    for version in ("-tls1_2", "-tls1_3"):
        hello = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"
        assert "New, TLS" in s_client(engine, *name, version, "-sess_out", session, "-ign_eof", send=hello)
        # Connections are spread over the workers.
        for _ in range(6):
            assert "Reused, TLS" in s_client(engine, *name, version, "-sess_in", session)
        keys(engine, [KEYS[1], KEYS[0]])
        assert "Reused, TLS" in s_client(engine, *name, version, "-sess_in", session)
        keys(engine, [KEYS[2], KEYS[1]])
        assert "New, TLS" in s_client(engine, *name, version, "-sess_in", session)
        keys(engine, KEYS[:1])
    engine.counter("handshakes_resumed_total", 14)


def test_without_ticket_keys_nothing_is_taken_up(engine: Engine, authority: Authority) -> None:
    put(engine, "a", ["a.example"], authority.issue("a.example"))
    session = engine.folder / "session"
    name = ("-servername", "a.example", "-tls1_2")
    assert "New, TLS" in s_client(engine, *name, "-sess_out", str(session))
    assert not session.exists()  # there was none to keep


def test_a_site_may_refuse_clients_without_tls_13(engine: Engine, authority: Authority) -> None:
    """Only that site."""
    put(engine, "a", ["a.example"], authority.issue("a.example"), tls13_only=True)
    put(engine, "b", ["b.example"], authority.issue("b.example"))
    assert "protocol version" in s_client(engine, "-servername", "a.example", "-tls1_2")
    assert "TLSv1.3" in s_client(engine, "-servername", "a.example")
    assert "TLSv1.2" in s_client(engine, "-servername", "b.example", "-tls1_2")


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_site_may_resume_no_sessions(engine: Engine, authority: Authority, version: str) -> None:
    put(engine, "a", ["a.example"], authority.issue("a.example"), no_session_tickets=True)
    keys(engine, KEYS[:1])
    session = engine.folder / "session"
    hello = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"
    words = "-servername", "a.example", version, "-sess_out", str(session), "-ign_eof"
    assert "New, TLS" in s_client(engine, *words, send=hello)
    assert not session.exists()


def keys(engine: Engine, now: list[tuple[bytes, bytes]]) -> None:
    message = ToEngine()
    for name, secret in now:
        message.ticket_keys.keys.add(name=name, secret=secret)
    engine.send(message)
    # Answered by nothing; what is answered behind it comes after it.
    engine.sites(ToEngine(sites={}))


def test_client_certificates(engine: Engine, authority: Authority, other: Authority) -> None:
    keys(engine, KEYS[:1])
    ours, strange = authority.issue("me", client=True), other.issue("me", client=True, name="strange")
    pair, ca = authority.issue("a.example"), authority.root.certificate.read_bytes()
    with_ours = ("--cert", str(ours.certificate), "--key", str(ours.key))
    with_strange = ("--cert", str(strange.certificate), "--key", str(strange.key))

    assert put(engine, "a", ["a.example"], pair, client_ca_pem=ca, client_certificate_required=True) == [""]
    assert curl(engine, authority, "a.example", *with_ours) == (0, "ok200 0")
    for refused in ((), with_strange):
        code, text = curl(engine, authority, "a.example", *refused)
        assert code != 0 and "200" not in text, text

    assert put(engine, "a", ["a.example"], pair, client_ca_pem=ca) == [""]
    for words in ((), with_ours):
        assert curl(engine, authority, "a.example", *words) == (0, "ok200 0")
    assert curl(engine, authority, "a.example", *with_strange)[0] != 0


def test_a_session_does_not_outlive_a_change_of_the_authorities(
    engine: Engine, authority: Authority, other: Authority
) -> None:
    keys(engine, KEYS[:1])
    pair, session = authority.issue("a.example"), str(engine.folder / "session")
    put(engine, "a", ["a.example"], pair)
    name = ("-servername", "a.example", "-tls1_2")
    s_client(engine, *name, "-sess_out", session)
    assert "Reused, TLS" in s_client(engine, *name, "-sess_in", session)
    resumed = engine.counter("handshakes_resumed_total")
    done = engine.counter("handshakes_total", 2)
    put(engine, "a", ["a.example"], pair, client_ca_pem=other.root.certificate.read_bytes())
    assert "New, TLS" in s_client(engine, *name, "-sess_in", session)
    engine.counter("handshakes_total", done + 1)
    assert engine.counters["handshakes_resumed_total"] == resumed == 1


def test_a_bad_certificate_changes_nothing(engine: Engine, authority: Authority, tmp_path: Path) -> None:
    good, strange = authority.issue("a.example"), authority.issue("b.example")
    assert put(engine, "a", ["a.example"], good) == [""]
    assert put(engine, "b", ["b.example"], strange) == [""]
    mixed = Pair(good.certificate, strange.key)
    empty, noise = tmp_path / "empty", tmp_path / "noise"
    empty.write_bytes(b"")
    noise.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for pair, told in (
        (mixed, "the private key does not belong to the first certificate"),
        (Pair(good.certificate, empty), "the file has no private key"),
        (Pair(empty, good.key), "the file has no certificate"),
        (Pair(noise, good.key), "cannot be read"),
        (authority.expired("a.example"), "has expired"),
    ):
        (error, *_) = put(engine, "a", ["a.example"], pair)
        assert told in error, error
        for host in ("a.example", "b.example"):
            assert curl(engine, authority, host) == (0, "ok200 0")
    # Without a better certificate it is used, with a warning.
    told = put(engine, "c", ["c.example"], authority.expired("a.example"))
    assert told[0] == "" and "has expired" in told[1] and "does not name c.example" in told[2]


@pytest.mark.parametrize("kind", [ec.SECP256R1(), ec.SECP384R1()], ids=lambda kind: kind.name)
def test_a_key_whose_value_does_not_belong_to_its_point(
    engine: Engine, authority: Authority, tmp_path: Path, kind: ec.EllipticCurve
) -> None:
    """Control leaves this fault to the engine (`checks_keys` of the seam)."""
    assert put(engine, "a", ["a.example"], authority.issue("a.example")) == [""]
    made = make("a.example", key=curve(kind))
    pair = Pair(tmp_path / "made.crt", tmp_path / "made.key")
    pair.certificate.write_text(made.chain)
    pair.key.write_text(with_another_value(made))
    (error,) = put(engine, "a", ["a.example"], pair)
    assert "the private key" in error
    assert curl(engine, authority, "a.example") == (0, "ok200 0")
    pair.key.write_text(made.key_pem())
    assert put(engine, "a", ["a.example"], pair) == [""]


def test_sites_that_are_not_kept_go(engine: Engine, authority: Authority) -> None:
    put(engine, "a", ["a.example"], authority.issue("a.example"))
    put(engine, "b", ["b.example"], authority.issue("b.example"))
    engine.sites(ToEngine(sites={"prune": True, "keep": ["b"]}))
    assert curl(engine, authority, "a.example")[0] != 0
    assert curl(engine, authority, "b.example") == (0, "ok200 0")


def test_another_host_than_the_handshake_was_for(engine: Engine, authority: Authority) -> None:
    both = authority.issue("a.example", "b.example")
    put(engine, "a", ["a.example"], both)
    put(engine, "b", ["b.example"], both)
    code, text = curl(engine, authority, "a.example", "-H", "Host: b.example")
    assert code == 0 and "misdirected" in text and text.endswith("421 0")
    engine.counter("misdirected_total")


def test_another_host_on_a_connection_that_is_shared(engine: Engine, recorder: Recorder, authority: Authority) -> None:
    """A browser may request every host that the certificate names: 421 for each that belongs to another site than the one of
    the handshake, and the connection goes on."""
    both = authority.issue("a.example", "b.example")
    put(engine, "a", ["a.example"], both)
    put(engine, "b", ["b.example"], both)
    context = ssl.create_default_context(cafile=str(authority.root.certificate))
    context.set_alpn_protocols(["h2"])
    plain = socket.create_connection(engine.address["https"], timeout=10)
    with Http2(context.wrap_socket(plain, server_hostname="a.example")) as client:
        assert client.ask(1, request("a.example")) == "200"
        for stream, host in ((3, "b.example"), (5, "B.EXAMPLE."), (7, "b.example:443"), (9, "a.example.b.example")):
            assert client.ask(stream, request(host)) == "421"
        assert client.ask(11, [*request("a.example"), ("host", "b.example")]) in ("400", "reset 1")
        assert client.ask(13, request("A.example:8443")) == "200"
        assert client.heard.get(0) is None
    engine.counter("misdirected_total", 4)
    assert b"b.example" not in recorder.received.lower()


@pytest.mark.parametrize("offered", [["ftp"], ["smtp", "imap"], ["h3"], ["http/1.0"]])
def test_other_protocols_names_end_the_handshake(engine: Engine, authority: Authority, offered: list[str]) -> None:
    """ALPACA: what a client takes for a mail server must not be us."""
    put(engine, "a", ["a.example"], authority.issue("a.example"))
    context = ssl.create_default_context(cafile=str(authority.root.certificate))
    context.set_alpn_protocols(offered)
    with (
        socket.create_connection(engine.address["https"], timeout=10) as plain,
        pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"),
    ):
        context.wrap_socket(plain, server_hostname="a.example")
    engine.counter("handshakes_failed_total")


def test_the_endpoint_learns_that_it_was_https(engine: Engine, recorder: Recorder, authority: Authority) -> None:
    put(engine, "a", ["a.example"], authority.issue("a.example"))
    curl(engine, authority, "a.example", "-H", "X-Forwarded-Proto: http")
    seen = recorder.completed[-1]
    assert b"x-forwarded-proto: https\r\n" in seen and b";proto=https\r\n" in seen
    assert seen.lower().count(b"x-forwarded-proto") == 1


@pytest.mark.parametrize("bytes_", [1, 4_000, 16_000, 60_000])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_last_answer_is_complete_and_ends_with_close_notify(
    engine: Engine, recorder: Recorder, authority: Authority, version: ssl.TLSVersion, bytes_: int
) -> None:
    """The connection ends with a close_notify: without it, an attacker could have truncated the answer."""
    put(engine, "a", ["a.example"], authority.issue("a.example"))
    recorder.script = lambda request, number: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % bytes_ + b"x" * bytes_
    context = ssl.create_default_context(cafile=str(authority.root.certificate))
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(engine.address["https"], 10) as plain,
        context.wrap_socket(plain, server_hostname="a.example", suppress_ragged_eofs=False) as secured,
    ):
        secured.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
        said = b"".join(iter(lambda: secured.recv(65_536), b""))
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200") and body == b"x" * bytes_


def test_large_bodies_both_ways(engine: Engine, recorder: Recorder, authority: Authority, tmp_path: Path) -> None:
    put(engine, "a", ["a.example"], authority.issue("a.example"))
    body = bytes(range(256)) * 20_000
    recorder.script = lambda request, _: (
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + request.split(b"\r\n\r\n", 1)[1]
    )
    sent, got = tmp_path / "sent", tmp_path / "got"
    sent.write_bytes(body)
    words = ("--data-binary", f"@{sent}", "-o", str(got), "--limit-rate", "8M")
    assert curl(engine, authority, "a.example", *words) == (0, "200 0")
    assert got.read_bytes() == body


def test_a_client_that_does_not_finish_the_handshake_is_closed(engine: Engine) -> None:
    for start in (b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"):
        with socket.create_connection(engine.address["https"], timeout=5) as connection:
            connection.sendall(start)
            assert not connection.recv(100).startswith(b"HTTP")
    engine.counter("timeout_handshake_total", 2)
    engine.counter("handshakes_failed_total", 1)
