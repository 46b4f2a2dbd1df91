"""Artifacts: fetched from permitted places only, verified, and unpacked whole or not at all."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import hashlib
import http.server
import io
import json
import lzma
import os
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdlb.adapters import minisign, tar_reader
from sdlb.adapters.artifacts import ArtifactStore
from sdlb.adapters.minisign import BadSignature
from sdlb.adapters.unpack import BadArchive, Unpacker, UnpackLimits
from sdlb.model.location import parse_prefix
from sdlb.model.release import Artifact
from sdlb.model.role import ArtifactRules
from sdlb.seams.driver import DriverFailed

KEY = """untrusted comment: minisign public key F9962945E996B350
RWRQs5bpRSmW+dSWE49+0K0e/I8T/wiogdM3hxt3mBG4kO+1dmlV86ni
"""
SIGNED = b"the artifact"
PREHASHED = """untrusted comment: signature from minisign secret key
RURQs5bpRSmW+QF7lXocVaKqFdIgRQ8iEeIL3I7CDfXnB5oiswMXNnoN5rlKmubnnS4Bkmj5uJVv/j/NROOVcGIRJd/TfNAuzwM=
trusted comment: timestamp:1795991033\tfile:a.txt\thashed
RyfqiMva7GWUDxcGifaC0WqMRkjns7yLKhDPcKqlp4prKfgbA5OMIgnJ3aYLyd/xrwD6+zj1wXj+me5YlKo/Ag==
"""
LEGACY = """untrusted comment: signature from minisign secret key
RWRQs5bpRSmW+dcGpNUZ8AFHc9mTGELFgkqDx+LB8oy9c5fSnz2bKKMGft6SrMBBRpGv74UlPL6Usb7eFBWwK6HokRLElbN+XAg=
trusted comment: for sdlb
Zpr6Sv/oIv+a3Ih3Z3n2W0shuF0QGVPSMs2UQpSoUi8ATjxPapFt6KoJCoIlTTQvdCr3gOeldeuMwOwdQ5xnDA==
"""
"""All three were made by minisign 0.11."""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def tar(
    *entries: tuple[str, Any], kind: int = tarfile.PAX_FORMAT, data: dict[str, bytes] | None = None, **more: Any
) -> bytes:
    """An entry: its name, and its content or the fields of its header. `data`: the content of those with fields."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind, **more) as archive:
        for name, what in entries:
            info = tarfile.TarInfo(name)
            content = what if isinstance(what, bytes) else (data or {}).get(name, b"")
            info.size = len(content)
            for key, value in what.items() if isinstance(what, dict) else ():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content) if content else None)
    return out.getvalue()


CATALOG = (
    ("./", {"type": tarfile.DIRTYPE, "mode": 0o755}),
    ("./catalog", {"type": tarfile.REGTYPE, "mode": 0o755}),
    ("./lib/data.txt", b"data"),
    ("./lib/link", {"type": tarfile.SYMTYPE, "linkname": "../catalog"}),
    ("./lib/hard", {"type": tarfile.LNKTYPE, "linkname": "./lib/data.txt"}),
    ("./" + "long/" * 30 + "n" * 120, b"long"),
)


