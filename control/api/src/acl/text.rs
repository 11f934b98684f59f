//! Access rules in words: matches in the syntax of ovs-ofctl, strictly; directions and actions as ovn-nbctl has them.

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;

use super::{AclAction, AclMatch, AclRule, AclWay};
use crate::verb::shown;

/// Highest priority, as in OVN.
pub const PRIORITY_MAX: u16 = 32_767;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// What stands for an IP version and a protocol.
const KINDS: [(&str, u8, Option<u8>); 10] = [
    ("ip", 4, None),
    ("ipv6", 6, None),
    ("tcp", 4, Some(TCP)),
    ("tcp6", 6, Some(TCP)),
    ("udp", 4, Some(UDP)),
    ("udp6", 6, Some(UDP)),
    ("sctp", 4, Some(SCTP)),
    ("sctp6", 6, Some(SCTP)),
    ("icmp", 4, Some(ICMP)),
    ("icmp6", 6, Some(ICMPV6)),
];

/// TCP flags by bit (RFC 9293, 3.1; RFC 3168; RFC 3540).
const FLAGS: [(&str, u16); 9] = [
    ("fin", 0x001),
    ("syn", 0x002),
    ("rst", 0x004),
    ("psh", 0x008),
    ("ack", 0x010),
    ("urg", 0x020),
    ("ece", 0x040),
    ("cwr", 0x080),
    ("ns", 0x100),
];
/// All that a header has room for.
const FLAG_BITS: u16 = 0xfff;

impl FromStr for AclMatch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut matches = Self::default();
        for word in text.split([',', ' ', '\t']).filter(|word| !word.is_empty()) {
            matches.read(word)?;
        }
        matches.check()?;
        Ok(matches)
    }
}

/// Set what was not set before.
fn once<T>(place: &mut Option<T>, word: &str, value: T) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{}: said twice", shown(word))),
    }
}

impl AclMatch {
    fn read(&mut self, word: &str) -> Result<(), String> {
        let Some((field, value)) = word.split_once('=') else {
            let Some(&(_, version, proto)) = KINDS.iter().find(|(name, ..)| *name == word) else {
                return Err(format!("{}: not a field of access lists", shown(word)));
            };
            once(&mut self.version, word, version)
                .map_err(|_| format!("{word}: another protocol was named already"))?;
            return proto.map_or(Ok(()), |proto| once(&mut self.proto, word, proto));
        };
        let number = |what: &str| value.parse().map_err(|_| format!("{}: not {what}", shown(word)));
        match field {
            "nw_src" => once(&mut self.src, word, prefix(word, value, false)?),
            "nw_dst" => once(&mut self.dst, word, prefix(word, value, false)?),
            "ipv6_src" => once(&mut self.src, word, prefix(word, value, true)?),
            "ipv6_dst" => once(&mut self.dst, word, prefix(word, value, true)?),
            "nw_proto" => once(&mut self.proto, word, number("a protocol number from 0 to 255")?),
            "tp_src" => once(&mut self.sport, word, ports(word, value)?),
            "tp_dst" => once(&mut self.dport, word, ports(word, value)?),
            "tcp_flags" => once(&mut self.tcp_flags, word, flags(word, value)?),
            "icmp_type" => once(&mut self.icmp_type, word, number("a number from 0 to 255")?),
            "icmp_code" => once(&mut self.icmp_code, word, number("a number from 0 to 255")?),
            _ => Err(format!("{}: not a field of access lists", shown(word))),
        }
    }

