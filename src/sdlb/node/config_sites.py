"""`[[site]]` of the node file: hosts and the files of their certificates. The files themselves are read by
`node.pem`."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from sdlb.model.acme import AcmeSettings
from sdlb.model.hardening import Hardening
from sdlb.model.site import PemFile, SiteSpec, check_site_host
from sdlb.node import config_front
from sdlb.node.config_acme import check_site
from sdlb.node.config_reader import Reader, one_of
from sdlb.node.dh_files import path_of

KEYS = ("hosts", "certificate", "key", "client_ca", "client_certificate", "acme", "dhe", *config_front.KEYS)
HOSTS_MAX = 256
CERTIFICATES_MAX = 4
"""A site must fit into one frame to the engine."""


def read_sites(
    top: Reader,
    listen: Reader,
    acme: AcmeSettings | None = None,
    dh_folder: Path | None = None,
    hardening: Hardening | None = None,
) -> tuple[SiteSpec, ...]:
    """All sites, in the order of the file. `dh_folder`: the state folder, which has the DH parameters; None: the engine does not
    use any. Raises Invalid, also for a listener without sites and for sites without a listener."""
    sites = top.items("site", KEYS)
    if "https" in listen and not sites and not (acme is not None and acme.on_claim):
        listen.refuse("https", "has no certificate", "add a [[site]] with hosts and certificate, or remove the line")
    found: list[tuple[Reader, SiteSpec]] = []
    holders: dict[str, Reader] = {}
    for site in sites:
        if "https" not in listen:
            do = 'set https = "0.0.0.0:443" under [listen], or remove the site'
            site.refuse("hosts", "needs the TLS listener listen.https", do)
        spec = _site(site, acme)
        spec = replace(spec, dh=_dh(site, spec.key, dh_folder))
        if spec.dh is not None and hardening is not None and hardening.tls_min != "1.2":
            site.refuse("dhe", 'needs TLS 1.2, which hardening.tls_min = "1.3" refuses', "remove one of the two")
        for host in spec.hosts:
            if host in holders:
                site.refuse("hosts", f"has {host}, which {holders[host].place()} also has", "list each host once")
            holders[host] = site
        found.append((site, spec))
    addresses = [str(listen.get(key) or "") for key in ("http", "https")]
    ports = [int(address.rpartition(":")[2]) for address in addresses if address]
    config_front.refuse_loops(found, ports)
    return tuple(spec for _, spec in found)


def _site(site: Reader, acme: AcmeSettings | None) -> SiteSpec:
    hosts = site.texts("hosts", check_site_host, 'host names, for example ["example.com"]', HOSTS_MAX)
    if not hosts:
        site.refuse("hosts", "is missing or empty", 'list the hosts, for example ["example.com", "*.example.com"]')
    by_acme = site.flag("acme", False)
    if by_acme:
        check_site(site, hosts, acme)
    chains, keys = _files(site, "certificate"), _files(site, "key")
    if not chains and not by_acme:
        do = "name a PEM file with the certificate, its chain and the private key, or set acme = true"
        site.refuse("certificate", "is missing or empty", do)
    if keys and len(keys) != len(chains):
        site.refuse(
            "key",
            f"has {len(keys)} files for {len(chains)} certificates",
            "list one key for each certificate, in the same order",
        )
    paired = list(zip(chains, keys, strict=True)) if keys else [(chain, None) for chain in chains]
    ca = site.path("client_ca")
    if ca is None and "client_certificate" in site:
        site.refuse(
            "client_certificate", "needs client_ca", "name the PEM file with the CAs of the clients' certificates"
        )
    wish = site.text("client_certificate", "required", one_of("required", "optional"))
    ca_file = None if ca is None else PemFile(str(ca), site.place("client_ca"))
    required = ca is not None and wish == "required"
    return SiteSpec(hosts, tuple(paired), ca_file, required, by_acme, config_front.read_front(site))


def _dh(site: Reader, key: str, folder: Path | None) -> PemFile | None:
    if not site.flag("dhe", False):
        return None
    if folder is None:
        site.refuse(
            "dhe", 'needs engine = "haproxy": the native engine has no finite-field Diffie-Hellman', "remove it"
        )
    return PemFile(str(path_of(folder, key)), site.place("dhe"))


def _files(site: Reader, key: str) -> list[PemFile]:
    return [PemFile(path, site.place(key)) for path in site.paths(key, CERTIFICATES_MAX)]
