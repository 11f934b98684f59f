//! Publication: the control thread replaces what the workers go by; a worker takes it once a burst (FASTPATH 4).
//!
//! ```text
//!   Publisher ── publish(new) ──► current, version ──► Reader::get, once a burst: version changed? take current
//!        └── wait() until every reader has said «seen» or sleeps ◄── seen[reader]
//! ```
//!
//! A reader keeps a reference of its own, so taking the current one costs one load of the version when nothing
//! changed, and a lock when something did. Old values are kept by the publisher until no reader refers to them: no
//! destructor of a table runs on a worker.

use std::time::Duration;

use crossbeam::utils::CachePadded;
use pipeline::raw::ticks;

use crate::sync::{Arc, AtomicU64, Mutex, Ordering, fence};

/// Ticks that a burst seldom exceeds: some ten to thirty microseconds.
const BURST: u64 = 60_000;
/// In `seen`: the reader sleeps, and will look at the version before it reads again.
const ASLEEP: u64 = u64::MAX;

struct Shared<T> {
    current: Mutex<Arc<T>>,
    version: CachePadded<AtomicU64>,
    /// By reader: the version it goes by, or [`ASLEEP`]. Written by that reader alone.
    seen: Box<[CachePadded<AtomicU64>]>,
}

/// The writing side. There is one.
pub struct Publisher<T> {
    shared: Arc<Shared<T>>,
    /// Values that a reader may still refer to.
    retired: Vec<Arc<T>>,
    current: Arc<T>,
}

/// The reading side of one worker.
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
    number: usize,
    version: u64,
    value: Arc<T>,
}

/// Tells who of the readers sleeps.
pub struct Sleepers<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Sleepers<T> {
    /// The reader of this number sleeps, or is gone.
    pub fn is_asleep(&self, reader: usize) -> bool {
        self.shared.seen.get(reader).is_none_or(|seen| seen.load(Ordering::Relaxed) == ASLEEP)
    }
}

/// A publisher and its readers. Readers start asleep: [`Reader::get`] wakes them.
pub fn channel<T>(value: T, readers: usize) -> (Publisher<T>, Vec<Reader<T>>) {
    let current = Arc::new(value);
    let shared = Arc::new(Shared {
        current: Mutex::new(Arc::clone(&current)),
        version: CachePadded::new(AtomicU64::new(1)),
        seen: std::iter::repeat_with(|| CachePadded::new(AtomicU64::new(ASLEEP))).take(readers).collect(),
    });
    let reader = |number| Reader { shared: Arc::clone(&shared), number, version: 0, value: Arc::clone(&current) };
    let all = (0..readers).map(reader).collect();
    (Publisher { shared, retired: Vec::new(), current }, all)
}

impl<T> Publisher<T> {
    /// What is published.
    pub fn current(&self) -> &T {
        &self.current
    }

    /// Replace it. Readers take the new value at their next burst; [`Self::wait`] for them.
    pub fn publish(&mut self, value: T) {
        let value = Arc::new(value);
        if let Ok(mut current) = self.shared.current.lock() {
            *current = Arc::clone(&value);
        }
        self.retired.push(std::mem::replace(&mut self.current, value));
        let version = self.shared.version.load(Ordering::Relaxed) + 1;
        self.shared.version.store(version, Ordering::Release);
        // Pairs with the fence in `Reader::get`: a reader that is awake is seen here, or sees the version.
        fence(Ordering::SeqCst);
    }

    /// Who of the readers sleeps, for another thread to look at.
    pub fn sleepers(&self) -> Sleepers<T> {
        Sleepers { shared: Arc::clone(&self.shared) }
    }

    /// Every reader goes by what is published, or sleeps.
    pub fn all_have_seen(&self) -> bool {
        let version = self.shared.version.load(Ordering::Relaxed);
        // ASLEEP is larger than any version.
        self.shared.seen.iter().all(|seen| seen.load(Ordering::Acquire) >= version)
    }

    /// Wait out the grace period, then free what nobody refers to any more.
    pub fn wait(&mut self) {
        let start = ticks();
        let mut pause = Duration::from_micros(1);
        while !self.all_have_seen() {
            // The shortest sleep is longer than most bursts.
            if ticks().wrapping_sub(start) < BURST {
                std::hint::spin_loop();
                continue;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(1));
        }
        self.free();
    }

    /// Free what nobody refers to any more. A sleeping reader may hold on to a value until it wakes.
    pub fn free(&mut self) {
        self.retired.retain(|value| Arc::strong_count(value) > 1);
    }
}

