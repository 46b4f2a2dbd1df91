"""The files of sites: read at the start or refused with their name; watched afterwards, whatever becomes of them."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from sdlb.core.effects import Note
from sdlb.model.hardening import Hardening
from sdlb.model.problem import Invalid
from sdlb.model.site import PemFile, SiteSpec
from sdlb.node.config import Options, read_config
from sdlb.node.pem import FILE_BYTES_MAX
from sdlb.node.sites import SiteWatch
from sdlb.node.tickets import ROTATE_S
from tests.made_certificates import DAY, Made, make, rsa_key
from tests.node.lone import lone
from tests.seams.fake_engine import FakeSites

KEY = "-----BEGIN PRIVATE KEY-----"
HOSTS = ("a", "b", "c", "d", "*.b", "good", "bad")


@functools.cache
def made(label: str) -> Made:
    """The certificate that a test calls by this label. It names all hosts of these tests."""
    return make(*HOSTS, name=label)


@functools.cache
def pem_of(label: str) -> str:
    return made(label).pem


@dataclass
class World:
    folder: Path
    now_s: int = 1_800_000_000
    notes: list[Note] = field(default_factory=list[Note])
    sink: FakeSites = field(default_factory=FakeSites)

    def __post_init__(self) -> None:
        self.watch = SiteWatch(self.sink, self.notes.append, self.folder / "ticket-keys", lambda: self.now_s)

    def write(self, name: str, text: str, mode: int = 0o600) -> Path:
        """As a program that renews: in one step. A short word stands for a certificate with its key."""
        text = pem_of(text) if text.isalnum() and len(text) <= 4 else text
        path = self.folder / name
        fresh = self.folder / f".{name}"
        fresh.write_text(text)
        fresh.chmod(mode)
        fresh.replace(path)
        return path

    def spec(self, host: str, **files: Any) -> SiteSpec:
        path = PemFile(str(self.folder / f"{host}.pem"), f"node.toml:5: {host}")
        key = files.get("key")
        return SiteSpec((host,), ((path, None if key is None else PemFile(str(key), "")),))

    async def looks(self, count: int = 2) -> None:
        """Two are what a change takes."""
        for _ in range(count):
            await self.watch.look()
        await asyncio.sleep(0)  # the engine's answer

    def codes(self) -> list[str]:
        codes = [note.code for note in self.notes]
        self.notes.clear()
        return codes

    def pem(self, host: str) -> bytes:
        (certificate,) = self.sink.sites[host].certificates
        return certificate

    def label(self, host: str) -> str:
        """Which certificate the site has."""
        certificate = x509.load_pem_x509_certificate(self.pem(host))
        (name,) = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return str(name.value)


def scenario(test: Callable[[World], Awaitable[None]]) -> Callable[[Path], None]:
    def run(tmp_path: Path) -> None:
        async def all_of_it() -> None:
            await test(World(tmp_path))

        asyncio.run(all_of_it())

    run.__name__ = test.__name__
    return run


# ------------------------------------------------------------------ the start


def _missing(path: Path) -> None:
    path.unlink(missing_ok=True)


def _fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (_missing, "cannot be read (No such file"),
    "a folder": (lambda path: (_missing(path), path.mkdir()), "not a regular file"),
    "a pipe that nobody writes to": (_fifo, "not a regular file"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "blank": (lambda path: path.write_bytes(b"\n \n"), "is empty"),
    "too long": (lambda path: path.write_bytes(b"x" * (FILE_BYTES_MAX + 1)), "longer than 1 MiB"),
}


@pytest.mark.parametrize(("spoil", "expected"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_file_that_is_of_no_use_ends_the_start_with_its_name(
    tmp_path: Path, spoil: Callable[[Path], object], expected: str
) -> None:
    @scenario
    async def test(world: World) -> None:
        world.write("good.pem", "good")
        spoil(world.folder / "bad.pem")
        with pytest.raises(Invalid) as told:
            await world.watch.adopt([world.spec("good"), world.spec("bad")])
        assert str(told.value).startswith(f"node.toml:5: bad: the file {world.folder}/bad.pem ")
        assert expected in str(told.value)
        assert "\n" not in str(told.value)
        assert world.sink.sites == {}, "nothing half-applied"

    test(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
@scenario
async def test_a_file_without_rights_ends_the_start(world: World) -> None:
    world.write("a.pem", "A", 0)
    with pytest.raises(Invalid, match="Permission denied"):
        await world.watch.adopt([world.spec("a")])


@pytest.mark.parametrize(
    ("mode", "told"), [(0o600, False), (0o640, False), (0o400, False), (0o644, True), (0o660, True), (0o604, True)]
)
def test_an_exposed_key_is_reported_and_an_exposed_certificate_is_not(tmp_path: Path, mode: int, told: bool) -> None:
    @scenario
    async def test(world: World) -> None:
        chain, private = made("a1").chain, made("a1").key_pem()
        world.write("a.pem", chain, 0o644)
        key = world.write("a.key", private, mode)
        await world.watch.adopt([world.spec("a", key=key)])
        assert world.pem("a") == f"{chain}\n{private}".encode()
        assert [(note.code, note.level) for note in world.notes] == [("key-file-exposed", "warning")] * told
        assert not told or f"chmod 600 {key}" in world.notes[0].text
        world.codes()
        world.write("b.pem", "b1", mode)
        world.write("c.pem", made("c1").chain, 0o644)  # a chain whose key was forgotten
        await world.watch.adopt([world.spec("a", key=key), world.spec("b"), world.spec("c")])
        assert world.codes() == ["key-file-exposed"] * told, "of the new one with a key only"
        await asyncio.sleep(0)
        assert world.codes() == ["certificate-refused"]

    test(tmp_path)


# ------------------------------------------------------------------ changes


@scenario
async def test_a_changed_file_is_taken_after_two_looks_and_the_others_are_left_alone(world: World) -> None:
    for name in "ab":
        world.write(f"{name}.pem", f"{name}1")
    await world.watch.adopt([world.spec("a"), world.spec("b")])
    await world.looks(3)
    assert world.codes() == []
    other = world.sink.sites["b"]
    world.write("a.pem", "a2")
    await world.looks(1)
    assert world.label("a") == "a1", "somebody may be in the middle of writing it"
    await world.looks(1)
    assert world.label("a") == "a2"
    assert world.codes() == ["certificate-changed"]
    assert world.sink.sites["b"] is other
    await world.looks(3)
    assert world.codes() == []


@scenario
async def test_a_changed_key_or_authority_is_a_change_too(world: World) -> None:
    one, two = made("a1"), make(*HOSTS, name="a2")
    world.write("a.pem", one.chain)
    key, ca = world.write("a.key", one.key_pem()), world.write("ca.pem", "ca1 is not read here")
    spec = world.spec("a", key=key)
    await world.watch.adopt([SiteSpec(spec.hosts, spec.certificates, PemFile(str(ca)), True)])
    world.write("a.key", two.key_pem())
    await world.looks()
    assert world.label("a") == "a1", "one of the two files is new"
    world.write("a.pem", two.chain)
    await world.looks()
    assert world.pem("a") == f"{two.chain}\n{two.key_pem()}".encode()
    world.write("ca.pem", "ca2 is not read here")
    await world.looks()
    site = world.sink.sites["a"]
    assert (site.client_ca, site.client_required) == (b"ca2 is not read here", True)


@scenario
async def test_all_sites_have_the_hardening_of_the_node_file(world: World) -> None:
    """Also those with ordered certificates; without a change of the site. A refused node file leaves it."""
    for name in ("a", "b"):
        world.write(f"{name}.pem", f"{name}1")
    spec, issued, strict = world.spec("a"), world.spec("b"), Hardening(tls_min="1.3", session_tickets=False)

    def seen() -> set[tuple[str, bool]]:
        assert world.sink.sites.keys() == {"a", "b"}
        return {(each.tls_min, each.tickets) for each in world.sink.sites.values()}

    await world.watch.adopt([spec], Hardening())
    await world.watch.adopt_issued([issued])
    assert seen() == {("1.2", True)}
    await world.watch.adopt([spec], strict)
    assert seen() == {("1.3", False)}
    with pytest.raises(Invalid):
        await world.watch.adopt([spec, world.spec("good")], Hardening())
    await world.watch.adopt_issued([issued])
    assert seen() == {("1.3", False)}
    await world.watch.adopt([spec], Hardening(tls_min="1.3"))
    assert seen() == {("1.3", True)}


@scenario
async def test_a_link_that_points_elsewhere_is_a_change(world: World) -> None:
    """As certbot and Kubernetes do it."""
    for number in "12":
        world.write(f"a{number}", pem_of(f"a{number}"))
    link = world.folder / "a.pem"
    link.symlink_to("a1")
    await world.watch.adopt([world.spec("a")])
    link.unlink()
    link.symlink_to("a2")
    await world.looks()
    assert world.label("a") == "a2"


@scenario
async def test_a_file_that_was_only_touched_is_not_a_new_certificate(world: World) -> None:
    path = world.write("a.pem", "a1")
    await world.watch.adopt([world.spec("a")])
    held = world.sink.sites["a"]
    os.utime(path, ns=(1, 1))
    world.write("a.pem", "a1")
    await world.looks(3)
    assert world.sink.sites["a"] is held
    assert world.codes() == []


@pytest.mark.parametrize(("spoil", "expected"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_file_that_becomes_invalid_is_reported_once_and_may_come_back(
    tmp_path: Path, spoil: Callable[[Path], object], expected: str
) -> None:
    @scenario
    async def test(world: World) -> None:
        path = world.write("a.pem", "a1")
        world.write("b.pem", "b1")
        await world.watch.adopt([world.spec("a"), world.spec("b")])
        await asyncio.sleep(0)
        spoil(path)
        world.write("b.pem", "b2")
        await world.looks(4)
        assert world.label("a") == "a1"
        assert world.label("b") == "b2", "one site's trouble is not another's"
        (told,) = [note for note in world.notes if note.code == "certificate-unreadable"]
        assert (told.level, told.fields) == ("error", {"site": "a"})
        assert str(path) in told.text and expected in told.text
        (view,) = [each for each in world.watch.views() if each["reason"]]
        assert (view["site"], view["reason_code"]) == ("a", "certificate-unreadable")
        world.codes()
        if path.is_dir():
            path.rmdir()
        world.write("a.pem", "a3")
        await world.looks()
        assert world.label("a") == "a3"
        assert world.codes() == ["certificate-changed"]
        assert not any(each["reason"] for each in world.watch.views())

    test(tmp_path)


# ------------------------------------------------------------------ certificates with faults


@scenario
async def test_a_faulty_certificate_changes_nothing_and_one_site_holds_up_no_other(world: World) -> None:
    world.write("a.pem", "a1")
    world.write("b.pem", make("b", key=rsa_key(1024)).pem)
    world.sink.until_s = world.now_s + 86_400
    await world.watch.adopt([world.spec("a"), world.spec("b")])
    await asyncio.sleep(0)
    assert set(world.sink.sites) == {"a"}, "the other has nothing that it could serve with"
    (refused,) = world.notes
    assert (refused.code, refused.level) == ("certificate-refused", "error")
    assert f"{world.folder}/b.pem has an RSA key of 1024 bits" in refused.text
    assert "TLS handshakes for it fail" in refused.text
    world.notes.clear()
    for text, expected in (
        (made("a1").chain + made("b1").key_pem(), "does not belong to the first certificate"),
        (make(*HOSTS, must_staple=True).pem, "must-staple"),
        (make("other").pem, "does not name a"),
    ):
        world.write("a.pem", text)
        await world.looks(4)
        assert world.label("a") == "a1"
        (refused,) = world.notes
        assert refused.code == "certificate-refused" and f"{world.folder}/a.pem" in refused.text
        assert expected in refused.text and refused.text.endswith("; it keeps its previous certificate")
        assert (world.watch.views()[0]["state"], expected in world.watch.views()[0]["reason"]) == ("kept", True)
        world.notes.clear()
    world.write("a.pem", "a2")
    world.write("b.pem", "b2")
    await world.looks()
    assert (world.label("a"), world.label("b")) == ("a2", "b2")
    assert world.codes() == ["certificate-changed"] * 2


@scenario
async def test_a_certificate_whose_time_has_not_come_waits_for_it(world: World) -> None:
    begins = datetime.fromtimestamp(world.now_s + 3600, UTC)
    world.write("a.pem", make("a", begins=datetime.fromtimestamp(world.now_s - 3600, UTC), name="now").pem)
    await world.watch.adopt([world.spec("a")])
    world.write("a.pem", make("a", begins=begins, name="later").pem)
    await world.looks(4)
    assert world.label("a") == "now"
    assert world.codes() == ["certificate-refused"]
    world.now_s += 3601
    await world.looks(1)
    assert world.label("a") == "later", "without another change of the file"
    assert world.codes() == ["certificate-changed"]


@scenario
async def test_a_certificate_whose_time_has_come_does_not_replace_a_newer_file(world: World) -> None:
    def valid_from(seconds: int, name: str) -> str:
        return make("a", begins=datetime.fromtimestamp(world.now_s + seconds, UTC), name=name).pem

    world.write("a.pem", valid_from(-3600, "now"))
    await world.watch.adopt([world.spec("a")])
    world.write("a.pem", valid_from(3600, "later"))
    await world.looks(2)
    world.write("a.pem", valid_from(-60, "newer"))
    await world.looks(1)
    world.now_s += 3601
    await world.looks(1)
    assert world.label("a") == "newer"


@scenario
async def test_a_certificate_is_used_with_a_warning_when_there_is_no_better_one(world: World) -> None:
    world.write("a.pem", make("other").pem)
    await world.watch.adopt([world.spec("a")])
    await world.looks(2)
    (note,) = world.notes
    assert (note.code, note.level) == ("certificate-warning", "warning")
    assert f"{world.folder}/a.pem: the certificate does not name a; request one that names it" in note.text
    assert world.watch.views()[0]["warnings"] == [note.text.removeprefix("site a: ")]


@scenario
async def test_an_expiry_is_reported_by_the_lifetime_also_of_a_certificate_that_was_kept(world: World) -> None:
    begins = datetime.fromtimestamp(world.now_s, UTC)
    world.sink.until_s = world.now_s + 6 * 86_400
    world.write("a.pem", make("a", begins=begins, lives=6 * DAY).pem)
    await world.watch.adopt([world.spec("a")])
    world.now_s += 3 * 86_400
    world.write("a.pem", make("a", begins=begins, lives=60 * DAY, must_staple=True).pem)
    await world.looks()
    assert world.codes() == ["certificate-refused"]
    world.now_s += 86_400 - 1
    await world.looks(1)
    assert world.codes() == []
    world.now_s += 601
    await world.looks(1)
    assert world.codes() == ["certificate-ends"]
    assert world.watch.views()[0]["not_before_s"] == world.sink.until_s - 6 * 86_400


# ------------------------------------------------------------------ another node file


@scenario
async def test_sites_come_and_go_and_change(world: World) -> None:
    for name in "abc":
        world.write(f"{name}.pem", name)
    await world.watch.adopt([world.spec("a"), world.spec("b")])
    wider = SiteSpec(("b", "*.b"), world.spec("b").certificates)
    await world.watch.adopt([wider, world.spec("c")])
    assert {key: site.hosts for key, site in world.sink.sites.items()} == {"b": ("b", "*.b"), "c": ("c",)}
    world.write("a.pem", "a2")
    await world.looks()
    assert set(world.sink.sites) == {"b", "c"}
    (world.folder / "c.pem").unlink()
    await world.watch.adopt([world.spec("b"), world.spec("c")])
    assert set(world.sink.sites) == {"b", "c"}, "a site that is as it was need not be read again"
    with pytest.raises(Invalid):
        await world.watch.adopt([world.spec("b"), world.spec("d")])
    assert set(world.sink.sites) == {"b", "c"}


# ------------------------------------------------------------------ ticket keys


@scenario
async def test_ticket_keys_are_made_kept_and_rotated(world: World) -> None:
    world.write("a.pem", "a")
    await world.watch.adopt([world.spec("a")])
    (first,) = world.sink.keys
    assert (len(first.name), len(first.secret)) == (16, 32)
    world.now_s += ROTATE_S - 1
    await world.looks(1)
    assert world.sink.keys == (first,)
    world.now_s += 1
    await world.looks(1)
    second, kept = world.sink.keys
    assert kept == first
    again = World(world.folder, world.now_s)
    await again.watch.adopt([again.spec("a")])
    assert again.sink.keys == (second, first), "kept over a restart"
    assert again.notes == []


@scenario
async def test_a_torn_file_of_ticket_keys_is_reported_and_replaced(world: World) -> None:
    world.write("a.pem", "a")
    world.write("ticket-keys", "half of")
    await world.watch.adopt([world.spec("a")])
    assert world.codes() == ["ticket-keys-lost"]
    assert len(world.sink.keys) == 1
    again = World(world.folder)
    await again.watch.adopt([again.spec("a")])
    assert (again.sink.keys, again.notes) == (world.sink.keys, [])


@scenario
async def test_ticket_keys_that_cannot_be_written_work_and_are_written_later(world: World) -> None:
    world.write("a.pem", "a")
    blocker = world.folder / "ticket-keys"
    blocker.mkdir()
    await world.watch.adopt([world.spec("a")])
    assert len(world.sink.keys) == 1
    await world.looks(2)
    assert world.codes() == ["ticket-keys-lost", "ticket-keys-not-written"]
    blocker.rmdir()
    await world.looks(1)
    assert blocker.read_text().count("\n") == 3


@scenario
async def test_a_node_without_sites_makes_no_keys(world: World) -> None:
    await world.watch.adopt([])
    assert world.sink.keys == ()
    assert list(world.folder.iterdir()) == []


# ------------------------------------------------------------------ reads


def test_what_is_known_is_shown(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)

    @scenario
    async def test(world: World) -> None:
        async with lone(world.folder) as node:
            text = (await node.http.get("/metrics")).text
            assert "sdlb_site_error" not in text
            path = world.write("a.pem", "a1", 0o644)
            await node.sites.adopt([world.spec("a")])
            await asyncio.sleep(0)
            (site,) = (await node.http.get("/v1/sites")).json()["sites"]
            assert "chmod 600" in site["warnings"][0]
            path.unlink()
            for _ in range(2):
                await node.sites.look()
            (site,) = (await node.http.get("/v1/sites")).json()["sites"]
            assert site["hosts"] == ["a"]
            assert site["reason_code"] == "certificate-unreadable"
            assert site["warnings"] == [], "there is nothing to change the rights of"
            assert 'sdlb_site_error{site="a"} 1' in (await node.http.get("/metrics")).text
            events = (await node.http.get("/v1/events?since=0")).json()["events"]
            assert {"certificate-unreadable", "key-file-exposed"} <= {event["code"] for event in events}

    test(tmp_path)


def test_a_relative_or_missing_file_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('[listen]\nhttps = "127.0.0.1:0"\n[[site]]\nhosts = ["a"]\ncertificate = "/nowhere/a.pem"\n')
    config = read_config(Options(config=str(file)), {})

    @scenario
    async def test(world: World) -> None:
        with pytest.raises(Invalid) as told:
            await world.watch.adopt(config.sites)
        assert str(told.value).startswith(f"{file}:5: site.0.certificate: the file /nowhere/a.pem cannot be read")

    test(tmp_path)
