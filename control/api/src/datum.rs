//! Values of record columns, as `get`, `list` and `find` tell them: written as ovs-vsctl writes them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The value of a column. In JSON it is the plain value; an empty optional is `[]`, as in OVS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Datum {
    /// A number.
    Integer(i64),
    /// A text.
    Text(String),
    /// Several values, or none.
    Set(Vec<Self>),
    /// Keys with values.
    Map(BTreeMap<String, String>),
}

impl Datum {
    /// The value, or the empty set.
    pub fn optional<T: Into<Self>>(value: Option<T>) -> Self {
        value.map_or(Self::Set(Vec::new()), Into::into)
    }
}

impl From<u16> for Datum {
    fn from(number: u16) -> Self {
        Self::Integer(number.into())
    }
}

impl From<String> for Datum {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Datum {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// A text as OVS prints it: bare if it could be typed so (RFC 7047 `<id>`, with `-` and `.`), else in quotes.
struct Word<'a>(&'a str);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let first = |c: char| c.is_ascii_alphabetic() || c == '_';
        if self.0.starts_with(first) && self.0.chars().all(bare) && !matches!(self.0, "true" | "false") {
            return f.write_str(self.0);
        }
        f.write_str(&serde_json::Value::from(self.0).to_string())
    }
}

impl fmt::Display for Datum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => number.fmt(f),
            Self::Text(text) => Word(text).fmt(f),
            Self::Set(values) => {
                f.write_str("[")?;
                for (i, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
            Self::Map(map) => {
                f.write_str("{")?;
                for (i, (key, value)) in map.iter().enumerate() {
                    write!(f, "{}{}={}", if i > 0 { ", " } else { "" }, Word(key), Word(value))?;
                }
                f.write_str("}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_printed_as_ovs_vsctl_prints_them() {
        let map = |pairs: &[(&str, &str)]| {
            Datum::Map(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        };
        for (datum, text) in [
            (Datum::from(7), "7"),
            (Datum::from("tap"), "tap"),
            (Datum::from(""), "\"\""),
            (Datum::from("10.0.0.1"), "\"10.0.0.1\""),
            (Datum::from("say \"no\""), r#""say \"no\"""#),
            (Datum::optional::<u16>(None), "[]"),
            (Datum::Set(vec![Datum::from(1), Datum::from(20)]), "[1, 20]"),
            (map(&[]), "{}"),
            (map(&[("netns", "pod1"), ("ifname", "eth 0")]), r#"{ifname="eth 0", netns=pod1}"#),
        ] {
            assert_eq!(datum.to_string(), text);
            let json = serde_json::to_string(&datum).unwrap();
            assert_eq!(serde_json::from_str::<Datum>(&json).unwrap(), datum, "{json}");
        }
    }
}