class Files:
    """A folder of artifacts, and the store."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "srv"
        self.source.mkdir()
        self.store_folder = folder / "store"
        self.store = ArtifactStore(self.store_folder)
        self.rules = ArtifactRules((parse_prefix(f"{self.source}/"), parse_prefix(f"oci:{self.source}/")))

    def put(self, name: str, content: bytes) -> Artifact:
        (self.source / name).write_bytes(content)
        return Artifact(str(self.source / name), sha256(content))

    def fetch(self, artifact: Artifact, **rules: Any) -> Path:
        changed = {
            each: getattr(self.rules, each) for each in ("sources", "keys", "megabytes_max", "timeout_s")
        } | rules
        return asyncio.run(self.store.fetch(artifact, ArtifactRules(**changed)))

    def refuse(self, artifact: Artifact, expected: str, fault: str = "artifact", **rules: Any) -> DriverFailed:
        with pytest.raises(DriverFailed) as error:
            self.fetch(artifact, **rules)
        assert expected in error.value.text
        assert "\n" not in error.value.text
        assert error.value.fault == fault
        assert self.left() == []
        return error.value

    def left(self) -> list[str]:
        return sorted(os.listdir(self.store_folder)) if self.store_folder.exists() else []


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


# ---------------------------------------------------------------------- what works


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, bz2.compress])
def test_a_tar_is_unpacked(files: Files, kind: int, pack: Callable[[bytes], bytes]) -> None:
    entries = CATALOG if kind != tarfile.USTAR_FORMAT else CATALOG[:-1]
    artifact = files.put("c.tgz", pack(tar(*entries, kind=kind)))
    old = os.umask(0o077)
    try:
        folder = files.fetch(artifact)
    finally:
        os.umask(old)
    assert folder == files.store_folder / artifact.sha256 == files.store.path(artifact.sha256)
    assert files.left() == [artifact.sha256]
    assert (folder / "catalog").stat().st_mode & 0o7777 == 0o555
    assert (folder / "lib/data.txt").stat().st_mode & 0o7777 == 0o444
    assert (folder / "lib/data.txt").stat().st_nlink == 2
    assert (folder / "lib").stat().st_mode & 0o7777 == folder.stat().st_mode & 0o7777 == 0o755
    assert (folder / "lib/link").resolve() == folder / "catalog"
    if len(entries) == len(CATALOG):
        assert (folder / ("long/" * 30) / ("n" * 120)).read_bytes() == b"long"
    (files.source / "c.tgz").unlink()
    assert files.fetch(artifact) == folder  # not fetched again


def test_a_tar_of_the_tar_program(files: Files, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / ("ü" * 40)).write_text("x")
    (tree / "run").write_text("#!/bin/sh\n")
    (tree / "run").chmod(0o755)
    for number, arguments in enumerate((["--format=gnu"], ["--format=posix"], ["--format=ustar"], ["-z"], ["-J"])):
        file = files.source / f"{number}.tar"
        subprocess.run(["tar", "-cf", file, *arguments, "-C", tree, "."], check=True)
        folder = files.fetch(Artifact(str(file), sha256(file.read_bytes())))
        assert (folder / "sub" / ("ü" * 40)).read_text() == "x"


def test_a_plain_file_keeps_its_name(files: Files) -> None:
    folder = files.fetch(files.put("catalog.jar", b"PK not a tar"))
    assert os.listdir(folder) == ["catalog.jar"]
    assert (folder / "catalog.jar").stat().st_mode & 0o777 == 0o555


def test_keep_removes_all_others(files: Files) -> None:
    assert asyncio.run(files.store.keep(())) == []
    a, b = files.put("a", b"a"), files.put("b", b"b")
    files.fetch(a)
    files.fetch(b)
    assert asyncio.run(files.store.keep({a.sha256, "c" * 64})) == [b.sha256]
    assert files.left() == [a.sha256]
    assert files.store.path(b.sha256) is None


def test_two_at_a_time_fetch_once(files: Files) -> None:
    artifact = files.put("c.tar", tar(*CATALOG))

    async def both() -> list[Path]:
        return list(await asyncio.gather(*(files.store.fetch(artifact, files.rules) for _ in range(3))))

    assert len(set(asyncio.run(both()))) == 1
    assert files.left() == [artifact.sha256]


def test_what_a_killed_control_left_is_removed(files: Files) -> None:
    files.fetch(files.put("a", b"a"))
    left = files.store_folder / ".fetch-1"
    (left / "tree" / "x").mkdir(parents=True)
    ArtifactStore(files.store_folder)
    assert files.left() == [sha256(b"a")]


def test_a_cancelled_fetch_leaves_nothing(files: Files) -> None:
    artifact = files.put("c.tar", tar(*(("f" + str(number), b"x" * 100) for number in range(3000))))

    async def cancelled() -> None:
        task = asyncio.create_task(files.store.fetch(artifact, files.rules))
        while not files.left():
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert files.left() in ([], [artifact.sha256])


# ---------------------------------------------------------------------- digests and signatures


def test_a_wrong_digest_is_refused(files: Files) -> None:
    files.put("c", b"content")
    error = files.refuse(Artifact(str(files.source / "c"), "a" * 64), f"has the SHA-256 {sha256(b'content')}, but the")
    assert not error.retry


def test_a_store_takes_no_path_for_a_digest(files: Files) -> None:
    with pytest.raises(ValueError, match="not a digest"):
        files.fetch(Artifact(str(files.source / "c"), "../../etc"))


@pytest.mark.parametrize("signature", [PREHASHED, LEGACY])
def test_a_signature(files: Files, tmp_path: Path, signature: str) -> None:
    keys = (str(tmp_path / "release.pub"),)
    Path(keys[0]).write_text(KEY)
    artifact = files.put("c", SIGNED)
    error = files.refuse(artifact, "the artifact is not signed, and the node file has keys", keys=keys)
    assert not error.retry
    (files.source / "c.minisig").write_text(signature)
    assert files.fetch(artifact, keys=keys)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("RURQs5", "RURQs6", "is by the key"),
        ("QF7lX", "QF7lY", "does not match the file"),
        ("1795991033", "1795991034", "does not match the file"),
        ("RyfqiM", "RyfqiN", "does not match the file"),
        ("RURQ", "RUVQ", "has an unknown algorithm"),
        ("RURQ", "URQ", "is not in the format"),
        ("untrusted", "trusted", "is not a minisign signature"),
        ("trusted comment: t", "comment: t", "is not a minisign signature"),
    ],
)
def test_a_bad_signature(files: Files, tmp_path: Path, old: str, new: str, expected: str) -> None:
    keys = (str(tmp_path / "release.pub"),)
    Path(keys[0]).write_text(KEY)
    artifact = files.put("c", SIGNED)
    (files.source / "c.minisig").write_text(PREHASHED.replace(old, new, 1))
    files.refuse(artifact, expected, keys=keys)


def test_a_signature_of_another_file(files: Files, tmp_path: Path) -> None:
    keys = (str(tmp_path / "release.pub"),)
    Path(keys[0]).write_text(KEY.splitlines()[1])
    artifact = files.put("c", b"another")
    for signature in (PREHASHED, LEGACY):
        (files.source / "c.minisig").write_text(signature)
        files.refuse(artifact, "does not match the file", keys=keys)
    Path(keys[0]).write_text("nonsense")
    files.refuse(artifact, "release.pub is not in the format of minisign", "machine", keys=keys)
    files.refuse(artifact, "cannot be read", "machine", keys=("/no/such.pub",))


@given(st.text() | st.lists(st.sampled_from(PREHASHED.splitlines() + KEY.splitlines() + [""])).map("\n".join))
def test_any_text_is_a_signature_or_refused(text: str) -> None:
    for parse in (minisign.parse_signature, minisign.parse_public_key):
        try:
            parse(text)
        except BadSignature:
            continue


# ---------------------------------------------------------------------- attacks on unpacking

SYM, LNK, DIR = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
ATTACKS: dict[str, tuple[bytes, str]] = {
    "up": (tar(("../x", b"x")), "leaves its folder"),
    "up inside": (tar(("a/../../x", b"x")), "leaves its folder"),
    "absolute": (tar(("/etc/x", b"x")), "absolute path"),
    "empty segment": (tar(("a//x", b"x")), "empty segments"),
    "dot": (tar(("a/./x", b"x")), "empty segments"),
    "link up": (tar(("a", {"type": SYM, "linkname": "../x"})), "leaves the folder"),
    "link absolute": (tar(("a", {"type": SYM, "linkname": "/etc"})), "leaves the folder"),
    "link down and up": (tar(("a", {"type": SYM, "linkname": "b/../.."})), "leaves the folder"),
    "link through links": (
        tar(("e/f", b""), ("p/q/x", {"type": SYM, "linkname": "../../e"}), ("l", {"type": SYM, "linkname": "p/q/x/../../.."})),
        "leaves the folder",
    ),
    "write through a link": (tar(("a", {"type": SYM, "linkname": "b"}), ("a/x", b"x")), "below 'a', which is a symlink"),
    "write over a link": (tar(("a", {"type": SYM, "linkname": "b"}), ("a", b"x")), "'a' twice"),
    "folder over a link": (tar(("a", {"type": SYM, "linkname": "b"}), ("a", {"type": DIR})), "below 'a', which is a symlink"),
    "file below a file": (tar(("a", b""), ("a/x", b"x")), "below 'a', which is a file"),
    "file over a folder": (tar(("a/x", b""), ("a", b"x")), "as a folder and as something else"),
    "twice": (tar(("a", b"1"), ("./a", b"2")), "'a' twice"),
    "hard link out": (tar(("a", {"type": LNK, "linkname": "/etc/passwd"})), "absolute path"),
    "hard link up": (tar(("a", {"type": LNK, "linkname": "../store"})), "leaves its folder"),
    "hard link to a link": (tar(("b", {"type": SYM, "linkname": "c"}), ("a", {"type": LNK, "linkname": "b"})), "not a file before"),
    "hard link to nothing": (tar(("a", {"type": LNK, "linkname": "b"})), "not a file before"),
    "device": (tar(("a", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})), "a character device"),
    "disk": (tar(("a", {"type": tarfile.BLKTYPE})), "a block device"),
    "fifo": (tar(("a", {"type": tarfile.FIFOTYPE})), "a FIFO"),
    "setuid": (tar(("a", {"mode": 0o4755})), "setuid"),
    "setgid folder": (tar(("a", {"type": DIR, "mode": 0o2755})), "setuid"),
    "odd type": (tar(("a", {"type": b"Z"})), "unknown type"),
    "sparse": (tar(("a", {"type": tarfile.GNUTYPE_SPARSE})), "unknown type"),
    "sparse by pax": (tar(("a", {"pax_headers": {"GNU.sparse.major": "1"}})), "not supported"),
    "global path": (tar(("a", b"x"), pax_headers={"path": "../x"}), "not supported"),
    "control characters": (tar(("a\x1b[31m\n", b"x")), "not printable"),
    "long name": (tar(("n" * 256, b"x")), "too long"),
    "long path": (tar(("n/" * 60 + "n" * 250 + "/" + "m" * 250 + "/" + "m" * 250 + "/" + "o" * 250, b"x")), "too long"),
    "deep": (tar(("n/" * 70 + "n", b"x")), "too deep"),
    "huge name": (tar(("n" * 100_000, b"x"), kind=tarfile.GNU_FORMAT), "has metadata of"),
    "huge pax header": (tar(("a", {"pax_headers": {"comment": "x" * 100_000}})), "has metadata of"),
    "not utf-8": (tar(("a\udcff", b"x"), kind=tarfile.GNU_FORMAT), "not UTF-8"),
    "cut off": (tar(("a", b"x" * 5000))[:2000], "is not complete"),
    "without its end": (tar(("a", b""))[:512], "is not complete"),
    "data after the end": (tar(("a", b"")) + tar(("b", b"")), "data after its end"),
    "whiteout": (tar((".wh.a", b"")), "removes files"),
    "zip bomb": (gzip.compress(b"\0" * 40_000_000), "larger than"),
    "bomb in a tar": (lzma.compress(tar(("a", b"\0" * 40_000_000))), "larger than"),
    "claims to be huge": (tar(("a", {"size": 1 << 40})), ""),
    "gzip cut off": (gzip.compress(tar(*CATALOG))[:-20], "cannot be decompressed"),
    "gzip with a tail": (gzip.compress(tar(*CATALOG)) + b"tail", "cannot be decompressed"),
    "xz cut off": (lzma.compress(tar(*CATALOG))[:-20], "cannot be decompressed"),
    "xz with a tail": (lzma.compress(tar(*CATALOG)) + b"tail", "cannot be decompressed"),
    "xz that wants memory": (lzma.compress(tar(*CATALOG), filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 29}]), "Memory usage limit"),
    "bz2 cut off": (bz2.compress(tar(*CATALOG))[:-20], "cannot be decompressed"),
    "zstd": (b"\x28\xb5\x2f\xfd....", "zstd"),
    "gzip of no tar": (gzip.compress(b"text"), "is compressed but no tar"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_leaves_nothing(files: Files, name: str) -> None:
    content, expected = ATTACKS[name]
    if name == "claims to be huge":
        content, expected = content[:2048], "is not complete"
    error = files.refuse(files.put("c.tgz", content), expected, megabytes_max=8)
    assert not error.retry
    assert not (files.source.parent / "x").exists()


def test_a_wrong_checksum_is_refused(files: Files) -> None:
    content = bytearray(tar(("a", b"x"), ("b", b"y")))
    content[1024] ^= 1  # the name of the second entry
    files.refuse(files.put("c", bytes(content)), "wrong checksum")


def test_too_many_entries(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar(*((f"f{number}", b"") for number in range(11))))
    (tmp_path / "out").mkdir()
    with pytest.raises(BadArchive, match="more than 10 entries"):
        Unpacker(tmp_path / "out", UnpackLimits(entries_max=10)).unpack(archive, "a")


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_damaged_tar_never_leaves_the_folder(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(tar(*CATALOG, kind=data.draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    for at in range(0, len(content) - 511, 512):  # most changes are found by the checksum: make it right
        if content[at + 257 : at + 262] == b"ustar":
            block = content[at : at + 512]
            found = sum(block[:148]) + 256 + sum(block[156:])
            content[at + 148 : at + 156] = b"%06o\0 " % found
    outer = tmp_path_factory.mktemp("damaged")
    (outer / "a.tar").write_bytes(content)
    (outer / "tree").mkdir()
    try:
        Unpacker(outer / "tree", UnpackLimits(1 << 20, 100)).unpack(outer / "a.tar", "plain")
    except BadArchive as error:
        assert "\n" not in str(error)  # noqa: PT017
    assert sorted(os.listdir(outer)) == ["a.tar", "tree"]
    for each in (outer / "tree").rglob("*"):
        assert each.resolve().is_relative_to(outer / "tree")
        assert not each.lstat().st_mode & 0o7000


@given(st.binary(max_size=2000))
def test_any_bytes_are_a_tar_or_refused(content: bytes) -> None:
    source = io.BytesIO(content)
    try:
        for entry in tar_reader.entries(source):
            source.read(entry.size)
    except tar_reader.BadTar as error:
        assert "\n" not in str(error)  # noqa: PT017


# ---------------------------------------------------------------------- places


def test_only_from_permitted_places(files: Files, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"x")
    error = files.refuse(Artifact(str(tmp_path / "elsewhere"), sha256(b"x")), "is not below a prefix in `from`")
    assert not error.retry
    files.refuse(Artifact(str(files.source / "c"), sha256(b"x")), "nowhere", sources=())
    files.refuse(Artifact("ftp://x/y", sha256(b"x")), "is not usable")
    files.refuse(Artifact(f"{files.source}/../elsewhere", sha256(b"x")), "is not usable")


def test_what_is_no_file(files: Files) -> None:
    (files.source / "folder").mkdir()
    os.mkfifo(files.source / "fifo")
    for name, expected in {
        "none": "No such file",
        "folder": "is not a file",
        "fifo": "is not a file",
    }.items():
        files.refuse(Artifact(str(files.source / name), "a" * 64), expected)
    files.refuse(files.put("large", b"x" * (1 << 20) + b"x"), "is larger than artifact_mb_max", megabytes_max=1)


class Handler(http.server.BaseHTTPRequestHandler):
    """`answers`: path -> status, headers, body."""

    answers: dict[str, tuple[int, dict[str, str], bytes]]

    def do_GET(self) -> None:
        status, headers, body = self.answers[self.path]
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def web() -> Iterator[tuple[str, dict[str, tuple[int, dict[str, str], bytes]]]]:
    answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Handler,), {"answers": answers}))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", answers
    server.shutdown()
    thread.join()
    server.server_close()


def test_over_http(files: Files, tmp_path: Path, web: tuple[str, dict[str, Any]]) -> None:
    base, answers = web
    rules: dict[str, Any] = {"sources": (parse_prefix(f"{base}/ok/"),), "timeout_s": 20.0}
    answers["/ok/c"] = (200, {}, SIGNED)
    answers["/ok/moved"] = (302, {"location": "c"}, b"")
    answers["/ok/out"] = (302, {"location": "/secret"}, b"")
    answers["/secret"] = (200, {}, SIGNED)
    answers["/ok/up"] = (302, {"location": f"{base}/ok/%2e%2e/secret"}, b"")
    answers["/ok/file"] = (302, {"location": "file:///etc/passwd"}, b"")
    answers["/ok/loop"] = (307, {"location": "/ok/loop"}, b"")
    answers["/ok/none"] = (404, {}, b"")
    answers["/ok/later"] = (503, {}, b"")
    answers["/ok/zipped"] = (200, {"content-encoding": "gzip"}, gzip.compress(SIGNED))
    answers["/ok/short"] = (200, {"content-length": "100"}, SIGNED)
    answers["/ok/long"] = (200, {"content-length": str(1 << 40)}, b"")
    answers["/ok/many"] = (200, {}, b"x" * ((1 << 20) + 1))
    digest = sha256(SIGNED)
    for path, expected, retry in (
        ("/secret", "is not below a prefix", False),
        ("/ok/out", f"{base}/secret is not below a prefix", False),
        ("/ok/up", "/secret", False),
        ("/ok/file", "not", False),
        ("/ok/loop", "more than 5 redirects", False),
        ("/ok/none", "answered 404", False),
        ("/ok/later", "answered 503", True),
        ("/ok/zipped", "content encoding", False),
        ("/ok/short", "could not be fetched", True),
        ("/ok/long", "larger than artifact_mb_max (1 MiB)", False),
        ("/ok/many", "larger than artifact_mb_max (1 MiB)", False),
    ):
        error = files.refuse(Artifact(base + path, digest), expected, **rules, megabytes_max=1)
        assert error.retry == retry, path
    closed = base.rpartition(":")[0] + ":1/"
    assert files.refuse(Artifact(closed + "c", digest), "could not be", sources=(parse_prefix(closed),)).retry
    key = tmp_path / "release.pub"
    key.write_text(KEY)
    answers["/ok/c.minisig"] = (404, {}, b"")
    files.refuse(Artifact(base + "/ok/c", digest), "is not signed", **rules, keys=(str(key),))
    answers["/ok/c.minisig"] = (200, {}, PREHASHED.encode())
    assert os.listdir(files.fetch(Artifact(base + "/ok/c", digest), **rules, keys=(str(key),))) == ["c"]
    asyncio.run(files.store.keep(()))
    assert os.listdir(files.fetch(Artifact(base + "/ok/moved", digest), **rules)) == ["moved"]


def test_a_server_that_never_ends(files: Files) -> None:
    class Slow(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            gone.wait(20)

        def log_message(self, format: str, *args: Any) -> None: ...

    gone = threading.Event()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        base = f"http://127.0.0.1:{server.server_address[1]}/"
        rules: dict[str, Any] = {"sources": (parse_prefix(base),), "timeout_s": 0.5}
        assert files.refuse(Artifact(base + "c", "a" * 64), "within 0.5 s", **rules).retry
    finally:
        gone.set()
        server.shutdown()
        thread.join()
        server.server_close()


# ---------------------------------------------------------------------- OCI layouts


def layout(files: Files, *layers: bytes | tuple[str, bytes], **more: Any) -> Artifact:
    blobs = files.source / "image" / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    listed: list[dict[str, Any]] = []
    for layer in layers:
        title, content = layer if isinstance(layer, tuple) else ("", layer)
        (blobs / sha256(content)).write_bytes(content)
        notes = {"annotations": {"org.opencontainers.image.title": title}} if title else {}
        listed.append({"digest": f"sha256:{sha256(content)}", "size": len(content), **notes})
    manifest = json.dumps({"schemaVersion": 2, "layers": listed, **more}).encode()
    (blobs / sha256(manifest)).write_bytes(manifest)
    return Artifact(f"oci:{files.source}/image", sha256(manifest))


def test_an_oci_layout(files: Files) -> None:
    first, second = tar(("a", b"1"), ("b/c", b"2")), gzip.compress(tar(("a", b"3"), ("b/d", b"4")))
    folder = files.fetch(layout(files, first, second, ("tool", b"plain")))
    found = {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}
    assert found == {"a": b"3", "b/c": b"2", "b/d": b"4", "tool": b"plain"}


def test_attacks_on_an_oci_layout(files: Files) -> None:
    link = tar(("a", {"type": SYM, "linkname": "b"}))
    files.refuse(layout(files, link, tar(("a/x", b""))), "layer 1 has something below 'a'")
    files.refuse(layout(files, tar((".wh.a", b""))), "removes files")
    files.refuse(layout(files, ("../x", b"plain")), "leaves its folder")
    files.refuse(layout(files), "has 0 layers")
    files.refuse(layout(files, manifests=[]), "that of an index")
    files.refuse(layout(files, layers=[{"digest": "md5:" + "a" * 64}]), "not sha256")
    files.refuse(layout(files, layers=[{"digest": "sha256:../../../../etc/passwd"}]), "not sha256")
    files.refuse(layout(files, layers=[{}]), "manifest is damaged")
    files.refuse(layout(files, layers=7), "manifest is damaged")
    files.refuse(layout(files, layers=[{"digest": "sha256:" + "a" * 64}]), "No such file")
    files.refuse(layout(files, b"x" * 700_000, b"y" * 700_000), "larger than", megabytes_max=1)
    good = layout(files, tar(("a", b"1")))
    blob = files.source / "image/blobs/sha256" / sha256(tar(("a", b"1")))
    blob.write_bytes(tar(("a", b"2")))
    files.refuse(good, "has the SHA-256")
    (files.source / "image/blobs/sha256" / good.sha256).write_bytes(b"{}")
    files.refuse(good, "has the SHA-256")


def test_a_signed_oci_layout(files: Files, tmp_path: Path) -> None:
    keys = (str(tmp_path / "release.pub"),)
    Path(keys[0]).write_text(KEY)
    artifact = layout(files, tar(("a", b"1")))
    files.refuse(artifact, "is not signed", keys=keys)
    (files.source / "image" / f"{artifact.sha256}.minisig").write_text(PREHASHED)
    files.refuse(artifact, "does not match the file", keys=keys)


# ---------------------------------------------------------------------- the disk


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small disk")
def test_a_full_disk_leaves_nothing(files: Files, tmp_path: Path) -> None:
    artifact = files.put("c.tgz", gzip.compress(tar(("a", os.urandom(3_000_000)))))
    files.store_folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", files.store_folder], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        error = files.refuse(artifact, "No space left", "machine")
        assert error.retry
        subprocess.run(["mount", "-o", "remount,size=9m", files.store_folder], check=True)
        assert files.fetch(artifact)
    finally:
        subprocess.run(["umount", files.store_folder], check=True)
