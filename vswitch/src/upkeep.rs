//! Housekeeping that neither packets nor requests wait for: what nobody has used for long is forgotten, and the node's
//! routes are looked after. On a thread of its own, off the workers and off the control thread.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use pipeline::live::Live;

use crate::node::Node;
use crate::worker::clock;

/// Time between two rounds.
const ROUND: Duration = Duration::from_millis(100);
/// Rounds between two looks at stations and neighbours, whose lives are counted in seconds.
const SECOND: u64 = 10;
/// Rounds between two looks at the node's routes.
const ROUTES: u64 = 30;
/// Connection records that a round looks at: a million in two seconds.
const RECORDS: usize = 64 * 1024;

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
    pub(crate) fn start(live: Arc<Live>, node: Arc<Mutex<Node>>) -> io::Result<Self> {
        let (running, ended) = channel::<()>();
        let thread = std::thread::Builder::new().name("upkeep".to_owned()).spawn(move || {
            for round in 0.. {
                if ended.recv_timeout(ROUND) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                self::round(round, &live, &node);
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

fn round(round: u64, live: &Live, node: &Mutex<Node>) {
    connections(live);
    let now = clock::now();
    if round.is_multiple_of(SECOND) {
        live.stations.expire(now, &live.cells);
        live.neighbors.expire(now, &live.cells);
    }
    if round.is_multiple_of(ROUTES) {
        node.lock().upkeep();
    }
}
