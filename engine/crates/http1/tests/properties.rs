//! What holds for every input.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use sdlb_http1::{Body, Host, Length, Limits, Piece, Request, Response, canonical_host, canonical_path};

const LIMITS: Limits = Limits { head_bytes: 2000, fields: 20 };

/// What is likely to come near the rules: pieces of real messages, and bytes that break them.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        "GET ",
        "POST ",
        "/",
        "/a/../b?c",
        "http://a/",
        "*",
        " HTTP/1.1",
        " HTTP/1.0",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 101 S",
        "\r\n",
        "\n",
        "\r",
        " ",
        "\t",
        ":",
        ",",
        ";",
        "\"",
        "0",
        "5",
        "ff",
        "hello",
        "Host: a",
        "Host: b:80",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "Connection: close, x",
        "Expect: 100-continue",
        "x: y",
        "\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "HTTP/1.1 200 OK\r\n",
        "%2e",
        "%",
        "..",
        "é",
        "\0",
    ]);
    let piece = prop_oneof![8 => pieces.prop_map(|piece| piece.as_bytes().to_vec()), 1 => any::<u8>().prop_map(|byte| vec![byte])];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

/// Pieces of `raw` that end at `cuts`.
fn ends(raw: &[u8], cuts: &[prop::sample::Index]) -> Vec<usize> {
    let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(raw.len() + 1)).chain([raw.len()]).collect();
    ends.sort_unstable();
    ends
}

proptest! {
    #[test]
    fn a_request_does_not_depend_on_how_it_is_cut(raw in messages(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let mut whole = Request::default();
        let expected = whole.advance(&raw, &LIMITS);
        let mut pieces = Request::default();
        let mut result = Ok(None);
        for end in ends(&raw, &cuts) {
            result = pieces.advance(&raw[..end], &LIMITS);
            if result != Ok(None) {
                break;
            }
        }
        // A cut can only show a fault earlier: which one is told first may differ, that it is refused may not.
        prop_assert_eq!(result.is_err(), expected.is_err(), "{:?} {:?}", result, expected);
        if let (Ok(Some(length)), Ok(expected)) = (result, expected) {
            prop_assert_eq!(Some(length), expected);
            prop_assert_eq!(pieces.fields(), whole.fields());
            prop_assert_eq!(pieces.length(), whole.length());
            prop_assert_eq!(pieces.target.of(&raw), whole.target.of(&raw));
        }
    }

    #[test]
    fn a_response_does_not_depend_on_how_it_is_cut(raw in messages(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let mut whole = Response::default();
        let expected = whole.advance(&raw, &LIMITS);
        let mut pieces = Response::default();
        let mut result = Ok(None);
        for end in ends(&raw, &cuts) {
            result = pieces.advance(&raw[..end], &LIMITS);
            if result != Ok(None) {
                break;
            }
        }
        prop_assert_eq!(result.is_err(), expected.is_err());
        if result.is_ok() {
            prop_assert_eq!(result, expected);
            prop_assert_eq!((pieces.status, pieces.fields()), (whole.status, whole.fields()));
        }
    }

    /// Chunks of any size and content, cut anywhere, give the content back, and nothing of what follows.
    #[test]
    fn chunks_give_back_what_was_put_in(
        contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
        behind in prop::collection::vec(any::<u8>(), 0..10),
        size in 1_usize..50,
    ) {
        let mut raw = Vec::new();
        for content in &contents {
            raw.extend(format!("{:X};x=\"y\"\r\n", content.len()).bytes());
            raw.extend(content);
            raw.extend(b"\r\n");
        }
        raw.extend(b"0\r\nA: b\r\n\r\n");
        let end = raw.len();
        raw.extend(&behind);
        let mut body = Body::new(Length::Chunked, LIMITS);
        let (mut content, mut at, mut given) = (Vec::new(), 0, 0);
        let stopped = loop {
            match body.next(&raw[at..given]).unwrap() {
                Piece::Data(piece) => {
                    content.extend_from_slice(&raw[at + piece.start..at + piece.end]);
                    at += piece.end;
                }
                Piece::End(count) => break at + count,
                Piece::More => (at, given) = (given, (given + size).min(raw.len())),
            }
        };
        prop_assert_eq!(content, contents.concat());
        prop_assert_eq!(stopped, end);
    }

    #[test]
    fn a_body_never_reads_beyond_what_it_was_given(raw in messages()) {
        let mut body = Body::new(Length::Chunked, LIMITS);
        let mut at = 0;
        while let Ok(Piece::Data(piece)) = body.next(&raw[at..]) {
            prop_assert!(piece.start < piece.end && at + piece.end <= raw.len());
            at += piece.end;
        }
    }

    /// What is forwarded is what was matched: canonical once is canonical.
    #[test]
    fn a_canonical_path_is_its_own_canonical_form(path in "/([./%a-c2eEfF5cC;]|%2e|/\\.\\.?){0,20}", strict: bool) {
        let mut scratch = Vec::new();
        if let Ok(once) = canonical_path(path.as_bytes(), strict, &mut scratch) {
            let once = once.to_vec();
            let mut again = Vec::new();
            prop_assert_eq!(canonical_path(&once, strict, &mut again), Ok(&once[..]));
            let segments: Vec<_> = once.split(|byte| *byte == b'/').collect();
            prop_assert!(!segments.iter().any(|segment| matches!(*segment, b"." | b"..")));
        }
    }

    #[test]
    fn a_canonical_host_is_its_own_canonical_form(raw in "[a-zA-Z0-9.:\\[\\]_-]{0,20}") {
        let (mut once, mut again) = (Host::default(), Host::default());
        if canonical_host(raw.as_bytes(), &mut once).is_ok() {
            prop_assert!(canonical_host(once.text().as_bytes(), &mut again).is_ok());
            prop_assert_eq!(once, again);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(raw in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Request::default().advance(&raw, &LIMITS);
        let _ = Response::default().advance(&raw, &LIMITS);
        let _ = Body::new(Length::Chunked, LIMITS).next(&raw);
        let _ = canonical_path(&raw, true, &mut Vec::new());
        let _ = canonical_host(&raw, &mut Host::default());
    }
}
