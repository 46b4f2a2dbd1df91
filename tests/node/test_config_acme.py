"""`[acme]`, `acme = true` and `[peers]` in the node file: all of it, or one error with line, key and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdlb.model.acme import AcmeSettings, ExternalAccount, Peer, exact_host, inside
from sdlb.model.problem import Invalid
from sdlb.node.check import mistakes
from sdlb.node.config import NodeConfig, Options, read_config

LISTEN = '[listen]\nhttp = "127.0.0.1:80"\nhttps = "127.0.0.1:443"\n'
SITE = '[[site]]\nhosts = ["example.com"]\nacme = true\n'
DIRECTORY = 'directory = "https://ca.example/directory"\n'


def read(text: str, tmp_path: Path) -> NodeConfig:
    file = tmp_path / "node.toml"
    file.write_text(text)
    return read_config(Options(config=str(file)), {})


def refused(text: str, tmp_path: Path) -> str:
    with pytest.raises(Invalid) as caught:
        read(text, tmp_path)
    return str(caught.value).removeprefix(str(tmp_path))


def test_the_table_of_the_specification(tmp_path: Path) -> None:
    text = f"""
{LISTEN}
[acme]
directory = "https://acme-v02.api.letsencrypt.org/directory"
email = "ops@example.com"
profile = ""
challenge = "tls-alpn-01"
on_claim = ["*.customers.example.com"]
{SITE}"""
    config = read(text, tmp_path)
    directory = "https://acme-v02.api.letsencrypt.org/directory"
    on_claim = ("*.customers.example.com",)
    assert config.acme == AcmeSettings(directory, "ops@example.com", on_claim=on_claim)
    (site,) = config.sites
    assert site.acme and site.certificates == () and site.hosts == ("example.com",)


def test_dns_01_with_its_hook_may_have_wildcards(tmp_path: Path) -> None:
    text = f'{LISTEN}[acme]\n{DIRECTORY}challenge = "dns-01"\nhook = ["/etc/sdlb/dns", "-v"]\n'
    config = read(text + '[[site]]\nhosts = ["example.com", "*.example.com"]\nacme = true\n', tmp_path)
    assert config.acme is not None and config.acme.hook == ("/etc/sdlb/dns", "-v")


def test_on_claim_alone_is_enough_for_a_tls_listener(tmp_path: Path) -> None:
    text = f'{LISTEN}[acme]\n{DIRECTORY}on_claim = ["*.customers.example.com"]\n'
    assert read(text, tmp_path).listen_https == "127.0.0.1:443"
    assert "has no certificate" in refused(f"{LISTEN}[acme]\n{DIRECTORY}", tmp_path)


ERRORS = [
    ("[acme]\n", "acme.directory: is missing or empty; set directory, for example"),
    (
        '[acme]\ndirectory = "http://ca.example/dir"\n',
        "acme.directory: has the value 'http://ca.example/dir'; expected the https",
    ),
    ('[acme]\ndirectory = "https://"\n', "acme.directory: has the value 'https://'; expected the https"),
    ('[acme]\ndirectory = "https://u:p@ca.example/dir"\n', "acme.directory: has the value"),
    ('[acme]\ndirectory = "https://ca.example:x/dir"\n', "acme.directory: has the value"),
    (f'[acme]\n{DIRECTORY}email = "ops"\n', "acme.email: has the value 'ops'; expected one address"),
    (f'[acme]\n{DIRECTORY}email = "a@b.c,d@e.f"\n', "acme.email: has the value"),
    (
        f'[acme]\n{DIRECTORY}challenge = "dns"\n',
        "acme.challenge: has the value 'dns'; expected one of \"tls-alpn-01\", ",
    ),
    (f'[acme]\n{DIRECTORY}challenge = "dns-01"\n', "acme.challenge: is dns-01 without a hook; set hook to the program"),
    (f'[acme]\n{DIRECTORY}challenge = "dns-01"\nhook = "x"\n', "acme.hook: has the value 'x'; expected the program"),
    (
        f'[acme]\n{DIRECTORY}challenge = "dns-01"\nhook = ["x"]\n',
        "acme.hook: has the value ['x']; expected the program",
    ),
    (f'[acme]\n{DIRECTORY}hook = ["/x"]\n', "acme.hook: is not used by tls-alpn-01; set challenge"),
    (f'[acme]\n{DIRECTORY}on_claim = ["*"]\n', "acme.on_claim: has the value ['*']; expected a host or a wildcard"),
    (
        f'[acme]\n{DIRECTORY}on_claim = ["a.example/x"]\n',
        "acme.on_claim: has the value ['a.example/x']; expected a host",
    ),
    (
        f'[acme]\n{DIRECTORY}on_claim = ["a.*.example"]\n',
        "acme.on_claim: has the value ['a.*.example']; expected a host",
    ),
    (f'[acme]\n{DIRECTORY}ca_file = "ca.pem"\n', "acme.ca_file: has the value 'ca.pem'; expected an absolute path"),
    (f'[acme]\n{DIRECTORY}mail = "x"\n', "acme.mail: is not a known key; did you mean 'email'?"),
]


@pytest.mark.parametrize(("table", "error"), ERRORS)
def test_a_bad_table_is_one_error_with_its_line(table: str, error: str, tmp_path: Path) -> None:
    text = f"{LISTEN}{table}{SITE}"
    found = refused(text, tmp_path)
    key = error.partition(":")[0].rpartition(".")[2]
    lines = text.splitlines()
    line = next((n for n, each in enumerate(lines, 1) if each.startswith(f"{key} =")), lines.index("[acme]") + 1)
    assert found.startswith(f"/node.toml:{line}: {error}")


def test_an_external_account(tmp_path: Path) -> None:
    text = f'{LISTEN}[acme]\n{DIRECTORY}eab = {{kid = "k-1", hmac_key_file = "/etc/sdlb/eab.key"}}\n{SITE}'
    config = read(text, tmp_path)
    assert config.acme is not None and config.acme.eab == ExternalAccount("k-1", "/etc/sdlb/eab.key")


@pytest.mark.parametrize(
    ("eab", "error"),
    [
        ('{hmac_key_file = "/k"}', "kid: is missing or empty; set it to the key identifier that the CA gave you"),
        ('{kid = "", hmac_key_file = "/k"}', "kid: is missing or empty"),
        ('{kid = "a b", hmac_key_file = "/k"}', "kid: has the value 'a b'; expected the key identifier that the CA"),
        ('{kid = "k"}', "hmac_key_file: is missing or empty; name the file with the HMAC key"),
        ('{kid = "k", hmac_key_file = "eab.key"}', "hmac_key_file: has the value 'eab.key'; expected an absolute path"),
        ('{kid = "k", hmac_key = "AAAA"}', "hmac_key: is not a known key; did you mean 'hmac_key_file'?"),
    ],
)
def test_a_bad_external_account_is_one_error_with_its_line(eab: str, error: str, tmp_path: Path) -> None:
    text = f"{LISTEN}[acme]\n{DIRECTORY}eab = {eab}\n{SITE}"
    line = text.splitlines().index(f"eab = {eab}") + 1
    assert refused(text, tmp_path).startswith(f"/node.toml:{line}: acme.eab.{error}")
    assert "acme.eab: is not a table" in refused(f'{LISTEN}[acme]\n{DIRECTORY}eab = "k"\n{SITE}', tmp_path)


@pytest.mark.parametrize(
    ("mode", "error"), [(0o600, ""), (0o644, "is readable by others (mode 0644); run: chmod 600 ")]
)
def test_check_finds_a_key_file_that_cannot_be_used(mode: int, error: str, tmp_path: Path) -> None:
    key = tmp_path / "eab.key"
    file = tmp_path / "node.toml"
    file.write_text(
        f'state_dir = "{tmp_path}/state"\n[listen]\nhttps = "127.0.0.1:0"\nnode = "127.0.0.1:0"\n'
        f'socket = "{tmp_path}/s"\n[acme]\n{DIRECTORY}eab = {{kid = "k", hmac_key_file = "{key}"}}\n{SITE}'
    )
    (found,) = mistakes(Options(config=str(file)))
    assert f"acme.eab.hmac_key_file: {key} cannot be read (No such file or directory)" in found
    key.write_text("c2VjcmV0")
    key.chmod(mode)
    found = mistakes(Options(config=str(file)))
    assert (len(found), error in "".join(found)) == (1 if error else 0, True)


def test_http_01_needs_the_plain_listener(tmp_path: Path) -> None:
    text = f'[listen]\nhttps = "127.0.0.1:443"\n[acme]\n{DIRECTORY}challenge = "http-01"\n{SITE}'
    assert "acme.challenge: is http-01, which needs the listener listen.http" in refused(text, tmp_path)


SITES = [
    (
        'hosts = ["*.example.com"]\nacme = true\n',
        "site.0.hosts: has the wildcard *.example.com, and CAs issue wildcards",
    ),
    ('hosts = ["*"]\nacme = true\n', 'site.0.hosts: has "*", for which no CA issues a certificate'),
    (
        'hosts = ["a.example"]\nacme = true\ncertificate = "/x.pem"\n',
        "site.0.certificate: and acme = true exclude each other",
    ),
    ('hosts = ["a.example"]\nacme = true\nkey = "/x.pem"\n', "site.0.key: and acme = true exclude each other"),
    ('hosts = ["a.example"]\nacme = "yes"\n', "site.0.acme: has the value 'yes'; expected true or false"),
    ('hosts = ["a.example"]\n', "site.0.certificate: is missing or empty; name a PEM file"),
]


@pytest.mark.parametrize(("site", "error"), SITES)
def test_a_bad_site_is_one_error(site: str, error: str, tmp_path: Path) -> None:
    assert error in refused(f"{LISTEN}[acme]\n{DIRECTORY}[[site]]\n{site}", tmp_path)


def test_a_site_needs_the_table(tmp_path: Path) -> None:
    assert "site.0.acme: needs the table [acme]; add it with directory and email" in refused(LISTEN + SITE, tmp_path)


def test_check_reports_all_mistakes_at_once(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(
        f'state_dir = "{tmp_path}/state"\n[listen]\nhttps = "127.0.0.1:0"\nnode = "127.0.0.1:0"\n'
        f'socket = "{tmp_path}/s"\n[acme]\n{DIRECTORY}email = "x"\nprofile = "a b"\n{SITE}'
    )
    found = mistakes(Options(config=str(file)))
    assert [each.partition(": ")[2].partition(":")[0] for each in found] == ["acme.email", "acme.profile"]


def test_a_key_that_is_required_and_wrong_is_one_mistake(tmp_path: Path) -> None:
    """It is not missing as well."""
    file, key = tmp_path / "node.toml", tmp_path / "eab.key"
    key.write_text("c2VjcmV0")
    key.chmod(0o600)
    file.write_text(
        f'state_dir = "{tmp_path}/state"\n[listen]\nhttps = "127.0.0.1:0"\nnode = "127.0.0.1:0"\n'
        f'socket = "{tmp_path}/s"\n[acme]\n{DIRECTORY}eab = {{kid = "a\\nb", hmac_key_file = "{key}"}}\n{SITE}'
    )
    (found,) = mistakes(Options(config=str(file)))
    assert "acme.eab.kid: has the value 'a\\nb'; expected the key identifier" in found


# ------------------------------------------------------------------ peers

IDENTITY = '[identity]\ncertificate = "/etc/sdlb/node.pem"\nca = "/etc/sdlb/ca.pem"\n'


def test_peers_have_names_and_addresses(tmp_path: Path) -> None:
    text = f'name = "edge-1"\n{IDENTITY}[peers]\nedge-2 = "10.0.0.2:7700"\nedge-3 = "edge-3.example:7700"\n'
    assert read(text, tmp_path).peers == (Peer("edge-2", "10.0.0.2:7700"), Peer("edge-3", "edge-3.example:7700"))


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (
            'peers = ["10.0.0.2:7700"]',
            "peers: has the value ['10.0.0.2:7700']; expected a table of names and addresses",
        ),
        ('[peers]\nedge-1 = "127.0.0.1:1"', "peers.edge-1: is the name of this node"),
        ('[peers]\nedge-2 = "127.0.0.1"', "peers.edge-2: has the value '127.0.0.1'; expected"),
        ('[peers]\n"a b" = "127.0.0.1:1"', "peers.a b: is not a name of a node"),
        ('[peers]\nedge-2 = "10.0.0.2:7700"', "without [identity] private keys would cross the network unencrypted"),
        ("[peers]\nedge-2 = 5", "peers.edge-2: has the value 5; expected the address of its node listener"),
    ],
)
def test_a_bad_peer_is_one_error(line: str, error: str, tmp_path: Path) -> None:
    assert error in refused(f'name = "edge-1"\n{line}\n', tmp_path)


# ------------------------------------------------------------------ hosts of claims


@pytest.mark.parametrize(
    ("route", "host"),
    [
        ("a.customers.example/*", "a.customers.example"),
        ("a.customers.example/pay*", "a.customers.example"),
        ("*.customers.example/*", ""),
        ("*", ""),
        ("/x*", ""),
        ("10.0.0.1/*", ""),
        ("a.example:8443/*", "a.example"),
        ("", ""),
    ],
)
def test_only_a_claim_for_exactly_one_host_gets_a_certificate(route: str, host: str) -> None:
    assert exact_host(route) == host


def test_patterns_of_on_claim() -> None:
    patterns = ("*.customers.example", "one.example")
    assert inside("a.customers.example", patterns) and inside("a.b.customers.example", patterns)
    assert inside("one.example", patterns)
    for host in ("customers.example", "evilcustomers.example", "two.example", ".customers.example", "x.one.example"):
        assert not inside(host, patterns)
