//! See `duet_fuzz::loader`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| duet_fuzz::loader::run(data));