    /// It makes sense: what it asks for can be in one packet.
    ///
    /// # Errors
    /// The field and the rule that it breaks.
    pub fn check(&self) -> Result<(), String> {
        if self.version.is_some_and(|version| version != 4 && version != 6) {
            return Err(format!("version {}: IP has 4 and 6", self.version.unwrap_or_default()));
        }
        for (net, [four, six]) in [(self.src, ["nw_src", "ipv6_src"]), (self.dst, ["nw_dst", "ipv6_dst"])] {
            let Some(net) = net else { continue };
            let (field, version, kinds) = match net {
                IpNet::V4(_) => (four, 4, "ip, tcp, udp, sctp or icmp"),
                IpNet::V6(_) => (six, 6, "ipv6, tcp6, udp6, sctp6 or icmp6"),
            };
            if self.version != Some(version) {
                return Err(format!("{field}={net}: needs {kinds}"));
            }
            if net != net.trunc() {
                return Err(format!("{field}={net}: has bits beyond its length: {} is the prefix", net.trunc()));
            }
        }
        if let (Some(proto), None) = (self.proto, self.version) {
            return Err(format!("nw_proto={proto}: needs ip or ipv6"));
        }
        let has_ports = matches!(self.proto, Some(TCP | UDP | SCTP));
        for (field, ports) in [("tp_src", self.sport), ("tp_dst", self.dport)] {
            let Some((first, last)) = ports else { continue };
            if !has_ports {
                return Err(format!("{field}={}: needs tcp, udp or sctp (or tcp6, udp6, sctp6)", Range(first, last)));
            }
            if first > last {
                return Err(format!("{field}={}: the last is below the first", Range(first, last)));
            }
        }
        if let Some((value, mask)) = self.tcp_flags {
            if self.proto != Some(TCP) {
                return Err(format!("tcp_flags={}: needs tcp or tcp6", Flags(value, mask)));
            }
            if value & !mask != 0 || mask & !FLAG_BITS != 0 || mask == 0 {
                return Err(format!("tcp_flags={value:#x}/{mask:#x}: no such flags"));
            }
        }
        let is_icmp = matches!((self.version, self.proto), (Some(4), Some(ICMP)) | (Some(6), Some(ICMPV6)));
        for (field, value) in [("icmp_type", self.icmp_type), ("icmp_code", self.icmp_code)] {
            if let (Some(value), false) = (value, is_icmp) {
                return Err(format!("{field}={value}: needs icmp or icmp6"));
            }
        }
        Ok(())
    }
}

fn prefix(word: &str, value: &str, six: bool) -> Result<IpNet, String> {
    let net = crate::filter::prefix(&shown(word), value)?;
    if net.addr().is_ipv6() != six {
        return Err(format!("{}: not an IPv{} address or prefix", shown(word), if six { 6 } else { 4 }));
    }
    Ok(net)
}

fn ports(word: &str, value: &str) -> Result<(u16, u16), String> {
    let (first, last) = value.split_once('-').unwrap_or((value, value));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) => Ok((first, last)),
        _ => Err(format!("{}: not a port, nor a range of ports (N-M)", shown(word))),
    }
}

fn flags(word: &str, value: &str) -> Result<(u16, u16), String> {
    let (mut set, mut mask, mut rest) = (0, 0, value);
    while !rest.is_empty() {
        let wrong =
            || format!("{}: not of the form +FLAG-FLAG (fin, syn, rst, psh, ack, urg, ece, cwr, ns)", shown(word));
        let (on, name) = match (rest.strip_prefix('+'), rest.strip_prefix('-')) {
            (Some(name), _) => (true, name),
            (_, Some(name)) => (false, name),
            _ => return Err(wrong()),
        };
        let end = name.find(['+', '-']).unwrap_or(name.len());
        let (name, behind) = name.split_at(end);
        let bit = FLAGS.iter().find(|(flag, _)| *flag == name).map(|(_, bit)| *bit).ok_or_else(wrong)?;
        if mask & bit != 0 {
            return Err(format!("{}: {name} is there twice", shown(word)));
        }
        mask |= bit;
        set |= if on { bit } else { 0 };
        rest = behind;
    }
    if mask == 0 { Err(format!("{}: no flag is named", shown(word))) } else { Ok((set, mask)) }
}

/// Ports as they are typed.
struct Range(u16, u16);

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == self.1 { write!(f, "{}", self.0) } else { write!(f, "{}-{}", self.0, self.1) }
    }
}

/// Flags as they are typed.
struct Flags(u16, u16);

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, bit) in FLAGS.iter().filter(|(_, bit)| self.1 & bit != 0) {
            write!(f, "{}{name}", if self.0 & bit != 0 { '+' } else { '-' })?;
        }
        Ok(())
    }
}

