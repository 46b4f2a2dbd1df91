"""HTTPS at a real node, by clients that aren't ours: openssl s_client, curl, httpx."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.certificates import Authority, Issued, needs_openssl, shown
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, api, until
from tests.e2e.traffic import Traffic
from tests.made_certificates import DAY, make

pytestmark = needs_openssl
Make = Callable[..., Backend]
NOTICED_S = 10.0
"""A changed file is taken within 4 s."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def table(certificate: object, *hosts: str, **more: object) -> dict[str, object]:
    """A [[site]]."""
    return {"hosts": list(hosts), "certificate": certificate, **more}


def edge(cluster: Cluster, *sites: dict[str, object], start: bool = True) -> Node:
    """An entry with these sites, and two worker threads."""
    listen = {"https": f"127.0.0.1:{cluster.ports.take()}"}
    node = cluster.node("edge-1", entry=True, start=False, listen=listen, engine={"kind": "native", "workers": 2})
    node.settings[""]["site"] = list(sites)
    if start:
        node.start()
        node.wait_ready()
    return node


def curl(node: Node, host: str, authority: Authority, *options: str | Path) -> subprocess.CompletedProcess[str]:
    port = node.https.rpartition(":")[2]
    words = ["curl", "--silent", "--show-error", "--max-time", "20", "--cacert", authority.pem]
    words += ["--resolve", f"{host}:{port}:127.0.0.1", *options, f"https://{host}:{port}/"]
    return subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)


def s_client(node: Node, host: str, *options: str | Path, request: bool = True) -> subprocess.CompletedProcess[str]:
    """The output of `openssl s_client` for one connection; with a `request` it stays until the answer has arrived."""
    words = ["openssl", "s_client", "-connect", node.https, *(["-servername", host] if host else ["-noservername"])]
    text = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n" if request else ""
    ending = ["-ign_eof"] if request else []
    return subprocess.run(
        [*words, *ending, *options], input=text, capture_output=True, text=True, timeout=30, check=False
    )


def codes(node: Node) -> list[str]:
    with api(node) as http:
        return [event["code"] for event in http.get("/v1/events?since=0").json()["events"]]


def site_of(node: Node, name: str) -> dict[str, object]:
    with api(node) as http:
        return next(site for site in http.get("/v1/sites").json()["sites"] if site["site"] == name)


def lines_of(node: Node, metric: str) -> dict[str, str]:
    with api(node) as http:
        lines = http.get("/metrics").text.splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if line.startswith(f"{metric}{{"))


# ------------------------------------------------------------------ names


def test_each_name_gets_its_certificate_and_its_service(
    cluster: Cluster, backend: Make, authority: Authority, tmp_path: Path
) -> None:
    a, b, other = authority.issue("a.example"), authority.issue("*.b.example"), authority.issue("other.example")
    node = edge(
        cluster,
        table(str(a.write(tmp_path / "a.pem")), "a.example"),
        table(str(b.chain), "*.b.example", key=str(b.key)),
        table(str(other.write(tmp_path / "other.pem")), "*"),
    )
    server = backend("web", "1.0.0")
    cluster.register(node, "web-1.0.0", ["a.example/*", "*.b.example/*"], server)
    for host in ("a.example", "x.b.example"):
        for option, version in (("--http1.1", "1.1"), ("--http2", "2")):
            done = curl(node, host, authority, option, "--write-out", "HTTP/%{http_version}")
            assert done.returncode == 0, done.stderr
            assert '"web"' in done.stdout and done.stdout.endswith(f"HTTP/{version}")
            assert server.seen[-1].get("x-forwarded-proto") == "https"
            assert (server.seen[-1].get("host") or "").startswith(host)
    done = curl(node, "x.b.example", authority, "--header", "Host: a.example", "--write-out", "%{http_code}")
    assert done.stdout.endswith("421"), "a host that this handshake was not for may have other terms"
    assert shown(node.https, "a.example") == a.der
    assert shown(node.https, "x.y.b.example") == b.der
    assert shown(node.https, "nobody.example") == other.der
    assert "CN = other.example" in s_client(node, "", request=False).stdout
    assert curl(node, "nobody.example", authority).returncode != 0, "whose certificate does not name it"


def test_a_client_gets_the_kind_of_certificate_that_it_can_check(
    cluster: Cluster, authority: Authority, tmp_path: Path
) -> None:
    ec, rsa = authority.issue("a.example"), authority.issue("a.example", kind="rsa")
    node = edge(cluster, table([str(ec.write(tmp_path / "ec.pem")), str(rsa.write(tmp_path / "rsa.pem"))], "a.example"))
    assert shown(node.https, "a.example") == ec.der
    for version in ("-tls1_2", "-tls1_3"):
        old = s_client(node, "a.example", version, "-sigalgs", "RSA-PSS+SHA256", request=False)
        assert "Peer signature type: RSA-PSS" in old.stdout, old.stdout
        new = s_client(node, "a.example", version, "-sigalgs", "ECDSA+SHA256:RSA-PSS+SHA256", request=False)
        assert "Peer signature type: ECDSA" in new.stdout, new.stdout
    for version in ("-tls1", "-tls1_1"):
        assert s_client(node, "a.example", version, request=False).returncode != 0, version


