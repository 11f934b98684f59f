//! Which connections a transaction ends: what is known of them rests on something that is no more.
//!
//! - An endpoint went, or its address is another's now: nobody may speak for it, or hear what was meant for it (FASTPATH 3).
//! - A UDP service lost a backend that serves nobody any more, got its first ones, or appeared at an address and port that
//!   others may have had: datagrams have no connection whose end would tell their sender, so they would go astray for as
//!   long as it keeps sending (`pkg/proxy/conntrack/cleanup.go` of Kubernetes). A service without any backend, or that is
//!   gone, is one that lost them all. TCP and SCTP find out by themselves, and may be shut down in good order.
//!
//! Who may be sent to which backend is for new connections alone: a flow stays with its backend when traffic policy, source
//! ranges or session affinity change, as long as that backend serves anybody.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use api::{AddressKey, Change, Delta, Endpoint, Proto, Service, Transaction};
use pipeline::live::connections::Tuple;

/// What is no more.
#[derive(Debug, Default)]
pub(crate) struct Doomed {
    /// Addresses, each with the identity that it had.
    endpoints: HashSet<(AddressKey, u64)>,
    /// UDP services whose backends changed: address and port, and the backends that still serve.
    services: HashMap<(IpAddr, u16), HashSet<SocketAddr>>,
}

impl Doomed {
    /// What a transaction takes away; `None` when it ends no connection.
    pub(crate) fn of(transaction: &Transaction) -> Option<Self> {
        let mut doomed = Self::default();
        for change in &transaction.changes {
            match change {
                Change::Endpoint(delta) => doomed.add_endpoint(delta),
                Change::Service(delta) => doomed.add_service(delta),
                _ => {}
            }
        }
        (!doomed.endpoints.is_empty() || !doomed.services.is_empty()).then_some(doomed)
    }

    /// What there is now, to be held against connections of an earlier process.
    pub(crate) fn beside(rows: &[Change]) -> Self {
        let mut there = Self::default();
        for row in rows {
            if let Change::Service(Delta { new: Some(service), .. }) = row
                && service.key.proto == Proto::Udp
            {
                there.services.insert((service.key.address, service.key.port), serving(Some(service)));
            }
        }
        there
    }

    /// Whether a connection, of before, is one of a UDP service that is not there now, or was sent to who serves it no more.
    pub(crate) fn ends_beside(&self, original: &Tuple, reply: &Tuple) -> bool {
        let (asked, answers) = ((original.dst, original.dport), (reply.src, reply.sport));
        let stands = match self.services.get(&asked) {
            Some(serving) => serving.contains(&SocketAddr::from(answers)),
            // No service: then nobody sends it elsewhere.
            None => asked == answers,
        };
        original.proto == Proto::Udp as u8 && !stands
    }

    fn add_endpoint(&mut self, delta: &Delta<Endpoint>) {
        let Some(old) = &delta.old else { return };
        let is_same = |new: &Endpoint| (new.key, new.identity) == (old.key, old.identity);
        if !delta.new.as_ref().is_some_and(is_same) {
            self.endpoints.insert((old.key, old.identity));
        }
    }

    fn add_service(&mut self, delta: &Delta<Service>) {
        let Some(service) = delta.new.as_ref().or(delta.old.as_ref()) else { return };
        if service.key.proto != Proto::Udp {
            return;
        }
        let (before, after) = (serving(delta.old.as_ref()), serving(delta.new.as_ref()));
        let lost_some = !before.is_subset(&after);
        let got_first = before.is_empty() && !after.is_empty();
        let appeared = delta.old.is_none();
        if lost_some || got_first || appeared {
            self.services.insert((service.key.address, service.key.port), after);
        }
    }

    /// Whether it ends this connection: its tuples, and the identities of the endpoint that opened it and of the one that it
    /// was opened to.
    pub(crate) fn ends(&self, original: &Tuple, reply: &Tuple, identities: [u64; 2]) -> bool {
        let is_gone = |address: IpAddr, identity: u64| {
            self.endpoints.contains(&(AddressKey { bridge: original.zone, address }, identity))
        };
        let [opener, other] = identities;
        // Answers come from where it was opened to in truth.
        let goes_astray = || {
            let serving = self.services.get(&(original.dst, original.dport));
            serving.is_some_and(|serving| !serving.contains(&SocketAddr::new(reply.src, reply.sport)))
        };
        is_gone(original.src, opener)
            || is_gone(reply.src, other)
            || (original.proto == Proto::Udp as u8 && goes_astray())
    }
}

