//! A mesh over a switch that is known to work, and over one that loses what it is told to lose.

use super::*;
use crate::linux::LinuxBridge;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn question() -> Question {
    let at = SocketAddr::new(HERE, 80);
    Question { from: 0, at, over: Transport::Tcp, to: 1, port: 80, seen: HERE }
}

#[test]
fn a_question_is_read_by_its_own_run_only() {
    let octets = write_question(20001, 70000);
    assert_eq!(read_question(&octets, 20001), Some(70000));
    assert_eq!(read_question(&octets, 20002), None);
    for len in 0..octets.len() {
        assert_eq!(read_question(&octets[..len], 20001), None, "cut to {len}");
    }
}

#[test]
fn an_event_is_told_from_those_of_other_sockets() {
    for waiting in [Waiting::Server(7), Waiting::Accepted(7), Waiting::Client(70000)] {
        assert_eq!(format!("{:?}", Waiting::of(waiting.number())), format!("{waiting:?}"));
    }
}

#[test]
fn a_question_passed_only_if_the_right_server_heard_it_from_the_right_address_and_the_echo_came() {
    let peer = SocketAddr::new(HERE, 20000);
    let elsewhere = SocketAddr::new("127.0.0.9".parse().unwrap(), 20000);
    let fate = |heard, echoed| Notes { heard, echoed, refused: None }.fate(&question());
    assert_eq!(fate(Some((1, 80, peer)), true), Fate::Passed(peer));
    assert_eq!(fate(None, false), Fate::Silent);
    let odd = [
        (Some((1, 80, peer)), false),
        (Some((2, 80, peer)), true),
        (Some((1, 81, peer)), true),
        (Some((1, 80, elsewhere)), true),
        (None, true),
    ];
    for (heard, echoed) in odd {
        let fate = fate(heard, echoed);
        assert!(!fate.is(true) && !fate.is(false), "{fate}");
    }
}

/// Every transport and version of IP, to a port where a server is and to one where none is.
#[test]
fn every_transport_passes_a_linux_bridge_to_the_ports_that_are_served() {
    let linux = match LinuxBridge::new() {
        Ok(linux) => linux,
        Err(error) => return println!("SKIPPED: a mesh over a Linux bridge: {error:#}"),
    };
    let ends = [
        End { host: linux.near(), at: Vec::new(), ports: &[] },
        End { host: linux.far(), at: Vec::new(), ports: &[80] },
    ];
    let mut mesh = Mesh::new(&ends).expect("sockets");
    let mut questions = Vec::new();
    for port in [80, 81] {
        for over in TRANSPORTS {
            for [at, seen] in [["10.78.0.2", "10.78.0.1"], ["fd78::2", "fd78::1"]] {
                let at = SocketAddr::new(at.parse().unwrap(), port);
                questions.push(Question { from: 0, at, over, to: 1, port, seen: seen.parse().unwrap() });
            }
        }
    }
    for _ in 0..2 {
        let fates = mesh.ask(&questions, |at| questions[at].port == 80).expect("sockets");
        for (question, fate) in questions.iter().zip(fates) {
            match (question.port, question.over) {
                (80, _) => assert!(matches!(fate, Fate::Passed(_)), "{question:?}: {fate}"),
                // Where nobody listens, the kernel says so.
                (_, Transport::Tcp) => assert!(matches!(fate, Fate::Odd(_)), "{question:?}: {fate}"),
                _ => assert!(!matches!(fate, Fate::Passed(_)), "{question:?}: {fate}"),
            }
        }
    }
}
