//! Validity of cached decisions (FASTPATH 1).
//!
//! The space of everything that can be asked of a table is divided among a million *cells*. A decision notes the cell of
//! every question it asked, whether or not there was an answer; a change notes, in the cells of the questions whose
//! answer it may alter, the generation that it creates. A cached decision made at generation `g` still stands if none
//! of its cells holds a generation beyond `g`.
//!
//! Order is everything, and the same everywhere: the writer alters the table, then the cells, then the generation; a
//! reader loads the generation, then asks the tables. So a decision that saw the table before the change carries a
//! generation below the cell's, and is refused; one that carries the new generation saw the new table.

use std::hash::Hash;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use ahash::RandomState;
use crossbeam::utils::CachePadded;
use parking_lot::Mutex;

/// Number of cells: four octets each. A change invalidates whatever shares a cell with what it altered: with a million
/// stations, one that moves costs a handful of flows a new walk, where with 65,536 cells it would be a hundred.
pub const CELLS: usize = 1 << 20;
/// Cells that one decision notes at most; one that asked more depends on every change.
pub const DEPS: usize = 14;

/// A region of what can be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Cell(u32);

impl Cell {
    /// Its number.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Touched by no change: fills the unused places of [`Deps`].
const NOTHING: Cell = Cell(0);
/// Touched by every change: what a decision depends on that asked too much to be noted singly.
const EVERYTHING: Cell = Cell(1);
/// Cells below this have a meaning of their own.
const RESERVED: u32 = 2;

/// Names the table (or the kind of question) that a cell is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableName {
    /// Its name in a word ([`word_of`]): every question is hashed with it.
    word: u64,
    /// Changed so often that decisions which did not ask it shall not even be looked at again.
    volatile: bool,
}

impl TableName {
    /// A table of this name.
    pub const fn new(name: &'static str) -> Self {
        Self { word: word_of(name), volatile: false }
    }

    /// A table that changes many times a second under load, and that decisions for known connections do not rest on: see
    /// [`Moment::steady`].
    pub const fn volatile(name: &'static str) -> Self {
        Self { word: word_of(name), volatile: true }
    }
}

/// FNV-1a (RFC 9923) of a name.
const fn word_of(name: &str) -> u64 {
    let (mut rest, mut word) = (name.as_bytes(), 0xcbf2_9ce4_8422_2325);
    while let [first, others @ ..] = rest {
        word = (word ^ *first as u64).wrapping_mul(0x0100_0000_01b3);
        rest = others;
    }
    word
}

/// What questions are hashed with, all over the process: so the cell of a question and its row follow from one hash. Its
/// keys are random: nobody outside can aim at a cell, or at a chunk of rows.
pub(crate) fn hasher() -> &'static RandomState {
    static HASHER: OnceLock<RandomState> = OnceLock::new();
    HASHER.get_or_init(RandomState::new)
}

/// The cells that one decision depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deps {
    cells: [Cell; DEPS],
    len: u8,
    /// One of them is of a volatile table, or stands for everything.
    volatile: bool,
}

impl Default for Deps {
    fn default() -> Self {
        Self { cells: [NOTHING; DEPS], len: 0, volatile: false }
    }
}

impl Deps {
    /// Note a cell, and whether its table is volatile.
    pub fn note(&mut self, cell: Cell, volatile: bool) {
        self.volatile |= volatile;
        if self.cells.contains(&cell) {
            return;
        }
        match self.cells.get_mut(usize::from(self.len)) {
            Some(place) => {
                *place = cell;
                self.len += 1;
            }
            // One more than can be noted: depend on everything instead.
            None => (self.cells, self.volatile) = ([EVERYTHING; DEPS], true),
        }
    }

    /// Note what others noted.
    fn include(&mut self, other: &Self) {
        other.cells.iter().take(usize::from(other.len)).for_each(|&cell| self.note(cell, other.volatile));
        if other.cells.first() == Some(&EVERYTHING) {
            self.note(EVERYTHING, true);
        }
    }

    /// Changes of volatile tables may matter to it.
    pub fn is_volatile(&self) -> bool {
        self.volatile
    }

    /// The cells, unused places filled with one that never changes.
    pub fn cells(&self) -> [Cell; DEPS] {
        self.cells
    }
}

/// Epoch and generation, as a burst loads them once before it asks any table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Counts the wrap-arounds of `generation`; caches of another epoch are worthless.
    pub epoch: u32,
    /// The last change that is wholly in force.
    pub generation: u32,
    /// The last change, wholly in force, of anything but volatile tables: what did not ask those stands if it is not
    /// older than this, without a look at its cells.
    pub steady: u32,
}

impl Moment {
    /// A decision made at `generation` of this epoch stands without a look at its cells.
    #[inline]
    pub fn is_current(self, generation: u32, volatile: bool) -> bool {
        generation >= if volatile { self.generation } else { self.steady }
    }
}

