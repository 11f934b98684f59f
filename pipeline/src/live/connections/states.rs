//! States of connections and how long each may be silent: those of Linux's connection tracking
//! (`nf_conntrack_proto_tcp.c` and its neighbours), so that people find the words and the times that they know.
//!
//! Sequence numbers are not followed: packets that hit never come here one by one. What is known of a TCP connection is
//! what its SYN, FIN and RST say, and that other packets were seen.
//!
//! ```text
//!   SYN_SENT ─ SYN+ACK ► SYN_RECV ─ ACK ► ESTABLISHED ─ FIN ► FIN_WAIT ─ ACK ► CLOSE_WAIT ─ FIN ► LAST_ACK ─ ACK ► TIME_WAIT
//!       └─ SYN of the other end ► SYN_SENT2 ─ SYN+ACK ► SYN_RECV                any of them ─ RST ► CLOSE
//! ```

use super::{Direction, Event};

/// Protocol numbers.
pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const DCCP: u8 = 33;
pub(super) const ICMP6: u8 = 58;
pub(super) const SCTP: u8 = 132;
pub(super) const UDP_LITE: u8 = 136;

/// TCP flags (RFC 9293, 3.1).
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// SCTP chunk types (RFC 9260, 3.2).
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;

/// A UDP exchange that goes on for longer than this, seconds, is a stream, and not one question with its answer.
const STREAM: u32 = 2;

/// State within the protocol. A number with names: it may come from memory that another version wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State(pub(super) u8);

impl State {
    /// The protocol has none.
    pub(super) const NONE: Self = Self(0);
    pub(super) const SYN_SENT: Self = Self(1);
    /// Both ends have sent SYN (RFC 9293, 3.5: simultaneous open).
    pub(super) const SYN_SENT2: Self = Self(2);
    pub(super) const SYN_RECV: Self = Self(3);
    /// Of SCTP too.
    pub(super) const ESTABLISHED: Self = Self(4);
    pub(super) const FIN_WAIT: Self = Self(5);
    pub(super) const CLOSE_WAIT: Self = Self(6);
    pub(super) const LAST_ACK: Self = Self(7);
    pub(super) const TIME_WAIT: Self = Self(8);
    /// Of SCTP too, which calls it CLOSED.
    pub(super) const CLOSE: Self = Self(9);
    pub(super) const COOKIE_WAIT: Self = Self(10);
    pub(super) const COOKIE_ECHOED: Self = Self(11);
    pub(super) const SHUTDOWN_SENT: Self = Self(12);
    pub(super) const SHUTDOWN_ACK_SENT: Self = Self(13);
}

/// What is known of a connection beside its tuples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status {
    /// Where in its life it is.
    pub(super) state: State,
    /// Facts that once true stay true, of [`flag`].
    pub(super) flags: u8,
}

/// Bits of [`Status::flags`].
pub(super) mod flag {
    /// A packet came back.
    pub(in super::super) const ANSWERED: u8 = 1;
    /// The end that opened it has sent FIN.
    pub(in super::super) const FIN_ORIGINAL: u8 = 2;
    /// The other end has.
    pub(in super::super) const FIN_REPLY: u8 = 4;
    /// It is dead, and the cells of its tuples were touched: no remembered decision rests on it.
    pub(in super::super) const TOLD: u8 = 8;
    /// It is dead because its port had too many that were not answered.
    pub(in super::super) const EVICTED: u8 = 16;
}

impl Status {
    /// After the first packet. One that begins in mid-stream is taken as it is: its beginning may have been elsewhere.
    pub(super) fn opening(proto: u8, event: Event) -> Self {
        let state = match proto {
            TCP if event.flags & RST != 0 => State::CLOSE,
            TCP if event.flags & (SYN | ACK) == SYN => State::SYN_SENT,
            TCP if event.flags & FIN != 0 => State::FIN_WAIT,
            TCP => State::ESTABLISHED,
            SCTP => match event.flags {
                INIT => State::COOKIE_WAIT,
                ABORT | SHUTDOWN_COMPLETE => State::CLOSE,
                _ => State::ESTABLISHED,
            },
            _ => State::NONE,
        };
        Self { state, flags: if state == State::FIN_WAIT { flag::FIN_ORIGINAL } else { 0 } }
    }

