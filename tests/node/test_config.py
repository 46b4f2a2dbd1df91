"""The node file: all of it or one clear error that names file, line, key and what was expected."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields

from sdlb.model.address import check_address
from sdlb.model.hook_program import HookProgram
from sdlb.model.metric_source import MetricSource
from sdlb.model.problem import Invalid
from sdlb.model.site import PemFile, SiteSpec, check_site_host
from sdlb.node.check import mistakes
from sdlb.node.config import NODE_LISTEN, NodeConfig, Options, read_config
from sdlb.node.toml_lines import key_lines, line_of

CONTRACT = """
name = "edge-1"
state_dir = "/var/lib/sdlb"
public = true                      # hardened preset
parents = []
engine = "native"
labels = {zone = "a"}
roles = ["web"]

[listen]
http = "127.0.0.1:80"
node = "127.0.0.1:7700"
socket = "/run/sdlb/sdlb.sock"

[store]
kind = "embedded"
"""


IDENTITY = """[identity]
certificate = "/etc/sdlb/node.pem"
ca = "/etc/sdlb/ca.pem"
"""


def read(text: str, tmp_path: Path) -> NodeConfig:
    file = tmp_path / "node.toml"
    file.write_text(text)
    return read_config(Options(config=str(file)), {})


def test_the_file_of_the_contract(tmp_path: Path) -> None:
    config = read(CONTRACT, tmp_path)
    assert config.name == "edge-1"
    assert config.public
    assert config.labels == {"zone": "a"}
    assert config.roles == ("web",)
    assert (config.listen_http, config.listen_node) == ("127.0.0.1:80", "127.0.0.1:7700")
    assert str(config.socket) == "/run/sdlb/sdlb.sock"
    assert str(config.state_dir) == "/var/lib/sdlb"


@pytest.mark.parametrize("node", ["127.0.0.1:1", "0.0.0.0:1", "8.8.8.8:1"])
def test_with_an_identity_links_may_go_anywhere(tmp_path: Path, node: str) -> None:
    text = f'insecure = false\nparents = ["rack-1.example:7700"]\n{IDENTITY}key = "/k"\n[listen]\nnode = "{node}"\n'
    config = read(text, tmp_path)
    assert config.identity is not None
    assert [file.path for file in config.identity.files()] == ["/etc/sdlb/node.pem", "/k", "/etc/sdlb/ca.pem"]
    assert not config.insecure


def test_options_alone_are_for_one_machine() -> None:
    alone = Options(parents=("127.0.0.1:7700", "localhost:7700", "[::1]:7700"))
    assert not read_config(alone, {}).insecure
    with pytest.raises(Invalid, match=r"--parent: has 'rack-1:7700'.*--insecure"):
        read_config(Options(parents=("rack-1:7700",)), {})
    assert read_config(Options(parents=("rack-1:7700",), node_listen="0.0.0.0:1", insecure=True), {}).insecure


def test_all_other_settings(tmp_path: Path) -> None:
    text = """
    insecure = true
    advertise = "10.0.0.7:7711"
    parents = ["rack-1:7700", "10.0.0.2:7700", "[fd00::1]:7700"]
    [engine]
    kind = "native"
    workers = 3
    head_timeout_ms = 5000
    [limits]
    head_bytes = 32768
    [timing]
    beat_s = 0.5
    lease_s = 3
    fence_s = 4.5
    [log]
    access = "/var/log/sdlb/access.json"
    level = "warning"
    [listen]
    node = "0.0.0.0:7700"
    """
    config = read(text, tmp_path)
    assert config.parents == ("rack-1:7700", "10.0.0.2:7700", "[fd00::1]:7700")
    assert (config.beat_s, config.lease_s, config.fence_s) == (0.5, 3, 4.5)
    assert config.workers == 3
    assert config.limits == {"head_timeout_ms": 5000, "head_bytes": 32768}
    assert config.access_log == "/var/log/sdlb/access.json"
    assert config.log_level == "warning"
    assert config.advertise == "10.0.0.7:7711"


HTTPS = """[listen]
https = "127.0.0.1:443"
[[site]]
hosts = ["example.com"]
certificate = "/a.pem"
"""
"""Nothing is wrong with it; what follows stands in its site, from line 6 on."""


def test_sites(tmp_path: Path) -> None:
    text = (
        HTTPS
        + """
    [[site]]
    hosts = ["*.Bücher.example", "*"]
    certificate = ["/ec.pem", "/rsa.pem"]
    key = ["/ec.key", "/rsa.key"]
    client_ca = "/ca.pem"
    client_certificate = "optional"
    [[site]]
    hosts = ["c"]
    acme = false
    certificate = "/c//./d/c.pem/"
    client_ca = "/ca.pem"
    """
    )
    config = read(text, tmp_path)
    assert config.listen_https == "127.0.0.1:443"
    a, b, c = config.sites
    assert a == SiteSpec(("example.com",), ((PemFile("/a.pem"), None),))
    assert b.hosts == ("*.xn--bcher-kva.example", "*")
    assert b.certificates == ((PemFile("/ec.pem"), PemFile("/ec.key")), (PemFile("/rsa.pem"), PemFile("/rsa.key")))
    assert (b.client_ca, b.client_required, c.client_required) == (PemFile("/ca.pem"), False, True)
    assert next(c.files()).where == f"{tmp_path}/node.toml:16: site.2.certificate"
    assert next(c.files()).path == "/c/d/c.pem"


BAD: dict[str, tuple[str, int, str, str]] = {
    # name: text, line, key, something of what was expected
    "unknown key": ('name = "n"\nparent = []\n', 2, "parent", "'parents'"),
    "unknown key in a table": ('[listen]\nhtpp = "127.0.0.1:1"\n', 2, "listen.htpp", "'http'"),
    "unknown table": ('name = "n"\n\n[lisen]\nhttp = "x"\n', 3, "lisen", "'listen'"),
    "a table that is a text": ('listen = "127.0.0.1:1"\n', 1, "listen", "[listen]"),
    "wrong type": ('name = "n"\npublic = "yes"\n', 2, "public", "true or false"),
    "a name with a space": ('name = "a b"\n', 1, "name", "letters"),
    "a name with a line break": ('name = "a\\nb"\n', 1, "name", "string"),
    "a name that is a number": ("name = 7\n", 1, "name", "string"),
    "relative state_dir": ('state_dir = "state"\n', 1, "state_dir", "absolute"),
    "an empty socket": ('[listen]\nsocket = ""\n', 2, "listen.socket", "path"),
    "no port": ('[listen]\nnode = "127.0.0.1"\n', 2, "listen.node", "host:port"),
    "a host name to listen on": ('[listen]\nnode = "localhost:7700"\n', 2, "listen.node", "IP address"),
    "a port too big": ('[listen]\nhttp = "127.0.0.1:70000"\n', 2, "listen.http", "65535"),
    "a public address for nodes": ('insecure = true\n[listen]\nnode = "8.8.8.8:7700"\n', 3, "listen.node", "private"),
    "all addresses for nodes": ('[listen]\nnode = "0.0.0.0:7700"\n', 2, "listen.node", "insecure = true"),
    "a private address for nodes": ('[listen]\nnode = "10.0.0.1:7700"\n', 2, "listen.node", "[identity]"),
    "a parent elsewhere": ('parents = ["10.0.0.1:7700"]\n', 1, "parents", "[identity]"),
    "a parent by name": ('name = "n"\nparents = ["localhost:7700", "rack-1:7700"]\n', 2, "parents", "'rack-1:7700'"),
    "no identity where one is asked for": ("insecure = false\n", 1, "insecure", "[identity]"),
    "an identity and none": (f"insecure = true\n{IDENTITY}", 1, "insecure", "[identity]"),
    "an identity without authorities": ('[identity]\ncertificate = "/a"\n', 1, "identity.ca", "the CAs"),
    "an identity without certificate": ('[identity]\nca = "/a"\n', 1, "identity.certificate", "certificate"),
    "an identity that is relative": ('[identity]\ncertificate = "a"\n', 2, "identity.certificate", "absolute"),
    "an unknown key of the identity": (f'{IDENTITY}certificat = "/a"\n', 4, "identity.certificat", "'certificate'"),
    "one address twice": ('[listen]\nnode = "127.0.0.1:9"\nhttp = "127.0.0.1:9"\n', 2, "listen.node", "another"),
    "a parent without port": ('parents = ["rack-1"]\n', 1, "parents", "host:port"),
    "a parent that is no address": ('parents = ["0.0.0.0:7700"]\n', 1, "parents", "unspecified"),
    "a parent twice": ('parents = ["a:1", "a:1"]\n', 1, "parents", "without duplicates"),
    "parents as a text": ('parents = "a:1"\n', 1, "parents", "list"),
    "unknown engine": ('engine = "warp"\n', 1, "engine", '"native"'),
    "unknown store": ('[store]\nkind = "paper"\n', 2, "store.kind", '"embedded"'),
    "a lease shorter than two beats": ("[timing]\nbeat_s = 5\nlease_s = 6\n", 3, "timing.lease_s", "two beats"),
    "a fence shorter than the lease": ("[timing]\nlease_s = 9\nfence_s = 1\n", 3, "timing.fence_s", "lease"),
    "a negative time": ("[timing]\nbeat_s = -1\n", 2, "timing.beat_s", "number from"),
    "a time that is nan": ("[timing]\nbeat_s = nan\n", 2, "timing.beat_s", "number from"),
    "a limit that is a text": ('[limits]\nfields = "many"\n', 2, "limits.fields", "whole number"),
    "a limit out of range": ("[engine]\nworkers = 9999\n", 2, "engine.workers", "1024"),
    "a label that is a list": ("[labels]\nzone = []\n", 2, "labels.zone", "string"),
    "a role with a slash": ('roles = ["a/b"]\n', 1, "roles", "letters"),
    "an access log without a path": ('[log]\naccess = "access.log"\n', 2, "log.access", "absolute"),
    # sites
    "https without a site": ('[listen]\nhttps = "127.0.0.1:443"\n', 2, "listen.https", "[[site]]"),
    "a site without https": ('[[site]]\nhosts = ["a"]\ncertificate = "/a"\n', 2, "site.0.hosts", "listen.https"),
    "https where http is": (f'[listen]\nhttp = "127.0.0.1:443"\n{HTTPS[9:]}', 3, "listen.https", "listen.http"),
    "https where nodes are": (f'[listen]\nnode = "127.0.0.1:443"\n{HTTPS[9:]}', 2, "listen.node", "listen.https"),
    "a site without hosts": (f'{HTTPS}[[site]]\ncertificate = "/a"\n', 6, "site.1.hosts", "list the hosts"),
    "a site with no hosts": (f"{HTTPS}[[site]]\nhosts = []\n", 7, "site.1.hosts", "list the hosts"),
    "a site without a certificate": (f'{HTTPS}[[site]]\nhosts = ["b"]\n', 6, "site.1.certificate", "PEM"),
    "DHE with the native engine": (f"{HTTPS}dhe = true\n", 6, "site.0.dhe", 'needs engine = "haproxy"'),
    "an unknown key of a site": (f'{HTTPS}certificat = "/a"\n', 6, "site.0.certificat", "'certificate'"),
    "a host in two sites": (
        f'{HTTPS}[[site]]\nhosts = ["b", "EXAMPLE.com."]\ncertificate = "/a"\n',
        7,
        "site.1.hosts",
        "has example.com, which",
    ),
    "a host twice": (f'{HTTPS}[[site]]\nhosts = ["b", "B"]\n', 7, "site.1.hosts", "without duplicates"),
    "a host with a path": (f'{HTTPS}[[site]]\nhosts = ["b/c"]\n', 7, "site.1.hosts", "host name"),
    "a host with a port": (f'{HTTPS}[[site]]\nhosts = ["b:443"]\n', 7, "site.1.hosts", "host name"),
    "a host that is an address": (f'{HTTPS}[[site]]\nhosts = ["127.0.0.1"]\n', 7, "site.1.hosts", "host name"),
    "a star inside a host": (f'{HTTPS}[[site]]\nhosts = ["a.*.b"]\n', 7, "site.1.hosts", "*.example.com"),
    "a certificate that is relative": (
        f'{HTTPS}[[site]]\nhosts=["b"]\ncertificate="a"\n',
        8,
        "site.1.certificate",
        "/",
    ),
    "certificates that are relative": (
        f'{HTTPS}[[site]]\nhosts=["b"]\ncertificate=["a"]\n',
        8,
        "site.1.certificate",
        "/",
    ),
    "a certificate that is a number": (
        f'{HTTPS}[[site]]\nhosts=["b"]\ncertificate=1\n',
        8,
        "site.1.certificate",
        "path",
    ),
    "too many certificates": (
        f'{HTTPS}[[site]]\nhosts=["b"]\ncertificate=["/a", "/b", "/c", "/d", "/e"]\n',
        8,
        "site.1.certificate",
        "at most 4",
    ),
    "too few keys": (
        f'{HTTPS}[[site]]\nhosts=["b"]\ncertificate=["/a", "/b"]\nkey="/k"\n',
        9,
        "site.1.key",
        "has 1 files for 2",
    ),
    "a wish without authorities": (
        f'{HTTPS}client_certificate = "optional"\n',
        6,
        "site.0.client_certificate",
        "client_ca",
    ),
    "an unknown wish": (
        f'{HTTPS}client_ca = "/ca"\nclient_certificate = "maybe"\n',
        7,
        "site.0.client_certificate",
        '"required", "optional"',
    ),
    "sites as a table": (f"{HTTPS.replace('[[site]]', '[site]')}", 3, "site", "[[site]]"),
    # of the contract, but not in this version
    "ACME": (f"{HTTPS}acme = true\n", 6, "site.0.acme", "needs the table [acme]"),
    "admin": ('[listen]\nadmin = "127.0.0.1:7701"\n', 2, "listen.admin", "not supported in this version"),
    "a proxy that is no network": (
        '[listen]\nhttp = "127.0.0.1:80"\n[listen.trusted_proxies]\nhttp = ["10.0.0.1/8"]\n',
        4,
        "listen.trusted_proxies.http",
        'a network, like "10.0.0.0/8"',
    ),
    "proxies of no listener": (
        '[listen.trusted_proxies]\nhttps = ["10.0.0.0/8"]\n',
        2,
        "listen.trusted_proxies.https",
        "needs the listener listen.https",
    ),
    "etcd": ('[store]\nkind = "etcd"\n', 2, "store.kind", "not supported in this version"),
    "endpoints": ('[store]\nendpoints = ["a:1"]\n', 2, "store.endpoints", "not supported in this version"),
    "haproxy without its engine": (
        '[haproxy]\nbinary = "/usr/sbin/haproxy"\n',
        1,
        "haproxy",
        'needs engine = "haproxy"',
    ),
    "haproxy: an unknown key": (
        'engine = "haproxy"\n[haproxy]\nbin = "x"\n',
        3,
        "haproxy.bin",
        "did you mean 'binary'?",
    ),
}


@pytest.mark.parametrize(("text", "line", "key", "expected"), BAD.values(), ids=BAD)
def test_a_bad_file_is_one_error(tmp_path: Path, text: str, line: int, key: str, expected: str) -> None:
    with pytest.raises(Invalid) as told:
        read(text, tmp_path)
    sentence = str(told.value)
    assert sentence.startswith(f"{tmp_path}/node.toml:{line}: {key}: "), sentence
    assert expected in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("raw", [b"name = \xff", b"name =", b"[a\n", b"a = " + b"[" * 5000])
def test_invalid_toml_names_the_file(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "node.toml"
    file.write_bytes(raw)
    with pytest.raises(Invalid) as told:
        read_config(Options(config=str(file)), {})
    assert str(told.value).startswith(str(file))
    assert "\n" not in str(told.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(Invalid, match="cannot be read"):
            read_config(Options(config=str(path)), {})


def test_the_size_of_a_file(tmp_path: Path) -> None:
    """10,000 sites need more than 1 MiB."""
    line = "# a comment of sixty-four characters, which is not read at all..\n"
    assert read(line * ((3 << 20) // len(line)) + 'name = "n"', tmp_path).name == "n"
    with pytest.raises(Invalid, match="is longer than 16 MiB"):
        read(line * ((16 << 20) // len(line) + 1), tmp_path)


# ------------------------------------------------------------------ options and defaults


def test_without_a_file() -> None:
    config = read_config(
        Options(root=True, listen="0.0.0.0:80", name="n", state_dir="/s"), {"XDG_RUNTIME_DIR": "/run/u"}
    )
    assert (config.listen_http, config.listen_node, config.parents) == ("0.0.0.0:80", NODE_LISTEN, ())
    config = read_config(Options(parents=("a:1", "b:1", "a:1"), node_listen="127.0.0.1:7711", insecure=True), {})
    assert (config.listen_http, config.listen_node, config.parents) == ("", "127.0.0.1:7711", ("a:1", "b:1"))


def test_options_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('name = "n"\nparents = ["a:1"]\npublic = false\n[listen]\nhttp = "127.0.0.1:1"\n')
    options = Options(config=str(file), root=True, name="m", listen="127.0.0.1:2", socket="/x.sock", public=True)
    config = read_config(options, {})
    assert (config.name, config.parents, config.listen_http, config.public) == ("m", (), "127.0.0.1:2", True)
    assert str(config.socket) == "/x.sock"


@pytest.mark.parametrize("options", [Options(listen="nonsense"), Options(name="a b"), Options(parents=("x",))])
def test_bad_options_are_usage_errors(options: Options) -> None:
    with pytest.raises(Invalid) as told:
        read_config(options, {})
    assert told.value.code == "usage"


def test_a_socket_that_the_environment_names() -> None:
    config = read_config(Options(root=True, state_dir="/s"), {"SDLB_SOCKET": "/run/x.sock"})
    assert str(config.socket) == "/run/x.sock"


def test_every_key_of_the_configuration_has_its_place_in_the_file(tmp_path: Path) -> None:
    """A field that nothing reads would be a setting without effect."""
    text = CONTRACT.replace('engine = "native"', 'advertise = "10.0.0.7:1"\ninsecure = true') + (
        '[timing]\nbeat_s = 1\nlease_s = 7\nfence_s = 8\n[log]\naccess = "/a"\nlevel = "warning"\n'
        "[engine]\nworkers = 2\nfields = 50\n"
        '[listen.trusted_proxies]\nhttp = ["10.0.0.0/8"]\nhttps = ["::1"]\n'
        '[[site]]\nhosts = ["a"]\ncertificate = "/a.pem"\n'
        '[acme]\ndirectory = "https://a/"\n[peers]\nedge-2 = "127.0.0.1:2"\n'
        '[role.web.a]\ndriver = "process"\nroutes = ["a/"]\ncommand = ["./a"]\n'
    )
    text = text.replace("parents = []", 'parents = ["p:1"]')
    text = text.replace(
        "[listen]", '[listen]\nsocket_mode = "0660"\nmetrics = "127.0.0.1:9101"\nhttps = "127.0.0.1:443"'
    )
    text = text.replace(":7700", ":7799")
    haproxy = text.replace("[engine]", '[haproxy]\nbinary = "/h"\n[engine]\nkind = "haproxy"')
    identity = text.replace("insecure = true", "") + IDENTITY
    both = (read(text, tmp_path), read(identity, tmp_path), read(haproxy, tmp_path))  # what cannot stand together
    for each in fields(NodeConfig):
        if each.default is not msgspec.NODEFAULT:
            assert any(getattr(config, each.name) != each.default for config in both), each.name


# ------------------------------------------------------------------ lines of keys, addresses

TOML = '''a = 1
"b c" = """
a = 2
[d]
"""
[d]
e.f = 3   # comment
[[g]]
h = 1
[[g]]
h = 2
'''


def test_lines_of_keys() -> None:
    lines = key_lines(TOML)
    expected = {("a",): 1, ("b c",): 2, ("d",): 6, ("d", "e", "f"): 7, ("g", "0", "h"): 9, ("g", "1", "h"): 11}
    assert {key: lines[key] for key in expected} == expected
    assert line_of(lines, ("d", "missing")) == 6
    assert line_of(lines, ("missing",)) == 1


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        host, _, port = check_address(text, names=True).rpartition(":")
    except ValueError:
        return
    assert host
    assert 1 <= int(port) <= 65535
    assert text.isascii()
    assert " " not in text


@given(st.text(max_size=40) | st.from_regex(r"\A(\*\.)?[a-zA-Z0-9.-]{1,20}\Z"))
def test_any_text_is_a_host_of_a_site_or_a_value_error(text: str) -> None:
    try:
        host = check_site_host(text)
    except ValueError:
        return
    assert check_site_host(host) == host, "canonical"
    assert host.isascii() and host == host.lower()
    assert host == "*" or not set(host.removeprefix("*.")) & set("*:/[] ")


@pytest.mark.parametrize("text", ["127.0.0.1:1", "[::1]:65535", "a-b.c:7700", "localhost:80"])
def test_good_addresses(text: str) -> None:
    assert check_address(text, names=True) == text


@pytest.mark.parametrize(
    "text", ["::1:80", "[127.0.0.1]:80", "a:0", "a:99999", "1.2.3:80", "256.1.1.1:80", "a b:1", ":80"]
)
def test_bad_addresses(text: str) -> None:
    with pytest.raises(ValueError, match=r"port|IP|bracket"):
        check_address(text, names=True)


HOOK = """[hook.migrate-catalog]
command = ["/usr/local/bin/migrate", "--to", "$(id); x"]
timeout_s = 2.5
cwd = "/srv"

