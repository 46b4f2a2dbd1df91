"""Releases: read strictly, never changed, and safe to use in paths and command lines."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlb.model.location import parse_location, parse_prefix
from sdlb.model.problem import Invalid
from sdlb.model.release import ANY, Artifact, Release, Requirement, merged, read_release
from sdlb.node.release_file import read_release_file

A, B = "a" * 64, "b" * 64
CATALOG = """service = "catalog"
version = "1.0.2"
requires = ["pricing>=3.1", "stock >= 1, < 2"]
artifact.linux-x86_64 = {url = "https://repo.example/c-1.0.2.tgz", sha256 = "%s"}
[artifact.any]
url = "/srv/c.tar"
sha256 = "%s"
signature = "/srv/c.sig"
"""


def data(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "service": "catalog",
        "version": "1.0.2",
        "artifact": {ANY: {"url": "/srv/c", "sha256": A}},
    }
    found.update(changes)
    return found


def refused(text: str, **changes: Any) -> None:
    with pytest.raises(Invalid, match=re.escape(text)):
        read_release(data(**changes), "r")


def test_a_release_file(tmp_path: Path) -> None:
    file = tmp_path / "release.toml"
    file.write_text(CATALOG % (A, B))
    release = read_release_file(str(file))
    assert release.name == "catalog-1.0.2"
    assert release.requires == (Requirement("pricing", ">=3.1"), Requirement("stock", ">=1,<2"))
    assert release.artifact("linux-x86_64") == Artifact("https://repo.example/c-1.0.2.tgz", A)
    assert release.artifact("linux-aarch64") == Artifact("/srv/c.tar", B, "/srv/c.sig")
    assert read_release({"service": "a", "version": "1"}, "r").artifact("linux-x86_64") is None
    assert read_release(release.to_data(), "r") == release
    file.write_text(json.dumps(release.to_data()))
    assert read_release_file(str(file)) == release


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("version", "versoin", ":2: versoin: is not a known key; did you mean 'version'?"),
        ('"1.0.2"\n', '"1.0.2;touch x"\n', ":2: version: has the value '1.0.2;touch x': is not a version"),
        ('"1.0.2"\n', '"$(id)"\n', ":2: version: has the value $(id): is not a version"),
        ('"1.0.2"\n', '"../x"\n', ":2: version: has the value ../x: is not a version"),
        ('"catalog"', '"a/b"', ":1: service: has the value a/b: is not a service name"),
        ('"pricing>=3.1"', '"pricing"', ":3: requires: has the item pricing; write it like"),
        ("url =", "ulr =", ":4: artifact.linux-x86_64.ulr: is not a known key; did you mean 'url'?"),
        ("linux-x86_64", "linux-amd64", ":4: artifact.linux-amd64: is not a platform; did you mean 'linux-x86_64'?"),
        ("service = ", "service == ", ": is not TOML:"),
    ],
)
def test_a_mistake_names_its_line(tmp_path: Path, old: str, new: str, expected: str) -> None:
    file = tmp_path / "release.toml"
    file.write_text(CATALOG.replace(old, new, 1).replace("%s", A))
    with pytest.raises(Invalid) as error:
        read_release_file(str(file))
    assert f"{file}{expected}" in str(error.value)


def test_json_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "release.json"
    for text, expected in {
        '{"service": "a",\n "version": "1",\n "version": "2"}': "has the key 'version' twice",
        '{"service": "a",\n version': ":2: is not JSON",
        '{"service": "a"}': ": version: is missing",
        "{" * 100_000: "is n",
    }.items():
        file.write_text(text)
        with pytest.raises(Invalid, match=re.escape(expected)):
            read_release_file(str(file))
    file.write_bytes(b"\xff")
    with pytest.raises(Invalid, match="is not UTF-8"):
        read_release_file(str(file))
    file.write_bytes(b" " * (1 << 21))
    with pytest.raises(Invalid, match="longer than 1 MiB"):
        read_release_file(str(file))
    with pytest.raises(Invalid, match="cannot be read"):
        read_release_file(str(tmp_path / "none"))


def test_what_contradicts_itself_is_refused() -> None:
    refused("requires: has the service catalog itself", requires=["catalog>=1"])
    refused("requires: has pricing twice", requires=["pricing>=1", "pricing<2"])
    for empty in ("pricing>=3,<2", "pricing>3.0,<=3", "pricing=1.0,=1.1", "pricing=1.0,>2", "pricing>1,<1"):
        refused(f"requires: has the item {empty}, which no version satisfies", requires=[empty])
    for full in ("pricing>=3,<=3.0", "pricing>1,<1.0.1", "pricing=1.0"):
        assert read_release(data(requires=[full]), "r").requires
    same = {"linux-x86_64": {"url": "/srv/c", "sha256": A}, ANY: {"url": "/srv/c", "sha256": B}}
    refused("sha256: differs from that of any", artifact=same)


@pytest.mark.parametrize("digest", ["", "a" * 63, "A" * 64, "g" * 64, f"sha256:{A}", 7, None])
def test_a_digest_is_64_digits(digest: object) -> None:
    refused("artifact.any.sha256: has the value", artifact={ANY: {"url": "/srv/c", "sha256": digest}})


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "c.tgz",
            "ftp://a/b",
            "https://",
            "https:///b",
            "https://u:p@a/b",
            "https://a/b#c",
            "https://a b/",
            "oci:a",
        ),
        *("https://a/../b", "https://a/%2e%2e/b", "https://a/b%2fc", "https://a//b", "https://a/\\b", "https://a/%zz"),
        *(
            "/a/../b",
            "/a/./b",
            "//a",
            "oci:/a/../b",
            "https://a:0/b",
            "https://a:b/c",
            "https://[::1/b",
            "/a\nb",
            "http:/a",
        ),
        *("https://exämple/a", "https://a/" + "b" * 3000, "file:///a", "https://0.0.0.0/a"),
    ],
)
def test_a_url_has_one_meaning(url: str) -> None:
    refused("artifact.any.url: has the value", artifact={ANY: {"url": url, "sha256": A}})


def test_a_prefix_permits_what_is_below_it() -> None:
    repo = parse_prefix("https://Repo.example:443/a/")
    assert str(repo) == "https://repo.example/a/"
    for inside in ("https://repo.example/a/b", "https://repo.example:443/a/b/c?d=e", "https://REPO.example/a/"):
        assert repo.permits(parse_location(inside)), inside
    for outside in (
        *("http://repo.example/a/b", "https://repo.example:444/a/b", "https://repo.example.evil/a/b"),
        *("https://repo.example/ab", "https://repo.example/A/b", "https://evil/https://repo.example/a/b", "/a/b"),
    ):
        try:
            assert not repo.permits(parse_location(outside)), outside
        except ValueError:
            assert "//repo" in outside
    assert parse_prefix("/srv/").permits(parse_location("/srv/a"))
    assert not parse_prefix("/srv/").permits(parse_location("oci:/srv/a"))
    assert not parse_prefix("/srv/").permits(parse_location("/srvx/a"))
    for text in ("https://repo.example/a", "https://repo.example/a/?b", "/srv", "oci:/srv"):
        with pytest.raises(ValueError, match="ends with"):
            parse_prefix(text)


def test_a_container_image_is_named_without_tag_and_digest() -> None:
    """The digest of the release is the only one, and a container engine reads the name as sdlb does."""
    found = parse_location("docker://Registry.example:443/team/catalog")
    assert (found.scheme, found.host, found.path) == ("docker", "registry.example", "/team/catalog")
    assert str(found) == "docker://registry.example/team/catalog"
    for inside in ("docker://registry.example/", "docker://registry.example/team/"):
        assert parse_prefix(inside).permits(found)
    for outside in ("docker://registry.example/tea/", "docker://registry.example:5000/", "https://registry.example/"):
        assert not parse_prefix(outside).permits(found)
    for url in (
        *(
            "docker://registry.example/a:1",
            "docker://registry.example/a@sha256:" + A,
            "docker://catalog",
            "docker://team/a",
            "docker://team:443/a",
        ),
        *(
            "docker://registry.example/A",
            "docker://registry.example/a//b",
            "docker://registry.example/../a",
            "docker:/a/b",
        ),
        *(
            "docker://registry.example/a b",
            "docker://u:p@registry.example/a",
            "docker://registry.example/a?b",
            "docker://",
        ),
        *("docker://registry.example/a/", "docker:registry.example/a", "docker://registry.example/a;touch x"),
    ):
        with pytest.raises(ValueError, match=r"docker:|host:port"):
            parse_location(url)
    for prefix in (
        "docker://",
        "docker://team/",
        "docker://registry.example",
        "docker:///",
        "docker://registry.example//",
    ):
        with pytest.raises(ValueError, match=r"docker:|ends with"):
            parse_prefix(prefix)


def test_a_release_never_changes() -> None:
    old = read_release(data(), "r")
    more = read_release(data(artifact={"linux-aarch64": {"url": "/srv/d", "sha256": B}}), "r")
    both = merged(old, more)
    assert [platform for platform, _ in both.artifacts] == [ANY, "linux-aarch64"]
    assert merged(both, old) == both
    moved = read_release(data(artifact={ANY: {"url": "/elsewhere", "sha256": A}}), "r")
    assert merged(old, moved).artifact(ANY) == Artifact("/elsewhere", A)
    with pytest.raises(Invalid, match=r"catalog-1\.0\.2: already has the digest aaaaaaaaaaaa\.\.\. for any, not bbbb"):
        merged(old, read_release(data(artifact={ANY: {"url": "/srv/c", "sha256": B}}), "r"))
    with pytest.raises(Invalid, match="other requirements"):
        merged(old, read_release(data(requires=["pricing>=1"]), "r"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_data_is_a_release_or_invalid(value: Any) -> None:
    for key in ("service", "version", "requires", "artifact"):
        try:
            assert isinstance(read_release(data(**{key: value}), "r"), Release)
        except Invalid as error:
            found = error
        else:
            continue
        assert found.where.startswith("r")
        assert "\n" not in str(found)
