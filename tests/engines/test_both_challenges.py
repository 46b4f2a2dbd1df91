"""Challenges of a CA in a TLS handshake (RFC 8737), answered at the port of a site, with both engines."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509
from msgspec.structs import replace

from sdlb.adapters.acme_keys import challenge_certificate
from sdlb.core.effects import Apply
from sdlb.model.acme import TLS, ChallengeAnswer
from sdlb.model.site import Site
from sdlb.seams.engine import Listener
from tests.certificates import Authority, needs_openssl
from tests.engines.play import (
    CONFIG,
    Played,
    both,
    connect,
    endpoints,
    one,
    put,
    request,
    route,
    run,
    started,
    upstream,
)

pytestmark = [both, needs_openssl]
V1 = b"PROXY TCP4 198.51.100.7 127.0.0.1 4711 443\r\n"


async def shown(played: Played, host: str, protocol: str, before: bytes = b"") -> bytes | None:
    """The certificate of a handshake, as DER, if the protocol is agreed on. None: the handshake fails."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    reader, writer = await connect(played.engine.stats.bound["https"])
    try:
        writer.write(before)
        await writer.start_tls(context, server_hostname=host)
        made = writer.get_extra_info("ssl_object")
        assert made.selected_alpn_protocol() == protocol
        assert protocol == "http/1.1" or await reader.read() == b"", "a connection that proves a host serves nothing"
        return made.getpeercert(True)
    except (ssl.SSLError, ConnectionError):
        return None
    finally:
        writer.close()


def der(pem: str) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)


@pytest.mark.parametrize("trusted", [(), ("127.0.0.0/8",)], ids=["alone", "behind proxies"])
def test_a_handshake_of_a_ca_gets_the_certificate_of_the_challenge(
    kind: str, trusted: tuple[str, ...], tmp_path: Path
) -> None:
    async def scenario() -> None:
        leaf = Authority(tmp_path / "ca").issue("a.example")
        (tmp_path / "node").mkdir()
        config = replace(CONFIG, tls_challenges=True)
        async with endpoints("a") as (a,), started(kind, tmp_path / "node", config) as played:
            pattern = "a.example/*"
            await played.apply(
                Apply(0, True, (upstream(a),), (put("1.0.0", a, pattern),), (route(one("1.0.0"), pattern),))
            )
            played.engine.sites.put([Site("a", ("a.example",), (leaf.pem.encode(),))])
            await played.until(lambda: bool(played.states), "site")
            listener = Listener("https", "127.0.0.1:0", tls=True, trusted_proxies=trusted)
            assert await played.engine.configure(replace(config, listeners=(listener,))) == ""
            own = der(leaf.pem)
            known = {host: challenge_certificate(host, f"{host}.thumb") for host in ("a.example", "new.example")}
            answers = [ChallengeAnswer(TLS, host, "", pem) for host, pem in known.items()]
            assert await played.engine.challenges.challenges(answers) == ""
            for before in (b"", V1) if trusted else (b"",):
                for host, pem in known.items():
                    assert await shown(played, host, "acme-tls/1", before) == der(pem)
                assert await shown(played, "other.example", "acme-tls/1", before) is None
                assert await shown(played, "a.example", "http/1.1", before) == own, "clients get the site's own"
                assert await shown(played, "new.example", "http/1.1", before) is None
            context = ssl.create_default_context(cafile=str(tmp_path / "ca" / "ca.pem"))
            reader, writer = await connect(played.engine.stats.bound["https"])
            await writer.start_tls(context, server_hostname="a.example")
            head = (await request(reader, writer, "a.example", "/fields")).body
            assert "x-forwarded-for: 127.0.0.1\r\n" in head.lower()
            writer.close()
            assert await played.engine.challenges.challenges(answers[:1]) == ""
            assert await shown(played, "new.example", "acme-tls/1") is None
            assert await shown(played, "a.example", "acme-tls/1") == der(known["a.example"])

    run(scenario)
