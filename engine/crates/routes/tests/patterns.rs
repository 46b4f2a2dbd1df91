//! The contract's grammar of patterns.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use proptest::prelude::*;
use sdlb_routes::{HostPattern, PathPattern, Pattern};

#[test]
fn texts_mean_what_the_contract_says() {
    let exact = |host: &str| HostPattern::Exact(host.into());
    let prefix = |path: &str| PathPattern::Prefix(path.into());
    for (text, host, path) in [
        ("example.com/catalog", exact("example.com"), PathPattern::Exact("/catalog".into())),
        ("example.com/catalog*", exact("example.com"), prefix("/catalog")),
        ("example.com/catalog/*", exact("example.com"), prefix("/catalog/")),
        ("example.com", exact("example.com"), prefix("/")),
        ("example.com/", exact("example.com"), PathPattern::Exact("/".into())),
        ("*.example.com/a*", HostPattern::Wildcard("example.com".into()), prefix("/a")),
        ("*/a*", HostPattern::Any, prefix("/a")),
        ("/a*", HostPattern::Any, prefix("/a")),
        ("*", HostPattern::Any, prefix("/")),
        ("127.0.0.1/x", exact("127.0.0.1"), PathPattern::Exact("/x".into())),
        ("[::01]/x", exact("[::1]"), PathPattern::Exact("/x".into())),
        ("[::1]/x", exact("[::1]"), PathPattern::Exact("/x".into())),
        ("xn--bcher-kva.example/*", exact("xn--bcher-kva.example"), prefix("/")),
    ] {
        assert_eq!(Pattern::parse(text), Ok(Pattern { host, path }), "{text}");
    }
}

#[test]
fn everything_else_is_refused() {
    for text in [
        "",
        "Example.com/",
        "example.com./",
        "example.com:80/",
        ".example.com/",
        "a..b/",
        "foo.*.com/",
        "*example.com/",
        "*.*.com/",
        "example.com/a*b",
        "example.com/**",
        "example.com/a?b",
        "example.com/a#b",
        "example.com/a b",
        "example.com/\u{e9}",
        "b\u{fc}cher.example/",
        "*.[::1]/",
        "[::1/",
        "user@example.com/",
        "exa mple.com/",
        "example.com/a\r\nb",
    ] {
        assert!(Pattern::parse(text).is_err(), "{text:?}");
    }
    assert!(Pattern::parse(&format!("/{}", "a".repeat(1024))).is_err());
    assert!(Pattern::parse(&format!("{}.example/", "a".repeat(64))).is_err());
}

#[test]
fn prefixes_of_both_kinds() {
    let matches = |text: &str, path: &str| Pattern::parse(text).unwrap().matches("example.com", path);
    for (path, literal, segment) in
        [("/catalog", true, false), ("/catalogue", true, false), ("/catalog/7", true, true), ("/catalog/", true, true)]
    {
        assert_eq!(matches("/catalog*", path), literal, "{path}");
        assert_eq!(matches("/catalog/*", path), segment, "{path}");
    }
    let wild = Pattern::parse("*.example.com/*").unwrap();
    assert!(wild.matches("a.example.com", "/") && wild.matches("b.a.example.com", "/x"));
    assert!(!wild.matches("example.com", "/") && !wild.matches("badexample.com", "/"));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,40}|[a-z.*]{0,12}/[a-z*/]{0,12}") {
        if let Ok(pattern) = Pattern::parse(&text) {
            prop_assert_eq!(Pattern::parse(&pattern.to_string()), Ok(pattern));
        }
    }
}
