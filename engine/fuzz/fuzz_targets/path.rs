//! A canonical path is its own canonical form, and holds no dot segments.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sdlb_http1::canonical_path;

fuzz_target!(|input: (bool, &[u8])| {
    let (strict, raw) = input;
    let mut scratch = Vec::new();
    if let Ok(once) = canonical_path(raw, strict, &mut scratch) {
        let once = once.to_vec();
        assert_eq!(once.first(), Some(&b'/'));
        assert!(!once.split(|byte| *byte == b'/').any(|segment| matches!(segment, b"." | b"..")));
        assert_eq!(canonical_path(&once, strict, &mut Vec::new()), Ok(&once[..]));
    }
});