/// All cells of a switch, and the generation that they speak of.
pub struct Cells {
    cells: Box<[AtomicU32]>,
    /// Epoch in the high half, generation in the low half.
    moment: CachePadded<AtomicU64>,
    /// As in [`Moment::steady`]. Stored before `moment`, and loaded behind it: at worst newer than what goes with it.
    steady: AtomicU32,
    /// Makes changes follow each other: the order of stores above is kept by one writer at a time.
    writer: Mutex<()>,
    hasher: RandomState,
}

impl std::fmt::Debug for Cells {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cells").field("now", &self.now()).finish()
    }
}

impl Default for Cells {
    fn default() -> Self {
        Self::starting_at(1)
    }
}

impl Cells {
    /// Cells whose first generation is `generation`: a test of the wrap-around starts just before it.
    pub fn starting_at(generation: u32) -> Self {
        let cells: Box<[AtomicU32]> = std::iter::repeat_with(|| AtomicU32::new(0)).take(CELLS).collect();
        let moment = CachePadded::new(AtomicU64::new(u64::from(generation)));
        let steady = AtomicU32::new(generation);
        Self { cells, moment, steady, writer: Mutex::new(()), hasher: hasher().clone() }
    }

    /// The cell of a question to a table.
    #[inline]
    pub fn cell(&self, table: TableName, question: impl Hash) -> Cell {
        self.cell_hashed(table, self.hasher.hash_one(question))
    }

    /// The same, when the question was hashed already, by `hasher`.
    #[inline]
    pub fn cell_hashed(&self, table: TableName, hash: u64) -> Cell {
        // The same question to two tables has two cells. The odd factor (Fibonacci hashing) lets every bit of either decide.
        let mixed = (hash ^ table.word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The product maps the high half evenly onto the cells that have no meaning of their own.
        let span = CELLS as u64 - u64::from(RESERVED);
        Cell(RESERVED + (((mixed >> 32) * span) >> 32) as u32)
    }

    /// What is in force now. Everything that a table answers afterwards is at least as new.
    #[inline]
    pub fn now(&self) -> Moment {
        loop {
            let moment = self.moment.load(Ordering::Acquire);
            let steady = self.steady.load(Ordering::Acquire);
            // Both are of one epoch: in the next one, which comes once in four billion changes, `steady` starts anew.
            if self.moment.load(Ordering::Relaxed) >> 32 == moment >> 32 {
                return Moment { epoch: (moment >> 32) as u32, generation: moment as u32, steady };
            }
        }
    }

    /// None of these cells changed after `since`. In another epoch nobody can tell any more.
    #[inline]
    pub fn unchanged_since(&self, cells: &[Cell; DEPS], since: Moment) -> bool {
        let stands = |at: &AtomicU32| at.load(Ordering::Relaxed) <= since.generation;
        if !cells.iter().all(|cell| self.cells.get(cell.0 as usize).is_some_and(stands)) {
            return false;
        }
        // Pairs with the fence of `start_epoch`: whoever read a cell that was set back reads the new epoch here.
        fence(Ordering::Acquire);
        self.now().epoch == since.epoch
    }

    /// Make a change known: `alter` does it (tables, then the program pointer) and says which cells it touched. When
    /// this returns, no decision that the change contradicts is used by a burst that starts.
    pub fn change<R>(&self, alter: impl FnOnce(&mut Touched<'_>) -> R) -> R {
        let _one_at_a_time = self.writer.lock();
        let mut touched = Touched { cells: self, list: Vec::new(), steady: false };
        let result = alter(&mut touched);
        let (touched, steady) = (touched.list, touched.steady);
        if touched.is_empty() {
            return result;
        }
        let now = self.now();
        if now.generation == u32::MAX {
            self.start_epoch(now.epoch.wrapping_add(1));
            return result;
        }
        let generation = now.generation + 1;
        for cell in touched.into_iter().chain([EVERYTHING]) {
            if let Some(at) = self.cells.get(cell.0 as usize) {
                at.store(generation, Ordering::Relaxed);
            }
        }
        if steady {
            self.steady.store(generation, Ordering::Relaxed);
        }
        self.moment.store(u64::from(now.epoch) << 32 | u64::from(generation), Ordering::Release);
        result
    }

    /// Generations have run out: workers flush their caches when they see the new epoch, so no cell needs to speak.
    /// A burst that began before may still ask cells that have been set back: the epoch comes first, so that it can
    /// tell. Until they are set back, bursts of the new epoch walk more often than they must.
    fn start_epoch(&self, epoch: u32) {
        // What the entries of the epoch before are asked by until their caches are flushed: nothing of them stands.
        self.steady.store(u32::MAX, Ordering::Relaxed);
        self.moment.store(u64::from(epoch) << 32 | 1, Ordering::Release);
        fence(Ordering::Release);
        self.cells.iter().for_each(|cell| cell.store(0, Ordering::Relaxed));
        self.steady.store(1, Ordering::Relaxed);
    }
}

/// The cells that a change touched.
#[derive(Debug)]
pub struct Touched<'a> {
    cells: &'a Cells,
    list: Vec<Cell>,
    /// Something beside volatile tables was touched.
    steady: bool,
}

impl Touched<'_> {
    /// From when on the change is in force, as far as it touched anything so far. Called under the writer's lock, so no
    /// other change comes in between.
    pub fn in_force(&self) -> Moment {
        let now = self.cells.now();
        match (self.list.is_empty(), now.generation.checked_add(1)) {
            (true, _) => now,
            (false, Some(generation)) => Moment { generation, ..now },
            (false, None) => Moment { epoch: now.epoch.wrapping_add(1), generation: 1, ..now },
        }
    }

