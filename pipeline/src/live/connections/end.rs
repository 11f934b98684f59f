//! The end of connections: by command, by silence, and what follows.
//!
//! A dead connection is found no more, but its tuples stay taken for two seconds: a remembered decision of it may be used
//! until its worker asks, once a second, whether the connection lives. Where the end was commanded, the cells are touched,
//! and nothing that rests on it is used any more.

use super::index::Hashed;
use super::ledger::next;
use super::packed::Packed;
use super::record::Life;
use super::states::flag;
use super::table::{Connections, NAME};
use super::{Name, View};
use crate::live::Now;
use crate::probe::cells::{Cells, Touched};

/// Seconds of silence beyond the timeout: so much later may packets that hit be heard of.
const SLACK: u32 = 2;
/// Records between two looks at the ledger.
const STRIDE: u32 = 4096;

/// What a scan found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Records looked at.
    pub scanned: usize,
    /// Connections that died of silence.
    pub died: usize,
    /// Records of connections that had died before, and are free now.
    pub freed: usize,
}

impl Connections {
    /// End one connection at once: decisions that rest on it are asked again.
    pub fn kill(&self, name: Name, now: Now, cells: &Cells) {
        let Some(reading) = self.records.read_named(name) else { return };
        let died = cells.change(|touched| self.end(name, (&reading.original, &reading.reply), touched));
        if died {
            self.ledger.lock().died(name, now.second());
        }
    }

    /// End all connections of which `doomed` holds, at once and in one change. Returns how many there were. Connections that
    /// are made meanwhile may be left: whoever wants them not to be made sees to that first.
    pub fn kill_where(&self, doomed: &dyn Fn(&View) -> bool, now: Now, cells: &Cells) -> usize {
        let fresh = self.ledger.lock().fresh();
        let doomed: Vec<Name> =
            (1..fresh).filter_map(|slot| self.view(slot)).filter(doomed).map(|view| view.name).collect();
        if doomed.is_empty() {
            return 0;
        }
        let died: Vec<Name> = cells.change(|touched| {
            let end = |&name: &Name| {
                let reading = self.records.read_named(name);
                reading.is_some_and(|reading| self.end(name, (&reading.original, &reading.reply), touched))
            };
            doomed.into_iter().filter(end).collect()
        });
        let mut ledger = self.ledger.lock();
        died.iter().for_each(|&name| ledger.died(name, now.second()));
        died.len()
    }

    /// A connection of these tuples dies within a change.
    fn end(&self, name: Name, (original, reply): (&Packed, &Packed), touched: &mut Touched<'_>) -> bool {
        let died = self.records.die(name, flag::TOLD);
        if died {
            touched.touch(NAME, original);
            touched.touch(NAME, reply);
        }
        died
    }

    /// Look at the next `records` records for connections that were silent for too long, and free what has rested; no more of
    /// either. Called by one thread, in such steps that all are looked at within a second or two.
    pub fn expire(&self, now: Now, records: usize) -> Expired {
        // A worker that makes a connection shall not have to wait for memory.
        self.provide(STRIDE / 2);
        let mut expired = Expired { freed: self.free_rested(now, records), ..Expired::default() };
        let fresh = self.ledger.lock().fresh();
        let mut from = self.scanned.lock();
        expired.scanned = records.min(fresh as usize - 1);
        let mut left = expired.scanned as u32;
        while left > 0 {
            if *from >= fresh {
                *from = 1;
            }
            let stride = left.min(STRIDE).min(fresh - *from);
            expired.died += self.expire_some(*from..*from + stride, now);
            (*from, left) = (*from + stride, left - stride);
        }
        expired
    }

    fn expire_some(&self, slots: std::ops::Range<u32>, now: Now) -> usize {
        let silent = slots.filter_map(|slot| self.records.silent(slot, now.second(), SLACK));
        let died: Vec<Name> = silent.filter(|&name| self.records.die(name, 0)).collect();
        if !died.is_empty() {
            let mut ledger = self.ledger.lock();
            died.iter().for_each(|&name| ledger.died(name, now.second()));
        }
        died.len()
    }

    fn free_rested(&self, now: Now, most: usize) -> usize {
        let mut freed = 0;
        while freed < most {
            let Some(name) = self.ledger.lock().rested(now.second()) else { break };
            self.unlink(name, None);
            freed += 1;
        }
        freed
    }

    /// Take a dead connection out of the index, and free its record. `cells`: before its time, so that what still rests on
    /// it has to be told.
    pub(super) fn unlink(&self, name: Name, cells: Option<&Cells>) {
        let Some(reading) = self.records.read_named(name) else { return };
        let (original, reply) = (reading.original, reading.reply);
        let mut shards = self.index.lock_both(Hashed::from(original).at(), Hashed::from(reply).at());
        // Whoever takes it out holds these locks: so it is done once.
        let Some(word) = self.records.word(name.slot).filter(|word| word.is(Life::DEAD, name)) else { return };
        shards.remove(name.slot);
        if let Some(cells) = cells.filter(|_| word.status.flags & flag::TOLD == 0) {
            cells.change(|touched| {
                touched.touch(NAME, original);
                touched.touch(NAME, reply);
            });
        }
        self.records.free(name, next(name.incarnation));
        drop(shards);
        self.ledger.lock().freed(name);
    }
}
