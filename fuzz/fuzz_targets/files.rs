//! See `duet_fuzz::files`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| duet_fuzz::files::run(data));
