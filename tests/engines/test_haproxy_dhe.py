"""`dhe = true`: finite-field Diffie-Hellman with the site's own parameters, and with them for that site alone."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path

import pytest

from sdlb.model.problem import Invalid
from sdlb.model.site import PemFile, Site, SiteSpec
from sdlb.node import dh_check
from sdlb.node.pem import read_site
from sdlb.seams.engine import EngineConfig, Listener
from tests.certificates import OPENSSL, Authority, needs_openssl
from tests.engines.play import control, needs_haproxy, run

DH = Path(__file__).parent.parent / "node" / "data" / "dh2048.pem"


def handshake(address: str, host: str) -> str:
    """What `openssl s_client` prints of a handshake with DHE alone."""
    words = ("s_client", "-connect", address, "-servername", host, "-tls1_2", "-msg", "-cipher", "DHE")
    done = subprocess.run([OPENSSL or "", *words], input="", capture_output=True, text=True, timeout=20, check=False)
    return done.stdout


def sent(text: str) -> str:
    """All bytes of the messages, in hexadecimal."""
    return "".join(re.findall(r"^ {4}((?:[0-9a-f]{2} ?)+)$", text, re.M)).replace(" ", "")


@needs_haproxy
@needs_openssl
def test_dhe_is_offered_by_the_site_that_asks_for_it_with_its_own_prime(tmp_path: Path) -> None:
    async def scenario() -> None:
        authority = Authority(tmp_path / "authority")
        plain, own = (authority.issue(host, kind="rsa").pem.encode() for host in ("a.example", "b.example"))
        sites = [
            Site("a.example", ("a.example",), (plain,)),
            Site("b.example", ("b.example",), (own,), dh=DH.read_bytes()),
        ]
        played = control("haproxy", tmp_path)
        played.engine.sites.put(sites, {"a.example", "b.example"})
        await played.engine.start(EngineConfig("n", (Listener("https", "127.0.0.1:0", tls=True),), ""))
        try:
            address = played.engine.stats.bound["https"]
            assert "Cipher is (NONE)" in await asyncio.to_thread(handshake, address, "a.example")
            text = await asyncio.to_thread(handshake, address, "b.example")
            assert "Cipher is DHE-RSA-" in text
            assert f"{dh_check.parse(DH.read_text())[0]:x}" in sent(text)
            worker = played.engine.stats.pid
            played.engine.sites.put([Site("b.example", ("b.example",), (own,))])
            await played.until(lambda: played.engine.stats.pid != worker, "a reload")
            assert "Cipher is (NONE)" in await asyncio.to_thread(handshake, address, "b.example")
        finally:
            await played.engine.shut_down(0.0)

    run(scenario)


def test_a_site_without_parameters_names_the_command(tmp_path: Path) -> None:
    spec = SiteSpec(("b.example",), (), dh=PemFile(str(tmp_path / "none.pem"), "node.toml:9"))
    with pytest.raises(Invalid, match="DH parameters") as missing:
        read_site(spec)
    assert missing.value.do == "run: sdlb tls dhparam b.example"
    (tmp_path / "none.pem").write_text("text")
    with pytest.raises(Invalid, match="has no DH parameters"):
        read_site(spec)
