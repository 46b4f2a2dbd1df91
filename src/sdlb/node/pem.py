"""The files of sites and of the node's identity: certificates, keys, CAs.

The engine validates their content; this module checks that the files are readable, and which other users can read the keys.
"""

from __future__ import annotations

import os
import stat

from sdlb.adapters.regular_file import EXPOSED, NotRegular, read_with_status
from sdlb.model.front import PAGE_BYTES_MAX
from sdlb.model.identity import Identity, IdentitySpec
from sdlb.model.problem import Invalid
from sdlb.model.site import PemFile, Site, SiteSpec
from sdlb.node.config_reader import CODE
from sdlb.node.dh_check import PEM

FILE_BYTES_MAX = 1 << 20
FileStamp = tuple[int, int, int, int, int]
Stamp = tuple[FileStamp | None, ...]
"""For each file of a site: device, inode, size, times of its content and of its attributes; None: stat fails."""


def stamp(spec: SiteSpec | IdentitySpec) -> Stamp:
    """A value that changes when a file is written, replaced or given other permissions. Links are followed."""
    return tuple(_stamp(file.path) for file in spec.files())


def _stamp(path: str) -> FileStamp | None:
    try:
        return _of(os.stat(path))
    except OSError:
        return None


def _of(found: os.stat_result) -> FileStamp:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class Reading:
    """What was noticed while files were read. `exposed`: what is wrong with the permissions of key files, one clause each.
    `stamps`: of the files by their paths, from before they were read, so that a later change is seen."""

    def __init__(self) -> None:
        self.exposed: list[str] = []
        self.stamps: dict[str, FileStamp] = {}


def read_site(spec: SiteSpec, seen: Reading | None = None) -> Site:
    """Raises Invalid, which names the file."""
    seen = seen or Reading()
    front = spec.front
    return Site(
        key=spec.key,
        hosts=spec.hosts,
        certificates=tuple([_read_pair(chain, key, seen) for chain, key in spec.certificates]),
        client_ca=b"" if spec.client_ca is None else _read(spec.client_ca, seen, has_key=False),
        client_required=spec.client_required,
        redirects=front.redirects,
        fields=front.fields,
        pages=tuple([(statuses, _read_page(file, seen)) for statuses, file in front.pages]),
        dh=_read_dh(spec, seen),
        tls_min=spec.tls_min,
        tickets=spec.tickets,
    )


def _read_dh(spec: SiteSpec, seen: Reading) -> bytes:
    """Raises Invalid."""
    if spec.dh is None:
        return b""
    do = f"run: sdlb tls dhparam {spec.key}"
    if not os.path.exists(spec.dh.path):
        raise Invalid(CODE, spec.dh.where, f"needs the site's own DH parameters, but there is no {spec.dh.path}", do)
    found = PEM.search(_read(spec.dh, seen, has_key=False).decode("ascii", "replace"))
    if found is None:
        raise Invalid(CODE, spec.dh.where, f"the file {spec.dh.path} has no DH parameters", f"{do} --renew")
    return found[0].encode("ascii")


def read_identity(spec: IdentitySpec) -> tuple[Identity, list[str]]:
    """The node's own certificate, and what is wrong with the permissions of its key file. Raises Invalid."""
    seen = Reading()
    return Identity(_read_pair(spec.certificate, spec.key, seen), _read(spec.ca, seen, has_key=False)), seen.exposed


def _read_pair(chain: PemFile, key: PemFile | None, seen: Reading) -> bytes:
    if key is None:
        return _read(chain, seen)
    return _read(chain, seen, has_key=False) + b"\n" + _read(key, seen)


def _read_page(file: PemFile, seen: Reading) -> bytes:
    """Raises Invalid."""
    content, _ = _content(file, seen, PAGE_BYTES_MAX, "64 KiB", "an HTML file")
    return content


def _read(file: PemFile, seen: Reading, *, has_key: bool = True) -> bytes:
    """`has_key`: it may have a private key, so its permissions matter. Raises Invalid."""
    path = file.path
    content, mode = _content(file, seen, FILE_BYTES_MAX, "1 MiB", "a PEM file")
    if has_key and mode & EXPOSED and b"PRIVATE KEY" in content:
        text = f"the private key in {path} is readable by others (mode {mode:04o}); run: chmod 600 {path}"
        seen.exposed.append(text)
    return content


def _content(file: PemFile, seen: Reading, bytes_max: int, shown_max: str, kind: str) -> tuple[bytes, int]:
    """The content and the permissions. Raises Invalid."""
    path = file.path
    try:
        content, status = read_with_status(path, bytes_max)
    except NotRegular:
        raise Invalid(CODE, file.where, f"the file {path} is not a regular file", f"name {kind}") from None
    except OSError as error:
        what = f"the file {path} cannot be read ({error.strerror})"
        raise Invalid(CODE, file.where, what, f"name {kind} that this user can read") from None
    if not content.strip():
        raise Invalid(CODE, file.where, f"the file {path} is empty", "write its text to it, or name another file")
    if len(content) > bytes_max:
        raise Invalid(CODE, file.where, f"the file {path} is longer than {shown_max}", f"name {kind}")
    seen.stamps.setdefault(path, _of(status))  # a file that is named twice and changes meanwhile is read again
    return content, stat.S_IMODE(status.st_mode)
