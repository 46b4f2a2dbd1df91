"""The store of unpacked artifacts: `store/<sha256>`, which exists only if it is complete and was verified.

An artifact is copied into a temporary folder, its digest (and signature) is verified, it is unpacked there, written to disk, and
renamed. Whatever fails, the temporary folder is removed; what a killed control left behind is removed by the next one.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, cast

from sdlb.adapters import minisign
from sdlb.adapters.artifact_fetch import Copied, Fetcher, artifact_failed, copy_file, permitted
from sdlb.adapters.minisign import BadSignature, PublicKey
from sdlb.adapters.regular_file import read_regular
from sdlb.adapters.unpack import BadArchive, Unpacker, UnpackLimits
from sdlb.model.location import Location
from sdlb.model.release import Artifact
from sdlb.model.role import ArtifactRules
from sdlb.seams.driver import DriverFailed

UNPACKED_FACTOR = 4
"""An artifact may be so many times larger when it is unpacked."""
LAYERS_MAX = 32
MANIFEST_BYTES_MAX = 4 << 20
_DIGEST = re.compile(r"^[0-9a-f]{64}\Z")
_TEMPORARY = ".fetch-"
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")


class ArtifactStore:
    """`folder`: used by one control only (it holds the lock of the state folder)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fetcher = Fetcher()
        self._busy: dict[str, asyncio.Lock] = {}
        for left in folder.glob(f"{_TEMPORARY}*"):
            _remove(left)

    def path(self, sha256: str) -> Path | None:
        """The unpacked artifact."""
        found = self._folder / sha256
        return found if found.is_dir() else None

    async def keep(self, digests: Collection[str]) -> list[str]:
        """Removes all others, which are out of sight before this first waits. -> what was removed."""
        if not self._folder.is_dir():
            return []
        others = sorted(
            each.name for each in self._folder.iterdir() if each.name[0] != "." and each.name not in digests
        )
        gone: list[Path] = []
        for name in others:
            gone.append(Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self._folder)))
            os.rename(self._folder / name, gone[-1] / "old")  # a folder that is half removed must not look complete
        for folder in gone:
            await asyncio.to_thread(_remove, folder)
        return others

    async def fetch(self, artifact: Artifact, rules: ArtifactRules) -> Path:
        """The folder with the artifact; nothing is done if it is there. Raises DriverFailed."""
        if not _DIGEST.match(artifact.sha256):
            raise ValueError(f"not a digest: {artifact.sha256!r}")
        async with self._busy.setdefault(artifact.sha256, asyncio.Lock()):
            if (there := self.path(artifact.sha256)) is not None:
                return there
            place = permitted(artifact.url, rules)
            if place.scheme == "docker":
                artifact_failed(f"{place} is a container image, which only the driver container runs")
            try:
                return await self._fetch(artifact, place, rules)
            except OSError as error:
                text = f"{self._folder} cannot be written ({error.strerror or error})"
                raise DriverFailed("machine", text, retry=True) from None

    async def _fetch(self, artifact: Artifact, place: Location, rules: ArtifactRules) -> Path:
        self._folder.mkdir(exist_ok=True)
        self._folder.chmod(0o755)
        work = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self._folder))
        try:
            keys = _public_keys(rules.keys)
            tree = work / "tree"
            tree.mkdir()
            tree.chmod(0o755)  # the umask must not keep the user of the program out
            if place.scheme == "oci":
                await self._verify_layout(artifact, place, rules, keys, work)
                await asyncio.to_thread(_unpack_layout, place, artifact.sha256, rules, work)
            else:
                file = work / "file"
                copied = await self._fetcher.copy(place, rules, file, rules.megabytes_max << 20)
                _check_digest(place, artifact.sha256, copied.sha256)
                if keys:
                    await self._verify(artifact, f"{place}.minisig", rules, keys, copied, file, work)
                await asyncio.to_thread(_unpack, place, file, rules, tree)
            await asyncio.to_thread(os.sync)
            target = self._folder / artifact.sha256
            os.rename(tree, target)
            _sync_folder(self._folder)
            return target
        finally:
            await asyncio.shield(asyncio.to_thread(_remove, work))

    async def _verify_layout(
        self, artifact: Artifact, place: Location, rules: ArtifactRules, keys: Sequence[PublicKey], work: Path
    ) -> None:
        """The manifest has the digest, and it has those of the layers. The signature is over the manifest."""
        file = work / "manifest"
        copied = await asyncio.to_thread(copy_file, _blob(place, artifact.sha256), file, MANIFEST_BYTES_MAX)
        _check_digest(place, artifact.sha256, copied.sha256)
        if keys:
            default = f"{place.path.rstrip('/')}/{artifact.sha256}.minisig"
            if not artifact.signature:  # it is in the layout itself, which is permitted
                await self._verify_with(Location("file", "", default), rules, keys, copied, file, work)
            else:
                await self._verify(artifact, default, rules, keys, copied, file, work)

    async def _verify(
        self,
        artifact: Artifact,
        default: str,
        rules: ArtifactRules,
        keys: Sequence[PublicKey],
        copied: Copied,
        file: Path,
        work: Path,
    ) -> None:
        place = permitted(artifact.signature or default, rules)
        await self._verify_with(place, rules, keys, copied, file, work)

    async def _verify_with(
        self, place: Location, rules: ArtifactRules, keys: Sequence[PublicKey], copied: Copied, file: Path, work: Path
    ) -> None:
        text = work / "signature"
        try:
            await self._fetcher.copy(place, rules, text, minisign.TEXT_BYTES_MAX)
        except DriverFailed as error:
            what = f"the artifact is not signed, and the node file has keys: {error.text}"
            raise DriverFailed(error.fault, what, retry=error.retry) from None
        try:
            signature = minisign.parse_signature(text.read_text("utf-8", "replace"))
            whole = copied.size <= minisign.LEGACY_BYTES_MAX and not signature.prehashed
            content = await asyncio.to_thread(file.read_bytes) if whole else None
            await asyncio.to_thread(minisign.verify, signature, keys, copied.blake2b, content)
        except BadSignature as error:
            artifact_failed(f"the signature {place} {error}")


