//! A request head means the same however it is cut, and what is accepted has no second reading.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sdlb_http1::{Host, Length, Limits, Name, Request, canonical_host, canonical_path};

const LIMITS: Limits = Limits { head_bytes: 4096, fields: 32 };

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, raw) = input;
    let cut = usize::from(cut) % (raw.len() + 1);
    let mut whole = Request::default();
    let expected = whole.advance(raw, &LIMITS);
    let mut pieces = Request::default();
    let result = match pieces.advance(&raw[..cut], &LIMITS) {
        Ok(None) => pieces.advance(raw, &LIMITS),
        early => early,
    };
    assert_eq!(result.is_err(), expected.is_err());
    let Ok(Some(length)) = expected else { return };
    assert_eq!(result, expected);
    assert_eq!(pieces.fields(), whole.fields());
    let head = &raw[..length];
    assert!(head.ends_with(b"\r\n\r\n"));
    assert_eq!(head.iter().filter(|byte| **byte == b'\n').count(), head.iter().filter(|byte| **byte == b'\r').count());
    let count = |name| whole.fields().iter().filter(|field| field.name == name).count();
    assert!(count(Name::ContentLength) + count(Name::TransferEncoding) <= 1 && count(Name::Host) == 1);
    assert_eq!(whole.length() == Length::Chunked, count(Name::TransferEncoding) == 1);
    let mut host = Host::default();
    if canonical_host(whole.host.of(head), &mut host).is_ok() {
        assert!(!host.name().is_empty() && !host.text().contains(['/', '@', ' ']));
    }
    if let Ok(target) = whole.split_target(head)
        && target.path != b"*"
    {
        let _ = canonical_path(target.path, true, &mut Vec::new());
    }
});
