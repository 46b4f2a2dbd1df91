"""Text of users in HAProxy's maps and commands.

Names, routes and addresses come from users. The configuration holds none of them, and commands and maps hold them encoded
as HAProxy's converter `url_enc` does, so that no name can end a word, a line, a payload or a command.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from sdlb.model.address import NAME

NODE = "n"
"""Marks the slots and servers of child nodes."""
IDENTITY, CAS = "identity.pem", "ca.pem"
SLOT, UNSAFE = "g", "u"
"""Begin the names of a slot's two backends. The second has the child nodes too, for requests that may not be repeated."""
_ADDRESS = re.compile(r"^(?:(?:\[[0-9A-Fa-f:.]+\]|[0-9.]+):[0-9]{1,5}|unix:/[A-Za-z0-9._/@+~=-]{1,100})\Z")


def encode(text: str) -> str:
    """As `url_enc`: everything but letters, digits and `-._~` as %XX of its UTF-8 bytes. A prefix stays a prefix."""
    return quote(text, safe="")


def decode(text: str) -> str:
    return unquote(text)


def server_address(endpoint: str) -> str | None:
    """The address of a server as HAProxy writes it. None: HAProxy cannot connect to it."""
    if not _ADDRESS.match(endpoint):
        return None
    return f"unix@{endpoint[5:]}" if endpoint.startswith("unix:") else endpoint


def quoted(text: str) -> str:
    """A word of the configuration. Raises ValueError for text that no quotes can hold."""
    if not text.isprintable():
        raise ValueError("has a character that cannot stand in HAProxy's configuration")
    return "'" + text.replace("'", "'\\''") + "'"


def of_slot(name: str) -> str:
    """The name in the slot's first backend: "u7/s1" -> "g7/s1"."""
    return SLOT + name[1:]


def is_node_name(text: str) -> bool:
    """Whether a command may name the node."""
    return bool(NAME.match(text))


def is_node(target: str) -> bool:
    """Whether the target of an endpoint is a child node (`core/source.py`)."""
    return target.startswith("n:")


def node_words(target: str, *, chooses_sni: bool) -> str:
    """How a server reaches a child node over mutual TLS, as in `add server`. `chooses_sni`: see `program.py`."""
    name = target.removeprefix("n:")
    return (
        f"ssl crt {IDENTITY} ca-file {CAS} verify required verifyhost {name} ssl-min-ver TLSv1.3 no-ssl-reuse"
        " alpn sdlb/1 proto h2"
    ) + (" no-sni-auto" if chooses_sni else "")