    /// A packet has come back.
    pub(super) fn is_answered(self) -> bool {
        self.flags & flag::ANSWERED != 0
    }

    /// After a packet that says `event`.
    pub(super) fn advanced(self, proto: u8, direction: Direction, event: Event) -> Self {
        let answered = if direction == Direction::Reply { flag::ANSWERED } else { 0 };
        let next = Self { flags: self.flags | answered, ..self };
        match proto {
            TCP => next.tcp(direction, event.flags),
            SCTP => next.sctp(event.flags),
            _ => next,
        }
    }

    /// After packets that said nothing of note.
    pub(super) fn seen(self, proto: u8, direction: Direction) -> Self {
        let next = self.advanced(proto, direction, Event { flags: if proto == TCP { ACK } else { 0 } });
        // The packets of an SCTP handshake may all hit: that either end spoke again is all that is known of them.
        let state = match (proto, next.state, direction) {
            (SCTP, State::COOKIE_WAIT, Direction::Reply) => State::COOKIE_ECHOED,
            (SCTP, State::COOKIE_ECHOED, Direction::Original) => State::ESTABLISHED,
            (_, state, _) => state,
        };
        Self { state, ..next }
    }

    fn tcp(self, direction: Direction, flags: u8) -> Self {
        let (own, both) = match direction {
            Direction::Original => (flag::FIN_ORIGINAL, flag::FIN_ORIGINAL | flag::FIN_REPLY),
            Direction::Reply => (flag::FIN_REPLY, flag::FIN_ORIGINAL | flag::FIN_REPLY),
        };
        if flags & RST != 0 {
            return Self { state: State::CLOSE, ..self };
        }
        if flags & SYN != 0 {
            let state = match (self.state, direction, flags & ACK != 0) {
                (State::SYN_SENT, Direction::Reply, false) => State::SYN_SENT2,
                (State::SYN_SENT, Direction::Reply, true) | (State::SYN_SENT2, _, true) => State::SYN_RECV,
                // A repetition, or what the other end will refuse.
                (state, ..) => state,
            };
            return Self { state, ..self };
        }
        if flags & FIN != 0 {
            let open = matches!(self.state, State::SYN_RECV | State::ESTABLISHED | State::FIN_WAIT | State::CLOSE_WAIT);
            if !open {
                return self;
            }
            let flags = self.flags | own;
            let state = match self.state {
                _ if flags & both == both => State::LAST_ACK,
                // A repetition.
                State::CLOSE_WAIT => State::CLOSE_WAIT,
                _ => State::FIN_WAIT,
            };
            return Self { state, flags };
        }
        let state = match (self.state, direction) {
            (State::SYN_RECV, Direction::Original) => State::ESTABLISHED,
            // The end that has not closed knows of the other's FIN.
            (State::FIN_WAIT, _) if self.flags & own == 0 => State::CLOSE_WAIT,
            (State::LAST_ACK, _) => State::TIME_WAIT,
            (state, _) => state,
        };
        Self { state, ..self }
    }

    fn sctp(self, chunk: u8) -> Self {
        let state = match (self.state, chunk) {
            (_, ABORT | SHUTDOWN_COMPLETE) => State::CLOSE,
            (State::CLOSE, _) => State::CLOSE,
            (State::COOKIE_WAIT, INIT_ACK | COOKIE_ECHO) => State::COOKIE_ECHOED,
            (State::COOKIE_WAIT | State::COOKIE_ECHOED, COOKIE_ACK) => State::ESTABLISHED,
            (State::ESTABLISHED, SHUTDOWN) => State::SHUTDOWN_SENT,
            (State::ESTABLISHED | State::SHUTDOWN_SENT, SHUTDOWN_ACK) => State::SHUTDOWN_ACK_SENT,
            (state, _) => state,
        };
        Self { state, ..self }
    }