# ------------------------------------------------------------------ files


@pytest.mark.promise(3)
def test_a_certificate_is_renewed_under_load_and_nothing_is_lost(
    cluster: Cluster, backend: Make, authority: Authority, tmp_path: Path
) -> None:
    """Promise 3: reconfiguring loses no request; those on open connections go on with what they have."""
    path = authority.issue("a.example").write(tmp_path / "a.pem")
    node = edge(cluster, table(str(path), "a.example"))
    cluster.register(node, "web-1.0.0", "a.example", backend("web", "1.0.0"))
    with Traffic([node], "a.example", authority=authority.pem) as traffic:
        for _ in range(2):
            renewed = authority.issue("a.example")
            renewed.write(path)
            until(
                "the new certificate is shown", lambda now=renewed: shown(node.https, "a.example") == now.der, NOTICED_S
            )
            traffic.wait_for(40)
    traffic.assert_nothing_lost()
    assert codes(node).count("certificate-changed") == 2


def test_an_error_of_one_site_is_reported_and_affects_no_other(
    cluster: Cluster, backend: Make, authority: Authority, tmp_path: Path
) -> None:
    a, c = authority.issue("a.example"), authority.issue("c.example")
    ending = make("b.example", begins=datetime.now(UTC) - 8 * DAY, lives=10 * DAY)
    paths = {"a": a.write(tmp_path / "a.pem"), "b": tmp_path / "b.pem"}
    paths["b"].touch(mode=0o600)
    paths["b"].write_text(ending.pem)
    b_der = ending.certificate.public_bytes(Encoding.DER)
    unfit = tmp_path / "c.pem"
    unfit.touch(mode=0o600)
    unfit.write_text(c.chain.read_text() + a.key.read_text())
    node = edge(
        cluster,
        table(str(paths["a"]), "a.example"),
        table(str(paths["b"]), "b.example"),
        table(str(unfit), "c.example"),
    )
    until("the engine has answered", lambda: site_of(node, "c.example")["state"] == "refused")
    assert (shown(node.https, "a.example"), shown(node.https, "c.example")) == (a.der, None)
    assert codes(node).count("certificate-ends") == 1, "that of b.example: a fifth of its lifetime is left"

    def spoil(content: bytes) -> None:
        fresh = tmp_path / "fresh"
        fresh.touch(mode=0o600)
        fresh.write_bytes(content)
        fresh.replace(paths["a"])

    good = a.pem.encode()
    for content, code in (
        (good[: len(good) // 2], "certificate-refused"),
        (b"", "certificate-unreadable"),
        (a.chain.read_bytes() + c.key.read_bytes(), "certificate-refused"),
    ):
        spoil(content)
        until(code, lambda code=code: site_of(node, "a.example")["reason_code"] == code, NOTICED_S)
        assert site_of(node, "a.example")["state"] == "kept"
        assert shown(node.https, "a.example") == a.der
        assert shown(node.https, "b.example") == b_der
    assert lines_of(node, "sdlb_site_error") == {
        'sdlb_site_error{site="a.example"}': "1",
        'sdlb_site_error{site="b.example"}': "0",
        'sdlb_site_error{site="c.example"}': "1",
    }
    ends = lines_of(node, "sdlb_certificate_not_after_seconds")
    assert set(ends) == {f'sdlb_certificate_not_after_seconds{{site="{name}.example"}}' for name in "ab"}
    status = cluster.sdlb("status", node=node).stdout
    assert f"site a.example: the private key in {paths['a']} does not belong to" in status
    assert "site c.example: " in status and "site b.example: its certificate expires in 47 hours; renew it" in status
    told = cluster.json("status", node=node)["this_node"]["sites"]
    assert [site["site"] for site in told] == ["a.example", "b.example", "c.example"]
    with node.client() as client:
        assert [site.state for site in client.sites().sites] == ["kept", "serving", "refused"]
    node.kill_engine()  # the next one gets what each site had
    until("a.example is served again", lambda: _served(node, "a.example") == a.der)
    assert _served(node, "b.example") == b_der
    c.write(unfit)
    until("c.example is served", lambda: shown(node.https, "c.example") == c.der, NOTICED_S)


def _hang_up(node: Node) -> None:
    assert node.process is not None
    node.process.send_signal(signal.SIGHUP)


def _served(node: Node, host: str) -> bytes | None:
    try:
        return shown(node.https, host)
    except OSError:
        return None


def test_a_file_that_is_missing_ends_the_start_with_one_line(cluster: Cluster, tmp_path: Path) -> None:
    node = edge(cluster, table(str(tmp_path / "none.pem"), "a.example"), start=False)
    node.write_config()
    done = cluster.sdlb("node", "--config", str(node.config))
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("sdlb node: ")]
    assert f"{node.config}:" in line and "site.0.certificate" in line and f"{tmp_path}/none.pem" in line
    assert not node.engine_pids()


@pytest.mark.promise(3)
def test_sites_and_the_listener_change_with_the_node_file(
    cluster: Cluster, backend: Make, authority: Authority, tmp_path: Path
) -> None:
    a, b = authority.issue("a.example"), authority.issue("b.example")
    first = table(str(a.write(tmp_path / "a.pem")), "a.example")
    node = edge(cluster, first)
    cluster.register(node, "web-1.0.0", ["a.example", "b.example"], backend("web", "1.0.0"))

    def reload(*sites: dict[str, object]) -> None:
        node.settings[""]["site"] = list(sites)
        node.write_config()
        _hang_up(node)

    with Traffic([node], "a.example", authority=authority.pem) as traffic:
        reload(first, table(str(b.write(tmp_path / "b.pem")), "b.example"))
        until("b.example is served", lambda: shown(node.https, "b.example") == b.der)
        before = codes(node).count("config-refused")
        reload(first, table(str(tmp_path / "none.pem"), "c.example"))
        until("the file was refused", lambda: codes(node).count("config-refused") == before + 1)
        assert shown(node.https, "b.example") == b.der, "the current settings stay"
        reload(first)
        until("b.example is gone", lambda: shown(node.https, "b.example") is None)
        traffic.wait_for(20)
    traffic.assert_nothing_lost()


# ------------------------------------------------------------------ sessions


@pytest.fixture
def sessions(cluster: Cluster, backend: Make, authority: Authority, tmp_path: Path) -> Node:
    issued = authority.issue("a.example", "b.example")
    path = str(issued.write(tmp_path / "a.pem"))
    node = edge(cluster, table(path, "a.example"), table(path, "b.example"))
    cluster.register(node, "web-1.0.0", ["a.example", "b.example"], backend("web", "1.0.0"))
    return node


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_sessions_are_resumed_by_all_threads_and_over_restarts(
    cluster: Cluster, sessions: Node, tmp_path: Path, version: str
) -> None:
    node, kept = sessions, tmp_path / "session"

    def resumed(host: str = "a.example") -> bool:
        said = s_client(node, host, version, "-sess_in", kept).stdout
        assert "HTTP/1.1 200" in said, said
        assert ("Reused, TLSv1" in said) != ("New, TLSv1" in said), said
        return "Reused, TLSv1" in said

    assert "New, TLSv1" in s_client(node, "a.example", version, "-sess_out", kept).stdout
    assert kept.stat().st_size
    assert all(resumed() for _ in range(12)), "by both threads"
    assert not resumed("b.example"), "a session is its site's"
    upgraded = cluster.sdlb("node", "upgrade", node=node)
    assert upgraded.returncode == 0, upgraded.stderr
    assert resumed(), "by the engine that has taken over"
    until("the engine before it has ended", lambda: len(node.engine_pids()) == 1)
    pids = node.engine_pids()
    node.kill_engine()
    until("another engine serves", lambda: node.engine_pids() not in ([], pids) and _served(node, "a.example"))
    assert resumed(), "by the next engine"
    node.kill()
    node.start()
    node.wait_ready()
    assert resumed(), "by the next engine of the next control"


# ------------------------------------------------------------------ certificates of clients


def test_certificates_of_clients(cluster: Cluster, backend: Make, authority: Authority, tmp_path: Path) -> None:
    partners, strangers = Authority(tmp_path / "partners", "partners"), Authority(tmp_path / "strangers", "strangers")
    hosts = ["required.example", "optional.example", "open.example"]
    path = str(authority.issue(*hosts).write(tmp_path / "a.pem"))
    asked = {"client_ca": str(partners.pem)}
    node = edge(
        cluster,
        table(path, "required.example", **asked),
        table(path, "optional.example", client_certificate="optional", **asked),
        table(path, "open.example"),
    )
    cluster.register(node, "web-1.0.0", hosts, backend("web", "1.0.0"))

    def reaches(host: str, client: Issued | None) -> bool:
        options = () if client is None else ("--cert", client.chain, "--key", client.key)
        return curl(node, host, authority, *options).returncode == 0

    partner, stranger = partners.issue("partner", use="clientAuth"), strangers.issue("stranger", use="clientAuth")
    who = (partner, stranger, None)
    assert [reaches("required.example", each) for each in who] == [True, False, False]
    assert [reaches("optional.example", each) for each in who] == [True, False, True]
    assert [reaches("open.example", each) for each in who] == [True, True, True]
    partners.pem.write_text(strangers.pem.read_text())
    until("other authorities", lambda: reaches("required.example", stranger), NOTICED_S)
    assert not reaches("required.example", partner)


@pytest.mark.promise(3)
def test_the_only_instance_of_a_site_is_restarted(
    cluster: Cluster, backend: Make, authority: Authority, tmp_path: Path
) -> None:
    path = authority.issue("a.example").write(tmp_path / "a.pem")
    node = edge(cluster, table(str(path), "a.example"))
    first = cluster.register(node, "web-1.0.0", "a.example", backend("web", "1.0.0"))
    with Traffic([node], "a.example", authority=authority.pem) as traffic:
        first.deregister()
        time.sleep(1.5)
        cluster.register(node, "web-1.0.0", "a.example", backend("web", "1.0.0"))
        traffic.wait_for(20)
    traffic.assert_nothing_lost()