impl fmt::Display for AclMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = KINDS.iter().find(|(_, version, proto)| Some(*version) == self.version && *proto == self.proto);
        let plain = KINDS.iter().find(|(_, version, proto)| Some(*version) == self.version && proto.is_none());
        let mut words: Vec<String> = kind.or(plain).map(|(name, ..)| (*name).to_owned()).into_iter().collect();
        if let (None, Some(proto)) = (kind, self.proto) {
            words.push(format!("nw_proto={proto}"));
        }
        for (net, [four, six]) in [(self.src, ["nw_src", "ipv6_src"]), (self.dst, ["nw_dst", "ipv6_dst"])] {
            words.extend(net.map(|net| match (net, net.prefix_len()) {
                (IpNet::V4(net), 32) => format!("{four}={}", net.addr()),
                (IpNet::V4(net), _) => format!("{four}={net}"),
                (IpNet::V6(net), 128) => format!("{six}={}", net.addr()),
                (IpNet::V6(net), _) => format!("{six}={net}"),
            }));
        }
        words.extend(self.sport.map(|(first, last)| format!("tp_src={}", Range(first, last))));
        words.extend(self.dport.map(|(first, last)| format!("tp_dst={}", Range(first, last))));
        words.extend(self.tcp_flags.map(|(value, mask)| format!("tcp_flags={}", Flags(value, mask))));
        words.extend(self.icmp_type.map(|kind| format!("icmp_type={kind}")));
        words.extend(self.icmp_code.map(|code| format!("icmp_code={code}")));
        f.write_str(&words.join(","))
    }
}

impl FromStr for AclAction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Allow, Self::AllowRelated, Self::Drop, Self::Reject];
        let found = all.into_iter().find(|action| action.name() == text);
        found.ok_or_else(|| format!("{}: not one of allow, allow-related, drop, reject", shown(text)))
    }
}

impl AclAction {
    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::AllowRelated => "allow-related",
            Self::Drop => "drop",
            Self::Reject => "reject",
        }
    }
}

impl FromStr for AclWay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = [Self::FromPort, Self::ToPort].into_iter().find(|way| way.name() == text);
        found.ok_or_else(|| format!("{}: not one of from-lport, to-lport", shown(text)))
    }
}

impl AclWay {
    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::FromPort => "from-lport",
            Self::ToPort => "to-lport",
        }
    }
}

/// A priority.
///
/// # Errors
/// It is none.
pub fn priority(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|priority| *priority <= PRIORITY_MAX);
    number.ok_or_else(|| format!("{}: not a priority from 0 to {PRIORITY_MAX}", shown(text)))
}

impl AclRule {
    /// It makes sense by itself.
    ///
    /// # Errors
    /// The field and the rule that it breaks.
    pub fn check(&self) -> Result<(), String> {
        priority(&self.priority.to_string())?;
        self.matches.check()
    }

