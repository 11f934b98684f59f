//! SCTP as octets: what two ends say to each other for one question and its answer (RFC 9260).
//!
//! Kernels need not have SCTP, and the switch must carry it all the same. So the ends of labs speak it by themselves,
//! over raw sockets: an association of four messages, then a question and an answer that are both acknowledged. An end
//! never sends anything twice: who asks asks again.
//!
//! ```text
//!   INIT ──────────────────────▶
//!        ◀────────────────────── INIT ACK (cookie)
//!   COOKIE ECHO (cookie) ──────▶                      the server remembers nothing before this
//!        ◀────────────────────── COOKIE ACK
//!   DATA (question) ───────────▶
//!        ◀────────────────────── SACK, DATA (answer)
//!   SACK ──────────────────────▶
//! ```

use std::collections::HashMap;
use std::net::IpAddr;

/// Octets of the common header (3.1): ports, verification tag, checksum.
const HEADER: usize = 12;
/// What an end says that it has room for.
const WINDOW: u32 = 65536;
/// Parameter of an INIT ACK (3.3.3.1).
const STATE_COOKIE: u16 = 7;
/// Octets of our cookie: two tags, two sequence numbers.
const COOKIE: usize = 16;

/// Types of chunks (3.2).
mod chunk {
    pub(super) const DATA: u8 = 0;
    pub(super) const INIT: u8 = 1;
    pub(super) const INIT_ACK: u8 = 2;
    pub(super) const SACK: u8 = 3;
    pub(super) const COOKIE_ECHO: u8 = 10;
    pub(super) const COOKIE_ACK: u8 = 11;
}

/// What the two ends of an association know of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbers {
    /// What the client wants to see in every packet.
    client: u32,
    /// What the server wants to see.
    server: u32,
    /// Sequence number of the question.
    question: u32,
    /// Sequence number of the answer.
    answer: u32,
}

impl Numbers {
    fn cookie(self) -> Vec<u8> {
        [self.client, self.server, self.question, self.answer].map(u32::to_be_bytes).concat()
    }

    fn of_cookie(cookie: &[u8]) -> Option<Self> {
        (cookie.len() == COOKIE).then(|| Self {
            client: word(cookie, 0),
            server: word(cookie, 4),
            question: word(cookie, 8),
            answer: word(cookie, 12),
        })
    }
}

/// A packet whose checksum was right.
struct Packet<'a> {
    sport: u16,
    dport: u16,
    tag: u32,
    chunks: Vec<(u8, &'a [u8])>,
}

impl<'a> Packet<'a> {
    /// `None` for all that is no whole packet.
    fn parse(octets: &'a [u8]) -> Option<Self> {
        let header = octets.get(..HEADER)?;
        let mut zeroed = octets.to_vec();
        zeroed[8..HEADER].fill(0);
        if crc32c::crc32c(&zeroed).to_le_bytes() != header[8..HEADER] {
            return None;
        }
        let mut chunks = Vec::new();
        let mut rest = &octets[HEADER..];
        while !rest.is_empty() {
            let len = usize::from(u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]));
            chunks.push((rest[0], rest.get(4..len)?));
            // Chunks are padded to whole words; the last one's padding may be missing.
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        let short = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        Some(Self { sport: short(0), dport: short(2), tag: word(header, 4), chunks })
    }

    /// The value of the chunk of this type.
    fn chunk(&self, kind: u8) -> Option<&'a [u8]> {
        self.chunks.iter().find(|(found, _)| *found == kind).map(|(_, value)| *value)
    }
}

fn build((sport, dport): (u16, u16), tag: u32, chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut octets = [&sport.to_be_bytes()[..], &dport.to_be_bytes(), &tag.to_be_bytes(), &[0; 4]].concat();
    chunks.iter().for_each(|chunk| octets.extend(chunk));
    let sum = crc32c::crc32c(&octets);
    octets[8..HEADER].copy_from_slice(&sum.to_le_bytes());
    octets
}

fn chunk(kind: u8, flags: u8, value: &[u8]) -> Vec<u8> {
    let len = (value.len() + 4) as u16;
    let mut octets = [&[kind, flags][..], &len.to_be_bytes(), value].concat();
    octets.resize(octets.len().next_multiple_of(4), 0);
    octets
}

/// INIT and INIT ACK (3.3.2, 3.3.3): a stream each way.
fn init(kind: u8, tag: u32, sequence: u32, more: &[u8]) -> Vec<u8> {
    let fixed = [&tag.to_be_bytes()[..], &WINDOW.to_be_bytes(), &[0, 1, 0, 1], &sequence.to_be_bytes(), more].concat();
    chunk(kind, 0, &fixed)
}

