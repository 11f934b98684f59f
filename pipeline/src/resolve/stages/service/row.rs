//! One port of a service at one of its addresses: who may come, to which backends, and to which of them.

use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ahash::RandomState;
use api::{Choice, External, Service, ServiceKey};
use ipnet::IpNet;
use siphasher::sip::SipHasher13;

use crate::live::Now;
use crate::live::affinity::Client;
use crate::live::connections::Tuple;
use crate::raw::prefetch;
use crate::resolve::topology::Speaker;
use crate::resolve::walk::Reached;
use crate::tables::{Maglev, maglev};

/// Backends, one of which is chosen.
#[derive(Clone, Debug)]
pub(super) struct Set {
    backends: Arc<[SocketAddr]>,
    /// For services that ask for it.
    maglev: Option<Maglev>,
    /// Whose they are, for a trace.
    pub(super) whose: &'static str,
}

impl Set {
    fn new(backends: &Arc<[SocketAddr]>, choice: Choice, whose: &'static str) -> Self {
        let maglev = (choice == Choice::Maglev).then(|| Maglev::new(backends));
        Self { backends: Arc::clone(backends), maglev, whose }
    }

    /// It has this backend. Only those who come again ask, so it is not worth an index.
    pub(super) fn has(&self, backend: &SocketAddr) -> bool {
        self.backends.contains(backend)
    }

    /// The backend of a new connection.
    pub(super) fn choose(&self, tuple: &Tuple, now: Now, hasher: &RandomState) -> Option<&SocketAddr> {
        self.backend(self.number(tuple, now, hasher)?)
    }

    /// The number of that backend.
    pub(super) fn number(&self, tuple: &Tuple, now: Now, hasher: &RandomState) -> Option<usize> {
        match &self.maglev {
            Some(table) => table.choose(maglev::hash(tuple)),
            // A client that comes again from the same port is to be at liberty to meet another backend: the time has its part.
            None => {
                let hash = hasher.hash_one((tuple, now.0));
                // The product maps the high half of the hash evenly onto the backends.
                Some((((hash >> 32) * self.backends.len() as u64) >> 32) as usize)
            }
        }
    }

    /// A backend by its number.
    pub(super) fn backend(&self, number: usize) -> Option<&SocketAddr> {
        self.backends.get(number)
    }
}

/// What is particular to an address by which the service is reached from beyond the cluster.
#[derive(Clone, Debug)]
struct Outside {
    /// Where clients from beyond this node are sent under traffic policy Local.
    local: Option<Set>,
    sources: Option<Arc<[IpNet]>>,
}

/// One port of a service at one of its addresses.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) name: Arc<str>,
    /// Stands for the name where clients are remembered.
    number: u64,
    /// Seconds that a client is remembered for.
    pub(super) affinity: Option<u32>,
    all: Set,
    elsewhere: bool,
    outside: Option<Outside>,
}

impl Row {
    pub(super) fn new(service: &Service) -> Self {
        let outside = service.external.as_ref().map(|external| {
            let local = external.local.as_ref().map(|local| Set::new(local, service.choice, " of this node's"));
            Outside { local, sources: external.sources.clone() }
        });
        let whose = if outside.is_some() { " of all" } else { "" };
        Self {
            name: Arc::clone(&service.name),
            number: number_of(&service.name),
            affinity: service.affinity,
            all: Set::new(&service.backends, service.choice, whose),
            elsewhere: service.elsewhere,
            outside,
        }
    }

    /// The noun that it was made of, as far as packets meet it.
    pub(super) fn noun(&self, key: ServiceKey) -> Service {
        let external = self.outside.as_ref().map(|outside| {
            let local = outside.local.as_ref().map(|local| Arc::clone(&local.backends));
            let cluster = SocketAddr::new(key.address, key.port);
            Arc::new(External { local, sources: outside.sources.clone(), cluster })
        });
        Service {
            choice: if self.all.maglev.is_some() { Choice::Maglev } else { Choice::Random },
            affinity: self.affinity,
            elsewhere: self.elsewhere,
            external,
            ..Service::new(key, Arc::clone(&self.name), Arc::clone(&self.all.backends))
        }
    }

    /// Who comes from this address is let in.
    pub(super) fn admits(&self, source: IpAddr) -> bool {
        let sources = self.outside.as_ref().and_then(|outside| outside.sources.as_deref());
        sources.is_none_or(|sources| sources.iter().any(|range| range.contains(&source)))
    }

    /// The backends for who speaks. That is asked only where it matters.
    pub(super) fn set(&self, speaker: impl FnOnce() -> Speaker) -> &Set {
        let local = self.outside.as_ref().and_then(|outside| outside.local.as_ref());
        match local {
            Some(local) if speaker() == Speaker::Beyond => local,
            _ => &self.all,
        }
    }

    /// The backends for most who speak.
    pub(super) fn everybody(&self) -> &Set {
        &self.all
    }

    /// The row will be read soon.
    pub(super) fn prefetch(&self) {
        prefetch(self);
        prefetch(&raw const self.all);
    }

    /// Somebody serves, if not for everybody: who finds no backend is not told that there is none.
    pub(super) fn is_served(&self) -> bool {
        self.elsewhere || !self.all.backends.is_empty()
    }

    /// At what kind of address this is.
    pub(super) fn reached(&self) -> Reached {
        match &self.outside {
            None => Reached::Cluster,
            Some(Outside { local: None, .. }) => Reached::External,
            Some(Outside { local: Some(_), .. }) => Reached::ExternalLocal,
        }
    }

    /// Who sent a first packet, as the service remembers it.
    pub(super) fn client(&self, tuple: &Tuple) -> Client {
        Client { service: self.number, zone: tuple.zone, address: tuple.src }
    }
}

/// A number for the name of a service's port: the same in every program, for what packets write outlives them. Should two
/// names ever share one, their clients forget each other's backends, and nothing worse: neither has those of the other.
fn number_of(name: &str) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(name.as_bytes());
    hasher.finish()
}