    /// `event` opens a connection anew where this one ends. LAST_ACK is among the ends: the last ACK hits, and is heard
    /// of later than the end that was closed by the other may use its port again.
    pub(super) fn is_reopened_by(self, proto: u8, event: Event) -> bool {
        match proto {
            TCP => {
                event.flags & (SYN | ACK | RST | FIN) == SYN
                    && matches!(self.state, State::LAST_ACK | State::TIME_WAIT | State::CLOSE)
            }
            SCTP => event.flags == INIT && matches!(self.state, State::SHUTDOWN_ACK_SENT | State::CLOSE),
            _ => false,
        }
    }

    /// Seconds of silence in both directions after which it is forgotten, if packets came over `lasted` seconds.
    pub(super) fn timeout(self, proto: u8, lasted: u32) -> u32 {
        const MINUTE: u32 = 60;
        const HOUR: u32 = 60 * MINUTE;
        match (proto, self.state) {
            (TCP, State::ESTABLISHED) if !self.is_answered() => 5 * MINUTE,
            (SCTP, State::ESTABLISHED) => 210,
            (_, State::ESTABLISHED) => 5 * 24 * HOUR,
            // Kubernetes asks for an hour (specification, row V25).
            (_, State::CLOSE_WAIT) => HOUR,
            (_, State::SYN_SENT | State::SYN_SENT2 | State::FIN_WAIT | State::TIME_WAIT) => 2 * MINUTE,
            (_, State::SYN_RECV) => MINUTE,
            (_, State::LAST_ACK) => 30,
            (TCP | SCTP, _) => 10,
            // A question and its answer are over soon: name servers see a great many of them.
            (UDP | UDP_LITE, _) if self.is_answered() && lasted > STREAM => 2 * MINUTE,
            (UDP | UDP_LITE | ICMP | ICMP6, _) => 30,
            _ => 10 * MINUTE,
        }
    }

