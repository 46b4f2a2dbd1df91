"""The files of sites and of the node's identity: certificates, keys, CAs.

The engine validates their content; this module checks that the files are readable, and which other users can read the keys.
"""

from __future__ import annotations

import os
import stat
from dataclasses import replace

from sdlb.adapters.regular_file import EXPOSED, NotRegular, open_regular, read_most
from sdlb.model.front import PAGE_BYTES_MAX
from sdlb.model.identity import Identity, IdentitySpec
from sdlb.model.problem import Invalid
from sdlb.model.site import PemFile, Site, SiteSpec
from sdlb.node.config_reader import CODE
from sdlb.node.dh_check import PEM

FILE_BYTES_MAX = 1 << 20
Stamp = tuple[tuple[int, int, int, int, int] | None, ...]
"""For each file of a site: device, inode, size, times of its content and of its attributes; None: stat fails."""


def stamp(spec: SiteSpec | IdentitySpec) -> Stamp:
    """A value that changes when a file is written, replaced or given other permissions. Links are followed."""
    return tuple(_stamp(file.path) for file in spec.files())


def _stamp(path: str) -> tuple[int, int, int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read_site(spec: SiteSpec) -> tuple[Site, list[str]]:
    """The site, and what is wrong with the permissions of its key files, one clause each. Raises Invalid, which
    names the file."""
    exposed: list[str] = []
    certificates = [_read_pair(chain, key, exposed) for chain, key in spec.certificates]
    authorities = b"" if spec.client_ca is None else _read(spec.client_ca, None)
    front = spec.front
    pages = tuple((statuses, _read_page(file)) for statuses, file in front.pages)
    site = Site(spec.key, spec.hosts, tuple(certificates), authorities, spec.client_required)
    return replace(site, redirects=front.redirects, fields=front.fields, pages=pages, dh=_read_dh(spec)), exposed


def _read_dh(spec: SiteSpec) -> bytes:
    """Raises Invalid."""
    if spec.dh is None:
        return b""
    do = f"run: sdlb tls dhparam {spec.key}"
    if not os.path.exists(spec.dh.path):
        raise Invalid(CODE, spec.dh.where, f"needs the site's own DH parameters, but there is no {spec.dh.path}", do)
    found = PEM.search(_read(spec.dh, None).decode("ascii", "replace"))
    if found is None:
        raise Invalid(CODE, spec.dh.where, f"the file {spec.dh.path} has no DH parameters", f"{do} --renew")
    return found[0].encode("ascii")


def read_identity(spec: IdentitySpec) -> tuple[Identity, list[str]]:
    """The same for the node's own certificate."""
    exposed: list[str] = []
    return Identity(_read_pair(spec.certificate, spec.key, exposed), _read(spec.ca, None)), exposed


def _read_pair(chain: PemFile, key: PemFile | None, exposed: list[str]) -> bytes:
    if key is None:
        return _read(chain, exposed)
    return _read(chain, None) + b"\n" + _read(key, exposed)


def _read_page(file: PemFile) -> bytes:
    """Raises Invalid."""
    content, _ = _content(file, PAGE_BYTES_MAX, "64 KiB", "an HTML file")
    return content


def _read(file: PemFile, exposed: list[str] | None) -> bytes:
    """If the file holds a key, appends to `exposed` what is wrong with its permissions."""
    path = file.path
    content, mode = _content(file, FILE_BYTES_MAX, "1 MiB", "a PEM file")
    if exposed is not None and mode & EXPOSED and b"PRIVATE KEY" in content:
        exposed.append(f"the private key in {path} is readable by others (mode {mode:04o}); run: chmod 600 {path}")
    return content


def _content(file: PemFile, bytes_max: int, shown_max: str, kind: str) -> tuple[bytes, int]:
    """The content and the permissions. Raises Invalid."""
    path = file.path
    try:
        with open_regular(path) as opened:
            mode = os.fstat(opened.fileno()).st_mode
            content = read_most(opened, bytes_max)
    except NotRegular:
        raise Invalid(CODE, file.where, f"the file {path} is not a regular file", f"name {kind}") from None
    except OSError as error:
        what = f"the file {path} cannot be read ({error.strerror})"
        raise Invalid(CODE, file.where, what, f"name {kind} that this user can read") from None
    if not content.strip():
        raise Invalid(CODE, file.where, f"the file {path} is empty", "write its text to it, or name another file")
    if len(content) > bytes_max:
        raise Invalid(CODE, file.where, f"the file {path} is longer than {shown_max}", f"name {kind}")
    return content, stat.S_IMODE(mode)