[hook.migrate-catalog.env]
PGHOST = "db-1"
"""


def test_hooks(tmp_path: Path) -> None:
    config = read(f'{HOOK}\n[hook."b.c"]\ncommand = ["/bin/true"]\n', tmp_path)
    assert config.file == str(tmp_path / "node.toml")
    assert config.hooks == {
        "migrate-catalog": HookProgram(
            ("/usr/local/bin/migrate", "--to", "$(id); x"), 2.5, (("PGHOST", "db-1"),), "/srv"
        ),
        "b.c": HookProgram(("/bin/true",)),
    }
    assert read("", tmp_path).hooks == {}
    assert read_config(Options(), {}).file == ""


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("hook = 1", ":1: hook: has the value 1; expected tables: write [hook.NAME]"),
        ("[hook]\nmigrate = true", ":2: hook.migrate: has the value True; expected a table: write [hook.migrate]"),
        ("\n[hook.a]\ntimeout_s = 1", ":2: hook.a.command: is missing; expected a list: the absolute path"),
        ('[hook.a]\ncommand = "/bin/sh -c true"', ":2: hook.a.command: has the value '/bin/sh -c true'"),
        ("[hook.a]\ncommand = []", ":2: hook.a.command: has the value []; expected a list"),
        ('[hook.a]\ncommand = ["migrate"]', ":2: hook.a.command: has the value ['migrate']; expected a list: the abs"),
        ('[hook.a]\ncommand = ["/bin/a", 1]', ":2: hook.a.command: has the value ['/bin/a', 1]"),
        ('[hook.a]\ncommand = ["/bin/a", "\\u0000"]', ":2: hook.a.command: has the value"),
        ('[hook.a]\ncomand = ["/bin/a"]', ":2: hook.a.comand: is not a known key; did you mean 'command'?"),
        ('[hook.a]\ncommand = ["/bin/a"]\ntimeout_s = -1', ":3: hook.a.timeout_s: has the value -1"),
        ('[hook.a]\ncommand = ["/bin/a"]\ncwd = "x"', ":3: hook.a.cwd: has the value 'x'; expected an absolute path"),
        ('[hook.a]\ncommand = ["/bin/a"]\nenv = {SDLB_KEY = "x"}', ":3: hook.a.env.SDLB_KEY: starts with SDLB_"),
        ('[hook.a]\ncommand = ["/bin/a"]\nenv = {"A=B" = "x"}', ":3: hook.a.env.A=B: is not a variable's name"),
        ('[hook.a]\ncommand = ["/bin/a"]\nenv = {A = 1}', ":3: hook.a.env.A: has the value 1; expected a string"),
        ('[hook."a b"]\ncommand = ["/bin/a"]', ": is not a name of a hook; expected a name of up to 64 letters"),
        ('[hok.a]\ncommand = ["/bin/a"]', ":1: hok: is not a known key; did you mean 'hook'?"),
    ],
)
def test_mistakes_in_hooks(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(Invalid) as found:
        read(text, tmp_path)
    assert error in str(found.value)


def test_sources(tmp_path: Path) -> None:
    text = """
