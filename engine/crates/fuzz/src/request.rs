//! A request head means the same however it is cut, and what is accepted has no second reading.

use sdlb_http1::{Host, Length, Limits, Name, Request, Version, canonical_host, canonical_path};

const LIMITS: Limits = Limits { head_bytes: 4096, fields: 32 };

/// A request head.
pub fn run(raw: &[u8]) {
    let mut whole = Request::default();
    let expected = whole.advance(raw, &LIMITS);
    for cut in [raw.len() / 2, super::cut(raw)] {
        let mut pieces = Request::default();
        let result = match pieces.advance(&raw[..cut], &LIMITS) {
            Ok(None) => pieces.advance(raw, &LIMITS),
            early => early,
        };
        assert_eq!(result.is_err(), expected.is_err());
        if let Ok(Some(_)) = expected {
            assert_eq!(result, expected);
            assert_eq!(pieces.fields(), whole.fields());
        }
    }
    let Ok(Some(length)) = expected else { return };
    has_one_reading(&raw[..length], &whole);
}

/// The rules for a head that was accepted.
pub(crate) fn has_one_reading(head: &[u8], request: &Request) {
    assert!(head.ends_with(b"\r\n\r\n"));
    let bytes = |wanted| head.iter().filter(|byte| **byte == wanted).count();
    assert_eq!(bytes(b'\n'), bytes(b'\r'));
    let count = |name| request.fields().iter().filter(|field| field.name == name).count();
    assert!(count(Name::ContentLength) + count(Name::TransferEncoding) <= 1 && count(Name::Host) <= 1);
    assert_eq!(request.host.is_some(), count(Name::Host) == 1);
    assert!(request.host.is_some() || request.version == Version::Http10);
    assert_eq!(request.length() == Length::Chunked, count(Name::TransferEncoding) == 1);
    let mut host = Host::default();
    if request.host.is_some_and(|value| canonical_host(value.of(head), &mut host).is_ok()) {
        assert!(!host.name().is_empty() && !host.text().contains(['/', '@', ' ']));
    }
    if let Ok(target) = request.split_target(head)
        && target.path != b"*"
    {
        let _ = canonical_path(target.path, true, &mut Vec::new());
    }
}
