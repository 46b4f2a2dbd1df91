//! A canonical path is its own canonical form, and holds no dot segments.

use sdlb_http1::canonical_path;

/// A path, as a public node and as another one reads it.
pub fn run(raw: &[u8]) {
    for strict in [false, true] {
        let mut scratch = Vec::new();
        if let Ok(once) = canonical_path(raw, strict, &mut scratch) {
            let once = once.to_vec();
            assert_eq!(once.first(), Some(&b'/'));
            assert!(!once.split(|byte| *byte == b'/').any(|segment| matches!(segment, b"." | b"..")));
            assert_eq!(canonical_path(&once, strict, &mut Vec::new()), Ok(&once[..]));
        }
    }
}
