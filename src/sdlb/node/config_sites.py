"""`[[site]]` of the node file: hosts and the files of their certificates. The files themselves are read by
`node.pem`."""

from __future__ import annotations

from sdlb.model.site import PemFile, SiteSpec, check_site_host
from sdlb.node.config_reader import Reader, one_of

KEYS = ("hosts", "certificate", "key", "client_ca", "client_certificate", "acme")
HOSTS_MAX = 256
CERTIFICATES_MAX = 4
"""A site must fit into one frame to the engine."""


def read_sites(top: Reader, listen: Reader) -> tuple[SiteSpec, ...]:
    """All sites, in the order of the file. Raises Invalid, also for a listener without sites and for sites without a listener."""
    sites = top.items("site", KEYS)
    if "https" in listen and not sites:
        listen.refuse("https", "has no certificate", "add a [[site]] with hosts and certificate, or remove the line")
    found: list[SiteSpec] = []
    holders: dict[str, Reader] = {}
    for site in sites:
        if "https" not in listen:
            do = 'set https = "0.0.0.0:443" under [listen], or remove the site'
            site.refuse("hosts", "needs the TLS listener listen.https", do)
        spec = _site(site)
        for host in spec.hosts:
            if host in holders:
                site.refuse("hosts", f"has {host}, which {holders[host].place()} also has", "list each host once")
            holders[host] = site
        found.append(spec)
    return tuple(found)


def _site(site: Reader) -> SiteSpec:
    if site.flag("acme", False):
        site.later("acme", do="set certificate to a PEM file instead")
    hosts = site.texts("hosts", check_site_host, 'host names, for example ["example.com"]', HOSTS_MAX)
    if not hosts:
        site.refuse("hosts", "is missing or empty", 'list the hosts, for example ["example.com", "*.example.com"]')
    chains, keys = _files(site, "certificate"), _files(site, "key")
    if not chains:
        do = "name a PEM file with the certificate, its chain and the private key"
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
    return SiteSpec(hosts, tuple(paired), ca_file, ca is not None and wish == "required")


def _files(site: Reader, key: str) -> list[PemFile]:
    return [PemFile(str(path), site.place(key)) for path in site.paths(key, CERTIFICATES_MAX)]
