"""`[role.ROLE.SERVICE]` of the node file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sdlb.model.instance import HealthCheck
from sdlb.model.location import Location
from sdlb.model.problem import Invalid
from sdlb.model.role import ArtifactRules, Commands, Container, Program, Restart, RoleService, Unit, filled
from sdlb.node.check import mistakes
from sdlb.node.config import NodeConfig, Options, read_config

PROCESS = """roles = ["web"]
[role.web.catalog]
driver = "process"
routes = ["example.com/catalog*"]
command = ["./catalog", "--port", "{port}"]
"""
COMMAND = """roles = ["web"]
[role.web.catalog]
driver = "command"
routes = ["example.com/catalog*"]
start = ["/bin/true"]
stop = ["/bin/true"]
state = ["/bin/true"]
"""
CONTAINER = """roles = ["web"]
[role.web.catalog]
driver = "container"
routes = ["example.com/catalog*"]
from = ["docker://registry.example/team/"]
"""
SYSTEMD = """roles = ["web"]
[role.web.catalog]
driver = "systemd"
routes = ["example.com/catalog*"]
unit = "catalog@.service"
"""


def read(text: str, tmp_path: Path) -> NodeConfig:
    file = tmp_path / "node.toml"
    file.write_text(text)
    return read_config(Options(config=str(file)), {})


def test_the_defaults(tmp_path: Path) -> None:
    run = Program(("./catalog", "--port", "{port}"))
    assert read(PROCESS, tmp_path).services == (RoleService("web", "catalog", run, ("example.com/catalog*",)),)
    commands = Commands(("/bin/true",), ("/bin/true",), ("/bin/true",))
    found = read(COMMAND, tmp_path).services
    assert found == (RoleService("web", "catalog", commands, ("example.com/catalog*",)),)
    assert found[0].driver == "command"
    rules = ArtifactRules((Location("docker", "registry.example", "/team/"),))
    found = read(CONTAINER, tmp_path).services
    assert found == (RoleService("web", "catalog", Container(), ("example.com/catalog*",), artifacts=rules),)
    assert found[0].driver == "container"
    found = read(SYSTEMD, tmp_path).services
    assert found == (RoleService("web", "catalog", Unit("catalog@.service"), ("example.com/catalog*",)),)
    assert found[0].driver == "systemd"
    assert read(f"{SYSTEMD}timeout_s = 5\nfrom = ['/srv/']", tmp_path).services[0].run == Unit("catalog@.service", 5)


def test_everything(tmp_path: Path) -> None:
    text = (
        PROCESS
        + """