[source.prom]
url = "https://Prometheus.example:9090/prefix/"
token_file = "/etc/sdlb/token"
[source."b.c"]
url = "http://[fd00::1]:9090"
timeout_s = 2
"""
    assert read(text, tmp_path).sources == {
        "prom": MetricSource("https://prometheus.example:9090/prefix", "/etc/sdlb/token"),
        "b.c": MetricSource("http://[fd00::1]:9090", "", 2),
    }
    assert read("", tmp_path).sources == {}
    assert read('[source.a]\nurl = "http://localhost:9090"', tmp_path).sources["a"].url == "http://localhost:9090"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("source = 1", ":1: source: has the value 1; expected tables: write [source.NAME]"),
        ("[source]\nprom = 1", ":2: source.prom: has the value 1; expected a table: write [source.prom]"),
        ("[source.a]\ntimeout_s = 1", ":1: source.a.url: is missing; add it"),
        ('[source.a]\nulr = "https://p"', ":2: source.a.ulr: is not a known key; did you mean 'url'?"),
        (
            '[source.a]\nurl = "http://8.8.8.8:9090"',
            ":2: source.a.url: has the value 'http://8.8.8.8:9090'; expected https",
        ),
        ('[source.a]\nurl = "http://prometheus:9090"', ":2: source.a.url: has the value 'http://prometheus:9090'"),
        ('[source.a]\nurl = "http://0.0.0.0:9090"', ":2: source.a.url: has the value 'http://0.0.0.0:9090'"),
        ('[source.a]\nurl = "https://me:pw@p/"', ":2: source.a.url: has the value"),
        ('[source.a]\nurl = "https://p/?a=1"', ":2: source.a.url: has the value"),
        ('[source.a]\nurl = "/srv/p"', ":2: source.a.url: has the value '/srv/p'; expected a URL"),
        ('[source.a]\nurl = "https://p"\ntoken_file = "t"', ":3: source.a.token_file: has the value 't'"),
        ('[source.a]\nurl = "https://p"\ntimeout_s = 9', ":3: source.a.timeout_s: has the value 9"),
        ('[source."a b"]\nurl = "https://p"', ": is not a name of a source; expected a name of up to 64 letters"),
    ],
)
def test_mistakes_in_sources(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(Invalid) as found:
        read(text, tmp_path)
    assert error in str(found.value)


def test_too_many_hooks(tmp_path: Path) -> None:
    text = "".join(f'[hook.h{number}]\ncommand = ["/bin/true"]\n' for number in range(257))
    with pytest.raises(Invalid, match="has 257 tables; use at most 256"):
        read(text, tmp_path)


def test_the_check_names_programs_that_this_machine_does_not_have(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    (tmp_path / "plain").touch(0o644)
    tables = {"a": "/no/such/program", "b": str(tmp_path / "plain"), "c": "/bin/true"}
    text = "".join(f'[hook.{name}]\ncommand = ["{path}"]\n' for name, path in tables.items())
    file.write_text(
        f'state_dir = "{tmp_path}/s"\nlisten.node = "127.0.0.1:0"\n{text}cwd = "/no/such/folder"\n[hook.d]\n'
    )
    found = [line.removeprefix(f"{file}:") for line in mistakes(Options(config=str(file), socket=f"{tmp_path}/s.sock"))]
    assert [line for line in found if "hook" in line] == [
        "4: hook.a.command: /no/such/program is not a file; install the program, or correct its path",
        f"6: hook.b.command: {tmp_path}/plain is not executable; run: chmod +x {tmp_path}/plain",
        "9: hook.c.cwd: /no/such/folder is not a folder that this user can enter; create it, or use another path",
        "10: hook.d.command: is missing; expected a list: the absolute path of the program and its arguments, for example "
        '["/usr/local/bin/migrate", "--yes"]',
    ]
