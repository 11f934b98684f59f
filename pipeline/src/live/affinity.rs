//! Session affinity: a client that comes to a service again meets the backend that it met last (`sessionAffinity: ClientIP`).
//!
//! A client is an address as it came in, at one port of a service, whichever of the service's addresses it came to. It is
//! remembered from its last *new* connection on: packets of connections that are known refresh nothing, and ask nothing
//! here. So no remembered decision ever rests on this table: what a first packet chose here is kept by its connection, and
//! a choice of which no connection came is not remembered at all. No cell is touched, whatever changes.
//!
//! A stage looks ([`Affinity::find`]) and leaves all as it is; the backend is written down where the connection is made
//! ([`Affinity::keep`]), under one lock for both, and only if it is made. Of two workers that meet the first two connections of one
//! client at once, the second finds that the answer has changed since it looked, and decides again: one client, one backend.
//!
//! *Memory.* [`CLIENTS`] clients in sets of sixteen, 12 MiB when all of it is used; a shard takes its part when it is first
//! written to. Nothing is swept: whoever was away for too long is no longer found, and is the first to make room.
//!
//! *Floods.* A client competes only with those of its set, and the hash that puts it there nobody outside can foresee. In a
//! full set the ingress port with the most clients gives one up: first who never came again, then who was silent for
//! longest. So a flood of made-up sources costs the ports that it did not come from nothing, and those of its own port that
//! do come again next to nothing.
//!
//! *Lock order*: the shard, then the locks of connections.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ahash::RandomState;
use api::{BridgeId, PortId};
use crossbeam::utils::CachePadded;
use parking_lot::Mutex;

use crate::live::Now;
use crate::live::connections::Committed;

/// Clients that are remembered at most.
pub const CLIENTS: usize = SHARDS * SETS * WAYS;
/// Parts with a lock of their own.
const SHARDS: usize = 64;
/// Sets of a shard.
const SETS: usize = 128;
/// Clients of a set: all that one look-up compares.
const WAYS: usize = 16;

/// Who is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// Stands for the name of the service's port.
    pub service: u64,
    /// The bridge whose router it came to.
    pub zone: BridgeId,
    /// Its address as it came in.
    pub address: IpAddr,
}

/// A first packet of a client, as it was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Who comes.
    pub client: Client,
    /// Seconds that it is remembered for if it does not come again (`sessionAffinityConfig.clientIP.timeoutSeconds`).
    pub lasts: u32,
    /// The backend that it was found to have met, of use or not.
    pub met: Option<SocketAddr>,
}

/// What is remembered of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who.
    pub client: Client,
    /// Whom it met.
    pub backend: SocketAddr,
    /// Its last new connection.
    pub used: Now,
    /// Seconds.
    pub lasts: u32,
    /// By which that came in.
    pub port: PortId,
    /// It was not its first.
    pub again: bool,
}

impl Entry {
    /// It came less than so many seconds ago.
    fn holds(&self, lasts: u32, now: Now) -> bool {
        now.0.saturating_sub(self.used.0) < Duration::from_secs(lasts.into())
    }
}

/// What is remembered of clients of all services.
#[derive(Debug)]
pub struct Affinity {
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    hasher: RandomState,
}

/// Places of the clients of a shard, set behind set; empty as long as there never was one.
type Shard = Vec<Option<Entry>>;

impl Default for Affinity {
    fn default() -> Self {
        let shards = std::iter::repeat_with(CachePadded::default).take(SHARDS).collect();
        Self { shards, hasher: RandomState::new() }
    }
}

impl Affinity {
    /// The shard of a client, and where its set begins there.
    fn place(&self, client: &Client) -> Option<(&Mutex<Shard>, usize)> {
        let hash = self.hasher.hash_one(client);
        let set = (hash >> 32) as usize % SETS;
        Some((self.shards.get(hash as usize % SHARDS)?, set * WAYS))
    }

    /// The backend that a client met last, if that was less than `lasts` seconds ago. Changes nothing.
    pub fn find(&self, client: &Client, lasts: u32, now: Now) -> Option<SocketAddr> {
        let (shard, first) = self.place(client)?;
        let shard = shard.lock();
        let set = shard.get(first..first + WAYS)?;
        set.iter().flatten().find(|entry| entry.client == *client && entry.holds(lasts, now)).map(|entry| entry.backend)
    }

    /// Make a connection of a client to `backend` by `commit`, and remember it if it is made. `Lost` without an attempt if the
    /// client has met another backend since it was decided: it must be decided again.
    pub fn keep(
        &self,
        visit: &Visit,
        backend: SocketAddr,
        port: PortId,
        now: Now,
        commit: impl FnOnce() -> Committed,
    ) -> Committed {
        let Some((shard, first)) = self.place(&visit.client) else { return commit() };
        let mut shard = shard.lock();
        if shard.is_empty() {
            shard.resize(SETS * WAYS, None);
        }
        let Some(set) = shard.get_mut(first..first + WAYS) else { return commit() };
        let known = set.iter().position(|place| place.is_some_and(|entry| entry.client == visit.client));
        let held = known.and_then(|at| *set.get(at)?).filter(|entry| entry.holds(visit.lasts, now));
        if held.map(|entry| entry.backend) != visit.met {
            return Committed::Lost;
        }
        let committed = commit();
        if let Committed::New(_) = committed {
            let Visit { client, lasts, .. } = *visit;
            let entry = Entry { client, backend, used: now, lasts, port, again: held.is_some() };
            if let Some(place) = known.or_else(|| least(set, port, now)).and_then(|at| set.get_mut(at)) {
                *place = Some(entry);
            }
        }
        committed
    }

