//! See `duet_fuzz::walk`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| duet_fuzz::walk::run(data));
