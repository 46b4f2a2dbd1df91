//! See `sdlb_fuzz_targets::http2`.
#![no_main]

libfuzzer_sys::fuzz_target!(|raw: &[u8]| sdlb_fuzz_targets::http2::run(raw));
