//! What the program was compiled to expect of the CPU (`.cargo/config.toml`), asked of the CPU itself.

/// A feature that the program uses without asking and this CPU has not.
pub fn missing() -> Option<&'static str> {
    // `is_x86_feature_detected!` answers from what the compiler was told, so the CPU is asked directly.
    #[cfg(all(target_arch = "x86_64", target_feature = "aes"))]
    {
        let features = std::arch::x86_64::__cpuid(1).ecx;
        for (bit, name) in [(25, "aes"), (9, "ssse3")] {
            if features & 1 << bit == 0 {
                return Some(name);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_cpu_that_runs_this_test_has_what_it_was_compiled_for() {
        assert_eq!(super::missing(), None);
    }
}
