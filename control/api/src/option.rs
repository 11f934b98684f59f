//! Options of verbs: one list for all verbs, so that a word is read alike before and behind the verb.
//!
//! The daemon reads words by [`OPTIONS`], vsctl makes its command line of it, and help and completion tell it.

/// An option of one or more verbs. Two options have neither a name nor a letter in common.
#[derive(Debug, PartialEq, Eq)]
pub struct OptionDef {
    /// What is typed behind two dashes.
    pub long: &'static str,
    /// What may be typed instead, behind one dash.
    pub short: Option<char>,
    /// What its value is called; `None` when it has none. A value stands behind `=`, in the next word, or right behind
    /// the letter.
    pub value: Option<&'static str>,
    /// What it does, and for which verbs, in one line.
    pub help: &'static str,
}

const fn flag(long: &'static str, help: &'static str) -> OptionDef {
    OptionDef { long, short: None, value: None, help }
}

const fn valued(long: &'static str, value: &'static str, help: &'static str) -> OptionDef {
    OptionDef { long, short: None, value: Some(value), help }
}

const fn short(letter: char, def: OptionDef) -> OptionDef {
    OptionDef { short: Some(letter), ..def }
}

/// `--may-exist`
pub const MAY_EXIST: OptionDef = flag("may-exist", "Do nothing if it is there already (add-br, add-port, acl-add)");
/// `--if-exists`
pub const IF_EXISTS: OptionDef = flag("if-exists", "Do nothing if it is not there (del-br, del-port, get, set, clear)");
/// `--columns COLUMN,...`
pub const COLUMNS: OptionDef = valued("columns", "COLUMN,...", "Columns to tell (list, find)");
/// `-n NAMESPACE`
pub const NAMESPACE: OptionDef =
    short('n', valued("namespace", "NAMESPACE", "Namespace of cluster objects [default: default]"));
/// `-A`
pub const ALL_NAMESPACES: OptionDef = short('A', flag("all-namespaces", "Cluster objects of every namespace"));
/// `-o wide|yaml|json`
pub const OUTPUT: OptionDef = short('o', valued("output", "FORMAT", "How much is told: wide, yaml or json"));
/// `-f FILE`
pub const FILENAME: OptionDef =
    short('f', valued("filename", "FILE", "File or directory of manifests, `-` for standard input (apply, delete)"));
/// `--from SRC`
pub const FROM: OptionDef = valued("from", "SRC", "Sender: pod/NS/NAME, node/NAME or an address (trace, verify)");
/// `--to DST`
pub const TO: OptionDef =
    valued("to", "DST", "Receiver: pod/NS/NAME, svc/NS/NAME, node/NAME or an address (trace, verify)");
/// `--proto PROTO`
pub const PROTO: OptionDef = valued("proto", "PROTO", "tcp, udp, sctp or icmp (trace)");
/// `--sport N`
pub const SPORT: OptionDef = valued("sport", "N", "Source port (trace)");
/// `--dport N`
pub const DPORT: OptionDef = valued("dport", "N", "Destination port (trace)");
/// `--pod NS/NAME`
pub const POD: OptionDef = valued("pod", "NS/NAME", "Pod of which policies are told (policies)");

/// Every option, in the order in which help lists them.
pub const OPTIONS: &[OptionDef] =
    &[MAY_EXIST, IF_EXISTS, COLUMNS, FILENAME, NAMESPACE, ALL_NAMESPACES, OUTPUT, FROM, TO, PROTO, SPORT, DPORT, POD];

/// A word that is an option, as far as it can be understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read<'a> {
    /// The option, with the value that stands in the same word.
    Known(&'static OptionDef, Option<&'a str>),
    /// No verb has it.
    Unknown,
}

/// The option that a word is; `None` for a word that is none. `-` is none: it stands for standard input.
pub(crate) fn read(word: &str) -> Option<Read<'_>> {
    let known = |def: Option<&'static OptionDef>, value| Some(def.map_or(Read::Unknown, |def| Read::Known(def, value)));
    if let Some(long) = word.strip_prefix("--") {
        let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
        return known(OPTIONS.iter().find(|def| def.long == name), value);
    }
    let letters = word.strip_prefix('-')?;
    let letter = letters.chars().next().filter(char::is_ascii_alphabetic)?;
    let rest = letters.get(1..).filter(|rest| !rest.is_empty());
    known(OPTIONS.iter().find(|def| def.short == Some(letter)), rest.map(|rest| rest.strip_prefix('=').unwrap_or(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_has_a_name_and_a_letter_of_its_own() {
        for (i, def) in OPTIONS.iter().enumerate() {
            let same = |other: &OptionDef| other.long == def.long || def.short.is_some() && other.short == def.short;
            assert!(!OPTIONS[..i].iter().any(same), "{}", def.long);
        }
    }

    #[test]
    fn a_value_stands_behind_the_equals_sign_or_the_letter() {
        for word in ["--namespace=a", "-n=a", "-na"] {
            assert_eq!(read(word), Some(Read::Known(&NAMESPACE, Some("a"))), "{word}");
        }
        assert_eq!(read("-n"), Some(Read::Known(&NAMESPACE, None)));
        assert_eq!(read("--fast"), Some(Read::Unknown));
        assert_eq!(read("-é"), None);
        for word in ["-", "-5", "a-b", ""] {
            assert_eq!(read(word), None, "{word}");
        }
    }
}
