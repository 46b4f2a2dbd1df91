"""The certificate with which a node authenticates to other nodes (`[identity]` in the node file)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from msgspec import Struct

from sdlb.model.site import PemFile


class IdentitySpec(Struct, frozen=True):
    """The files that the node file names.

    `key` None: the private key is in the certificate's file. `ca`: the CA certificates that signed the nodes' certificates.
    """

    certificate: PemFile
    key: PemFile | None
    ca: PemFile

    def files(self) -> Iterator[PemFile]:
        yield self.certificate
        if self.key is not None:
            yield self.key
        yield self.ca


@dataclass(frozen=True, slots=True)
class Identity:
    """The content of those files. `pem`: the chain, leaf certificate first, and the private key. `ca`: PEM."""

    pem: bytes = field(repr=False)
    ca: bytes = field(repr=False)
