"""`[role.ROLE.SERVICE]` of the node file."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdlb.model.instance import HealthCheck
from sdlb.model.location import Location
from sdlb.model.problem import Invalid
from sdlb.model.role import ArtifactRules, Commands, Program, Restart, RoleService, filled
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
"""
    )
    catalog, pricing = read(text, tmp_path).services
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
        (PROCESS.replace('"process"', '"systemd"'), ":3: role.web.catalog.driver: the driver systemd is not supported"),
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
    file.write_text(f'state_dir = "{tmp_path}/state"\n{lacking}{more}')
    assert [text.removeprefix(f"{file}:").split(";")[0] for text in mistakes(Options(config=str(file)))] == [
        "6: role.web.catalog.command: /no/such/catalog is not a file",
        "7: role.web.catalog.user: this machine has no user no-such-user",
        "8: role.web.catalog.cwd: /no is not a folder that this user can enter",
        f"10: role.web.catalog.keys: {tmp_path}/k cannot be read",
        "14: role.web.b.start: /no/start is not a file",
    ]


def test_a_value_is_not_read_for_placeholders_again() -> None:
    assert filled("--at={port}/{version}{other}", {"port": "{version}", "version": "1"}) == "--at={version}/1{other}"
