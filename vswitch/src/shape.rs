//! Bandwidth of ports: a token bucket for each direction, shared by all workers.
//!
//! ```text
//!   from the pod (egress):  the worker does not read the port while there are no tokens: the pod's kernel waits, nothing is lost here
//!   to the pod (ingress):   frames wait in the worker that brought them until there are tokens; too many: the newest is dropped
//! ```
//!
//! A bucket is one word, as in the meters of `pipeline` (generic cell rate algorithm): the time at which it will have been
//! empty if nothing more passes. It may be in debt: a frame passes when there is any token, and what it costs beyond that
//! is waited for afterwards. So a super-frame of 64 KiB passes a bucket of a few KiB, and the rate is kept all the same.
//!
//! Worked example, 8 Mbit/s, full at 100 ms: at the start 100 KB pass at once, then a full-sized frame each 1.5 ms. A
//! super-frame of 64 KiB that comes when there is one token passes, and for 65 ms nothing does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::{Bandwidth, PortId, Rate, Shaper};
use pipeline::live::Now;

/// Parts of a nanosecond in which a bucket counts: a frame of 64 octets costs 5 ns at 100 Gbit/s. Lasts for nine years of uptime.
const PARTS: u64 = 64;
const SECOND: u128 = 1_000_000_000 * PARTS as u128;
/// What a bucket holds at most, whatever was asked: this long of its rate. Runtimes that know of no burst ask for one
/// without an end (containerd: 2^32 - 1), with which there would be no limit for seconds.
const MOST: Duration = Duration::from_millis(100);
/// What it holds at least: as long as a worker may be late on a busy machine, or it would fall short of its rate.
const LEAST: Duration = Duration::from_millis(5);
/// How long frames may wait for a port, and how many octets at least.
const WAIT: Duration = Duration::from_millis(25);
const WAIT_LEAST: u64 = 2 * 65_536;
/// How long who found no tokens waits at least: being woken for each frame costs more than the frame.
const REST: Duration = Duration::from_micros(200);

/// A token bucket.
#[derive(Debug)]
pub struct Bucket {
    /// Bits a second, not 0.
    rate: u64,
    /// What it holds, as the time in which that flows in.
    depth: u64,
    /// When it is, or was, empty; later than now while it is in debt. Written by all workers.
    empty: AtomicU64,
}

impl Bucket {
    /// A full bucket.
    pub fn new(Rate { bits, burst }: Rate) -> Self {
        let rate = bits.max(1);
        let asked = u64::try_from(u128::from(burst) * SECOND / u128::from(rate)).unwrap_or(u64::MAX);
        Self { rate, depth: asked.clamp(parts(LEAST), parts(MOST)), empty: AtomicU64::new(0) }
    }

    /// Octets that may pass now, and a frame more.
    ///
    /// # Errors
    /// Until when nothing may.
    #[inline]
    pub fn octets(&self, now: Now) -> Result<u64, Now> {
        let time = parts(now.0);
        let empty = self.empty.load(Ordering::Relaxed).max(time.saturating_sub(self.depth));
        if empty > time { Err(self.rested(empty, now)) } else { Ok(self.flows_in(time - empty)) }
    }

    /// These octets passed.
    #[inline]
    pub fn charge(&self, octets: usize, now: Now) {
        let (cost, least) = (self.cost(octets), parts(now.0).saturating_sub(self.depth));
        let after = |empty: u64| Some(empty.max(least).saturating_add(cost));
        let _ = self.empty.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
    }

    /// How many of these frames, told by their octets, pass now; they are charged.
    ///
    /// # Errors
    /// Until when none does.
    pub fn admit(&self, frames: impl Iterator<Item = usize> + Clone, now: Now) -> Result<usize, Now> {
        let time = parts(now.0);
        loop {
            let before = self.empty.load(Ordering::Relaxed);
            let empty = before.max(time.saturating_sub(self.depth));
            if empty > time {
                return Err(self.rested(empty, now));
            }
            let tokens = self.flows_in(time - empty);
            let (mut count, mut octets) = (0, 0);
            for frame in frames.clone() {
                (count, octets) = (count + 1, octets + frame);
                if octets as u64 >= tokens {
                    break;
                }
            }
            let after = empty.saturating_add(self.cost(octets));
            // Lost to another worker: look again at what it left.
            if self.empty.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return Ok(count);
            }
        }
    }

    /// When there will be tokens again.
    pub fn ready(&self, now: Now) -> Now {
        self.rested(self.empty.load(Ordering::Relaxed), now)
    }

    /// Octets that it holds when it is full.
    pub fn holds(&self) -> u64 {
        self.flows_in(self.depth)
    }

    /// Octets that may wait for it.
    pub fn room(&self) -> u64 {
        self.flows_in(parts(WAIT)).max(WAIT_LEAST)
    }

    fn rested(&self, empty: u64, now: Now) -> Now {
        Now(Duration::from_nanos(empty.div_ceil(PARTS)).max(now.0 + REST))
    }

    /// Octets that flow in within a time.
    fn flows_in(&self, time: u64) -> u64 {
        u64::try_from(u128::from(time) * u128::from(self.rate) / SECOND / 8).unwrap_or(u64::MAX)
    }

    /// Time in which so many octets flow in.
    fn cost(&self, octets: usize) -> u64 {
        u64::try_from(octets as u128 * 8 * SECOND / u128::from(self.rate)).unwrap_or(u64::MAX)
    }
}