    /// In the words of `conntrack -L`.
    pub(super) fn word(self, proto: u8, lasted: u32) -> &'static str {
        match self.state {
            State::SYN_SENT => "SYN_SENT",
            State::SYN_SENT2 => "SYN_SENT2",
            State::SYN_RECV => "SYN_RECV",
            State::ESTABLISHED => "ESTABLISHED",
            State::FIN_WAIT => "FIN_WAIT",
            State::CLOSE_WAIT => "CLOSE_WAIT",
            State::LAST_ACK => "LAST_ACK",
            State::TIME_WAIT => "TIME_WAIT",
            State::CLOSE if proto == SCTP => "CLOSED",
            State::CLOSE => "CLOSE",
            State::COOKIE_WAIT => "COOKIE_WAIT",
            State::COOKIE_ECHOED => "COOKIE_ECHOED",
            State::SHUTDOWN_SENT => "SHUTDOWN_SENT",
            State::SHUTDOWN_ACK_SENT => "SHUTDOWN_ACK_SENT",
            _ if !self.is_answered() => "UNREPLIED",
            _ if matches!(proto, UDP | UDP_LITE) && lasted > STREAM => "ASSURED",
            _ => "REPLIED",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Direction::{Original, Reply};
    use super::*;

    /// A state after packets (direction, what they say), and its timeout, seconds.
    type Row = (&'static str, u8, &'static [(Direction, u8)], &'static str, u32);

    const SYNACK: u8 = SYN | ACK;
    const FINACK: u8 = FIN | ACK;
    const DAYS: u32 = 5 * 24 * 3600;

    const ROWS: &[Row] = &[
        ("a SYN", TCP, &[(Original, SYN)], "SYN_SENT", 120),
        ("a SYN again", TCP, &[(Original, SYN), (Original, SYN)], "SYN_SENT", 120),
        ("answered", TCP, &[(Original, SYN), (Reply, SYNACK)], "SYN_RECV", 60),
        ("a SYN+ACK of the wrong end", TCP, &[(Original, SYN), (Original, SYNACK)], "SYN_SENT", 120),
        ("data of the other end alone", TCP, &[(Original, SYN), (Reply, SYNACK), (Reply, ACK)], "SYN_RECV", 60),
        ("open", TCP, &[(Original, SYN), (Reply, SYNACK), (Original, ACK)], "ESTABLISHED", DAYS),
        ("both open at once", TCP, &[(Original, SYN), (Reply, SYN)], "SYN_SENT2", 120),
        ("and answer", TCP, &[(Original, SYN), (Reply, SYN), (Original, SYNACK)], "SYN_RECV", 60),
        ("refused", TCP, &[(Original, SYN), (Reply, RST | ACK)], "CLOSE", 10),
        ("in mid-stream", TCP, &[(Original, ACK)], "ESTABLISHED", 300),
        ("in mid-stream and answered", TCP, &[(Original, ACK), (Reply, ACK)], "ESTABLISHED", DAYS),
        ("a SYN+ACK first", TCP, &[(Original, SYNACK)], "ESTABLISHED", 300),
        ("a FIN first", TCP, &[(Original, FINACK)], "FIN_WAIT", 120),
        ("a RST first", TCP, &[(Original, RST)], "CLOSE", 10),
        ("a SYN into it", TCP, &[(Original, ACK), (Reply, ACK), (Original, SYN)], "ESTABLISHED", DAYS),
        ("closing", TCP, &[(Original, ACK), (Original, FINACK)], "FIN_WAIT", 120),
        ("closing, repeated", TCP, &[(Original, ACK), (Original, FINACK), (Original, FINACK)], "FIN_WAIT", 120),
        ("its end goes on", TCP, &[(Original, ACK), (Original, FINACK), (Original, ACK)], "FIN_WAIT", 120),
        ("half closed", TCP, &[(Original, ACK), (Original, FINACK), (Reply, ACK)], "CLOSE_WAIT", 3600),
        ("by the other end", TCP, &[(Original, ACK), (Reply, FINACK), (Original, ACK)], "CLOSE_WAIT", 3600),
        (
            "half closed, repeated",
            TCP,
            &[(Original, ACK), (Reply, FINACK), (Original, ACK), (Reply, FINACK)],
            "CLOSE_WAIT",
            3600,
        ),
        ("closed by both", TCP, &[(Original, ACK), (Original, FINACK), (Reply, ACK), (Reply, FINACK)], "LAST_ACK", 30),
        ("at once", TCP, &[(Original, ACK), (Reply, FINACK), (Original, FINACK)], "LAST_ACK", 30),
        (
            "and acknowledged",
            TCP,
            &[(Original, ACK), (Reply, FINACK), (Original, FINACK), (Reply, ACK)],
            "TIME_WAIT",
            120,
        ),
        (
            "cut after all",
            TCP,
            &[(Original, ACK), (Reply, FINACK), (Original, FINACK), (Reply, ACK), (Original, RST)],
            "CLOSE",
            10,
        ),
        ("a datagram", UDP, &[(Original, 0)], "UNREPLIED", 30),
        ("its answer", UDP, &[(Original, 0), (Reply, 0)], "REPLIED", 30),
        ("a ping", ICMP, &[(Original, 0)], "UNREPLIED", 30),
        ("its answer", ICMP6, &[(Original, 0), (Reply, 0)], "REPLIED", 30),
        ("something else", 47, &[(Original, 0)], "UNREPLIED", 600),
        ("an association", SCTP, &[(Original, INIT)], "COOKIE_WAIT", 10),
        ("is answered", SCTP, &[(Original, INIT), (Reply, INIT_ACK)], "COOKIE_ECHOED", 10),
        (
            "is made",
            SCTP,
            &[(Original, INIT), (Reply, INIT_ACK), (Original, COOKIE_ECHO), (Reply, COOKIE_ACK)],
            "ESTABLISHED",
            210,
        ),
        ("in mid-stream", SCTP, &[(Original, 0)], "ESTABLISHED", 210),
        ("shuts down", SCTP, &[(Original, 0), (Reply, SHUTDOWN)], "SHUTDOWN_SENT", 10),
        ("is shut", SCTP, &[(Original, 0), (Reply, SHUTDOWN), (Original, SHUTDOWN_ACK)], "SHUTDOWN_ACK_SENT", 10),
        ("is gone", SCTP, &[(Original, 0), (Reply, ABORT)], "CLOSED", 10),
    ];

    fn after(proto: u8, packets: &[(Direction, u8)]) -> Status {
        let event = |flags| Event { flags };
        let first = Status::opening(proto, event(packets[0].1));
        packets[1..].iter().fold(first, |status, &(direction, flags)| status.advanced(proto, direction, event(flags)))
    }

    #[test]
    fn states_and_timeouts_follow_what_packets_say() {
        for &(name, proto, packets, word, timeout) in ROWS {
            let status = after(proto, packets);
            assert_eq!((status.word(proto, 0), status.timeout(proto, 0)), (word, timeout), "{name} ({proto})");
        }
    }

    #[test]
    fn a_datagram_stream_is_kept_for_longer_than_a_question_with_its_answer() {
        let status = after(UDP, &[(Original, 0), (Reply, 0)]);
        assert_eq!((status.word(UDP, STREAM), status.timeout(UDP, STREAM)), ("REPLIED", 30));
        assert_eq!((status.word(UDP, STREAM + 1), status.timeout(UDP, STREAM + 1)), ("ASSURED", 120));
    }

    #[test]
    fn hits_open_and_close_what_only_acknowledgements_would() {
        let opened = after(TCP, &[(Original, SYN), (Reply, SYNACK)]);
        assert_eq!(opened.seen(TCP, Reply).state, State::SYN_RECV);
        assert_eq!(opened.seen(TCP, Original).state, State::ESTABLISHED);
        let closed = after(TCP, &[(Original, ACK), (Reply, FINACK), (Original, FINACK)]);
        assert_eq!(closed.seen(TCP, Reply).state, State::TIME_WAIT);
        let asked = after(SCTP, &[(Original, INIT)]);
        assert_eq!(asked.seen(SCTP, Reply).seen(SCTP, Original).state, State::ESTABLISHED);
        assert!(after(UDP, &[(Original, 0)]).seen(UDP, Reply).is_answered());
        assert!(!after(UDP, &[(Original, 0)]).seen(UDP, Original).is_answered());
    }

    #[test]
    fn only_a_bare_syn_opens_anew_and_only_what_ended() {
        let ended: &[&[(Direction, u8)]] = &[
            &[(Original, SYN), (Reply, RST)],
            &[(Original, ACK), (Reply, FINACK), (Original, FINACK)],
            &[(Original, ACK), (Reply, FINACK), (Original, FINACK), (Reply, ACK)],
        ];
        for packets in ended {
            assert!(after(TCP, packets).is_reopened_by(TCP, Event { flags: SYN }));
            for flags in [SYNACK, ACK, RST | SYN, FIN | SYN] {
                assert!(!after(TCP, packets).is_reopened_by(TCP, Event { flags }));
            }
        }
        for packets in [&[(Original, SYN)] as &[_], &[(Original, ACK), (Reply, ACK)], &[(Original, ACK), (Reply, FIN)]]
        {
            assert!(!after(TCP, packets).is_reopened_by(TCP, Event { flags: SYN }));
        }
    }

    #[test]
    fn no_sequence_of_packets_leaves_the_named_states() {
        let mut seen = std::collections::BTreeSet::new();
        let mut open: Vec<(u8, Status)> = [TCP, SCTP]
            .into_iter()
            .flat_map(|proto| (0..=255).map(move |flags| (proto, Status::opening(proto, Event { flags }))))
            .collect();
        while let Some((proto, status)) = open.pop() {
            if !seen.insert((proto, status.state.0, status.flags)) {
                continue;
            }
            assert!(!["UNREPLIED", "REPLIED"].contains(&status.word(proto, 0)), "{status:?}");
            for direction in [Original, Reply] {
                open.extend((0..=255).map(|flags| (proto, status.advanced(proto, direction, Event { flags }))));
                open.push((proto, status.seen(proto, direction)));
            }
        }
    }
}
