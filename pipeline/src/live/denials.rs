//! Denials: what policies did not let through, by pod and by what decided.
//!
//! A walk that is denied counts itself here; the frames that a remembered denial drops are accounted by the sweep (FASTPATH
//! 5). Some denials are kept to be logged, so many in a while: a flood says no more than that it is one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ahash::RandomState;
use api::state::DenialState;
use crossbeam::queue::ArrayQueue;
use parking_lot::RwLock;

use crate::live::Now;
use crate::live::connections::Tuple;

/// Rows at most: pods times what denies them. Beyond that denials are counted together.
const ROWS: usize = 16 * 1024;
/// The row of those that have none.
const OTHERS: Slot = Slot(u32::MAX >> 1);
/// Denials that wait to be logged at most.
const NEWS: usize = 32;

/// Which way a connection goes, seen from the pod whose policies are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

impl Way {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// Who is denied what, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The pod whose policies are asked.
    pub subject: Arc<str>,
    /// Which way.
    pub way: Way,
    /// What decided: the policy of the rule, or what isolates.
    pub by: Arc<str>,
    /// The rule's place in its policy; `None`: no rule let it through.
    pub rule: Option<u32>,
}

impl Denied {
    /// What decided, for people.
    pub fn decider(&self) -> String {
        match self.rule {
            Some(rule) => format!("{} {} rule {rule}", self.by, self.way.name()),
            None => self.by.to_string(),
        }
    }
}

/// Number of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot(pub u32);

/// A denial to be logged.
#[derive(Clone, Debug)]
pub struct News {
    /// Who, what, by whom.
    pub denied: Denied,
    /// The packet, as it was to go on; `None` when it is no flow's.
    pub packet: Option<Tuple>,
}

#[derive(Debug)]
struct Row {
    denied: Denied,
    packets: AtomicU64,
    /// When it last counted, seconds.
    used: AtomicU32,
}

/// A row is told from others by the texts' places: rows keep them, so that no other text can take those.
type Key = (usize, Way, usize, Option<u32>);

fn key(denied: &Denied) -> Key {
    let place = |text: &Arc<str>| Arc::as_ptr(text).cast::<u8>() as usize;
    (place(&denied.subject), denied.way, place(&denied.by), denied.rule)
}

/// Rows keep their numbers for as long as they are there: remembered denials name them.
#[derive(Debug, Default)]
struct Table {
    rows: Vec<Option<Row>>,
    /// Numbers of rows that were forgotten.
    free: Vec<Slot>,
    slots: HashMap<Key, Slot, RandomState>,
}

/// The denials of a switch.
#[derive(Debug)]
pub struct Denials {
    table: RwLock<Table>,
    /// Of those that had no row.
    others: AtomicU64,
    news: ArrayQueue<News>,
    /// Denials that were not kept to be logged.
    unheard: AtomicU64,
}

impl Default for Denials {
    fn default() -> Self {
        Self {
            table: RwLock::default(),
            others: AtomicU64::new(0),
            news: ArrayQueue::new(NEWS),
            unheard: AtomicU64::new(0),
        }
    }
}

impl Denials {
    /// A packet was denied. Returns the row where its like are to be counted.
    pub fn note(&self, denied: &Denied, packet: Option<Tuple>, now: Now) -> Slot {
        if self.news.is_full() || self.news.push(News { denied: denied.clone(), packet }).is_err() {
            self.unheard.fetch_add(1, Ordering::Relaxed);
        }
        let known = self.table.read().slots.get(&key(denied)).copied();
        let slot = known.unwrap_or_else(|| self.enter(denied, now));
        self.count(slot, 1, now);
        slot
    }

    fn enter(&self, denied: &Denied, now: Now) -> Slot {
        let mut table = self.table.write();
        let Table { rows, free, slots } = &mut *table;
        if let Some(slot) = slots.get(&key(denied)) {
            return *slot;
        }
        let (packets, used) = (AtomicU64::new(0), AtomicU32::new(now.second()));
        let row = Some(Row { denied: denied.clone(), packets, used });
        let slot = match free.pop() {
            Some(slot) => {
                if let Some(place) = rows.get_mut(slot.0 as usize) {
                    *place = row;
                }
                slot
            }
            None if rows.len() >= ROWS => return OTHERS,
            None => {
                rows.push(row);
                Slot(rows.len() as u32 - 1)
            }
        };
        slots.insert(key(denied), slot);
        slot
    }

