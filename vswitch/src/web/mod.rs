//! The node's own HTTP servers: `/healthz` and `/livez`, `/metrics` and `/proxyMode`, and health-check node ports, for
//! kubelets, load balancers and Prometheus.
//!
//! ```text
//!   Switch::apply ── record ──► Told ◄── read ── Answers ◄── Server (one thread, one poll)
//!                 └─ wake, wait until listeners are as told ──┘        ├── listeners
//!   workers ── counters ──────────────────────────► Metrics, Watch ◄───┘── clients
//! ```
//!
//! One thread serves all; it takes nobody's turn and asks no worker. A transaction that opens or closes a health-check
//! port is answered when that is done. What it never does: refuse a transaction because a port cannot be had, or take a
//! request with a body.
//!
//! One example: a service of type LoadBalancer with `externalTrafficPolicy: Local` has the health-check port 31234, and the
//! node the address 192.0.2.10. The noun comes with a transaction; before that is answered, `GET / HTTP/1.1` at
//! 192.0.2.10:31234 gets `200 OK` if a ready endpoint is here, else `503 Service Unavailable`. With the service the
//! listener goes, and its connections.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use api::{PortId, Transaction};
use crossbeam::channel::{Sender, bounded, unbounded};
use mio::{Poll, Waker};
use parking_lot::Mutex;
use pipeline::counters::Counters;
use pipeline::live::Live;

use crate::publish::Sleepers;
use crate::stats::Totals;
use crate::worker::Snapshot;
use answers::Answers;
use metrics::Metrics;
use server::{Server, WAKER};
use told::Told;

mod answers;
mod client;
mod health;
mod http;
mod listen;
mod metrics;
mod server;
mod told;
mod watch;

/// How long a transaction waits for the servers at most. They never need it.
const SETTLED: Duration = Duration::from_secs(1);

/// What is served, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Where `/healthz` and `/livez` are; `0.0.0.0` and `::` both mean every address of either IP version.
    pub healthz: Option<SocketAddr>,
    /// Where `/metrics` and `/proxyMode` are.
    pub metrics: Option<SocketAddr>,
    /// Version of the program, for metrics.
    pub version: String,
}

/// The workers, as far as the servers look at them.
pub(crate) struct Workers {
    /// What each counts.
    pub(crate) counters: Vec<Arc<Counters>>,
    /// Who of them sleeps.
    pub(crate) sleepers: Sleepers<Snapshot>,
}

impl Workers {
    /// Of each: ticks that it has accounted for, which it does with every turn; `None` while it sleeps.
    fn progress(&self) -> Vec<Option<u64>> {
        let ticks = |counters: &Counters| counters.busy_ticks.get().wrapping_add(counters.idle_ticks.get());
        let each = self.counters.iter().enumerate();
        each.map(|(number, counters)| (!self.sleepers.is_asleep(number)).then(|| ticks(counters))).collect()
    }
}

/// A port, as far as metrics need to know it.
#[derive(Clone, Debug)]
pub(crate) struct Metered {
    pub(crate) name: String,
    /// What the counters of its number stood at when it was made.
    pub(crate) baseline: Totals,
}

/// The servers; they end with the value.
pub(crate) struct Web {
    told: Arc<Mutex<Told>>,
    stop: Arc<AtomicBool>,
    waker: Waker,
    /// Asks to be told when listeners are as they shall be.
    settle: Sender<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Web {
    /// Serve, in the calling thread's namespace: from the return on, wherever that is possible. Addresses that cannot be had are tried again every second.
    ///
    /// # Errors
    /// When the system has no thread or descriptor left.
    pub(crate) fn start(settings: Settings, workers: Workers, live: Arc<Live>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let told = Arc::new(Mutex::new(Told::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (settle, waiting) = unbounded();
        let answered: Arc<Mutex<[BTreeMap<u16, u64>; 2]>> = Arc::default();
        let metrics = Metrics {
            told: Arc::clone(&told),
            workers: workers.counters.clone(),
            live,
            answered: Arc::clone(&answered),
            version: settings.version.clone(),
        };
        let answers = Answers::new(Arc::clone(&told), metrics.registry(), answered);
        let server = Server::new(poll, settings, Arc::clone(&told), workers, answers, (Arc::clone(&stop), waiting));
        let thread = std::thread::Builder::new().name("web".to_owned()).spawn(move || server.run())?;
        let web = Self { told, stop, waker, settle, thread: Some(thread) };
        web.settle();
        Ok(web)
    }

    /// A transaction has come into force, in this time. Returns when listeners are as it says.
    pub(crate) fn record(
        &self,
        transaction: &Transaction,
        took: Duration,
        metered: impl Fn(PortId) -> Option<Metered>,
    ) {
        let listens = self.told.lock().record(transaction, took, metered);
        if listens {
            self.settle();
        }
    }

    /// Wait until listeners are as they shall be, or cannot be had.
    fn settle(&self) {
        let (done, wait) = bounded(1);
        if self.settle.send(done).is_ok() && self.waker.wake().is_ok() && wait.recv_timeout(SETTLED).is_err() {
            tracing::warn!("ports of health checks and metrics are not as they shall be yet");
        }
    }

    /// The control thread has come round.
    pub(crate) fn round(&self) {
        self.told.lock().rounds += 1;
    }

    /// What follows from the cluster's objects is in force, or not.
    pub(crate) fn behind(&self, behind: bool) {
        self.told.lock().behind = behind;
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Err(why) = self.waker.wake() {
            tracing::warn!("the servers of health checks cannot be woken: {why}");
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
