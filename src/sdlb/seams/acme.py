"""Interface to a CA that issues certificates (ACME, RFC 8555)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct, field

from sdlb.model.acme import AcmeSettings
from sdlb.seams.certificates import CertificateStore, CertificateTools

PENDING, READY, PROCESSING, VALID, INVALID = "pending", "ready", "processing", "valid", "invalid"
"""States of orders; authorizations and challenges have PENDING, PROCESSING, VALID and INVALID (RFC 8555, section 7.1.6)."""


class AcmeFailed(Exception):
    """`kind`: as in `core.certificates`. `retry_after_s`: as the CA asked; None: it did not. `problem`: the last part of
    the type of its problem document, "" without one. `status`: of its answer, 0 without one."""

    def __init__(
        self, kind: str, text: str, *, retry_after_s: float | None = None, problem: str = "", status: int = 0
    ) -> None:
        super().__init__(text)
        self.kind = kind
        self.retry_after_s = retry_after_s
        self.problem = problem
        self.status = status


class OrderState(Struct, frozen=True):
    """`authorizations`: their URLs. `error`: why the order is invalid."""

    url: str
    status: str
    authorizations: tuple[str, ...] = ()
    finalize: str = ""
    certificate: str = ""
    error: str = ""
    retry_after_s: float | None = None


class Offer(Struct, frozen=True):
    """A challenge of an authorization."""

    url: str
    kind: str
    status: str
    token: str = ""
    error: str = ""


class Authorization(Struct, frozen=True):
    """`host`: without `*.`; `wildcard`: it is for the names below."""

    url: str
    host: str
    status: str
    wildcard: bool = False
    offers: Mapping[str, Offer] = field(default_factory=dict[str, Offer])
    retry_after_s: float | None = None


class RenewalWindow(Struct, frozen=True):
    """`explanation`: URL of a page about it, "" without one."""

    start_s: float
    end_s: float
    retry_after_s: float | None = None
    explanation: str = ""


class AcmeServer(Protocol):
    """Every call raises AcmeFailed. `open` comes first; it may be called again at any time and costs nothing when it is not
    needed."""

    @property
    def account(self) -> str:
        """URL of the account; "" before `open`."""
        ...

    @property
    def windows(self) -> bool:
        """Whether the CA suggests renewal windows. Known after `open`."""
        ...

    async def open(self) -> None:
        """Reads the directory and finds the account, or creates it."""
        ...

    async def new_order(self, hosts: Sequence[str], replaces: str) -> OrderState:
        """`replaces`: identifies the certificate that this order renews (RFC 9773, section 4.1); "": none."""
        ...

    async def order(self, url: str) -> OrderState: ...

    async def authorization(self, url: str) -> Authorization: ...

    def key_authorization(self, token: str) -> str:
        """The proof for a challenge's token (RFC 8555, section 8.1)."""
        ...

    async def answer(self, offer: Offer) -> None:
        """Reports that the challenge can be validated."""
        ...

    async def finalize(self, order: OrderState, request: bytes) -> OrderState:
        """`request`: the certificate signing request, DER."""
        ...

    async def certificate(self, order: OrderState) -> bytes:
        """The chain as PEM, the leaf first."""
        ...

    async def window(self, certificate_id: str) -> RenewalWindow: ...

    async def revoke(self, pem: bytes, reason: str) -> bool:
        """Revokes a certificate. `pem`: its chain and key. `reason`: of `model.acme.REASONS`. May be called without `open`.
        Returns False when it was revoked before."""
        ...

    async def close(self) -> None: ...


class AcmeParts(Protocol):
    """What a node needs to order certificates."""

    @property
    def store(self) -> CertificateStore: ...

    @property
    def tools(self) -> CertificateTools: ...

    def server(self, settings: AcmeSettings) -> AcmeServer:
        """Raises OSError when the key of the account cannot be written."""
        ...

    async def run_hook(self, command: Sequence[str], about: Mapping[str, str]) -> None:
        """Runs the program of dns-01 with these variables. Raises AcmeFailed unless it exits with code 0."""
        ...