    /// So many more of a row.
    pub fn count(&self, slot: Slot, packets: u64, now: Now) {
        let table = self.table.read();
        match table.rows.get(slot.0 as usize).and_then(Option::as_ref) {
            Some(row) => {
                row.packets.fetch_add(packets, Ordering::Relaxed);
                row.used.store(now.second(), Ordering::Relaxed);
            }
            None => drop(self.others.fetch_add(packets, Ordering::Relaxed)),
        }
    }

    /// All rows, those of one text together.
    pub fn list(&self) -> Vec<DenialState> {
        let mut sums: HashMap<(Arc<str>, Way, String), u64, RandomState> = HashMap::default();
        for Row { denied, packets, .. } in self.table.read().rows.iter().flatten() {
            let key = (Arc::clone(&denied.subject), denied.way, denied.decider());
            *sums.entry(key).or_default() += packets.load(Ordering::Relaxed);
        }
        let state = |((subject, way, by), packets): ((Arc<str>, Way, String), u64)| DenialState {
            subject: subject.to_string(),
            direction: way.name().to_owned(),
            by,
            packets,
        };
        let mut list: Vec<_> = sums.into_iter().map(state).collect();
        let others = self.others.load(Ordering::Relaxed);
        if others != 0 {
            let (subject, direction, by) = ("others".to_owned(), String::new(), String::new());
            list.push(DenialState { subject, direction, by, packets: others });
        }
        list.sort_by(|a, b| (&a.subject, &a.direction, &a.by).cmp(&(&b.subject, &b.direction, &b.by)));
        list
    }

    /// What is to be logged, and how many more there were since this was asked last.
    pub fn news(&self) -> (Vec<News>, u64) {
        let news = std::iter::from_fn(|| self.news.pop()).take(NEWS).collect();
        (news, self.unheard.swap(0, Ordering::Relaxed))
    }

    /// Forget what has not counted for so many seconds, when there are so many rows that there may soon be no room. To be
    /// called with seconds enough that no remembered denial names such a row any more.
    pub fn forget(&self, silent: u32, now: Now) {
        if self.table.read().slots.len() < ROWS / 2 {
            return;
        }
        let mut table = self.table.write();
        let Table { rows, free, slots } = &mut *table;
        let is_silent = |row: &mut Row| now.second().saturating_sub(*row.used.get_mut()) > silent;
        for (number, place) in (0..).zip(rows) {
            if let Some(row) = place.take_if(is_silent) {
                slots.remove(&key(&row.denied));
                free.push(Slot(number));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn denied(subject: &str, by: &str, rule: Option<u32>) -> Denied {
        Denied { subject: subject.into(), way: Way::Ingress, by: by.into(), rule }
    }

    fn at(second: u64) -> Now {
        Now(Duration::from_secs(second))
    }

    #[test]
    fn denials_of_one_text_are_told_together_whoever_made_the_text() {
        let denials = Denials::default();
        let first = denied("pod/a/b", "networkpolicy a/p", Some(2));
        let slot = denials.note(&first, None, at(1));
        assert_eq!(denials.note(&first, None, at(1)), slot);
        denials.count(slot, 10, at(2));
        assert_ne!(denials.note(&denied("pod/a/b", "networkpolicy a/p", Some(2)), None, at(3)), slot);
        denials.note(&denied("pod/a/b", "default of a/p", None), None, at(3));
        let list: Vec<_> = denials.list().into_iter().map(|row| (row.by, row.packets)).collect();
        assert_eq!(list, [("default of a/p".to_owned(), 1), ("networkpolicy a/p ingress rule 2".to_owned(), 13)]);
    }

    #[test]
    fn a_flood_fills_no_memory_and_no_log() {
        let denials = Denials::default();
        for n in 0..ROWS as u32 + 10 {
            denials.note(&denied("pod/a/b", "x", Some(n)), None, at(1));
        }
        let list = denials.list();
        assert_eq!((list.len(), list.iter().map(|row| row.packets).sum::<u64>()), (ROWS + 1, ROWS as u64 + 10));
        let (news, more) = denials.news();
        assert_eq!((news.len(), more), (NEWS, (ROWS + 10 - NEWS) as u64));
        assert_eq!(denials.news().1, 0);
        denials.forget(600, at(500));
        assert_eq!(denials.list().len(), ROWS + 1);
        denials.forget(600, at(1000));
        denials.note(&denied("pod/a/c", "x", None), None, at(1000));
        assert_eq!(denials.list().len(), 2, "others, and the new one");
    }
}