/// DATA (3.3.1): a whole message, the first of stream 0.
fn data(sequence: u32, message: &[u8]) -> Vec<u8> {
    chunk(chunk::DATA, 3, &[&sequence.to_be_bytes()[..], &[0; 8], message].concat())
}

/// SACK (3.3.4): all up to here, without gaps or duplicates.
fn sack(sequence: u32) -> Vec<u8> {
    chunk(chunk::SACK, 0, &[&sequence.to_be_bytes()[..], &WINDOW.to_be_bytes(), &[0; 4]].concat())
}

fn word(octets: &[u8], at: usize) -> u32 {
    octets.get(at..at + 4).map_or(0, |word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
}

/// Who asks: one association, one question.
#[derive(Debug)]
pub(crate) struct Client {
    /// Its own port, and the server's.
    ports: (u16, u16),
    /// Its own tag and sequence number; the tag stays what it is.
    own: u32,
    question: Vec<u8>,
    /// Told by the server.
    peer: Option<Numbers>,
    answer: Option<Vec<u8>>,
}

impl Client {
    /// It is to send [`Self::first`]. `tag` is its own, and not 0.
    pub(crate) fn new(ports: (u16, u16), tag: u32, question: Vec<u8>) -> Self {
        Self { ports, own: tag, question, peer: None, answer: None }
    }

    /// What it begins with.
    pub(crate) fn first(&self) -> Vec<u8> {
        build(self.ports, 0, &[init(chunk::INIT, self.own, self.own, &[])])
    }

    /// The answer, once it has come.
    pub(crate) fn answer(&self) -> Option<&[u8]> {
        self.answer.as_deref()
    }

    /// What it says to a packet from its server, if anything.
    pub(crate) fn hear(&mut self, octets: &[u8]) -> Option<Vec<u8>> {
        let packet = Packet::parse(octets)?;
        if (packet.dport, packet.sport) != self.ports || packet.tag != self.own {
            return None;
        }
        if let Some(value) = packet.chunk(chunk::INIT_ACK) {
            let cookie = value.get(20..20 + COOKIE)?;
            let server = word(value, 0);
            self.peer = Some(Numbers { client: self.own, server, question: self.own, answer: word(value, 12) });
            return Some(build(self.ports, server, &[chunk(chunk::COOKIE_ECHO, 0, cookie)]));
        }
        let peer = self.peer?;
        if packet.chunk(chunk::COOKIE_ACK).is_some() {
            return Some(build(self.ports, peer.server, &[data(self.own, &self.question)]));
        }
        // The answer counts once the question is acknowledged.
        let acknowledged = packet.chunk(chunk::SACK).is_some_and(|value| word(value, 0) == self.own);
        let value = packet.chunk(chunk::DATA).filter(|value| acknowledged && word(value, 0) == peer.answer)?;
        self.answer = Some(value.get(12..)?.to_vec());
        Some(build(self.ports, peer.server, &[sack(peer.answer)]))
    }
}

/// Whose association it is: the client's address and port, and the server's port.
type Key = (IpAddr, u16, u16);

/// Who answers, at some ports of an address.
#[derive(Debug, Default)]
pub(crate) struct Server {
    associations: HashMap<Key, Numbers>,
    last: u32,
}

/// What a server does about a packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// It sends this.
    Send(Vec<u8>),
    /// It was asked this at that port, and sends the answer.
    Asked(u16, Vec<u8>, Vec<u8>),
}

impl Server {
    /// What it does about a packet from `peer`, if anything; it echoes a question.
    pub(crate) fn hear(&mut self, peer: IpAddr, octets: &[u8]) -> Option<Said> {
        let packet = Packet::parse(octets)?;
        let ports = (packet.dport, packet.sport);
        let key = (peer, packet.sport, packet.dport);
        if let Some(value) = packet.chunk(chunk::INIT).filter(|_| packet.tag == 0) {
            self.last += 1;
            let (tag, sequence) = (0x5e00_0000 | self.last, self.last << 4);
            let numbers = Numbers { client: word(value, 0), server: tag, question: word(value, 12), answer: sequence };
            let cookie = numbers.cookie();
            let parameter = [&STATE_COOKIE.to_be_bytes()[..], &((COOKIE + 4) as u16).to_be_bytes(), &cookie].concat();
            return Some(Said::Send(build(ports, numbers.client, &[init(chunk::INIT_ACK, tag, sequence, &parameter)])));
        }
        if let Some(cookie) = packet.chunk(chunk::COOKIE_ECHO) {
            let numbers = Numbers::of_cookie(cookie).filter(|numbers| numbers.server == packet.tag)?;
            self.associations.insert(key, numbers);
            return Some(Said::Send(build(ports, numbers.client, &[chunk(chunk::COOKIE_ACK, 0, &[])])));
        }
        let numbers = *self.associations.get(&key).filter(|numbers| numbers.server == packet.tag)?;
        let value = packet.chunk(chunk::DATA).filter(|value| word(value, 0) == numbers.question)?;
        let question = value.get(12..)?.to_vec();
        let answer = build(ports, numbers.client, &[sack(numbers.question), data(numbers.answer, &question)]);
        Some(Said::Asked(packet.dport, question, answer))
    }

