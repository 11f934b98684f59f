//! Housekeeping that neither packets nor requests wait for: what nobody has used for long is forgotten, and the node's
//! routes are looked after. On a thread of its own, off the workers and off the control thread.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use pipeline::live::Live;
use pipeline::live::connections::Tuple;
use pipeline::live::denials::News;

use crate::node::Node;
use crate::survival::learned::Learned;
use crate::worker::clock;

/// Time between two rounds.
const ROUND: Duration = Duration::from_millis(100);
/// Rounds between two looks at stations and neighbours, whose lives are counted in seconds.
const SECOND: u64 = 10;
/// Rounds between two looks at the node's routes.
const ROUTES: u64 = 30;
/// Connection records that a round looks at: a million in two seconds.
const RECORDS: usize = 64 * 1024;

/// Seconds after which a denial that does not happen any more may be forgotten.
const FORGOTTEN: u32 = 600;

/// The thread; it ends with the value.
pub(crate) struct Upkeep {
    /// Dropped to end it.
    running: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Upkeep {
    /// Start the thread.
    ///
    /// # Errors
    /// When the system has none left.
    pub(crate) fn start(live: Arc<Live>, node: Arc<Mutex<Node>>, learned: Option<Arc<Learned>>) -> io::Result<Self> {
        let (running, ended) = channel::<()>();
        let thread = std::thread::Builder::new().name("upkeep".to_owned()).spawn(move || {
            for round in 0.. {
                if ended.recv_timeout(ROUND) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                self::round(round, &live, &node);
                if round.is_multiple_of(SECOND) {
                    learned.iter().for_each(|learned| learned.write(&live));
                }
            }
        })?;
        Ok(Self { running: Some(running), thread: Some(thread) })
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.running = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Look at some of the connections.
pub(crate) fn connections(live: &Live) {
    live.connections.expire(clock::now(), RECORDS);
}

/// Tell of what policies did not let through, to who wants to know (`--log denied=debug`).
fn denials(live: &Live) {
    let (news, more) = live.denials.news();
    for News { denied, packet } in news {
        let (subject, way, by) = (&denied.subject, denied.way.name(), denied.decider());
        match packet {
            Some(Tuple { proto, src, sport, dst, dport, .. }) => {
                tracing::debug!(target: "denied", "{way} of {subject} by {by}: {src}:{sport} > {dst}:{dport} proto {proto}");
            }
            None => tracing::debug!(target: "denied", "{way} of {subject} by {by}"),
        }
    }
    if more != 0 {
        tracing::debug!(target: "denied", "{more} more");
    }
}

fn round(round: u64, live: &Live, node: &Mutex<Node>) {
    connections(live);
    denials(live);
    let now = clock::now();
    if round.is_multiple_of(SECOND) {
        live.stations.expire(now, &live.cells);
        live.neighbors.expire(now, &live.cells);
        live.denials.forget(FORGOTTEN, now);
    }
    if round.is_multiple_of(ROUTES) {
        node.lock().upkeep();
    }
}
