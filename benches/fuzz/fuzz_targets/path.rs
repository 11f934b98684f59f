//! The target `path` under cargo-fuzz; what it holds is told in `benches/src/fuzz/path.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| benches::fuzz::run_named("path", input));