    /// Clients that are remembered, or were and made no room yet: for who writes them down.
    pub fn list(&self) -> Vec<Entry> {
        self.shards.iter().flat_map(|shard| shard.lock().iter().flatten().copied().collect::<Vec<_>>()).collect()
    }

    /// Remember a client that was written down, unless it came since. What comes from the future was just now.
    pub fn recall(&self, entry: Entry, now: Now) {
        let Some((shard, first)) = self.place(&entry.client) else { return };
        let mut shard = shard.lock();
        if shard.is_empty() {
            shard.resize(SETS * WAYS, None);
        }
        let Some(set) = shard.get_mut(first..first + WAYS) else { return };
        if set.iter().flatten().all(|known| known.client != entry.client)
            && let Some(place) = least(set, entry.port, now).and_then(|at| set.get_mut(at))
        {
            *place = Some(Entry { used: entry.used.min(now), ..entry });
        }
    }

    /// Clients that are remembered, or were and made no room yet.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().iter().flatten().count()).sum()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The place in a set for a client that came by `port`: a free one, or the one that is worth least.
fn least(set: &[Option<Entry>], port: PortId, now: Now) -> Option<usize> {
    let of = |port: PortId| set.iter().flatten().filter(|entry| entry.port == port).count();
    // Who comes counts already, and its port gives way where it has as many as another.
    let mut largest = (of(port) + 1, port);
    for entry in set.iter().flatten() {
        let clients = of(entry.port);
        if clients > largest.0 {
            largest = (clients, entry.port);
        }
    }
    let worth = |place: &Option<Entry>| match place {
        None => (0, false, Now::default()),
        Some(entry) if !entry.holds(entry.lasts, now) => (1, false, entry.used),
        Some(entry) if entry.port == largest.1 => (2, entry.again, entry.used),
        Some(entry) => (3, entry.again, entry.used),
    };
    (0..).zip(set).min_by_key(|(_, place)| worth(place)).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::connections::{Direction, Found, Name, Tuple};

    const LASTS: u32 = 10;
    const SERVICE: u64 = 7;

    fn at(seconds: u64) -> Now {
        Now(Duration::from_secs(seconds))
    }

    fn client(number: u32) -> Client {
        Client { service: SERVICE, zone: BridgeId(1), address: IpAddr::V4(number.into()) }
    }

    fn backend(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 80))
    }

    fn made() -> Committed {
        let address = IpAddr::V4(0.into());
        let tuple = Tuple { zone: BridgeId(1), proto: 6, src: address, dst: address, sport: 0, dport: 0 };
        let (name, direction) = (Name::default(), Direction::Original);
        Committed::New(Found { name, direction, original: tuple, reply: tuple, identities: [0; 2], answered: false })
    }

    /// A client comes by a port, and meets who it met before, or else this backend.
    fn come(table: &Affinity, client: Client, port: u16, other: u8, now: Now) -> SocketAddr {
        let met = table.find(&client, LASTS, now);
        let chosen = met.unwrap_or_else(|| backend(other));
        let visit = Visit { client, lasts: LASTS, met };
        assert_eq!(table.keep(&visit, chosen, PortId(port), now, made), made());
        chosen
    }

    #[test]
    fn v5_a_client_that_comes_again_in_time_meets_the_same_backend_and_each_time_counts_anew() {
        let table = Affinity::default();
        assert_eq!(come(&table, client(1), 1, 1, at(100)), backend(1));
        for second in [109, 118, 127] {
            assert_eq!(come(&table, client(1), 1, 2, at(second)), backend(1), "{second}");
        }
        assert_eq!(table.find(&client(1), LASTS, at(136)), Some(backend(1)));
        assert_eq!(table.find(&client(1), LASTS, at(137)), None, "ten seconds after its last connection");
        assert_eq!(come(&table, client(1), 1, 2, at(137)), backend(2));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn clients_are_told_apart_by_address_and_service_and_zone() {
        let table = Affinity::default();
        come(&table, client(1), 1, 1, at(0));
        let six = IpAddr::V6(std::net::Ipv4Addr::from(1).to_ipv6_mapped());
        for other in [
            client(2),
            Client { service: 8, ..client(1) },
            Client { zone: BridgeId(2), ..client(1) },
            Client { address: six, ..client(1) },
        ] {
            assert_eq!(table.find(&other, LASTS, at(1)), None, "{other:?}");
        }
    }

    #[test]
    fn a_client_that_was_written_down_meets_who_it_met_unless_it_came_since() {
        let before = Affinity::default();
        (1..=3).for_each(|number| _ = come(&before, client(number), 1, number as u8, at(100)));
        let mut written = before.list();
        written.sort_by_key(|entry| entry.client.address);
        let after = Affinity::default();
        come(&after, client(1), 1, 9, at(102));
        written.iter().for_each(|entry| after.recall(*entry, at(103)));
        let find = |number, second| after.find(&client(number), LASTS, at(second));
        assert_eq!([1, 2, 3].map(|number| find(number, 109)), [9, 2, 3].map(|number| Some(backend(number))));
        assert_eq!(find(2, 110), None, "it is as old as it was");
        after.recall(Entry { client: client(4), used: at(1_000_000), ..written[0] }, at(103));
        assert_eq!(find(4, 113), None, "what comes from the future was just now");
    }

    #[test]
    fn what_a_service_asks_for_now_counts() {
        let table = Affinity::default();
        come(&table, client(1), 1, 1, at(0));
        let find = |seconds| table.find(&client(1), seconds, at(60));
        assert_eq!([find(60), find(61)], [None, Some(backend(1))]);
    }

    #[test]
    fn a_connection_that_is_not_made_is_not_remembered_and_refreshes_nothing() {
        let table = Affinity::default();
        let keep = |met, to, now, committed| {
            let visit = Visit { client: client(1), lasts: LASTS, met };
            table.keep(&visit, backend(to), PortId(1), now, || committed)
        };
        for refused in [Committed::Full, Committed::NoPort, Committed::Lost] {
            assert_eq!(keep(None, 1, at(0), refused), refused);
            assert_eq!(table.find(&client(1), LASTS, at(0)), None);
        }
        keep(None, 1, at(0), made());
        keep(Some(backend(1)), 1, at(9), Committed::Full);
        assert_eq!(table.find(&client(1), LASTS, at(10)), None);
    }

    #[test]
    fn who_decided_before_another_was_quicker_must_decide_again() {
        let table = Affinity::default();
        let visit = Visit { client: client(1), lasts: LASTS, met: None };
        assert_eq!(table.keep(&visit, backend(1), PortId(1), at(0), made), made());
        let never = || panic!("it is not tried");
        assert_eq!(table.keep(&visit, backend(2), PortId(1), at(0), never), Committed::Lost);
        assert_eq!(come(&table, client(1), 1, 2, at(0)), backend(1));
    }

    #[test]
    fn threads_that_meet_the_first_connections_of_a_client_at_once_end_at_one_backend() {
        let table = Affinity::default();
        for number in 0..200 {
            let start = std::sync::Barrier::new(4);
            let met: Vec<SocketAddr> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|thread| {
                        let (table, start) = (&table, &start);
                        scope.spawn(move || {
                            start.wait();
                            loop {
                                let met = table.find(&client(number), LASTS, at(0));
                                let chosen = met.unwrap_or_else(|| backend(thread));
                                let visit = Visit { client: client(number), lasts: LASTS, met };
                                if let Committed::New(_) = table.keep(&visit, chosen, PortId(1), at(0), made) {
                                    return chosen;
                                }
                            }
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(met.iter().all(|backend| Some(*backend) == met.first().copied()), "{met:?}");
        }
    }

    #[test]
    fn a_flood_of_clients_takes_nothing_from_other_ports_and_little_from_those_who_come_again_by_its_own() {
        let table = Affinity::default();
        let (quiet, regular) = (0..2000, 10_000..12_000);
        quiet.clone().for_each(|number| _ = come(&table, client(number), 1, 1, at(0)));
        for now in [0, 1] {
            regular.clone().for_each(|number| _ = come(&table, client(number), 2, 1, at(now)));
        }
        (1 << 20..(1 << 20) + 4 * CLIENTS as u32).for_each(|number| _ = come(&table, client(number), 2, 2, at(2)));
        let known = |clients: std::ops::Range<u32>| {
            clients.filter(|&number| table.find(&client(number), LASTS, at(3)) == Some(backend(1))).count()
        };
        assert_eq!((known(quiet), known(regular)), (2000, 2000));
        assert!(table.len() <= CLIENTS);
        assert!(CLIENTS * size_of::<Option<Entry>>() <= 12 << 20, "{} octets each", size_of::<Option<Entry>>());
    }

    #[test]
    fn who_was_away_for_too_long_makes_room_first() {
        let table = Affinity::default();
        let all = || (0..2 * CLIENTS as u32).map(client);
        all().for_each(|client| _ = come(&table, client, 1, 1, at(0)));
        let newcomers: Vec<Client> = (0..1000).map(|number| client(1 << 30 | number)).collect();
        newcomers.iter().for_each(|client| _ = come(&table, *client, 2, 2, at(11)));
        assert!(newcomers.iter().all(|client| table.find(client, LASTS, at(11)) == Some(backend(2))));
        assert!(table.len() <= CLIENTS);
    }
}