    /// Forget all associations.
    pub(crate) fn forget(&mut self) {
        self.associations.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// All packets of a question, in order, and what the server was asked.
    fn talk(client: &mut Client, server: &mut Server) -> (Vec<Vec<u8>>, Option<Vec<u8>>) {
        let (mut packets, mut asked) = (vec![client.first()], None);
        while let Some(said) = server.hear(PEER, packets.last().expect("one")) {
            packets.push(match said {
                Said::Send(octets) => octets,
                Said::Asked(port, question, octets) => {
                    assert_eq!(port, 80);
                    asked = Some(question);
                    octets
                }
            });
            let Some(next) = client.hear(packets.last().expect("one")) else { break };
            packets.push(next);
        }
        (packets, asked)
    }

    fn client() -> Client {
        Client::new((4000, 80), 7, b"who?".to_vec())
    }

    #[test]
    fn a_question_takes_seven_packets_and_its_answer_is_its_echo() {
        let (mut client, mut server) = (client(), Server::default());
        let (packets, asked) = talk(&mut client, &mut server);
        let kinds: Vec<Vec<u8>> = packets
            .iter()
            .map(|octets| Packet::parse(octets).expect("whole").chunks.iter().map(|(kind, _)| *kind).collect())
            .collect();
        assert_eq!(kinds, [vec![1], vec![2], vec![10], vec![11], vec![0], vec![3, 0], vec![3]]);
        assert_eq!(asked.as_deref(), Some(&b"who?"[..]));
        assert_eq!(client.answer(), Some(&b"who?"[..]));
    }

    #[test]
    fn an_init_is_what_rfc_9260_draws() {
        let mut octets = client().first();
        octets[8..12].fill(0);
        let drawn = [
            0x0f, 0xa0, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, // ports, no tag yet, checksum
            1, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 7, // INIT
        ];
        assert_eq!(octets, drawn);
    }

    #[test]
    fn a_packet_that_is_changed_or_cut_anywhere_is_not_heard() {
        let (mut asking, mut server) = (client(), Server::default());
        let (packets, _) = talk(&mut asking, &mut server);
        for packet in packets {
            for at in 0..packet.len() {
                let mut changed = packet.clone();
                changed[at] ^= 0x10;
                assert_eq!(server.hear(PEER, &changed), None, "octet {at}");
                assert_eq!(client().hear(&changed), None, "octet {at}");
                assert_eq!(server.hear(PEER, &packet[..at]), None, "cut to {at}");
            }
        }
    }

    #[test]
    fn no_association_is_spoken_in_that_nobody_began() {
        let (mut asking, mut server) = (client(), Server::default());
        let (packets, _) = talk(&mut asking, &mut server);
        assert_eq!(Server::default().hear(PEER, &packets[4]), None, "DATA to a server that knows of nothing");
        server.forget();
        assert_eq!(server.hear(PEER, &packets[4]), None, "DATA after it was forgotten");
        let mut other = Client::new((4000, 80), 8, Vec::new());
        assert_eq!(other.hear(&packets[1]), None, "an INIT ACK for another tag");
    }

    #[test]
    fn chunks_whose_lengths_are_impossible_are_not_read() {
        for len in [0u8, 3, 200] {
            let mut octets = build((1, 2), 0, &[vec![1, 0, 0, len]]);
            octets[8..12].fill(0);
            let sum = crc32c::crc32c(&octets);
            octets[8..12].copy_from_slice(&sum.to_le_bytes());
            assert!(Packet::parse(&octets).is_none(), "length {len}");
        }
        for len in 0..HEADER {
            assert!(Packet::parse(&vec![0; len]).is_none());
        }
    }
}
