//! What a worker counts. One writer, any reader: plain loads and stores of atomics, which cost what plain words cost.

use std::sync::atomic::{AtomicU64, Ordering};

use api::PortId;
use crossbeam::utils::CachePadded;

use crate::drop::DropReason;

/// A number that one thread raises and others read.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Raise it. Only the owner does.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Read it.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Of one port.
#[derive(Debug, Default)]
pub struct PortCounters {
    /// Frames that came in.
    pub rx_packets: Count,
    /// Their octets.
    pub rx_bytes: Count,
    /// Reads that failed.
    pub rx_errors: Count,
    /// Frames the device took.
    pub tx_packets: Count,
    /// Their octets.
    pub tx_bytes: Count,
    /// Frames for this port that it could not take in time.
    pub tx_dropped: Count,
    /// Frames that its device refused.
    pub tx_errors: Count,
    /// Frames that came in and were dropped, by reason.
    pub drops: Drops,
}

/// One count for each [`DropReason`].
#[derive(Debug)]
pub struct Drops([Count; DropReason::COUNT]);

impl Default for Drops {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Count::default()))
    }
}

impl Drops {
    /// Frames dropped for this reason.
    pub fn of(&self, reason: DropReason) -> Option<&Count> {
        self.0.get(reason.index())
    }

    /// Frames dropped, for whatever reason.
    pub fn total(&self) -> u64 {
        self.0.iter().map(Count::get).sum()
    }
}

macro_rules! coverage {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Events, for `coverage/show`.
        #[derive(Debug, Default)]
        pub struct Coverage {
            $($(#[$doc])* pub $name: Count),*
        }

        impl Coverage {
            /// Every event with its count, in order of names.
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get())),*]
            }
        }
    };
}

coverage! {
    /// A sampled hit was walked again and the walk said something else.
    cache_divergence,
    /// An entry gave way to a newcomer.
    cache_evicted,
    /// A frame was served from the cache.
    cache_hit,
    /// A frame was not.
    cache_miss,
    /// An entry was older than the last change, and what it rests on had not changed.
    cache_revalidated,
    /// An entry was older than the last change, and what it rests on had changed.
    cache_stale,
    /// A connection was made.
    connection_made,
    /// A copy for one of several ports was made.
    copy_made,
    /// A station was learned or moved.
    mac_learned,
    /// An answer was sent: ARP, neighbour advertisement, ICMP error, TCP reset.
    reply_sent,
    /// A sampled hit was walked again.
    shadow_walk,
    /// A decision was made by walking the stages.
    walk,
    /// A decision was made and not kept: it holds for this frame only.
    walk_transient,
}

/// All counters of one worker, on lines that no other worker writes to.
#[derive(Debug)]
#[repr(align(128))]
pub struct Counters {
    /// By port number.
    ports: Box<[CachePadded<PortCounters>]>,
    /// Events.
    pub coverage: Coverage,
    /// Bursts that were not empty.
    pub bursts: Count,
    /// Ticks spent on bursts.
    pub busy_ticks: Count,
    /// Ticks spent looking for work, or asleep.
    pub idle_ticks: Count,
    /// Times the worker went to sleep.
    pub sleeps: Count,
    /// Live entries of its cache.
    pub entries: AtomicU64,
    /// Counts of ports beyond the last, which do not exist.
    nowhere: PortCounters,
}

impl Default for Counters {
    fn default() -> Self {
        Self::new(PortId::LIMIT)
    }
}

impl Counters {
    /// Counters for ports below `ports`.
    pub fn new(ports: usize) -> Self {
        Self {
            ports: std::iter::repeat_with(CachePadded::default).take(ports).collect(),
            coverage: Coverage::default(),
            bursts: Count::default(),
            busy_ticks: Count::default(),
            idle_ticks: Count::default(),
            sleeps: Count::default(),
            entries: AtomicU64::new(0),
            nowhere: PortCounters::default(),
        }
    }

    /// Of one port.
    #[inline]
    pub fn port(&self, port: PortId) -> &PortCounters {
        self.ports.get(port.index()).map_or(&self.nowhere, |padded| padded)
    }

    /// A frame that came in by `port` is dropped.
    #[inline]
    pub fn dropped(&self, port: PortId, reason: DropReason) {
        if let Some(count) = self.port(port).drops.of(reason) {
            count.add(1);
        }
    }
}
