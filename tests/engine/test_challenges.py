"""Answers to open challenges of certificate authorities: http-01 (RFC 8555, 8.3) and tls-alpn-01 (RFC 8737)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from sdlb.wire.engine_pb2 import Hardening, Listener, ToEngine
from tests.compliance.recorder import Recorder
from tests.engine.certificates import Authority, Pair
from tests.engine.engine import Engine
from tests.engine.test_front import ask, put

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
BELOW = "/.well-known/acme-challenge/"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("a.example", "www.a.example")


@pytest.fixture
def engine(recorder: Recorder, pair: Pair) -> Iterator[Engine]:
    hardening = Hardening(redirect_to_https=True)
    listeners = [
        Listener(key="http", address="127.0.0.1:0", hardening=hardening),
        Listener(key="https", address="127.0.0.1:0", tls=True, hardening=hardening),
    ]
    with Engine(listeners) as engine:
        engine.serve("*", recorder.endpoint)
        put(engine, pair)
        yield engine


def challenge(engine: Engine, message: ToEngine) -> str:
    message.challenges.SetInParent()
    return engine.challenges(message).error


def test_http_01_is_answered_before_everything_else(engine: Engine, recorder: Recorder, pair: Pair) -> None:
    put(engine, pair, client_ca_pem=pair.certificate.read_bytes(), client_certificate_required=True)
    message = ToEngine()
    message.challenges.http.add(host="a.example", token="t-1", content="t-1.thumb_print")
    message.challenges.http.add(host="new.example", token="t-2", content="t-2.thumb_print")
    assert challenge(engine, message) == ""
    for host, token in (("a.example", "t-1"), ("new.example", "t-2"), ("New.Example.:80", "t-2")):
        answer = ask(engine, f"http://{host}{BELOW}{token}")
        assert (answer.status, answer.body, answer.fields["content-type"]) == (
            200,
            f"{token}.thumb_print",
            "application/octet-stream",
        )
    assert recorder.completed == []
    assert (
        ask(engine, f"http://a.example{BELOW}t-2").status == 421
    )  # of the other host; here clients need a certificate
    assert ask(engine, f"http://new.example{BELOW}t-1").body == "ok"
    assert ask(engine, f"http://new.example{BELOW}t-2/x").body == "ok"
    assert challenge(engine, ToEngine()) == ""
    assert ask(engine, f"http://new.example{BELOW}t-2").body == "ok"


def handshake(engine: Engine, host: str, alpn: str) -> str:
    done = subprocess.run(
        ["openssl", "s_client", "-connect", ":".join(map(str, engine.address["https"])), "-servername", host, "-alpn", alpn],
        input="", capture_output=True, text=True, errors="replace", timeout=20, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_tls_alpn_01_is_answered_for_its_protocol_alone(
    engine: Engine, recorder: Recorder, authority: Authority
) -> None:
    """The certificate has the critical extension of the challenge, which nobody else understands."""
    made = authority.made(
        "challenge", "/CN=proof", "EC", "-x509", "-addext", "subjectAltName=DNS:a.example",
        "-addext", "1.3.6.1.5.5.7.1.31=critical,DER:0420" + "ab" * 32,
    )  # fmt: skip
    message = ToEngine()
    for host in ("a.example", "new.example"):
        message.challenges.tls.add(host=host).certificate.pem = made.pem
    assert challenge(engine, message) == ""
    for host in ("a.example", "new.example", "NEW.example"):
        text = handshake(engine, host, "acme-tls/1")
        assert "ALPN protocol: acme-tls/1" in text and "proof" in text, text
    assert "CN = a.example" in (text := handshake(engine, "a.example", "h2")) or "CN=a.example" in text
    assert "unrecognized name" in handshake(engine, "new.example", "h2")
    for offered in ("acme-tls/1,h2", "h2,acme-tls/1"):
        assert "proof" not in handshake(engine, "a.example", offered)
    assert "no application protocol" in handshake(engine, "www.a.example", "acme-tls/1")
    assert challenge(engine, ToEngine()) == ""
    assert "no application protocol" in handshake(engine, "a.example", "acme-tls/1")
    assert ask(engine, "https://a.example/").status == 200
    assert len(recorder.completed) == 1


def test_a_malformed_challenge_is_named_and_the_others_are_answered(engine: Engine) -> None:
    message = ToEngine()
    message.challenges.tls.add(host="c.example").certificate.pem = b"nonsense"
    message.challenges.http.add(host="d.example", token="good", content="good.x")
    assert challenge(engine, message).startswith("the challenge for c.example: ")
    assert ask(engine, f"http://d.example{BELOW}good").body == "good.x"