    /// The rules of a file: `PRIORITY MATCH ACTION` a line, the match empty or of several words; `#` begins a comment.
    ///
    /// # Errors
    /// The number of the line, and what is wrong with it.
    pub fn list(text: &str) -> Result<Vec<Self>, String> {
        let mut rules = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
            let wrong = |why: String| format!("line {number}: {why}");
            match &words[..] {
                [] => {}
                [first, matches @ .., action] => {
                    // What a shell would have taken away.
                    let matches = matches.join(",");
                    let matches = matches.trim_matches(['"', '\'']).parse().map_err(wrong)?;
                    let (priority, action) = (priority(first).map_err(wrong)?, action.parse().map_err(wrong)?);
                    rules.push(Self { priority, matches, action });
                }
                [only] => return Err(wrong(format!("{}: not of the form PRIORITY MATCH ACTION", shown(only)))),
            }
        }
        Ok(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_says_what_it_was_made_of() {
        for text in [
            "",
            "ip",
            "ipv6",
            "tcp,nw_src=10.0.0.0/8,nw_dst=10.1.2.3,tp_src=1024-65535,tp_dst=80",
            "tcp6,ipv6_src=fd00::/8,ipv6_dst=fd00::1,tp_dst=443,tcp_flags=+syn-ack",
            "udp,tp_dst=53",
            "udp6",
            "sctp,tp_src=7",
            "sctp6",
            "icmp,icmp_type=8,icmp_code=0",
            "icmp6,icmp_type=128",
            "ip,nw_proto=47",
            "ipv6,nw_proto=1",
        ] {
            let matches: AclMatch = text.parse().unwrap();
            assert_eq!(matches.to_string(), text);
            assert_eq!(matches.to_string().parse(), Ok(matches));
        }
        let loose: AclMatch = " tp_dst=80 tcp, nw_src=10.0.0.1/32".parse().unwrap();
        assert_eq!(loose.to_string(), "tcp,nw_src=10.0.0.1,tp_dst=80");
        assert_eq!("ip,nw_proto=6".parse::<AclMatch>(), "tcp".parse());
    }

    #[test]
    fn what_no_packet_can_be_is_refused_by_field_and_value() {
        for (text, why) in [
            ("ip,nw_src=10.0.0.300", "nw_src=10.0.0.300: not an address or a prefix"),
            ("ip,nw_src=10.0.0.1/8", "nw_src=10.0.0.1/8: has bits beyond its length: 10.0.0.0/8 is the prefix"),
            ("ip,nw_dst=fd00::1", "nw_dst=fd00::1: not an IPv4 address or prefix"),
            ("ipv6,ipv6_dst=10.0.0.1", "ipv6_dst=10.0.0.1: not an IPv6 address or prefix"),
            ("ipv6,nw_src=10.0.0.1", "nw_src=10.0.0.1/32: needs ip, tcp, udp, sctp or icmp"),
            ("nw_src=10.0.0.1", "nw_src=10.0.0.1/32: needs ip, tcp, udp, sctp or icmp"),
            ("tp_dst=80", "tp_dst=80: needs tcp, udp or sctp (or tcp6, udp6, sctp6)"),
            ("icmp,tp_dst=80", "tp_dst=80: needs tcp, udp or sctp (or tcp6, udp6, sctp6)"),
            ("tcp,tp_dst=80-70", "tp_dst=80-70: the last is below the first"),
            ("tcp,tp_dst=65536", "tp_dst=65536: not a port, nor a range of ports (N-M)"),
            ("tcp,tp_dst=", "tp_dst=: not a port, nor a range of ports (N-M)"),
            ("tcp,tp_dst=80,tp_dst=81", "tp_dst=81: said twice"),
            ("tcp,udp", "udp: another protocol was named already"),
            ("tcp,nw_proto=17", "nw_proto=17: said twice"),
            ("nw_proto=6", "nw_proto=6: needs ip or ipv6"),
            ("ip,nw_proto=256", "nw_proto=256: not a protocol number from 0 to 255"),
            ("udp,tcp_flags=+syn", "tcp_flags=+syn: needs tcp or tcp6"),
            ("tcp,tcp_flags=", "tcp_flags=: no flag is named"),
            ("tcp,tcp_flags=+syn-syn", "tcp_flags=+syn-syn: syn is there twice"),
            (
                "tcp,tcp_flags=syn",
                "tcp_flags=syn: not of the form +FLAG-FLAG (fin, syn, rst, psh, ack, urg, ece, cwr, ns)",
            ),
            ("tcp,icmp_type=8", "icmp_type=8: needs icmp or icmp6"),
            ("icmp,icmp_code=256", "icmp_code=256: not a number from 0 to 255"),
            ("arp", "arp: not a field of access lists"),
            ("ip,dl_src=02:00:00:00:00:01", "dl_src=02:00:00:00:00:01: not a field of access lists"),
        ] {
            assert_eq!(text.parse::<AclMatch>().unwrap_err(), why, "{text}");
        }
        let odd = AclMatch { version: Some(5), ..AclMatch::default() };
        assert_eq!(odd.check().unwrap_err(), "version 5: IP has 4 and 6");
        let odd = AclMatch { version: Some(4), proto: Some(6), tcp_flags: Some((2, 1)), ..AclMatch::default() };
        assert_eq!(odd.check().unwrap_err(), "tcp_flags=0x2/0x1: no such flags");
    }

    #[test]
    fn a_file_is_a_rule_a_line() {
        let text =
            "# a comment\n1000 tcp,tp_dst=80 allow-related # web\n\n  7 \"\" drop\n0 reject\n5 tcp tp_dst=1 allow\n";
        let rules = AclRule::list(text).unwrap();
        let told = rules.iter().map(|rule| format!("{} {} {}", rule.priority, rule.matches, rule.action.name()));
        let told: Vec<_> = told.collect();
        assert_eq!(told, ["1000 tcp,tp_dst=80 allow-related", "7  drop", "0  reject", "5 tcp,tp_dst=1 allow"]);
        for (text, why) in [
            ("1", "line 1: 1: not of the form PRIORITY MATCH ACTION"),
            ("\n32768 ip drop", "line 2: 32768: not a priority from 0 to 32767"),
            ("1 ip deny", "line 1: deny: not one of allow, allow-related, drop, reject"),
            ("1 tp_dst=1 drop", "line 1: tp_dst=1: needs tcp, udp or sctp (or tcp6, udp6, sctp6)"),
        ] {
            assert_eq!(AclRule::list(text).unwrap_err(), why);
        }
    }
}
