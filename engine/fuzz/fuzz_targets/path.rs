//! See `sdlb_fuzz_targets::path`.
#![no_main]

libfuzzer_sys::fuzz_target!(|raw: &[u8]| sdlb_fuzz_targets::path::run(raw));
