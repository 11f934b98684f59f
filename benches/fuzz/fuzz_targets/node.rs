//! The target `node` under cargo-fuzz; what it holds is told in `benches/src/fuzz/node.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| benches::fuzz::run_named("node", input));
