"""`sdlb tls dhparam` and `sdlb tls bundle`: Diffie-Hellman parameters of a site, and PEM files for HAProxy."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sdlb.cli import args as options
from sdlb.cli import out
from sdlb.cli.node_config import add_config, node_config
from sdlb.model.acme import REASONS
from sdlb.model.problem import Invalid
from sdlb.sdk.client import Client

if TYPE_CHECKING:
    from sdlb.model.site import SiteSpec
    from sdlb.node.config import NodeConfig

CODE = "no-site"


def add_parser(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "tls",
        description="Revokes certificates. Makes Diffie-Hellman parameters for a site, and PEM files for programs that want all "
        "in one.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="revoke | dhparam | bundle", required=True)
    revoke = verbs.add_parser(
        "revoke",
        help="revoke a site's certificate and order another one",
        description="Revokes the certificate that the node has from the CA of [acme], and orders another one with a new key. The site "
        "serves with the revoked one until then. Use the reason keyCompromise when others may know the key.",
    )
    revoke.add_argument("site", metavar="SITE", help="the site: its first host")
    revoke.add_argument(
        "--reason", choices=tuple(REASONS), default="unspecified", help="the reason for the CA (unspecified)"
    )
    options.add_as(revoke)
    options.add_socket(revoke)
    options.add_json(revoke)
    dhparam = verbs.add_parser(
        "dhparam",
        help="make a site's own Diffie-Hellman parameters",
        description="Makes Diffie-Hellman parameters that only this site has, with the openssl command, and checks them. Existing ones "
        "are kept. The native engine does not use them; HAProxy does.",
    )
    dhparam.add_argument("site", metavar="SITE", help="the site: one of its hosts")
    dhparam.add_argument("--bits", type=int, choices=(2048, 3072, 4096), help="the size of the prime (2048)")
    dhparam.add_argument("--renew", action="store_true", help="replace existing parameters")
    bundle = verbs.add_parser(
        "bundle",
        help="write key, certificates and DH parameters into one file",
        description="Writes one PEM file with the private key, the certificate, its chain and the DH parameters of a site, with mode "
        "0600. For a site with several certificates, each gets a file: FILE.1, FILE.2.",
    )
    bundle.add_argument("site", metavar="SITE", help="the site: one of its hosts")
    bundle.add_argument("--for", dest="program", required=True, choices=("haproxy",), help="the program that reads it")
    bundle.add_argument("--out", required=True, metavar="FILE", help="the file to write")
    for each in (dhparam, bundle):
        add_config(each)


def run(args: argparse.Namespace) -> int:
    if args.verb == "revoke":
        return _revoke(args)
    config, _ = node_config(args)
    spec = _site(config, args.site)
    if args.verb == "bundle":
        return _bundle(config, spec, Path(args.out))
    return _dhparam(config, spec, args.bits, args.renew)


def _revoke(args: argparse.Namespace) -> int:
    with Client(args.socket) as client:
        done = client.revoke_certificate(args.site, args.reason, by=args.as_)
    if args.json:
        out.json(done)
        return 0
    what = "was already revoked" if done.already else f"is revoked ({done.reason})"
    out.line(
        f"{done.site}: certificate {done.digest[:16]} {what}; another one is ordered with a new key ('sdlb status')"
    )
    return 0


def _site(config: NodeConfig, host: str) -> SiteSpec:
    for spec in config.sites:
        if host in spec.hosts:
            return spec
    known = ", ".join(spec.key for spec in config.sites[:10]) or "none"
    raise Invalid(CODE, host, "is not a site of this node", f"name one of its sites: {known}")


def _dhparam(config: NodeConfig, spec: SiteSpec, bits: int | None, renew: bool) -> int:
    from sdlb.node import dh_make, dh_site

    begin = time.monotonic()
    progress = _Progress()

    def make(size: int) -> str:
        out.message(f"making DH parameters of {size} bits for {spec.key}: {dh_make.estimate(size)}")
        try:
            return dh_make.generate(size, progress.show)
        finally:
            progress.clear()

    stored, new = dh_site.provide(config.state_dir, spec.key, bits, renew, make)
    spent = f"made and checked in {time.monotonic() - begin:.0f} s" if new else "unchanged"
    out.line(
        f"{spec.key}: {spent}: {stored.bits} bits, SHA-256 {stored.sha256[:16]}, made {stored.made}, {stored.path}"
    )
    _not_used(config)
    return 0


class _Progress:
    """The elapsed time, on a terminal only."""

    def __init__(self) -> None:
        self._shown = False

    def show(self, elapsed_s: float) -> None:
        if sys.stderr.isatty():
            self._shown = True
            print(f"\r{elapsed_s:.0f} s", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _bundle(config: NodeConfig, spec: SiteSpec, path: Path) -> int:
    from sdlb.node import dh_files, dh_site
    from sdlb.node.local_paths import write_private

    if spec.acme:
        raise Invalid(
            CODE, spec.key, "has no certificate files: its certificate is ordered automatically", "name another site"
        )
    parameters = dh_files.read(config.state_dir, spec.key)
    if parameters is None:
        raise Invalid(CODE, spec.key, "has no DH parameters", f"run: sdlb tls dhparam {spec.key}")
    bundles = dh_site.haproxy_bundles(spec, parameters)
    for number, text in enumerate(bundles, 1):
        target = path if len(bundles) == 1 else path.with_name(f"{path.name}.{number}")
        write_private(target, text.encode("ascii"))
        out.line(f"{spec.key}: key, certificates and DH parameters are in {target}")
    _not_used(config)
    return 0


def _not_used(config: NodeConfig) -> None:
    if config.engine == "native":
        out.line("the native engine has no finite-field Diffie-Hellman and does not use these parameters; HAProxy does")
