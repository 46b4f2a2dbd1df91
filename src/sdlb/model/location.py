"""Where an artifact is: an https or http URL, a file, an OCI layout folder, or a container image; and which places a role permits.

A text that two programs could read differently (dot segments, encoded slashes, user names) is refused, because the places that a
node file permits are compared with it.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from msgspec import Struct

from sdlb.model.address import check_host_port

CHARS_MAX = 2048
PORTS = {"https": 443, "http": 80}
_PRINTABLE = re.compile(r"^[!-~]+\Z")
_REFUSED = re.compile(r"[\\<>\"^`{|}#@]|%(?![0-9A-Fa-f]{2})|%(2e|2f|5c|00)", re.IGNORECASE)
_EXPECTED = "an https or http URL, an absolute path, oci: and the absolute path of an OCI layout, or docker:// and a container image"
_IMAGE = re.compile(r"(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)+\Z")
_EXPECTED_IMAGE = (
    'docker://, a registry with a dot or a port, and an image without tag and digest (the digest is in `sha256`), for example "docker://'
    'registry.example/team/catalog"'
)


class Location(Struct, frozen=True):
    """`scheme`: "https", "http", "file", "oci" or "docker". `host`: with its port, "" for the machine itself. `path`: absolute;
    that of a prefix ends with a slash. `query`: with its "?", or ""."""

    scheme: str
    host: str
    path: str
    query: str = ""

    def __str__(self) -> str:
        if self.scheme == "file":
            return self.path
        if self.scheme == "oci":
            return f"oci:{self.path}"
        return f"{self.scheme}://{self.host}{self.path}{self.query}"

    @property
    def name(self) -> str:
        """The last segment of the path."""
        return self.path.rstrip("/").rpartition("/")[2]

    def permits(self, other: Location) -> bool:
        """Whether this is a prefix of `other`."""
        same = (self.scheme, self.host) == (other.scheme, other.host)
        return same and other.path.startswith(self.path)


def parse_location(text: str) -> Location:
    """Raises ValueError with what was expected."""
    if len(text) > CHARS_MAX:
        raise ValueError(f"at most {CHARS_MAX} characters")
    if text.startswith("/"):
        return Location("file", "", _local(text))
    if text.startswith("oci:"):
        return Location("oci", "", _local(text[4:]))
    if text.startswith("docker:"):
        return _image(text)
    return _url(text)


def parse_prefix(text: str) -> Location:
    """A place and everything below it. Raises ValueError with what was expected."""
    if text.startswith("docker:") and text.endswith("/"):
        host = text.removeprefix("docker://").removesuffix("/")
        within = _image(text[:-1] if "/" in host else f"{text}any")
        return Location("docker", within.host, f"{within.path}/" if "/" in host else "/")
    found = parse_location(text)
    if found.query or not found.path.endswith("/"):
        raise ValueError('a prefix that ends with "/", for example "https://repo.example/"')
    return found


def _local(path: str) -> str:
    if not path.startswith("/") or not path.isprintable() or _has_odd_segment(path):
        raise ValueError(_EXPECTED)
    return path


def _url(text: str) -> Location:
    if not _PRINTABLE.match(text) or _REFUSED.search(text):
        raise ValueError(f"{_EXPECTED}; without user name, fragment and encoded dots or slashes")
    parts = urlsplit(text)
    if parts.scheme not in PORTS:
        raise ValueError(_EXPECTED)
    if _has_odd_segment(parts.path):
        raise ValueError(f"{_EXPECTED}; without dot segments and empty segments")
    return Location(
        parts.scheme,
        check_host_port(parts.netloc.lower(), PORTS[parts.scheme]),
        parts.path or "/",
        f"?{parts.query}" if parts.query else "",
    )


def _image(text: str) -> Location:
    """Without a dot or a port, a container engine takes the host for a part of the image's name at another registry."""
    name, slash, path = text.removeprefix("docker://").partition("/")
    if not text.startswith("docker://") or not _IMAGE.match(slash + path) or not _PRINTABLE.match(name):
        raise ValueError(_EXPECTED_IMAGE)
    host = check_host_port(name.lower(), PORTS["https"])
    if not set(host) & set(".:") and host != "localhost":
        raise ValueError(_EXPECTED_IMAGE)
    return Location("docker", host, slash + path)


def _has_odd_segment(path: str) -> bool:
    segments = path.split("/")[1:]
    return any(segment in (".", "..") for segment in segments) or "" in segments[:-1]
