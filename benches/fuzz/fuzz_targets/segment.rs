//! The target `segment` under cargo-fuzz; what it holds is told in `benches/src/fuzz/targets.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| benches::fuzz::run_named("segment", input));