health = {kind = "http", path = "/health", rise = 2}
protocol = "h2c"
compatible = [">=1.0,<1.2"]
capacity = 7
port = 8001
env = {A = "$(id)"}
start_timeout_s = 5
side_by_side = false
from = ["https://repo.example:443/", "/srv/"]
keys = ["/etc/sdlb/release.pub"]
artifact_mb_max = 3
fetch_timeout_s = 4
user = "catalog"
memory_mb = 512
cpu = 0.5
cwd = "/srv"
stop_timeout_s = 0
restart = {first_s = 2, max_s = 3, stable_s = 4}
log_bytes_max = 70000
[role.web.pricing]
driver = "command"
routes = ["a/"]
prepare = ["/bin/a", "$(id)"]
start = ["/bin/b"]
stop = ["/bin/c"]
state = ["/bin/d"]
forget = ["/bin/e"]
timeout_s = 9
[role.web.search]
driver = "container"
routes = ["b/"]
from = ["docker://registry.example:443/", "docker://localhost:5000/team/"]
fetch_timeout_s = 8
command = ["--port", "{port}", "{version}"]
container_port = 8080
user = "1000:1000"
memory_mb = 64
cpu = 2
stop_timeout_s = 3
log_bytes_max = 70000
socket = "/run/podman/podman.sock"
"""
    )
    catalog, pricing, search = read(text, tmp_path).services
    run = Program(("./catalog", "--port", "{port}"), "catalog", 512, 0.5, "/srv", 0, Restart(2, 3, 4), 70000)
    rules = ArtifactRules(
        (Location("https", "repo.example", "/"), Location("file", "", "/srv/")), ("/etc/sdlb/release.pub",), 3, 4
    )
    health = HealthCheck("http", "/health", rise=2)
    assert catalog == RoleService(
        *("web", "catalog", run, ("example.com/catalog*",), health, "h2c", (">=1.0,<1.2",), 7, 8001, {"A": "$(id)"}),
        *(rules, 5, False),
    )
    run = Commands(("/bin/b",), ("/bin/c",), ("/bin/d",), ("/bin/a", "$(id)"), ("/bin/e",), 9)
    assert pricing == RoleService("web", "pricing", run, ("a/",))
    run = Container(("--port", "{port}", "{version}"), 8080, "1000:1000", 64, 2, 3, 70000, "/run/podman/podman.sock")
    rules = ArtifactRules(
        (Location("docker", "registry.example", "/"), Location("docker", "localhost:5000", "/team/")), (), timeout_s=8
    )
    assert search == RoleService("web", "search", run, ("b/",), artifacts=rules)
    assert "$(id)" not in repr(catalog)  # variables may be secret


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PROCESS.replace('["web"]', '["wep"]'), ":2: role.web: is not in `roles`; did you mean 'wep'?"),
        (PROCESS.replace('["web"]', "[]"), ':2: role.web: is not in `roles`; add it: roles = ["web"]'),
        (PROCESS.replace("role.web", 'role."a/b"'), ":2: role.a/b: is not in `roles`"),
        (PROCESS.replace(".catalog]", '."a/b"]'), ":2: role.web.a/b: is not a service name"),
        ("roles = ['web']\nrole = 1", ":2: role: has the value 1; expected a table: write [role.ROLE.SERVICE]"),
        ("roles = ['web']\nrole.web = 1", ":2: role.web: has the value 1; expected a table: write [role.web.SERVICE]"),
        ("roles = ['web']\nrole.web.a = 1", ":2: role.web.a: has the value 1; expected a table: write [role.web.a]"),
        (PROCESS + "memory = 1", ":6: role.web.catalog.memory: is not a known key; did you mean 'memory_mb'?"),
        (PROCESS + 'start = ["/a"]', ':6: role.web.catalog.start: is not a key of driver = "process"; use command'),
        (COMMAND + "cpu = 1", ':8: role.web.catalog.cpu: is not a key of driver = "command"; use prepare'),
        (PROCESS.replace('driver = "process"\n', ""), ":2: role.web.catalog.driver: is missing"),
        (PROCESS.replace('"process"', '"systemd"'), ':5: role.web.catalog.command: is not a key of driver = "systemd"; use unit'),
        (SYSTEMD.replace("unit =", "# unit ="), ":2: role.web.catalog.unit: is missing; expected a template unit"),
        (SYSTEMD.replace("@.", "@1.0."), ":5: role.web.catalog.unit: has the value 'catalog@1.0.service'; expected a template"),
        (SYSTEMD.replace("@.service", ".service"), ":5: role.web.catalog.unit: has the value 'catalog.service'"),
        (SYSTEMD.replace("catalog@", "../c;touch x@"), ":5: role.web.catalog.unit: has the value '../c;touch x@.service'"),
        (SYSTEMD + "socket = '/run/docker.sock'", ':6: role.web.catalog.socket: is not a key of driver = "systemd"'),
        (CONTAINER + 'cwd = "/"', ':6: role.web.catalog.cwd: is not a key of driver = "container"; use command, container_port'),
        (CONTAINER + 'keys = ["/k"]', ':6: role.web.catalog.keys: is not a key of driver = "container"'),
        (CONTAINER + 'user = "a b"', ":6: role.web.catalog.user: has the value 'a b'; expected a user of the image"),
        (CONTAINER + 'command = ["{folder}/x"]', ":6: role.web.catalog.command: has {folder}, which a container does not have"),
        (CONTAINER + 'command = "x; touch y"', ":6: role.web.catalog.command: has the value 'x; touch y'; expected a list"),
        (CONTAINER + "container_port = 70000", ":6: role.web.catalog.container_port: has the value 70000"),
        (CONTAINER + 'socket = "docker.sock"', ":6: role.web.catalog.socket: has the value 'docker.sock'; expected an absolute"),
        (CONTAINER.replace("registry.example", "team"), ":5: role.web.catalog.from: has the value"),
        (CONTAINER.replace("/team/", "/team"), ":5: role.web.catalog.from: has the value"),
        (PROCESS.replace('"process"', '"proces"'), ":3: role.web.catalog.driver: has the value 'proces'; expected one of"),
        (PROCESS.replace("./catalog", "catalog"), ":5: role.web.catalog.command: starts with 'catalog', which is no path"),
        (PROCESS.replace("./catalog", "../catalog"), ":5: role.web.catalog.command: starts with '../catalog'"),
        (PROCESS.replace("./catalog", "{folder}/a"), ":5: role.web.catalog.command: starts with '{folder}/a'"),
        (PROCESS.replace("{port}", "{prot}"), "instead of {prot}; did you mean {port}?"),
        (PROCESS.replace('["./catalog", "--port", "{port}"]', '"./catalog -p 1"'), ":5: role.web.catalog.command: has the"),
        (PROCESS.replace("example.com/catalog*", "a.*.b/"), ":4: role.web.catalog.routes: route 'a.*.b/'"),
        (PROCESS.replace('"example.com/catalog*"', ""), ":4: role.web.catalog.routes: is missing or empty"),
        (PROCESS + 'compatible = [">>1"]', ":6: role.web.catalog.compatible: compatible '>>1'"),
        (PROCESS + 'health = {kind = "ping"}', ":6: role.web.catalog.health.kind: has the value 'ping'"),
        (PROCESS + 'health = {path = "x"}', ":6: role.web.catalog.health: has the health path 'x'"),
        (PROCESS + 'health = {paht = "/"}', ":6: role.web.catalog.health.paht: is not a known key; did you mean 'path'?"),
        (PROCESS + 'from = ["https://repo.example/a"]', ":6: role.web.catalog.from: has the value"),
        (PROCESS + 'keys = ["/k"]', ":6: role.web.catalog.keys: needs `from`"),
        (PROCESS + 'user = "$(id)"', ":6: role.web.catalog.user: has the value '$(id)'; expected the name of a user"),
        (PROCESS + "restart = {first_s = 9, max_s = 1}", ":6: role.web.catalog.restart.max_s: has the value 1"),
        (PROCESS + "env = {SDLB_X = 'a'}", ":6: role.web.catalog.env.SDLB_X: starts with SDLB_"),
        (COMMAND.replace('stop = ["/bin/true"]\n', ""), ":2: role.web.catalog.stop: is missing"),
        (COMMAND.replace('start = ["/bin/true"]', 'start = ["true"]'), ":5: role.web.catalog.start: has the value"),
    ],
)  # fmt: skip
def test_a_mistake(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(Invalid) as error:
        read(text, tmp_path)
    assert expected in str(error.value)


def test_check_finds_all_mistakes_and_what_the_machine_lacks(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    wrong = PROCESS.replace("./catalog", "catalog").replace("example.com/", "*.*/").replace('"process"', '"proces"')
    wrong += "capacity = 0\nmemory = 1\n"
    file.write_text(f'state_dir = "{tmp_path}/state"\n{wrong}')
    found = mistakes(Options(config=str(file)))
    lines = [text.partition(" ")[0].removeprefix(f"{file}:") for text in found]
    assert lines == ["4:", "5:", "6:", "7:", "8:"], found
    lacking = (
        PROCESS.replace("./", "/no/such/")
        + f'user = "no-such-user"\ncwd = "/no"\nfrom = ["/a/"]\nkeys = ["{tmp_path}/k"]\n'
    )
    more = '[role.web.b]\ndriver = "command"\nroutes = ["b/"]\nstart = ["/no/start"]\nstop = ["/bin/true"]\nstate = ["/bin/true"]\n'
    more += '[role.web.c]\ndriver = "container"\nroutes = ["c/"]\nfrom = ["docker://a.example/"]\nsocket = "/no/docker.sock"\n'
    more += '[role.web.d]\ndriver = "systemd"\nroutes = ["d/"]\nunit = "d@.service"\n'
    file.write_text(f'state_dir = "{tmp_path}/state"\n{lacking}{more}')
    assert [text.removeprefix(f"{file}:").split(";")[0] for text in mistakes(Options(config=str(file)))] == [
        "6: role.web.catalog.command: /no/such/catalog is not a file",
        "7: role.web.catalog.user: this machine has no user no-such-user",
        "8: role.web.catalog.cwd: /no is not a folder that this user can enter",
        f"10: role.web.catalog.keys: {tmp_path}/k cannot be read",
        "14: role.web.b.start: /no/start is not a file",
        "21: role.web.c.socket: /no/docker.sock cannot be used",
        *(
            []
            if os.path.isdir("/run/systemd/system")
            else ["23: role.web.d.driver: this machine is not managed by systemd"]
        ),
    ]


def test_a_value_is_not_read_for_placeholders_again() -> None:
    assert filled("--at={port}/{version}{other}", {"port": "{version}", "version": "1"}) == "--at={version}/1{other}"
