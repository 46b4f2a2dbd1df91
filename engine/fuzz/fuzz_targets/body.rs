//! See `sdlb_fuzz_targets::body`.
#![no_main]

libfuzzer_sys::fuzz_target!(|raw: &[u8]| sdlb_fuzz_targets::body::run(raw));
