"""A node's own certificate, by which other nodes know it (`[identity]` in the node file)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sdlb.model.site import PemFile


@dataclass(frozen=True, slots=True)
class IdentitySpec:
    """Its files. `key` None: the private key is in the certificate's file. `ca`: authorities of all nodes."""

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
    """What they had. `pem`: the chain, its own certificate first, and the private key."""

    pem: bytes = field(repr=False)
    ca: bytes = field(repr=False)
