"""How node links are secured: `[identity]` and `insecure` of the node file, and where unencrypted links are allowed."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import NoReturn

from sdlb.model.address import host_of, is_loopback
from sdlb.model.identity import IdentitySpec
from sdlb.model.problem import Invalid
from sdlb.model.site import PemFile
from sdlb.node.config_reader import Reader

KEYS = ("certificate", "key", "ca")
DO = (
    "an [identity] with the node's certificate, key and CA (docs/guide/links.md), or set insecure = true (option "
    "--insecure) to allow unencrypted links on a private network"
)


def read_identity(top: Reader) -> IdentitySpec | None:
    """The identity; None without one. Raises Invalid."""
    if "identity" not in top:
        return None
    table = top.table("identity", KEYS)
    certificate, key, ca = (_file(table, name) for name in KEYS)
    if certificate is None:
        do = "name a PEM file with the node's certificate and its intermediate certificates"
        table.refuse("certificate", "is missing or empty", do)
    if ca is None:
        table.refuse("ca", "is missing or empty", "name a PEM file with the CAs that issue the nodes' certificates")
    return IdentitySpec(certificate, key, ca)


def _file(table: Reader, name: str) -> PemFile | None:
    path = table.path(name)
    return None if path is None else PemFile(str(path), table.place(name))


class Links:
    """Checks the node file and the command line together. `node_listen`, `parents`: whether these come from options."""

    def __init__(self, top: Reader, listen: Reader, *, node_listen: bool, parents: bool) -> None:
        self._top, self._listen = top, listen
        self._node_listen, self._parents = node_listen, parents

    def check(self, address: str, parents: Sequence[str], insecure: bool, identity: IdentitySpec | None) -> None:
        """Unencrypted links are allowed on this machine only, or with `insecure` in private networks. Raises
        Invalid."""
        top = self._top
        if identity is not None:
            if insecure:
                top.refuse("insecure", "is true although there is an [identity]", "remove one of the two")
            return
        if "insecure" in top and not insecure:
            top.refuse("insecure", "is false and there is no [identity]", f"give {DO}")
        ip = ipaddress.ip_address(host_of(address))
        if ip.is_global:
            do = "a loopback or private address (unencrypted node links must not cross the internet), or an [identity]"
            self.refuse_listen(address, do)
        if insecure:
            return
        if not ip.is_loopback:
            self.refuse_listen(address, f"a loopback address, or {DO}")
        for parent in parents:
            if not is_loopback(parent):
                self._refuse_parent(parent)

    def refuse_listen(self, address: str, expected: str) -> NoReturn:
        """The option or the line that holds the setting."""
        if not self._node_listen and "node" in self._listen:
            self._listen.fail("node", expected)
        where = "--node-listen" if self._node_listen else "--node-listen (its default)"
        raise Invalid("usage", where, f"has the value {address!r}", f"expected {expected}")

    def _refuse_parent(self, parent: str) -> NoReturn:
        what, do = f"has {parent!r}, which is on another machine", f"give {DO}"
        if self._parents:
            raise Invalid("usage", "--parent", what, do)
        self._top.refuse("parents", what, do)
