"""What an entry does by itself: redirects, HSTS, header fields and error pages of a site, each part on and off."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from sdlb.wire.engine_pb2 import Delta, ErrorPage, Field, Hardening, Limits, Listener, Redirect, SitesApplied, ToEngine
from tests.compliance.recorder import Recorder
from tests.engine import frames
from tests.engine.certificates import Authority, Pair
from tests.engine.engine import Engine, until

TWO_YEARS = 63_072_000
ON = Hardening(
    refuse_encoded_paths=True, drop_underscore_fields=True, replace_request_ids=True, redirect_to_https=True,
    hsts_s=TWO_YEARS,
)  # fmt: skip
TLS13 = ["--tlsv1.3"]


@dataclass
class Answer:
    status: int
    fields: dict[str, str] = field(default_factory=dict[str, str])
    body: str = ""


def listeners(hardening: Hardening | None, public: bool = False) -> list[Listener]:
    return [
        Listener(key="http", address="127.0.0.1:0", public=public, hardening=hardening),
        Listener(key="https", address="127.0.0.1:0", public=public, tls=True, hardening=hardening),
    ]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Authority(tmp_path_factory.mktemp("certificates")).issue("a.example", "www.a.example", "b.example")


@pytest.fixture
def engine(recorder: Recorder, pair: Pair) -> Iterator[Engine]:
    with Engine(listeners(ON), workers=1) as engine:
        engine.serve("*", recorder.endpoint)
        assert put(engine, pair).sites[0].error == ""
        yield engine


def put(engine: Engine, pair: Pair, **front: Any) -> SitesApplied:
    message = ToEngine()
    site = message.sites.put.add(key="a.example", hosts=["a.example", "www.a.example"], **front)
    site.certificates.add(pem=pair.pem)
    return engine.sites(message)


def put_b(engine: Engine, pair: Pair) -> None:
    message = ToEngine()
    message.sites.put.add(key="b.example", hosts=["b.example"]).certificates.add(pem=pair.pem)
    assert engine.sites(message).sites[0].error == ""


def ask(engine: Engine, url: str, *words: str) -> Answer:
    """The URL without a port for https, and with the port of the listener for http."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    name, _, _ = host.partition(":")
    port = engine.address[scheme][1]
    done = subprocess.run(
        ["curl", "-sSki", "--path-as-is", "--connect-to", f"::127.0.0.1:{port}", *words, f"{scheme}://{host}{slash}{path}"],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (name, done.stderr)
    head, _, body = done.stdout.replace("\r", "").partition("\n\n")
    first, *lines = head.split("\n")
    fields = dict(line.split(": ", 1) for line in lines if ": " in line)
    return Answer(int(first.split(" ")[1]), {key.lower(): value for key, value in fields.items()}, body)


# ------------------------------------------------------------------ plain HTTP, HSTS


def test_plain_http_is_redirected_for_hosts_that_have_a_site(engine: Engine, recorder: Recorder) -> None:
    answer = ask(engine, "http://www.a.example/b/c%20d?e=f")
    assert (answer.status, answer.fields["location"]) == (308, "https://www.a.example/b/c%20d?e=f")
    assert "strict-transport-security" not in answer.fields  # it counts over TLS only (RFC 6797, 7.2)
    port = engine.address["https"][1]
    answer = ask(engine, "http://a.example:8080/", "-X", "POST", "--data", "x")
    assert (answer.status, answer.fields["location"]) == (308, f"https://a.example:{port}/")
    assert recorder.completed == []
    assert ask(engine, "http://other.example/").status == 200
    assert ask(engine, "http://a.example/.well-known/acme-challenge/token").status == 200
    assert ask(engine, "http://a.example/.well-known/acme-challenge").status == 308
    assert ask(engine, "http://a.example/x/../.well-known/acme-challenge/../y").status == 308
    engine.counter("redirects_total", 4)


def test_a_request_that_a_trusted_proxy_got_over_tls_is_not_redirected(recorder: Recorder, pair: Pair) -> None:
    http, https = listeners(ON)
    http.trusted_proxies.append("127.0.0.1/32")
    with Engine([http, https], workers=1) as engine:
        engine.serve("*", recorder.endpoint)
        put(engine, pair)
        answer = ask(engine, "http://a.example/", "-H", "X-Forwarded-Proto: https")
        assert (answer.status, answer.fields["strict-transport-security"]) == (200, f"max-age={TWO_YEARS}")
        assert ask(engine, "http://a.example/").status == 308


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_hsts_is_added_unless_the_endpoint_sets_it(engine: Engine, recorder: Recorder, version: str) -> None:
    assert ask(engine, "https://a.example/", version).fields["strict-transport-security"] == f"max-age={TWO_YEARS}"
    recorder.script = lambda request, number: (
        b"HTTP/1.1 200 OK\r\nstrict-Transport-security: max-age=1\r\ncontent-length: 0\r\n\r\n"
    )
    answer = ask(engine, "https://a.example/", version)
    assert answer.fields["strict-transport-security"] == "max-age=1"
    recorder.close()
    answer = ask(engine, "https://a.example/", version)
    assert (answer.status, answer.fields["strict-transport-security"]) == (502, f"max-age={TWO_YEARS}")


OFF: dict[str, tuple[str, str, int]] = {
    # part: a request that it changes, a field of the response or "", the status without it
    "redirect_to_https": ("http://a.example/", "", 200),
    "refuse_encoded_paths": ("https://a.example/a%2fb", "", 200),
    "hsts_s": ("https://a.example/", "strict-transport-security", 200),
}


@pytest.mark.parametrize("part", OFF)
def test_each_part_is_off_by_itself(recorder: Recorder, pair: Pair, part: str) -> None:
    url, name, status = OFF[part]
    hardening = Hardening()
    hardening.CopyFrom(ON)
    with Engine(listeners(ON), workers=1) as engine:
        engine.serve("*", recorder.endpoint)
        put(engine, pair)
        with_part = ask(engine, url)
        assert with_part.status != status if not name else name in with_part.fields
        hardening.ClearField(part)  # pyright: ignore[reportArgumentType]
        http, https = listeners(hardening)
        http.address, https.address = (":".join(map(str, engine.address[key])) for key in ("http", "https"))
        engine.configure([http, https])
        without = ask(engine, url)
        assert without.status == status and name not in without.fields
        others = [each for each in OFF if each != part]
        for each in others:
            url, name, status = OFF[each]
            answer = ask(engine, url)
            assert answer.status != status if not name else name in answer.fields, each


@pytest.mark.parametrize(("public", "statuses"), [(True, (400, 200)), (False, (200, 200))])
def test_an_older_control_says_no_more_than_public(
    recorder: Recorder, pair: Pair, public: bool, statuses: tuple[int, int]
) -> None:
    with Engine(listeners(None, public), workers=1) as engine:
        engine.serve("*", recorder.endpoint)
        put(engine, pair)
        answers = ask(engine, "https://a.example/a%2fb"), ask(engine, "http://a.example/")
        assert tuple(answer.status for answer in answers) == statuses
        assert "strict-transport-security" not in answers[0].fields


# ------------------------------------------------------------------ fields that are ours


OURS = ("X-Forwarded-For", "X_Forwarded_For", "X.Forwarded.For", "sdlb.to")


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("where", ["field", "trailer", "both"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_field_or_trailer_that_reads_as_ours_is_dropped_and_counted_once(
    recorder: Recorder, name: str, where: str, version: int
) -> None:
    """Story 10 of the edge: aliases."""
    fields = [(name.lower(), "6.6.6.6")] if where != "trailer" else []
    trailers = [("x-sum", "1"), (name.lower(), "6.6.6.6")] if where != "field" else []
    with Engine([Listener(key="http", address="127.0.0.1:0", hardening=Hardening())], workers=1) as engine:
        engine.serve("*", recorder.endpoint)
        address = engine.address["http"]
        if version == 1:
            lines = "".join(f"{key}: {value}\r\n" for key, value in fields)
            tail = "".join(f"{key}: {value}\r\n" for key, value in trailers)
            words = f"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: close\r\n{lines}\r\n1\r\nx\r\n0\r\n{tail}\r\n"

            with socket.create_connection(address, timeout=10) as client:
                client.sendall(words.encode())
                assert client.makefile("rb").read().startswith(b"HTTP/1.1 200 ")
        else:
            with frames.Client(address) as client:
                head = [*frames.request("a", method="POST"), ("trailer", "x-sum"), *fields]
                client.send(client.headers(1, head, frames.END_HEADERS))
                client.send(frames.frame(frames.DATA, 0 if trailers else frames.END_STREAM, 1, b"x"))
                if trailers:
                    client.send(client.headers(1, trailers))
                assert client.outcome(1) == "200"
        (seen,) = recorder.completed
        assert b"6.6.6.6" not in seen, seen
        assert seen.lower().count(b"x-forwarded-for") == 1
        assert (b"x-sum" in seen.partition(b"\r\n\r\n")[2]) == bool(trailers)
        assert engine.counter("forged_fields_total") == 1


def test_a_trailer_with_an_underscore_passes_only_where_that_is_not_dropped(recorder: Recorder) -> None:
    for drops in (True, False):
        hardening = Hardening(drop_underscore_fields=drops)
        with Engine([Listener(key="http", address="127.0.0.1:0", hardening=hardening)], workers=1) as engine:
            engine.serve("*", recorder.endpoint)

            with socket.create_connection(engine.address["http"], timeout=10) as client:
                client.sendall(
                    b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: close\r\nmy_field: 1\r\n\r\n"
                    b"0\r\nmy_trailer: 1\r\n\r\n"
                )
                assert client.makefile("rb").read().startswith(b"HTTP/1.1 200 ")
        seen = recorder.completed[-1]
        assert [b"my_field" in seen, b"my_trailer" in seen] == [not drops] * 2


# ------------------------------------------------------------------ SNI and Host


def test_hosts_of_one_site_share_a_connection_and_others_do_not(engine: Engine, pair: Pair, recorder: Recorder) -> None:
    put_b(engine, pair)
    for version in ("--http1.1", "--http2"):
        assert ask(engine, "https://a.example/", version, "-H", "Host: www.a.example").status == 200
        assert ask(engine, "https://a.example/", version, "-H", "Host: b.example").status == 421
        assert ask(engine, "https://a.example/", version, "-H", "Host: nobody.example").status == 421
    message = ToEngine()
    message.sites.put.add(key="any", hosts=["*"]).certificates.add(pem=pair.pem)
    engine.sites(message)
    # An address is no server name (RFC 6066, 3): the handshake is for the site of all others.
    assert ask(engine, "https://127.0.0.1/", "-H", "Host: nobody.example").status == 200
    assert ask(engine, "https://127.0.0.1/", "-H", "Host: a.example").status == 421
    engine.counter("misdirected_total", 5)


# ------------------------------------------------------------------ what a site sets


def test_a_site_redirects_paths_or_all_of_it(engine: Engine, pair: Pair, recorder: Recorder) -> None:
    redirects = [
        Redirect(prefix="/old", target="https://new.example/x"),
        Redirect(prefix="/old/er", target="https://newer.example"),
    ]
    put(engine, pair, redirects=redirects)
    for path, location in {
        "/old": "https://new.example/x",
        "/old/a?b=c": "https://new.example/x/a?b=c",
        "/old/er/a": "https://newer.example/a",
        "/x/../old/b": "https://new.example/x/b",
    }.items():
        answer = ask(engine, f"https://a.example{path}")
        assert (answer.status, answer.fields["location"], answer.body) == (308, location, "")
    assert ask(engine, "https://a.example/older").status == 200
    put(engine, pair, redirects=[Redirect(prefix="", target="https://b.example")])
    assert ask(engine, "https://www.a.example/p?q").fields["location"] == "https://b.example/p?q"
    assert ask(engine, "http://www.a.example/p").fields["location"] == "https://www.a.example/p"  # to TLS first
    put(engine, pair)
    assert ask(engine, "https://a.example/old").status == 200


def test_fields_of_a_site_are_added_where_the_endpoint_does_not_set_them(
    engine: Engine, pair: Pair, recorder: Recorder
) -> None:
    fields = [Field(name="x-frame-options", value="DENY"), Field(name="strict-transport-security", value="max-age=5")]
    put(engine, pair, fields=fields)
    for version in ("--http1.1", "--http2"):
        answer = ask(engine, "https://a.example/", version)
        assert answer.fields["x-frame-options"] == "DENY"
        assert answer.fields["strict-transport-security"] == "max-age=5"  # in place of ours
    recorder.script = lambda request, number: (
        b"HTTP/1.1 200 OK\r\nX-Frame-Options: SAMEORIGIN\r\ncontent-length: 0\r\n\r\n"
    )
    assert ask(engine, "https://a.example/").fields["x-frame-options"] == "SAMEORIGIN"


def test_error_pages_stand_in_for_our_own_errors_only(engine: Engine, pair: Pair, recorder: Recorder) -> None:
    pages = [
        ErrorPage(status_from=404, status_to=404, html=b"<p>not found"),
        ErrorPage(status_from=500, status_to=599, html=b"<p>broken"),
    ]
    put(engine, pair, error_pages=pages)
    recorder.script = lambda request, number: b"HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nits"
    assert ask(engine, "https://a.example/").body == "its"
    recorder.script = lambda request, number: b"HTTP/1.1 503 Busy\r\ncontent-length: 3\r\n\r\nits"
    assert ask(engine, "https://a.example/").body == "its"
    recorder.script = lambda request, number: b"nonsense\r\n\r\n"
    for words in ([], ["-H", "Accept: text/html,*/*;q=0.1"], ["--http2"]):
        answer = ask(engine, "https://a.example/", *words)
        assert (answer.status, answer.body) == (502, "<p>broken")
        assert answer.fields["content-type"] == "text/html; charset=utf-8"
        assert answer.fields["proxy-status"].startswith("edge-1; error=")
    assert ask(engine, "https://a.example/", "-I").body == ""
    answer = ask(engine, "https://a.example/", "-H", "Accept: application/json")
    assert answer.fields["content-type"] == "application/problem+json"
    engine.apply(Delta(delete_routes=["*"]))
    until(lambda: ask(engine, "https://a.example/").status in (404, 421), "the route is gone")
    answer = ask(engine, "https://a.example/")
    assert answer.status == 421 or answer.body == "<p>not found"


@pytest.mark.parametrize(
    "front",
    [
        {"redirects": [Redirect(prefix="old", target="https://x.example")]},
        {"redirects": [Redirect(prefix="/", target="https://x.example/\r\nx: y")]},
        {"fields": [Field(name="x", value="a\r\nb: c")]},
        {"fields": [Field(name="x y", value="z")]},
        {"error_pages": [ErrorPage(status_from=404, status_to=404, html=b"x" * (64 * 1024 + 1))]},
    ],
    ids=["prefix", "target", "value", "name", "page"],
)
def test_what_is_malformed_changes_nothing(
    engine: Engine, pair: Pair, recorder: Recorder, front: dict[str, Any]
) -> None:
    put(engine, pair, fields=[Field(name="x-good", value="1")])
    (state,) = put(engine, pair, **front).sites
    assert state.error and state.not_after_unix_s > 0
    assert ask(engine, "https://a.example/").fields["x-good"] == "1"


# ------------------------------------------------------------------ bodies


@pytest.mark.parametrize("framing", [(), ("-H", "Transfer-Encoding: chunked")], ids=["length", "chunked"])
def test_a_service_may_have_another_limit_on_bodies(recorder: Recorder, framing: tuple[str, ...]) -> None:
    with Engine([Listener(key="http", address="127.0.0.1:0")], workers=1, limits=Limits(body_bytes=100)) as engine:
        engine.serve("*", recorder.endpoint)
        words = ["--http1.1", "-H", "Expect:", *framing, "--data-binary"]
        assert ask(engine, "http://a.example/", *words, "x" * 100).status == 200
        assert ask(engine, "http://a.example/", *words, "x" * 101).status == 413
        delta = Delta()
        delta.put_services.add(name="web").limits.body_bytes = 200
        engine.apply(delta)
        assert ask(engine, "http://a.example/", *words, "x" * 200).status == 200
        assert ask(engine, "http://a.example/", *words, "x" * 201).status == 413
        engine.counter("limit_body_bytes_total", 2)


# ------------------------------------------------------------------ ports


def test_a_port_that_another_process_shares_is_refused(engine: Engine) -> None:
    """By SO_REUSEPORT each would get a part of the connections."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        http, https = listeners(ON)
        http.address = address
        configured = engine.try_configure([http, https])
    assert configured.error == f'listener "http" on {address}: Address already in use (os error 98)'
    assert ask(engine, "https://a.example/").status == 200