fn parts(time: Duration) -> u64 {
    (time.as_nanos() as u64).saturating_mul(PARTS)
}

/// The buckets of all ports; published with them. Empty when no port has one, so that asking costs a compare.
#[derive(Clone, Debug, Default)]
pub struct Shapes(Vec<Option<Shape>>);

#[derive(Clone, Debug)]
struct Shape {
    bandwidth: Bandwidth,
    ingress: Option<Arc<Bucket>>,
    egress: Option<Arc<Bucket>>,
}

impl Shapes {
    /// The bandwidth of a port. A bucket whose rate stays as it was stays as full as it is.
    pub fn set(&mut self, told: Shaper) {
        let (at, Bandwidth { ingress, egress }) = (told.port.index(), told.bandwidth);
        if self.0.len() <= at {
            self.0.resize(at + 1, None);
        }
        let Some(place) = self.0.get_mut(at) else { return };
        let unlimited = || Shape { bandwidth: Bandwidth::default(), ingress: None, egress: None };
        let before = place.take().unwrap_or_else(unlimited);
        let bucket = |rate: Option<Rate>, was: Option<Rate>, bucket: Option<Arc<Bucket>>| {
            if rate == was { bucket } else { rate.map(Bucket::new).map(Arc::new) }
        };
        *place = Some(Shape {
            bandwidth: told.bandwidth,
            ingress: bucket(ingress, before.bandwidth.ingress, before.ingress),
            egress: bucket(egress, before.bandwidth.egress, before.egress),
        });
    }

    /// Anything may pass a port.
    pub fn clear(&mut self, port: PortId) {
        if let Some(place) = self.0.get_mut(port.index()) {
            *place = None;
        }
        while let Some(None) = self.0.last() {
            self.0.pop();
        }
    }

    /// What limits frames to a port's pod.
    #[inline]
    pub fn ingress(&self, port: PortId) -> Option<&Bucket> {
        self.0.get(port.index())?.as_ref()?.ingress.as_deref()
    }