impl<T> Reader<T> {
    /// What is published now. Good until the next call of [`Self::get`] or [`Self::sleep`].
    #[inline]
    pub fn get(&mut self) -> &T {
        if self.version != self.shared.version.load(Ordering::Acquire) {
            self.refresh();
        }
        &self.value
    }

    /// Counts what was published, as of the last [`Self::get`].
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What the last [`Self::get`] gave.
    #[inline]
    pub fn held(&self) -> &T {
        &self.value
    }

    #[cold]
    fn refresh(&mut self) {
        let seen = self.shared.seen.get(self.number);
        loop {
            if self.version == 0
                && let Some(seen) = seen
            {
                // Waking up: be seen before looking, so that a publisher that thought us asleep has published before.
                seen.store(0, Ordering::Relaxed);
                fence(Ordering::SeqCst);
            }
            let version = self.shared.version.load(Ordering::Acquire);
            if let Ok(current) = self.shared.current.lock() {
                // The value is at least as new as the version that was loaded before it.
                self.value = Arc::clone(&current);
            }
            self.version = version;
            if let Some(seen) = seen {
                seen.store(version, Ordering::Release);
            }
            if self.shared.version.load(Ordering::Acquire) == version {
                return;
            }
        }
    }

    /// The reader goes to sleep: nobody waits for it until it calls [`Self::get`] again.
    pub fn sleep(&mut self) {
        // Version 0 is never published: `get` will refresh.
        self.version = 0;
        if let Some(seen) = self.shared.seen.get(self.number) {
            seen.store(ASLEEP, Ordering::Release);
        }
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        self.sleep();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_what_is_published_and_holds_up_the_grace_period_until_it_has() {
        let (mut publisher, mut readers) = channel(1, 2);
        assert_eq!(*readers[0].get(), 1);
        publisher.publish(2);
        assert!(!publisher.all_have_seen(), "reader 0 goes by the old value");
        assert_eq!(*readers[0].get(), 2);
        assert!(publisher.all_have_seen(), "reader 1 sleeps");
        assert_eq!(*readers[1].get(), 2);
    }

    #[test]
    fn a_sleeping_reader_holds_up_nobody_and_wakes_to_the_present() {
        let (mut publisher, mut readers) = channel(1, 1);
        readers[0].get();
        readers[0].sleep();
        let sleepers = publisher.sleepers();
        assert!(sleepers.is_asleep(0));
        publisher.publish(2);
        publisher.wait();
        assert_eq!(*readers[0].get(), 2);
        assert!(!sleepers.is_asleep(0));
    }

    #[test]
    fn old_values_are_freed_by_the_publisher_once_nobody_refers_to_them() {
        let witness = std::sync::Arc::new(());
        let (mut publisher, mut readers) = channel(std::sync::Arc::clone(&witness), 1);
        readers[0].get();
        publisher.publish(std::sync::Arc::default());
        publisher.free();
        assert_eq!(std::sync::Arc::strong_count(&witness), 2, "the reader still refers to it");
        readers[0].get();
        assert_eq!(std::sync::Arc::strong_count(&witness), 2, "the reader does not free it");
        publisher.wait();
        assert_eq!(std::sync::Arc::strong_count(&witness), 1);
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;

    /// What a burst goes by while the publisher thinks that nobody does, it must not: of a reader that sleeps between two
    /// bursts, and of one that does not.
    #[test]
    fn after_the_grace_period_no_reader_goes_by_the_old_value() {
        [true, false].into_iter().for_each(model);
    }

    fn model(sleeps: bool) {
        loom::model(move || {
            let (mut publisher, mut readers) = channel(1u32, 1);
            let mut reader = readers.remove(0);
            let freed = Arc::new(AtomicU64::new(0));
            let in_use = Arc::new(AtomicU64::new(0));
            let (freed_there, in_use_there) = (Arc::clone(&freed), Arc::clone(&in_use));
            let worker = loom::thread::spawn(move || {
                for _ in 0..2 {
                    let value = *reader.get();
                    in_use_there.store(u64::from(value), Ordering::SeqCst);
                    assert!(value == 2 || freed_there.load(Ordering::SeqCst) == 0, "a burst went by what was freed");
                    in_use_there.store(0, Ordering::SeqCst);
                    if sleeps {
                        reader.sleep();
                    }
                }
            });
            publisher.publish(2);
            if publisher.all_have_seen() {
                assert_ne!(in_use.load(Ordering::SeqCst), 1, "the old value is in use");
                freed.store(1, Ordering::SeqCst);
            }
            worker.join().unwrap();
        });
    }
}
