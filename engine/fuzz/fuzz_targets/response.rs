//! See `sdlb_fuzz_targets::response`.
#![no_main]

libfuzzer_sys::fuzz_target!(|raw: &[u8]| sdlb_fuzz_targets::response::run(raw));