/// The backends of a service that have connections: to whomever new ones go, and those that keep what they have.
fn serving(service: Option<&Service>) -> HashSet<SocketAddr> {
    let local = |service: &Service| service.external.as_ref().and_then(|external| external.local.clone());
    let lists = |service: &Service| [Some(service.backends.clone()), Some(service.draining.clone()), local(service)];
    service.into_iter().flat_map(lists).flatten().flat_map(|list| list.to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::{BridgeId, EndpointKind, External, MacAddr, PortId, ServiceKey};

    use super::*;

    const ZONE: BridgeId = BridgeId(1);
    const VIP: &str = "10.96.0.10";
    const CLIENT: &str = "10.1.0.9";

    fn service(proto: Proto, backends: &[&str], draining: &[&str]) -> Service {
        let parse = |list: &[&str]| -> Arc<[SocketAddr]> { list.iter().map(|text| text.parse().unwrap()).collect() };
        let key = ServiceKey { address: VIP.parse().unwrap(), proto, port: 53 };
        let name = "kube-system/dns:dns".into();
        Service { draining: parse(draining), ..Service::new(key, name, parse(backends)) }
    }

    fn endpoint(address: &str, identity: u64) -> Endpoint {
        Endpoint {
            key: AddressKey { bridge: ZONE, address: address.parse().unwrap() },
            port: PortId(1),
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            kind: EndpointKind::Pod,
            identity,
            name: "pod/default/web-0".to_owned(),
        }
    }

    /// From the client to the service, answered by a backend.
    fn tuples(proto: Proto, backend: &str) -> (Tuple, Tuple) {
        let backend: SocketAddr = backend.parse().unwrap();
        let original = Tuple {
            zone: ZONE,
            proto: proto as u8,
            src: CLIENT.parse().unwrap(),
            dst: VIP.parse().unwrap(),
            sport: 5000,
            dport: 53,
        };
        let reply = Tuple { src: backend.ip(), sport: backend.port(), ..original.turned() };
        (original, reply)
    }

    /// Whether a change ends a connection to each of two backends.
    fn ended(change: Change, proto: Proto, identities: [u64; 2]) -> [bool; 2] {
        let doomed = Doomed::of(&Transaction { changes: vec![change] });
        ["10.1.0.2:5353", "10.1.0.3:5353"].map(|backend| {
            let (original, reply) = tuples(proto, backend);
            doomed.as_ref().is_some_and(|doomed| doomed.ends(&original, &reply, identities))
        })
    }

    fn change(proto: Proto, before: Option<Lists>, after: Option<Lists>) -> Change {
        let make = |lists: Option<Lists>| lists.map(|[backends, draining]| service(proto, backends, draining));
        Change::Service(Delta { old: make(before), new: make(after) })
    }

    /// Backends and draining ones.
    type Lists = [&'static [&'static str]; 2];

    const A: &str = "10.1.0.2:5353";
    const B: &str = "10.1.0.3:5353";

    #[test]
    fn u1_a_udp_flow_ends_with_its_backend_and_not_before() {
        let rows: [(Option<Lists>, Option<Lists>, [bool; 2]); 7] = [
            (Some([&[A, B], &[]]), Some([&[A], &[]]), [false, true]),
            (Some([&[A, B], &[]]), Some([&[A], &[B]]), [false, false]),
            (Some([&[A], &[B]]), Some([&[A], &[]]), [false, true]),
            (Some([&[A], &[]]), Some([&[A, B], &[]]), [false, false]),
            // The target port counts.
            (Some([&[A, B], &[]]), Some([&["10.1.0.2:53", "10.1.0.3:53"], &[]]), [true, true]),
            // U3: no backend is an empty set, U6: and so is no service.
            (Some([&[A, B], &[]]), Some([&[], &[]]), [true, true]),
            (Some([&[A, B], &[]]), None, [true, true]),
        ];
        for (before, after, ends) in rows {
            assert_eq!(ended(change(Proto::Udp, before, after), Proto::Udp, [1, 2]), ends, "{before:?} → {after:?}");
            assert_eq!(ended(change(Proto::Tcp, before, after), Proto::Tcp, [1, 2]), [false; 2], "U4");
            assert_eq!(ended(change(Proto::Sctp, before, after), Proto::Sctp, [1, 2]), [false; 2], "U4");
        }
    }

    #[test]
    fn u2_what_went_astray_before_the_first_backend_ends_with_it() {
        for before in [None, Some([&[], &[]] as Lists)] {
            assert_eq!(ended(change(Proto::Udp, before, Some([&[A], &[]])), Proto::Udp, [1, 2]), [false, true]);
        }
    }

    /// As [`change`], at an external address: all backends, draining ones, local ones under policy Local.
    fn outside(before: Option<Outside>, after: Option<Outside>) -> Change {
        let make = |lists: Option<Outside>| {
            lists.map(|(lists, local)| {
                let local = local.map(|local| service(Proto::Udp, local, &[]).backends);
                let cluster = "10.96.0.10:53".parse().unwrap();
                let external = Arc::new(External { local, sources: None, cluster });
                Service { external: Some(external), ..service(Proto::Udp, lists[0], lists[1]) }
            })
        };
        Change::Service(Delta { old: make(before), new: make(after) })
    }

    type Outside = (Lists, Option<&'static [&'static str]>);

    #[test]
    fn u1_a_udp_flow_from_beyond_stays_with_a_backend_that_serves_anybody() {
        let rows: [(Option<Outside>, Option<Outside>, [bool; 2]); 7] = [
            // The policy changes, and back.
            (Some(([&[A, B], &[]], None)), Some(([&[A, B], &[]], Some(&[A]))), [false, false]),
            (Some(([&[A, B], &[]], Some(&[A]))), Some(([&[A, B], &[]], None)), [false, false]),
            // All that is ready is elsewhere, and what terminates here still serves who comes from beyond.
            (Some(([&[A, B], &[]], Some(&[A]))), Some(([&[B], &[]], Some(&[A]))), [false, false]),
            (Some(([&[B], &[]], Some(&[A]))), Some(([&[B], &[]], Some(&[]))), [true, false]),
            (Some(([&[A, B], &[]], Some(&[A]))), Some(([&[], &[]], Some(&[]))), [true, true]),
            (Some(([&[A, B], &[]], Some(&[A]))), None, [true, true]),
            // U2: somebody else may have had the node's port before.
            (None, Some(([&[], &[]], Some(&[]))), [true, true]),
        ];
        for (before, after, ends) in rows {
            assert_eq!(ended(outside(before, after), Proto::Udp, [1, 2]), ends, "{before:?} → {after:?}");
        }
    }

    #[test]
    fn a_change_of_affinity_or_of_source_ranges_ends_no_flow() {
        let before = service(Proto::Udp, &[A], &[]);
        let external = |sources: &[&str]| {
            let sources = sources.iter().map(|text| text.parse().unwrap()).collect();
            let cluster = "10.96.0.10:53".parse().unwrap();
            Some(Arc::new(External { local: None, sources: Some(sources), cluster }))
        };
        let open = Service { external: external(&["10.0.0.0/8"]), ..before.clone() };
        for (before, after) in [
            (before.clone(), Service { affinity: Some(10), ..before.clone() }),
            (open.clone(), Service { external: external(&[]), ..open }),
        ] {
            let change = Change::Service(Delta::replace(before, after));
            assert!(Doomed::of(&Transaction { changes: vec![change] }).is_none());
        }
    }

    #[test]
    fn a_connection_ends_with_either_of_its_endpoints_and_not_with_its_address_of_another_identity() {
        let gone = |address: &str, identity| Change::Endpoint(Delta::remove(endpoint(address, identity)));
        assert_eq!(ended(gone(CLIENT, 7), Proto::Tcp, [7, 8]), [true, true]);
        assert_eq!(ended(gone("10.1.0.3", 8), Proto::Tcp, [7, 8]), [false, true]);
        assert_eq!(ended(gone("10.1.0.3", 9), Proto::Tcp, [7, 8]), [false, false]);
        // The same pod's other address.
        assert_eq!(ended(gone("10.1.0.77", 7), Proto::Tcp, [7, 8]), [false, false]);
        let changed =
            |before, after| Change::Endpoint(Delta::replace(endpoint(CLIENT, before), endpoint(CLIENT, after)));
        assert_eq!(ended(changed(7, 9), Proto::Tcp, [7, 8]), [true, true]);
        assert_eq!(ended(changed(7, 7), Proto::Tcp, [7, 8]), [false, false]);
    }

    #[test]
    fn a_udp_flow_of_before_ends_if_its_service_or_backend_went_while_nobody_looked() {
        let ends = |rows: &[Change], proto: Proto| {
            let there = Doomed::beside(rows);
            [A, B].map(|backend| {
                let (original, reply) = tuples(proto, backend);
                there.ends_beside(&original, &reply)
            })
        };
        let rows = |lists: Lists| [change(Proto::Udp, None, Some(lists))];
        assert_eq!(ends(&rows([&[A, B], &[]]), Proto::Udp), [false, false]);
        assert_eq!(ends(&rows([&[A], &[]]), Proto::Udp), [false, true]);
        assert_eq!(ends(&rows([&[A], &[B]]), Proto::Udp), [false, false]);
        assert_eq!(ends(&rows([&[], &[]]), Proto::Udp), [true, true]);
        assert_eq!(ends(&[], Proto::Udp), [true, true]);
        // TCP finds out by itself, and what no service translated is nobody's but its own.
        assert_eq!(ends(&[], Proto::Tcp), [false, false]);
        let (original, _) = tuples(Proto::Udp, A);
        assert!(!Doomed::beside(&[]).ends_beside(&original, &original.turned()));
    }

    #[test]
    fn a_transaction_that_ends_nothing_asks_for_no_scan() {
        let quiet = [
            Change::Endpoint(Delta::add(endpoint(CLIENT, 1))),
            change(Proto::Udp, Some([&[A], &[]]), Some([&[A, B], &[]])),
            change(Proto::Tcp, Some([&[A], &[]]), None),
        ];
        assert!(Doomed::of(&Transaction { changes: quiet.to_vec() }).is_none());
    }
}
