//! Versions of the protocol between runtime and plugin.

use std::fmt;

/// A version that we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V0_3_0,
    V0_3_1,
    /// CHECK; the result of before at CHECK and DEL.
    V0_4_0,
    /// Addresses without `version`.
    V1_0_0,
    /// GC, STATUS; MTU and more of interfaces, metrics and more of routes.
    V1_1_0,
}

impl Version {
    /// Oldest first, as they are told.
    const ALL: [Self; 5] = [Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    pub(crate) const NEWEST: Self = Self::V1_1_0;

    pub(crate) fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.text() == text)
    }

    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    pub(crate) fn texts() -> Vec<&'static str> {
        Self::ALL.map(Self::text).to_vec()
    }

    pub(crate) fn list(between: &str) -> String {
        Self::texts().join(between)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// The numbers of a version that we may not speak; `None` for text that is none.
pub(crate) fn numbers(text: &str) -> Option<[u32; 3]> {
    let mut numbers = [0; 3];
    let mut parts = text.split('.');
    for number in &mut numbers {
        *number = match parts.next() {
            Some(part) if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) => part.parse().ok()?,
            Some(_) => return None,
            None => 0,
        };
    }
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_known_by_their_text_and_others_by_their_numbers() {
        for version in Version::ALL {
            assert_eq!(Version::of(version.text()), Some(version));
        }
        assert_eq!(Version::of("1.0"), None);
        assert_eq!(numbers("9.9.9"), Some([9, 9, 9]));
        assert_eq!(numbers("1"), Some([1, 0, 0]));
        for text in ["", "x", "1.", "1.0.0.0", "-1.0.0", "+1.0.0", "1.0.0-rc1", "4294967296.0.0"] {
            assert_eq!(numbers(text), None, "{text}");
        }
    }
}