def _public_keys(files: Sequence[str]) -> list[PublicKey]:
    found: list[PublicKey] = []
    for name in files:
        try:
            found.append(
                minisign.parse_public_key(read_regular(name, minisign.TEXT_BYTES_MAX).decode("utf-8", "replace"))
            )
        except OSError as error:
            raise DriverFailed("machine", f"{name} cannot be read ({error.strerror})", retry=True) from None
        except BadSignature as error:
            raise DriverFailed("machine", f"{name} {error}", retry=False) from None
    return found


def _check_digest(place: object, wanted: str, found: str) -> None:
    if found != wanted:
        artifact_failed(f"{place} has the SHA-256 {found}, but the release has {wanted}")


def _limits(rules: ArtifactRules) -> UnpackLimits:
    return UnpackLimits(rules.megabytes_max * UNPACKED_FACTOR << 20)


def _unpack(place: Location, file: Path, rules: ArtifactRules, tree: Path) -> None:
    try:
        Unpacker(tree, _limits(rules)).unpack(file, place.name)
    except BadArchive as error:
        artifact_failed(f"{place} {error}")


# ---------------------------------------------------------------------- OCI layouts


def _blob(place: Location, sha256: str) -> Path:
    return Path(place.path) / "blobs" / "sha256" / sha256


def _unpack_layout(place: Location, sha256: str, rules: ArtifactRules, work: Path) -> None:
    unpacker = Unpacker(work / "tree", _limits(rules))
    left = rules.megabytes_max << 20
    for number, (digest, title) in enumerate(_layers(place, (work / "manifest").read_bytes())):
        file = work / f"layer-{number}"
        copied = copy_file(_blob(place, digest), file, left)
        _check_digest(_blob(place, digest), digest, copied.sha256)
        left -= copied.size
        try:
            unpacker.unpack(file, title)
        except BadArchive as error:
            artifact_failed(f"{place}, layer {number} {error}")
        file.unlink()


def _layers(place: Location, manifest: bytes) -> list[tuple[str, str]]:
    """(digest, name of the file if it is no archive) of each."""
    try:
        data: Any = json.loads(manifest)
        if data.get("mediaType") in _INDEXES or "manifests" in data:
            artifact_failed(f"{place}: the digest is that of an index; use the one of the manifest of one platform")
        layers = cast("list[dict[str, Any]]", data["layers"])
        found: list[tuple[str, str]] = []
        for layer in layers:
            algorithm, _, digest = str(layer["digest"]).partition(":")
            if algorithm != "sha256" or len(digest) != 64 or not digest.isalnum():
                artifact_failed(f"{place}: a layer has the digest {str(layer['digest'])[:80]!r}, not sha256")
            notes: Any = layer.get("annotations") or {}
            found.append((digest, str(notes.get("org.opencontainers.image.title", "layer"))))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        artifact_failed(f"{place}: the manifest is damaged")
    if not 0 < len(found) <= LAYERS_MAX:
        artifact_failed(f"{place}: the manifest has {len(found)} layers; 1 to {LAYERS_MAX} are supported")
    return found


# ---------------------------------------------------------------------- folders


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
