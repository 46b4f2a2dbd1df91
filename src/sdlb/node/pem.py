"""The files of sites and of the node's identity: certificates, keys, CAs.

The engine validates their content; this module checks that the files are readable, and which other users can read the keys.
"""

from __future__ import annotations

import os
import stat

from sdlb.model.identity import Identity, IdentitySpec
from sdlb.model.problem import Invalid
from sdlb.model.site import PemFile, Site, SiteSpec
from sdlb.node.config_reader import CODE

FILE_BYTES_MAX = 1 << 20
EXPOSED = 0o027
"""Permissions that a key file must not have: any for others, write for the group. That a group may read it is common
practice (Debian's ssl-cert)."""
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
    return Site(spec.key, spec.hosts, tuple(certificates), authorities, spec.client_required), exposed


def read_identity(spec: IdentitySpec) -> tuple[Identity, list[str]]:
    """The same for the node's own certificate."""
    exposed: list[str] = []
    return Identity(_read_pair(spec.certificate, spec.key, exposed), _read(spec.ca, None)), exposed


def _read_pair(chain: PemFile, key: PemFile | None, exposed: list[str]) -> bytes:
    if key is None:
        return _read(chain, exposed)
    return _read(chain, None) + b"\n" + _read(key, exposed)


def _read(file: PemFile, exposed: list[str] | None) -> bytes:
    """If the file holds a key, appends to `exposed` what is wrong with its permissions."""
    path = file.path
    try:
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)  # a FIFO must not block
        try:
            found = os.fstat(opened)
            if not stat.S_ISREG(found.st_mode):
                raise Invalid(CODE, file.where, f"the file {path} is not a regular file", "name a PEM file")
            content = b""
            while len(content) <= FILE_BYTES_MAX and (more := os.read(opened, FILE_BYTES_MAX + 1 - len(content))):
                content += more
        finally:
            os.close(opened)
    except OSError as error:
        what = f"the file {path} cannot be read ({error.strerror})"
        raise Invalid(CODE, file.where, what, "name a PEM file that this user can read") from None
    if not content.strip():
        raise Invalid(CODE, file.where, f"the file {path} is empty", "write the PEM text to it, or name another file")
    if len(content) > FILE_BYTES_MAX:
        raise Invalid(CODE, file.where, f"the file {path} is longer than 1 MiB", "name a PEM file")
    mode = stat.S_IMODE(found.st_mode)
    if exposed is not None and mode & EXPOSED and b"PRIVATE KEY" in content:
        exposed.append(f"the private key in {path} is readable by others (mode {mode:04o}); run: chmod 600 {path}")
    return content
