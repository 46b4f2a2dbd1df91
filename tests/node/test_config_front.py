"""`redirect`, `security_headers` and `error_pages` of a site: what they mean, and one clear error for each malformed value."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlb.model.front import SECURITY_FIELDS, Redirect, loop_of
from sdlb.model.problem import Invalid
from sdlb.model.site import SiteSpec
from sdlb.node.check import mistakes
from sdlb.node.config import Options, read_config
from sdlb.node.pem import read_site

SITE = '[listen]\nhttps = "127.0.0.1:8443"\n[[site]]\nhosts = ["example.com", "*.example.com"]\ncertificate = "/dev/null"\n'
"""What follows stands in the site, from line 6 on."""
OTHER = '[[site]]\nhosts = ["example.org"]\ncertificate = "/dev/null"\n'


def sites(folder: Path, text: str) -> tuple[SiteSpec, ...]:
    file = folder / "node.toml"
    file.write_text(SITE + text)
    return read_config(Options(config=str(file), state_dir=str(folder)), {}).sites


def test_a_site_says_nothing_by_itself(tmp_path: Path) -> None:
    (site,) = sites(tmp_path, "")
    assert (site.front.redirects, site.front.fields, site.front.pages) == ((), (), ())
    (site,) = sites(tmp_path, "security_headers = false\n")
    assert site.front.fields == ()


def test_what_a_site_may_say(tmp_path: Path) -> None:
    (site,) = sites(
        tmp_path,
        'redirect = {"/old/" = "https://new.example/x/", "/" = "https://new.example/"}\n'
        'security_headers = {"X-Frame-Options" = "DENY", "content-security-policy" = "default-src \'self\'"}\n'
        'error_pages = {5xx = "/5xx.html", 503 = "/503.html", 4xx = "/4xx.html"}\n',
    )
    assert site.front.redirects == (("/old", "https://new.example/x"), ("", "https://new.example"))
    assert site.front.fields == (("x-frame-options", "DENY"), ("content-security-policy", "default-src 'self'"))
    assert [(statuses, file.path) for statuses, file in site.front.pages] == [
        ((503, 503), "/503.html"),
        ((400, 499), "/4xx.html"),
        ((500, 599), "/5xx.html"),
    ]
    assert site.front.pages[0][1].where == f"{tmp_path}/node.toml:8: site.0.error_pages.503"
    (site,) = sites(tmp_path, 'security_headers = true\nredirect = "http://new.example:8080/"\n')
    assert site.front.fields == SECURITY_FIELDS
    assert site.front.redirects == (("", "http://new.example:8080"),)


BAD = {
    "a redirect that is no text": ("redirect = 7\n", "site.0.redirect", "expected a string"),
    "a redirect without scheme": ('redirect = "new.example"\n', "site.0.redirect", "expected a URL"),
    "a redirect with a query": ('redirect = "https://new.example/?a"\n', "site.0.redirect", "expected a URL"),
    "a redirect with a user": ('redirect = "https://a@new.example/"\n', "site.0.redirect", "expected a URL"),
    "a redirect with a bad port": ('redirect = "https://new.example:x/"\n', "site.0.redirect", "expected a URL"),
    "a redirect with white space": ('redirect = "https://new.example/a b"\n', "site.0.redirect", "expected a URL"),
    "a prefix without slash": (
        'redirect = {old = "https://new.example"}\n',
        "site.0.redirect.old",
        "expected a path that starts with /",
    ),
    "a prefix with a star": (
        'redirect = {"/old*" = "https://new.example"}\n',
        "site.0.redirect./old*",
        "expected a path",
    ),
    "a prefix with dots": ('redirect = {"/a/../b" = "https://x.example"}\n', "redirect./a/../b", "expected a path"),
    "a prefix twice": (
        'redirect = {"/a" = "https://x.example", "/a/" = "https://y.example"}\n',
        "site.0.redirect./a/",
        "list each prefix once",
    ),
    "a redirect to itself": ('redirect = "https://www.example.com/a"\n', "site.0.redirect", "leads back to itself"),
    "a path to itself": (
        'redirect = {"/a" = "https://EXAMPLE.com:8443/a/b"}\n',
        "site.0.redirect",
        "leads back to itself by https://EXAMPLE.com:8443/a/b",
    ),
    "two sites to each other": (
        f'redirect = "https://example.org/a"\n{OTHER}redirect = "https://example.com"\n',
        "site.0.redirect",
        "by https://example.org/a and https://example.com/a",
    ),
    "fields that are no table": (
        'security_headers = "yes"\n',
        "site.0.security_headers",
        "expected true, false, or a table",
    ),
    "a field with line ends": (
        'security_headers = {x-a = "b\\r\\nc: d"}\n',
        "site.0.security_headers.x-a",
        "expected a value of printable ASCII",
    ),
    "a field without value": ('security_headers = {x-a = ""}\n', "security_headers.x-a", "expected a value"),
    "a field that is no text": ("security_headers = {x-a = true}\n", "security_headers.x-a", "expected a value"),
    "a field that frames": (
        'security_headers = {"Content-Length" = "0"}\n',
        "site.0.security_headers.Content-Length",
        "expected the name of a header field that may be the same in all responses",
    ),
    "a field that is no token": ('security_headers = {"x a" = "b"}\n', "security_headers.x a", "expected the name"),
    "a field twice": ('security_headers = {x-a = "b", X-A = "c"}\n', "security_headers.X-A", "once"),
    "pages that are no table": ('error_pages = "/a"\n', "site.0.error_pages", "is not a table"),
    "a page of a status of no error": ('error_pages = {200 = "/a"}\n', "site.0.error_pages.200", "from 400 to 599"),
    "a page of no status": ('error_pages = {all = "/a"}\n', "site.0.error_pages.all", '"5xx"'),
    "a page without path": ('error_pages = {404 = "a.html"}\n', "site.0.error_pages.404", "an absolute path"),
    "an unknown key": ('redirects = "/a"\n', "site.0.redirects", "did you mean 'redirect'?"),
}


@pytest.mark.parametrize(("text", "where", "what"), BAD.values(), ids=BAD)
def test_a_malformed_value_is_one_clear_error(tmp_path: Path, text: str, where: str, what: str) -> None:
    with pytest.raises(Invalid) as refused:
        sites(tmp_path, text)
    message = str(refused.value)
    assert message.startswith(f"{tmp_path}/node.toml:") and f"{where}: " in message and what in message, message
    assert "\n" not in message
    found = [
        each for each in mistakes(Options(config=str(tmp_path / "node.toml"), state_dir=str(tmp_path))) if where in each
    ]
    assert len(found) == 1 or where == "site.0.redirect"


def test_redirects_that_arrive(tmp_path: Path) -> None:
    for text in (
        'redirect = {"/a" = "https://example.com/b", "/b" = "https://example.com/c"}\n',
        'redirect = {"/a" = "https://example.com/ab"}\n',
        'redirect = "https://example.com:9443"\n',  # another port: not this node's listener
        f'redirect = "https://example.org"\n{OTHER}redirect = {{"/a" = "https://example.com"}}\n',
        'redirect = {"/a" = "http://127.0.0.1/a"}\n',
    ):
        assert sites(tmp_path, text)


TARGETS = st.builds("https://{}{}".format, st.sampled_from(["a.x", "b.x", "c.x"]), st.sampled_from(["", "/p", "/p/q"]))


@given(st.lists(st.tuples(st.sampled_from(["a.x", "b.x"]), st.sampled_from(["", "/p"]), TARGETS), max_size=4))
def test_following_redirects_always_ends(rules: list[tuple[str, str, str]]) -> None:
    """And a client that follows those without a loop arrives."""
    by_host = {host: [Redirect(p, t) for h, p, t in rules if h == host] for host in ("a.x", "b.x")}
    made = [((host,), redirects) for host, redirects in by_host.items()]
    starts = [redirect for redirects in by_host.values() for redirect in redirects]
    if any(loop_of(made, start, ()) for start in starts):
        return
    for start in starts:
        url = start.target
        for _ in range(len(rules) + 1):
            host, slash, rest = url.removeprefix("https://").partition("/")
            path = f"{slash}{rest}" or "/"
            fits = [rule for rule in by_host.get(host, []) if rule.matches(path)]
            if not fits:
                break
            rule = max(fits, key=lambda rule: len(rule.prefix))
            url = rule.target + path[len(rule.prefix) :]
        else:
            raise AssertionError(url)


# ------------------------------------------------------------------ pages


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"", "is empty"),
        (b"x" * (64 * 1024 + 1), "is longer than 64 KiB"),
        ("folder", "is not a regular file"),
    ],
    ids=["missing", "empty", "large", "folder"],
)
def test_a_page_that_cannot_be_used_is_one_clear_error(tmp_path: Path, content: bytes | str | None, what: str) -> None:
    page, pem = tmp_path / "404.html", tmp_path / "site.pem"
    pem.write_text("x")
    pem.chmod(0o600)
    if isinstance(content, bytes):
        page.write_bytes(content)
    elif content is not None:
        page.mkdir()
    (spec,) = sites(tmp_path, f'error_pages = {{404 = "{page}"}}\n'.replace("/dev/null", str(pem)))
    (spec,) = (SiteSpec(spec.hosts, ((type(spec.front.pages[0][1])(str(pem)), None),), front=spec.front),)
    with pytest.raises(Invalid) as refused:
        read_site(spec)
    assert str(refused.value).startswith(f"{tmp_path}/node.toml:6: site.0.error_pages.404: the file {page} {what}")
    page.rmdir() if page.is_dir() else None
    page.write_bytes(b"<p>")
    site = read_site(spec)
    assert site.pages == (((404, 404), b"<p>"),)