    /// The answer to this question changes.
    pub fn touch(&mut self, table: TableName, question: impl Hash) {
        self.list.push(self.cells.cell(table, question));
        self.steady |= !table.volatile;
    }

    /// The answers to whatever has this cell change. The cell is of a table that is not volatile.
    pub fn touch_cell(&mut self, cell: Cell) {
        self.list.push(cell);
        self.steady = true;
    }
}

/// The cells that a decision asked: what tables are read through, so that nothing can be read unnoted.
#[derive(Debug)]
pub struct Asked<'a> {
    cells: &'a Cells,
    deps: Deps,
    /// What stages asked that only a first packet meets.
    first: Deps,
    /// Such a stage is asking now.
    pub(crate) first_packet: bool,
}

impl<'a> Asked<'a> {
    /// Nothing asked yet.
    pub fn new(cells: &'a Cells) -> Self {
        Self { cells, deps: Deps::default(), first: Deps::default(), first_packet: false }
    }

    /// This question is asked. Returns its cell.
    pub fn note(&mut self, table: TableName, question: impl Hash) -> Cell {
        self.note_hashed(table, self.hash(question))
    }

    /// The hash of a question, as `hasher` has it.
    #[inline]
    pub fn hash(&self, question: impl Hash) -> u64 {
        self.cells.hasher.hash_one(question)
    }

    /// As [`Self::note`], of a question that was hashed by [`Self::hash`].
    pub fn note_hashed(&mut self, table: TableName, hash: u64) -> Cell {
        let cell = self.cells.cell_hashed(table, hash);
        let deps = if self.first_packet { &mut self.first } else { &mut self.deps };
        deps.note(cell, table.volatile);
        cell
    }

    /// What was asked. `committed`: the decision is for a connection that is known now, so that deciding again would not
    /// ask what only a first packet asks.
    pub fn deps(&self, committed: bool) -> Deps {
        let mut deps = self.deps;
        if !committed {
            deps.include(&self.first);
        }
        deps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: TableName = TableName::new("test");

    fn touch(cells: &Cells, question: u32) {
        cells.change(|touched| touched.touch(TABLE, question));
    }

    #[test]
    fn a_decision_stands_until_a_cell_that_it_asked_is_touched() {
        let cells = Cells::default();
        let mut deps = Deps::default();
        deps.note(cells.cell(TABLE, 1u32), false);
        let made = cells.now();
        let other = (2u32..).find(|&i| cells.cell(TABLE, i) != cells.cell(TABLE, 1u32)).unwrap();
        touch(&cells, other);
        assert!(cells.unchanged_since(&deps.cells(), made));
        touch(&cells, 1);
        assert!(!cells.unchanged_since(&deps.cells(), made));
        assert!(cells.unchanged_since(&deps.cells(), cells.now()));
    }

    #[test]
    fn a_decision_that_asked_too_much_depends_on_everything() {
        let cells = Cells::default();
        let mut deps = Deps::default();
        let mut asked = std::collections::BTreeSet::new();
        for question in 0u32.. {
            let cell = cells.cell(TABLE, question);
            deps.note(cell, false);
            asked.insert(cell);
            if asked.len() > DEPS {
                break;
            }
        }
        let made = cells.now();
        let other = (1000u32..).find(|&i| !asked.contains(&cells.cell(TABLE, i))).unwrap();
        touch(&cells, other);
        assert!(!cells.unchanged_since(&deps.cells(), made));
    }

    #[test]
    fn a_change_that_touches_nothing_makes_no_generation() {
        let cells = Cells::default();
        let before = cells.now();
        cells.change(|_| ());
        assert_eq!(cells.now(), before);
    }

    #[test]
    fn generations_that_run_out_start_an_epoch() {
        let cells = Cells::starting_at(u32::MAX - 1);
        touch(&cells, 1);
        let last = Moment { epoch: 0, generation: u32::MAX, steady: u32::MAX };
        assert_eq!(cells.now(), last);
        touch(&cells, 1);
        assert_eq!(cells.now(), Moment { epoch: 1, generation: 1, steady: 1 });
        let asked = Deps::default().cells();
        assert!(cells.unchanged_since(&asked, cells.now()) && !cells.unchanged_since(&asked, last));
    }

    #[test]
    fn cells_with_a_meaning_are_nobodys_region() {
        let cells = Cells::default();
        assert!((0..100_000u32).all(|i| cells.cell(TABLE, i).0 >= RESERVED));
    }
}
