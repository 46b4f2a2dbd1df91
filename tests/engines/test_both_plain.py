"""The unencrypted listener beside sites, with both engines: which requests may not be served there."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec.structs import replace

from sdlb.core.effects import Apply
from sdlb.model.acme import HTTP, WELL_KNOWN, ChallengeAnswer
from sdlb.model.hardening import Hardening
from sdlb.model.site import Site
from sdlb.seams.engine import Listener
from tests.certificates import Authority, needs_openssl
from tests.engines.play import CONFIG, Played, both, endpoints, one, put, route, run, started, upstream

pytestmark = [both, needs_openssl]
PROXIES = ("127.0.0.0/8",)
HTTPS = "x-forwarded-proto: https\r\n"


@asynccontextmanager
async def entry(
    kind: str, folder: Path, *sites: Site, redirect: bool = False, trusted: tuple[str, ...] = ()
) -> AsyncGenerator[Played]:
    hardening = Hardening(redirect_to_https=redirect)
    config = replace(CONFIG, listeners=(Listener("http", "127.0.0.1:0", hardening=hardening, trusted_proxies=trusted),))
    async with endpoints("a") as (a,), started(kind, folder, config) as played:
        puts, routes = (put("1.0.0", a, "*/*"),), (route(one("1.0.0"), "*/*"),)
        await played.apply(Apply(0, True, (upstream(a),), puts, routes))
        played.engine.sites.put(sites)
        await played.until(lambda: len(played.states) >= len(sites), "sites")
        assert await played.engine.configure(config) == ""
        yield played


def sites(folder: Path) -> tuple[Site, Site]:
    """An open one, and one that asks for client certificates."""
    authority = Authority(folder)
    hosts = (("a.example",), ("b.example", "*.c.example"))
    first, second = (Site(each[0], each, (authority.issue(*each).pem.encode(),)) for each in hosts)
    return first, dataclasses.replace(second, client_ca=authority.pem.read_bytes())


def test_a_host_with_client_certificates_is_not_served_in_plaintext(kind: str, tmp_path: Path) -> None:
    """A proxy in front may have used HTTPS, but without such a certificate. Challenges of a CA are answered."""

    async def scenario() -> None:
        (tmp_path / "node").mkdir()
        for trusted in ((), PROXIES):
            async with entry(kind, tmp_path / "node", *sites(tmp_path / "ca"), trusted=trusted) as played:
                for fields in ("", HTTPS):
                    for host in ("b.example", "B.example.:80", "x.c.example", "x.y.c.example"):
                        assert (await played.ask(host, fields=fields)).status == 421, (host, fields)
                    for host in ("a.example", "c.example", "d.example"):
                        assert (await played.ask(host, fields=fields)).status == 200, (host, fields)
                answer = ChallengeAnswer(HTTP, "b.example", "token", "token.x")
                assert await played.engine.challenges.challenges([answer]) == ""
                assert (await played.ask("b.example", f"{WELL_KNOWN}token")).body == "token.x"
                assert (await played.ask("b.example", f"{WELL_KNOWN}other")).status == 421

    run(scenario)


def test_the_redirect_to_https_comes_before_the_client_certificate(kind: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "node").mkdir()
        made = sites(tmp_path / "ca")
        async with entry(kind, tmp_path / "node", *made, redirect=True, trusted=PROXIES) as played:
            assert (await played.ask("b.example", "/x")).fields["location"] == "https://b.example/x"
            assert (await played.ask("b.example", "/x", HTTPS)).status == 421
            assert (await played.ask("a.example", "/x", HTTPS)).status == 200

    run(scenario)


def test_challenges_of_others_are_served_and_not_redirected(kind: str, tmp_path: Path) -> None:
    """An instance behind the node may run an ACME client of its own."""

    async def scenario() -> None:
        (tmp_path / "node").mkdir()
        async with entry(kind, tmp_path / "node", *sites(tmp_path / "ca"), redirect=True) as played:
            assert (await played.ask("a.example", "/x")).status == 308
            assert (await played.ask("a.example", "/.well-known/acme-challengeX")).status == 308
            got = await played.ask("a.example", f"{WELL_KNOWN}token")
            assert (got.status, got.body) == (200, "a")
            answer = ChallengeAnswer(HTTP, "a.example", "token", "token.x")
            assert await played.engine.challenges.challenges([answer]) == ""
            assert (await played.ask("a.example", f"{WELL_KNOWN}token")).body == "token.x"
            assert (await played.ask("b.example", f"{WELL_KNOWN}other")).status == 421

    run(scenario)