    /// What limits frames from a port's pod.
    #[inline]
    pub fn egress(&self, port: PortId) -> Option<&Bucket> {
        self.0.get(port.index())?.as_ref()?.egress.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MBIT: u64 = 1_000_000;

    fn at(micros: u64) -> Now {
        Now(Duration::from_secs(5) + Duration::from_micros(micros))
    }

    fn bucket(bits: u64, burst: u64) -> Bucket {
        Bucket::new(Rate { bits, burst })
    }

    /// Octets that pass within a time when frames of a size always wait, and are offered whenever there are tokens.
    fn passed(bucket: &Bucket, size: usize, from: u64, micros: u64) -> usize {
        let (mut now, mut frames) = (at(from), 0);
        while now < at(from + micros) {
            match bucket.admit(std::iter::repeat_n(size, 64), now) {
                Ok(count) => frames += count,
                Err(until) => now = until,
            }
        }
        frames * size
    }

    #[test]
    fn a_rate_is_kept_whatever_the_size_of_frames() {
        for (bits, size) in [
            (MBIT, 64),
            (MBIT, 1514),
            (100 * MBIT, 64),
            (100 * MBIT, 65_536),
            (10_000 * MBIT, 64),
            (100_000 * MBIT, 64),
            (40_000 * MBIT, 65_536),
        ] {
            let bucket = bucket(bits, 1);
            passed(&bucket, size, 0, 1_000_000);
            let octets = passed(&bucket, size, 1_000_000, 4_000_000) as f64;
            let ratio = octets * 8.0 / (bits as f64 * 4.0);
            // What is paid for is in whole frames.
            let frame = size as f64 * 8.0 / (bits as f64 * 4.0);
            assert!((ratio - 1.0).abs() < 0.01 + frame, "{bits} bit/s, {size} octets: {ratio}");
        }
    }

    #[test]
    fn a_burst_is_as_asked_but_no_longer_than_100_ms_of_the_rate_and_no_shorter_than_5() {
        // Bits asked for, milliseconds of 80 Mbit/s that pass at once: 10,000 octets each.
        for (burst, millis) in [(0, 5), (800_000, 10), (4 * MBIT, 50), (1 << 32, 100), (u64::MAX, 100)] {
            let bucket = bucket(80 * MBIT, burst);
            assert_eq!(bucket.octets(at(0)), Ok(millis * 10_000), "{burst}");
            assert_eq!(bucket.admit(std::iter::repeat_n(1000, 10_000), at(0)), Ok(millis as usize * 10));
            assert_eq!(bucket.octets(at(0)), Ok(0), "one frame more may pass");
            bucket.charge(1000, at(0));
            assert_eq!(bucket.octets(at(0)), Err(at(200)));
            assert_eq!(bucket.octets(at(3_600_000_000)), Ok(millis * 10_000), "silence saves no more");
        }
    }

    #[test]
    fn a_super_frame_passes_a_small_bucket_and_is_paid_for_afterwards() {
        let bucket = bucket(8 * MBIT, 0);
        assert_eq!(bucket.octets(at(0)), Ok(5000));
        assert_eq!(bucket.admit([65_000, 65_000].into_iter(), at(0)), Ok(1));
        assert_eq!(bucket.admit([60].into_iter(), at(0)), Err(at(60_000)));
        assert_eq!(bucket.admit([60].into_iter(), at(59_999)), Err(at(60_199)), "and it rests");
        assert_eq!(bucket.admit([60].into_iter(), at(60_000)), Ok(1));
    }

    #[test]
    fn no_rate_and_no_length_is_too_large() {
        for (bits, burst) in [(0, 0), (1, u64::MAX), (u64::MAX, 0), (u64::MAX, u64::MAX)] {
            let bucket = bucket(bits, burst);
            assert!(bucket.octets(at(0)).is_ok());
            for _ in 0..3 {
                bucket.charge(usize::MAX, at(0));
            }
            let _ = bucket.octets(at(1));
            let _ = bucket.admit([usize::MAX / 2].into_iter(), at(2));
            assert!(bucket.room() >= WAIT_LEAST);
        }
    }

    #[test]
    fn workers_share_a_bucket() {
        let bucket = bucket(800 * MBIT, 0);
        let passed: usize = std::thread::scope(|scope| {
            let bucket = &bucket;
            let work = || (0..100_000).map(|n| bucket.admit([100, 100].into_iter(), at(n)).unwrap_or(0)).sum::<usize>();
            let workers = [scope.spawn(work), scope.spawn(work)];
            workers.map(|worker| worker.join().unwrap()).iter().sum()
        });
        // 100 ms of 100 octets each microsecond, what it held, and a debt.
        let most = 100_000 + 5_000 + 2;
        assert!((100_000..=most).contains(&passed), "{passed}");
    }

    #[test]
    fn a_bucket_that_is_told_of_again_is_not_full_again() {
        let rate = |bits| Some(Rate { bits, burst: u64::MAX });
        let told = |ingress, egress| Shaper { port: PortId(7), bandwidth: Bandwidth { ingress, egress } };
        let mut shapes = Shapes::default();
        shapes.set(told(rate(8 * MBIT), rate(8 * MBIT)));
        for bucket in [shapes.ingress(PortId(7)), shapes.egress(PortId(7))] {
            bucket.unwrap().charge(1_000_000, at(0));
        }
        shapes.set(told(rate(8 * MBIT), rate(16 * MBIT)));
        assert!(shapes.ingress(PortId(7)).unwrap().octets(at(0)).is_err());
        assert!(shapes.egress(PortId(7)).unwrap().octets(at(0)).is_ok(), "another rate");
        assert!(shapes.ingress(PortId(6)).is_none() && shapes.ingress(PortId(8)).is_none());
        shapes.set(told(rate(8 * MBIT), None));
        assert!(shapes.egress(PortId(7)).is_none());
        shapes.clear(PortId(7));
        assert!(shapes.0.is_empty(), "as if there had never been one");
    }
}
