//! See `sdlb_fuzz_targets::control`.
#![no_main]

libfuzzer_sys::fuzz_target!(|raw: &[u8]| sdlb_fuzz_targets::control::run(raw));
