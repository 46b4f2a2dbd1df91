"""Bad input of every kind gets one clear error and leaves what was there as it was."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from sdlb.cli.demo.launch import SDLB
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, api

GOOD: dict[str, object] = {
    "service": "input",
    "version": "1.0.0",
    "routes": ["input.example/x"],
    "endpoint": "127.0.0.1:9",
    "health": {"kind": "none"},
}
BAD_BODIES: dict[str, object] = {
    "no service": {key: value for key, value in GOOD.items() if key != "service"},
    "no routes": {**GOOD, "routes": []},
    "a route with a scheme": {**GOOD, "routes": ["http://input.example/x"]},
    "a star in the middle": {**GOOD, "routes": ["a.*.example/x"]},
    "a route with white space": {**GOOD, "routes": ["input.example/a b"]},
    "a route that isn't canonical": {**GOOD, "routes": ["input.example/a/../b"]},
    "a route as a string": {**GOOD, "routes": "input.example/x"},
    "a very long route": {**GOOD, "routes": ["input.example/" + "x" * 100_000]},
    "ten thousand routes": {**GOOD, "routes": [f"input.example/{n}" for n in range(10_000)]},
    "no version": {**GOOD, "version": ""},
    "a version with line breaks": {**GOOD, "version": "1.0\r\nX-Evil: 1"},
    "a version of a megabyte": {**GOOD, "version": "1." + "0" * 1_000_000},
    "a service with a slash": {**GOOD, "service": "a/b"},
    "an endpoint without a port": {**GOOD, "endpoint": "127.0.0.1"},
    "an endpoint with port 0": {**GOOD, "endpoint": "127.0.0.1:0"},
    "an unknown protocol": {**GOOD, "protocol": "gopher"},
    "a negative capacity": {**GOOD, "capacity": -1},
    "a capacity of words": {**GOOD, "capacity": "many"},
    "a negative ttl": {**GOOD, "ttl_s": -1},
    "an unknown key": {**GOOD, "colour": "red"},
    "a bad range": {**GOOD, "compatible": [">=1.0,<<2"]},
    "a range that blows up": {**GOOD, "compatible": [",".join([">=1"] * 100_000)]},
    "a bad health check": {**GOOD, "health": {"kind": "smell"}},
    "a million labels": {**GOOD, "labels": {str(n): "" for n in range(1_000_00)}},
    "a list": [GOOD],
    "null": None,
}
RAW = {
    "no JSON": b"service=input",
    "half of it": json.dumps(GOOD).encode()[:-9],
    "deep": b"[" * 100_000,
    "not UTF-8": b'{"service": "\xff\xfe"}',
    "empty": b"",
}


@pytest.mark.parametrize(
    "content", [*({k: json.dumps(v).encode() for k, v in BAD_BODIES.items()} | RAW).values()], ids=[*BAD_BODIES, *RAW]
)
def test_a_bad_registration(hosts: list[Node], content: bytes) -> None:
    with api(hosts[0]) as http:
        before = http.get("/v1/instances").json()
        answer = http.put("/v1/instances/bad", content=content, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 413), answer.text[:300]
        assert answer.headers["content-type"].startswith("application/problem+json")
        problem = answer.json()
        assert problem["status"] == answer.status_code and problem["title"]
        assert problem["type"].startswith("https://sdlb.dev/problems/")
        assert 10 < len(problem["detail"]) < 600, "one clear sentence, not an echo of what was sent"
        assert "Traceback" not in answer.text
        assert http.get("/v1/instances").json() == before
        assert http.get("/v1/instances/bad").status_code == 404


@pytest.mark.parametrize("id", ["..", "a b", "x" * 5000, "%00", "a%0d%0ab", "%2e%2e%2fx"])
def test_a_bad_id(hosts: list[Node], id: str) -> None:
    with api(hosts[0]) as http:
        answer = http.put(f"/v1/instances/{id}", json=GOOD)
        assert 400 <= answer.status_code < 500, answer.text[:300]


def test_a_changed_registration_that_is_bad_leaves_the_good_one(
    shared: Cluster, hosts: list[Node], site: str, backend: Callable[..., Backend]
) -> None:
    kept = shared.register(hosts[0], f"{site[:-8]}-1.0.0", site, backend(site[:-8], "1.0.0"))
    before = kept.get()
    with api(hosts[0]) as http:
        body = {**kept.spec.body(), "routes": ["not a route"]}
        assert http.put(f"/v1/instances/{kept.spec.id}", json=body).status_code == 400
    assert kept.get() == before


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/nothing"),
        ("PATCH", "/v1/instances/x"),
        ("DELETE", "/v1/instances/never-was"),
        ("GET", "/v1/services/never-was"),
        ("GET", "/v1/explain"),
        ("GET", "/v1/explain?url=::::"),
        ("GET", "/v1/explain?url=ftp://a/b"),
        ("GET", "/v1/instances/x?wait=active&timeout_s=forever"),
        ("POST", "/v1/instances/x/drain?deadline_s=-5"),
    ],
)
def test_a_bad_call_is_a_problem_document(hosts: list[Node], method: str, path: str) -> None:
    with api(hosts[0]) as http:
        answer = http.request(method, path)
    assert 400 <= answer.status_code < 500
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert set(answer.json()) >= {"type", "title", "status", "detail"}


# ------------------------------------------------------------------ node files

GOOD_FILE = """
name = "n"
state_dir = "{folder}/state"
insecure = true
parents = []
[listen]
node = "127.0.0.1:{port}"
socket = "{folder}/api.sock"
"""
BAD_FILES = {
    "unknown key": (GOOD_FILE.replace("insecure", "insekure"), "insekure"),
    "unknown table": (GOOD_FILE + "\n[lisen]\nhttp = 'x'\n", "lisen"),
    "unknown key in a table": (GOOD_FILE + 'htttp = "127.0.0.1:1"\n', "htttp"),
    "not TOML": (GOOD_FILE + "\nthis is not toml\n", "line"),
    "wrong type": (GOOD_FILE.replace("insecure = true", 'insecure = "yes"'), "insecure"),
    "bad address": (GOOD_FILE.replace("127.0.0.1:{port}", "localhost"), "node"),
    "bad port": (GOOD_FILE.replace("127.0.0.1:{port}", "127.0.0.1:70000"), "node"),
    "bad parent": (GOOD_FILE.replace("parents = []", 'parents = ["nowhere"]'), "parents"),
    "bad name": (GOOD_FILE.replace('"n"', '"a b\\n"'), "name"),
    "unknown engine": ('engine = "warp"\n' + GOOD_FILE, "engine"),
    "lease shorter than the beat": (GOOD_FILE + "\n[timing]\nbeat_s = 5.0\nlease_s = 1.0\n", "lease_s"),
    "negative time": (GOOD_FILE + "\n[timing]\nbeat_s = -1.0\n", "beat_s"),
    "clear text towards everybody without saying so": (
        GOOD_FILE.replace("insecure = true", "insecure = false").replace("127.0.0.1:{port}", "0.0.0.0:{port}"),
        "insecure",
    ),
}


@pytest.mark.parametrize(("text", "names"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_node_file_is_one_error_that_names_file_and_key(cluster: Cluster, text: str, names: str) -> None:
    file = cluster.folder / "bad.toml"
    file.write_text(text.format(folder=cluster.folder, port=cluster.ports.take()))
    done = cluster.sdlb("node", "--config", str(file), timeout_s=20)
    assert done.returncode == 1, done
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert str(file) in lines[0] and names in lines[0]
    assert "Traceback" not in done.stderr
    assert not (cluster.folder / "state").exists(), "nothing half-done"


def test_a_node_file_that_is_not_there(cluster: Cluster) -> None:
    done = cluster.sdlb("node", "--config", "/nowhere/node.toml")
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
    assert "/nowhere/node.toml" in done.stderr


def test_a_port_that_is_taken_is_named(cluster: Cluster) -> None:
    ((edge,),) = cluster.tiers(1)
    second = cluster.node("second", entry=True, start=False, listen={"http": edge.http})
    second.write_config()
    done = cluster.sdlb("node", "--config", str(second.config), timeout_s=30)
    assert done.returncode == 1
    assert edge.http in done.stderr


def test_two_controls_of_one_state_folder_do_not_run_together(cluster: Cluster) -> None:
    ((edge,),) = cluster.tiers(1)
    done = cluster.sdlb("node", "--config", str(edge.config), timeout_s=20)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert edge.ready()


# ------------------------------------------------------------------ command lines

BAD_COMMANDS = {
    "no command": [],
    "unknown command": ["dmeo"],
    "unknown option": ["status", "--jsn"],
    "run without a program": ["run", "--route", "a.example", "a-1.0.0"],
    "run without a route": ["run", "a-1.0.0", "--", "true"],
    "explain without a URL": ["explain"],
    "node with nothing": ["node", "--listen", "nonsense"],
}


@pytest.mark.parametrize("words", BAD_COMMANDS.values(), ids=BAD_COMMANDS)
def test_wrong_usage_is_exit_code_two(words: list[str]) -> None:
    done = subprocess.run([*SDLB, *words], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2, done
    assert done.stderr.strip() and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["status", "never-was"],
        ["run", "--route", "not a route", "a-1.0.0", "--", "sleep", "99"],
        ["run", "--route", "a.example", "--compatible", ">>1", "a-1.0.0", "--", "sleep", "99"],
        ["register", "--route", "a.example/*/b", "--port", "9", "a-1.0.0"],
        ["deregister", "never-was"],
        ["policy", "set", "web", "--priority", "sideways"],
        ["explain", "::::"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_what_is_refused_and_what_is_wrong_is_one_line(shared: Cluster, hosts: list[Node], words: list[str]) -> None:
    done = shared.sdlb(*words, node=hosts[0])
    assert done.returncode == (1 if "never-was" in words else 2), done
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_node_that_isnt_there_is_one_line(shared: Cluster) -> None:
    done = shared.sdlb("status", "--socket", "/nowhere/api.sock")
    assert done.returncode == 1 and "/nowhere/api.sock" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
