//! A response head means the same however it is cut.

use sdlb_http1::{Limits, Name, Response};

const LIMITS: Limits = Limits { head_bytes: 4096, fields: 32 };

/// A response head.
pub fn run(raw: &[u8]) {
    let mut whole = Response::default();
    let expected = whole.advance(raw, &LIMITS);
    for cut in [raw.len() / 2, super::cut(raw)] {
        let mut pieces = Response::default();
        let result = match pieces.advance(&raw[..cut], &LIMITS) {
            Ok(None) => pieces.advance(raw, &LIMITS),
            early => early,
        };
        assert_eq!(result.is_err(), expected.is_err());
        if let Ok(Some(_)) = expected {
            assert_eq!((result, pieces.status), (expected, whole.status));
        }
    }
    if let Ok(Some(_)) = expected {
        let count = |name| whole.fields().iter().filter(|field| field.name == name).count();
        assert!(count(Name::ContentLength) + count(Name::TransferEncoding) <= 1);
        assert!((100..=999).contains(&whole.status));
        let _ = (whole.length(false), whole.length(true), whole.keeps_alive());
    }
}
