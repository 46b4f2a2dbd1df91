//! One spelling of each host and path.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use sdlb_http1::{Host, canonical_host, canonical_path};

fn path(path: &str, strict: bool) -> Option<String> {
    let mut scratch = Vec::new();
    canonical_path(path.as_bytes(), strict, &mut scratch).ok().map(|path| String::from_utf8(path.to_vec()).unwrap())
}

#[test]
fn paths_have_one_form() {
    for (raw, canonical) in [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/open/../closed/x", "/closed/x"),
        ("/../../closed/x", "/closed/x"),
        ("/./closed/x", "/closed/x"),
        ("/open/%2e%2e/closed/x", "/closed/x"),
        ("/open/.%2E/closed/x", "/closed/x"),
        ("/%63losed/x", "/closed/x"),
        ("/open//../closed/x", "/open/closed/x"),
        ("/open;/../closed/x", "/closed/x"),
        ("/open/..;/closed/x", "/open/..;/closed/x"),
        ("/open/%c0%ae%c0%ae/x", "/open/%C0%AE%C0%AE/x"),
        ("/open/%252e%252e/x", "/open/%252e%252e/x"),
        ("/open/.../x", "/open/.../x"),
        ("/closed/x/..", "/closed/"),
        ("/closed/.", "/closed/"),
        ("/closed/..", "/"),
        ("/..", "/"),
        ("/.", "/"),
        ("//closed", "//closed"),
        ("/../..//closed", "//closed"),
        ("/%2e//closed", "//closed"),
        ("//../closed", "/closed"),
        ("/a/./../b/.hidden", "/b/.hidden"),
        ("/a%7eb%20c%e4", "/a~b%20c%E4"),
    ] {
        for strict in [false, true] {
            assert_eq!(path(raw, strict).as_deref(), Some(canonical), "{raw}");
        }
        assert_eq!(path(canonical, true).as_deref(), Some(canonical), "a second time changes nothing");
    }
    for raw in ["/a%", "/a%2", "/a%zz", "/a%u002e"] {
        assert_eq!(path(raw, false), None, "{raw}");
    }
    for raw in ["/a%2f..", "/..%2Fb", "/a%2f.%2fb", "/%2F./b", "/x/%2e%2e%2fb", "/a%2F%2e%2E/c"] {
        assert_eq!(path(raw, false), None, "dots that who decodes slashes would resolve: {raw}");
    }
    assert_eq!(path("/a%2fb..%2F.c", true).as_deref(), Some("/a%2Fb..%2F.c"));
    for raw in ["/a%5Cb", "/a%00b"] {
        assert_eq!(path(raw, true), None, "{raw}");
        assert!(path(raw, false).is_some(), "{raw}");
    }
}

#[test]
fn hosts_have_one_form() {
    let mut host = Host::default();
    for (raw, name, text) in [
        ("example.com", "example.com", "example.com"),
        ("EXAMPLE.com.:8080", "example.com", "example.com:8080"),
        ("a_b-c.1", "a_b-c.1", "a_b-c.1"),
        ("[::0001]:80", "[::1]", "[::1]:80"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
    ] {
        canonical_host(raw.as_bytes(), &mut host).unwrap();
        assert_eq!((host.name(), host.text()), (name, text));
    }
    for raw in [
        "",
        ".",
        "a..b",
        "me@a",
        "a/x",
        "a?x",
        "a:http",
        "a:65536",
        "a:-80",
        "a:80:80",
        "a, b",
        "a b",
        "wwé.example",
        "[::1",
        "[::1%25eth0]",
        "[x]",
        "[::1]x",
        "http://a",
        "a:",
        "a:0",
        "a:080",
        ":80",
        ".a",
        "a%41",
    ] {
        assert!(canonical_host(raw.as_bytes(), &mut host).is_err(), "{raw}");
    }
    assert!(canonical_host("a".repeat(254).as_bytes(), &mut host).is_err());
}
