"""A CA in memory behind `seams.acme.AcmeServer`: it validates by asking `sees`, and issues real certificates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from sdlb.adapters import acme_keys
from sdlb.adapters.certificate_files import CertificateFiles
from sdlb.core.certificates import REFUSED
from sdlb.model.acme import AcmeSettings
from sdlb.seams import acme
from sdlb.seams.acme import AcmeFailed, Authorization, Offer, OrderState, RenewalWindow

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fake CA")])


@dataclass
class FakeCa:
    """`fails`: raised by each call. `sees`: whether a proof for (host, token, key authorization) is visible. `wall`: its clock."""

    wall: Callable[[], float]
    lifetime_s: float = 90 * 86_400
    suggests: tuple[float, float] | None = None  # the renewal window
    fails: AcmeFailed | None = None
    sees: Callable[[str, str, str], bool] = lambda host, token, proof: True
    account: str = "https://ca/account/1"
    orders: list[tuple[tuple[str, ...], str]] = field(default_factory=list[tuple[tuple[str, ...], str]])
    revoked: list[tuple[bytes, str]] = field(default_factory=list[tuple[bytes, str]])
    _states: dict[str, str] = field(default_factory=dict[str, str])
    _chains: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def __post_init__(self) -> None:
        self._key = acme_keys.load_key(acme_keys.new_key())

    def _check(self) -> None:
        if self.fails is not None:
            raise self.fails

    async def open(self) -> None:
        self._check()

    def _order(self, url: str) -> OrderState:
        hosts = self.orders[int(url.rpartition("/")[2])][0]
        urls = tuple(f"https://ca/authz/{url.rpartition('/')[2]}/{host}" for host in hosts)
        return OrderState(
            url, self._states[url], urls, f"{url}/finalize", f"{url}/chain" if url in self._chains else ""
        )

    async def new_order(self, hosts: Sequence[str], replaces: str) -> OrderState:
        self._check()
        url = f"https://ca/order/{len(self.orders)}"
        self.orders.append((tuple(hosts), replaces))
        self._states[url] = acme.PENDING
        return self._order(url)

    async def order(self, url: str) -> OrderState:
        self._check()
        if url not in self._states:
            raise AcmeFailed(REFUSED, "no such order")
        return self._order(url)

    def _authorization(self, url: str, status: str) -> Authorization:
        _, number, host = url.rsplit("/", 2)
        token = f"token-{number}-{host}"
        offers = {kind: Offer(f"{url}/{kind}", kind, status, token) for kind in ("http-01", "tls-alpn-01", "dns-01")}
        return Authorization(url, host.removeprefix("*."), status, host.startswith("*."), offers)

    async def authorization(self, url: str) -> Authorization:
        self._check()
        order = f"https://ca/order/{url.rsplit('/', 2)[1]}"
        valid = self._states[order] != acme.PENDING
        return self._authorization(url, acme.VALID if valid else acme.PENDING)

    def key_authorization(self, token: str) -> str:
        return f"{token}.thumbprint"

    async def answer(self, offer: Offer) -> None:
        self._check()
        number, host = offer.token.removeprefix("token-").split("-", 1)
        if not self.sees(host.removeprefix("*."), offer.token, self.key_authorization(offer.token)):
            raise AcmeFailed(REFUSED, f"{host}: the proof is not visible")
        self._states[f"https://ca/order/{number}"] = acme.READY

    async def finalize(self, order: OrderState, request: bytes) -> OrderState:
        self._check()
        csr = x509.load_der_x509_csr(request)
        now = datetime.fromtimestamp(self.wall(), UTC)
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        leaf = (
            x509.CertificateBuilder()
            .subject_name(NAME)
            .issuer_name(NAME)
            .public_key(csr.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(seconds=self.lifetime_s))
            .add_extension(names, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self._chains[order.url] = leaf.public_bytes(serialization.Encoding.PEM)
        self._states[order.url] = acme.VALID
        return self._order(order.url)

    async def certificate(self, order: OrderState) -> bytes:
        self._check()
        return self._chains[order.url]

    @property
    def windows(self) -> bool:
        return self.suggests is not None

    async def window(self, certificate_id: str) -> RenewalWindow:
        self._check()
        assert self.suggests is not None
        return RenewalWindow(*self.suggests)

    async def revoke(self, pem: bytes, reason: str) -> bool:
        self._check()
        self.revoked.append((pem, reason))
        return pem not in [each for each, _ in self.revoked[:-1]]

    async def close(self) -> None: ...


class FakeParts:
    """The real files and keys, and a CA in memory."""

    def __init__(self, folder: Path, ca: FakeCa) -> None:
        self.store = CertificateFiles(folder)
        self.tools = acme_keys
        self.hooks: list[Mapping[str, str]] = []
        self._ca = ca

    def server(self, settings: AcmeSettings) -> FakeCa:
        return self._ca

    async def run_hook(self, command: Sequence[str], about: Mapping[str, str]) -> None:
        self.hooks.append(dict(about))
