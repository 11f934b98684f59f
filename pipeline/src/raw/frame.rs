//! Frame memory: slots of one mapping, handed about as owned [`Frame`]s.
//!
//! ```text
//!   slot (2112 octets: 33 cache lines, so that neighbouring slots fall into different cache sets)
//!   0          32                    start                    start + len        2112
//!   | meta      | headroom ...        | first segment          | tailroom         |
//!               (start = 192 when fresh, on a cache line)
//!
//!   spill (64 KiB): what a super-frame has beyond its first segment; headers are never there
//! ```
//!
//! A slot has exactly one owner: a `Frame`, the free list of one worker ([`Stash`]), or the shared free list
//! ([`Pool`]). Nothing is allocated after the pool was made. A `Frame` that is dropped instead of given back is lost to
//! the pool: [`Pool::free`] lets tests see it.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use crate::offload::Offload;

/// Octets from one slot to the next.
pub const SLOT: usize = 2112;
/// Octets in front of a fresh frame: the meta words, then room for encapsulation and for a port's own header.
pub const HEADROOM: usize = 192;
/// Octets from the start of a frame that the parser may look at in one piece: all headers of the common frames.
pub const WINDOW: usize = 128;
/// Octets of a spill.
pub const SPILL: usize = 65536;
/// Slots that move between a worker and the shared list at a time.
const CHUNK: usize = 64;
/// Slots a worker keeps for itself at most.
const STASH: usize = 1024;
/// Octets at the start of a slot that belong to [`Meta`].
const META: usize = size_of::<Meta>();

/// Memory that frames can live in: zeroed, at `base`, `len` octets, aligned to 64.
///
/// # Safety
/// The memory is readable, writable and used by nobody else for as long as the value lives.
pub unsafe trait Memory: Send + Sync {
    /// First octet.
    fn base(&self) -> NonNull<u8>;
    /// Octets.
    fn len(&self) -> usize;
    /// No octet at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Memory of the ordinary allocator, for tests, fuzzing and simulation.
#[derive(Debug)]
pub struct HeapMemory {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the allocation is owned by this value alone and has no interior of its own.
unsafe impl Send for HeapMemory {}
// SAFETY: as above.
unsafe impl Sync for HeapMemory {}

impl HeapMemory {
    /// `len` zeroed octets.
    pub fn new(len: usize) -> Self {
        let layout = Layout::from_size_align(len.max(64), 128).unwrap_or(Layout::new::<[u64; 8]>());
        // SAFETY: the size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else { handle_alloc_error(layout) };
        Self { base, layout }
    }
}

impl Drop for HeapMemory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed only here.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

// SAFETY: `base` is an allocation of `layout.size()` octets, aligned to 128, that only this value frees.
unsafe impl Memory for HeapMemory {
    fn base(&self) -> NonNull<u8> {
        self.base
    }
    fn len(&self) -> usize {
        self.layout.size()
    }
}

/// What a frame needs to be told beyond its octets. Lives in the first line of the slot; valid only as far as the
/// flags of the `Frame` say, so that plain frames never touch that line.
#[repr(C)]
struct Meta {
    offload: Offload,
    spill_len: u32,
    spill: Option<NonNull<u8>>,
}

/// `Frame::flags`: [`Meta::offload`] is set.
const HAS_OFFLOAD: u32 = 1;
/// `Frame::flags`: [`Meta::spill`] is set.
const HAS_SPILL: u32 = 2;

/// One owned frame. Sixteen octets, moved freely; give it back to a [`Stash`] in the end.
#[derive(Debug)]
#[must_use = "a frame that is dropped is lost to its pool: give it to a Stash"]
pub struct Frame {
    /// Start of a slot that nobody else refers to.
    slot: NonNull<u8>,
    /// Invariant: `META <= start`, `start + len <= SLOT`.
    start: u16,
    len: u16,
    flags: u32,
}

// SAFETY: a frame is the only reference to its slot and spill.
unsafe impl Send for Frame {}

impl Frame {
    fn new(slot: NonNull<u8>) -> Self {
        Self { slot, start: HEADROOM as u16, len: 0, flags: 0 }
    }

    fn meta(&self) -> *mut Meta {
        self.slot.as_ptr().cast()
    }

    /// Octets of the first segment: all headers, and all of a frame that is no super-frame.
    #[inline]
    pub fn head(&self) -> &[u8] {
        // SAFETY: `start + len <= SLOT`, and the slot is ours alone.
        unsafe { std::slice::from_raw_parts(self.slot.as_ptr().add(usize::from(self.start)), usize::from(self.len)) }
    }

    /// The first segment, to write.
    #[inline]
    pub fn head_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `head`, and `self` is borrowed mutably.
        unsafe {
            std::slice::from_raw_parts_mut(self.slot.as_ptr().add(usize::from(self.start)), usize::from(self.len))
        }
    }

    /// The first [`WINDOW`] octets from the start of the frame, whatever its length: vector loads that stay in the slot.
    /// Octets beyond the frame are left-overs of earlier frames and must be masked by the reader.
    #[inline]
    pub fn window(&self) -> Option<&[u8; WINDOW]> {
        if usize::from(self.start) + WINDOW > SLOT {
            return None;
        }
        // SAFETY: `WINDOW` octets from `start` are inside the slot (checked above); the slot is initialised memory (pools
        // are zeroed) and ours alone.
        Some(unsafe { &*self.slot.as_ptr().add(usize::from(self.start)).cast::<[u8; WINDOW]>() })
    }

    /// The frame is all in its first segment, and nothing is left to be done on it.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.flags == 0
    }

    /// Ask the cache for the first line of the frame.
    #[inline]
    pub fn prefetch(&self) {
        super::prefetch(self.slot.as_ptr().wrapping_add(usize::from(self.start)));
    }

    /// Octets in all: first segment and spill.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.len) + self.spill_len()
    }

    /// No octet at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything between the meta words and the end of the slot, to be filled by a device; say with
    /// [`Self::set_head`] where the frame came to lie.
    pub fn slot_mut(&mut self) -> &mut [u8] {
        // SAFETY: inside the slot, which is ours alone.
        unsafe { std::slice::from_raw_parts_mut(self.slot.as_ptr().add(META), SLOT - META) }
    }

    /// The first segment is the `len` octets from `HEADROOM`. Returns false, changing nothing, if that does not fit.
    pub fn set_head(&mut self, len: usize) -> bool {
        let fits = len <= SLOT - HEADROOM;
        if fits {
            self.start = HEADROOM as u16;
            self.len = len as u16;
        }
        fits
    }

    /// Copy `bytes` in as the whole frame, without offload. Returns false, changing nothing, if they do not fit into
    /// the slot (super-frames take a spill).
    #[inline]
    pub fn fill(&mut self, bytes: &[u8]) -> bool {
        if !self.set_head(bytes.len()) {
            return false;
        }
        self.head_mut().copy_from_slice(bytes);
        true
    }

    /// Make room for `n` octets at the front. Returns false if the headroom is used up.
    pub fn grow_front(&mut self, n: usize) -> bool {
        let room = usize::from(self.start) - META;
        if n > room {
            return false;
        }
        self.start -= n as u16;
        self.len += n as u16;
        true
    }

    /// Cut `n` octets off the front. Returns false if the first segment is shorter.
    pub fn shrink_front(&mut self, n: usize) -> bool {
        if n > usize::from(self.len) {
            return false;
        }
        self.start += n as u16;
        self.len -= n as u16;
        true
    }

    /// Cut the first segment to `len` octets (of a frame without spill).
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len.min(SLOT) as u16);
    }

    /// What the sender left to be done: checksum, segmentation.
    #[inline]
    pub fn offload(&self) -> Option<Offload> {
        if self.flags & HAS_OFFLOAD == 0 {
            return None;
        }
        // SAFETY: the flag says that the field was written; the slot is ours alone.
        Some(unsafe { (*self.meta()).offload })
    }

    /// Say what is left to be done; [`Offload::NONE`] when nothing is.
    #[inline]
    pub fn set_offload(&mut self, offload: Offload) {
        if offload.is_none() {
            self.flags &= !HAS_OFFLOAD;
            return;
        }
        self.flags |= HAS_OFFLOAD;
        // SAFETY: `meta` lies in the slot, aligned to 64, and is ours alone.
        unsafe { (*self.meta()).offload = offload }
    }

    /// Octets of the spill.
    #[inline]
    fn spill_len(&self) -> usize {
        if self.flags & HAS_SPILL == 0 {
            return 0;
        }
        // SAFETY: the flag says that the field was written.
        unsafe { (*self.meta()).spill_len as usize }
    }

    /// What a super-frame has beyond its first segment; empty for others.
    #[inline]
    pub fn spill(&self) -> &[u8] {
        if self.flags & HAS_SPILL == 0 {
            return &[];
        }
        // SAFETY: the flag says that both fields were written; `spill_len <= SPILL` octets of the spill are ours alone.
        unsafe {
            match (*self.meta()).spill {
                Some(at) => std::slice::from_raw_parts(at.as_ptr(), (*self.meta()).spill_len as usize),
                None => &[],
            }
        }
    }

    /// Hang a spill of `len` octets (at most [`SPILL`]) onto the frame. The frame must not have one.
    pub fn attach(&mut self, spill: Spill, len: usize) {
        debug_assert!(self.flags & HAS_SPILL == 0 && len <= SPILL);
        self.flags |= HAS_SPILL;
        // SAFETY: `meta` lies in the slot, aligned to 64, and is ours alone.
        unsafe {
            (*self.meta()).spill = Some(spill.at);
            (*self.meta()).spill_len = len.min(SPILL) as u32;
        }
    }

    /// Take the spill off again.
    fn detach(&mut self) -> Option<Spill> {
        if self.flags & HAS_SPILL == 0 {
            return None;
        }
        self.flags &= !HAS_SPILL;
        // SAFETY: the flag said that the field was written.
        unsafe { (*self.meta()).spill.take() }.map(|at| Spill { at })
    }

    /// The whole frame in one piece: a copy when it has a spill.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        bytes.extend_from_slice(self.head());
        bytes.extend_from_slice(self.spill());
        bytes
    }
}

/// 64 KiB for the tail of a super-frame.
#[derive(Debug)]
#[must_use = "a spill that is dropped is lost to its pool"]
pub struct Spill {
    at: NonNull<u8>,
}

// SAFETY: a spill is the only reference to its memory.
unsafe impl Send for Spill {}

impl Spill {
    /// The memory, to be filled by a device.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: SPILL octets, ours alone.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), SPILL) }
    }
}

#[derive(Clone, Copy)]
struct Slot(NonNull<u8>);

// SAFETY: a slot on a free list is referred to by nothing else.
unsafe impl Send for Slot {}
// SAFETY: as above; the list hands each slot out once.
unsafe impl Sync for Slot {}

struct Shared {
    /// Owns what all slots and spills point into: must outlive every frame, hence the `Arc` in every stash and port.
    _memory: Box<dyn Memory>,
    /// Full chunks only; single slots are in the stashes.
    chunks: ArrayQueue<[Slot; CHUNK]>,
    spills: ArrayQueue<Slot>,
    slots: usize,
}

/// All frames of a switch. Cloning shares it.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("slots", &self.shared.slots).field("free", &self.free()).finish()
    }
}

impl Pool {
    /// Octets of memory that `slots` slots and `spills` spills take.
    pub fn octets(slots: usize, spills: usize) -> usize {
        slots.next_multiple_of(CHUNK) * SLOT + spills * SPILL
    }

    /// Divide `memory` into slots (rounded down to whole chunks of 64) and `spills` spills.
    pub fn new(memory: impl Memory + 'static, spills: usize) -> Self {
        let (base, len) = (memory.base(), memory.len());
        let spills = spills.min(len / SPILL);
        let chunks = (len - spills * SPILL) / (SLOT * CHUNK);
        // SAFETY: both regions lie inside the memory: `chunks` whole chunks, then `spills` whole spills.
        let at = |offset: usize| Slot(unsafe { base.add(offset) });
        let free = ArrayQueue::new(chunks.max(1));
        for chunk in 0..chunks {
            let _ = free.push(std::array::from_fn(|i| at((chunk * CHUNK + i) * SLOT)));
        }
        let spilled = ArrayQueue::new(spills.max(1));
        for spill in 0..spills {
            let _ = spilled.push(at(chunks * CHUNK * SLOT + spill * SPILL));
        }
        let shared = Shared { _memory: Box::new(memory), chunks: free, spills: spilled, slots: chunks * CHUNK };
        Self { shared: Arc::new(shared) }
    }

    /// A pool on the heap, for tests, fuzzing and simulation.
    pub fn heap(slots: usize, spills: usize) -> Self {
        Self::new(HeapMemory::new(Self::octets(slots, spills)), spills)
    }

    /// Slots in all.
    pub fn slots(&self) -> usize {
        self.shared.slots
    }

    /// Slots on the shared free list; those in stashes and in flight are not counted.
    pub fn free(&self) -> usize {
        self.shared.chunks.len() * CHUNK
    }

    /// A free list of its own for one worker or port end.
    pub fn stash(&self) -> Stash {
        Stash { free: Vec::with_capacity(STASH), pool: self.clone() }
    }
}

/// One thread's free list: last in, first out, so that the same cache lines are used again.
#[derive(Debug)]
pub struct Stash {
    free: Vec<SlotBox>,
    pool: Pool,
}

/// A slot in a stash. A type of its own keeps `Debug` from printing pointers.
#[derive(Clone, Copy)]
struct SlotBox(Slot);

impl std::fmt::Debug for SlotBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("slot")
    }
}

impl Stash {
    /// A fresh frame of no octets; `None` when the pool is empty.
    #[inline]
    pub fn take(&mut self) -> Option<Frame> {
        if self.free.is_empty() {
            self.refill();
        }
        self.free.pop().map(|slot| Frame::new(slot.0.0))
    }

    #[cold]
    fn refill(&mut self) {
        if let Some(chunk) = self.pool.shared.chunks.pop() {
            self.free.extend(chunk.map(SlotBox));
        }
    }

    /// Give a frame back.
    #[inline]
    pub fn give(&mut self, mut frame: Frame) {
        if frame.flags & HAS_SPILL != 0
            && let Some(spill) = frame.detach()
        {
            self.give_spill(spill);
        }
        if self.free.len() == STASH {
            self.overflow();
        }
        self.free.push(SlotBox(Slot(frame.slot)));
    }

    /// Take off a frame what does not belong to an answer in its place: the spill, and what was left to be done.
    pub fn strip(&mut self, frame: &mut Frame) {
        if let Some(spill) = frame.detach() {
            self.give_spill(spill);
        }
        frame.set_offload(Offload::NONE);
    }

    /// The oldest slots go back to the shared list; what is used next is still in the cache.
    #[cold]
    fn overflow(&mut self) {
        for chunk in self.free.as_chunks::<CHUNK>().0.iter().take(STASH / 2 / CHUNK) {
            let _ = self.pool.shared.chunks.push(chunk.map(|slot| slot.0));
        }
        self.free.drain(..STASH / 2);
    }

    /// A spill; `None` when all are in use.
    pub fn take_spill(&mut self) -> Option<Spill> {
        self.pool.shared.spills.pop().map(|slot| Spill { at: slot.0 })
    }

    /// Give a spill back.
    pub fn give_spill(&mut self, spill: Spill) {
        let _ = self.pool.shared.spills.push(Slot(spill.at));
    }

    /// A copy of `frame` in a fresh slot (and spill); `None` when the pool is empty.
    pub fn copy(&mut self, frame: &Frame) -> Option<Frame> {
        let mut copy = self.take()?;
        // The start is kept, so that a copy has the same headroom.
        (copy.start, copy.len) = (frame.start, frame.len);
        copy.head_mut().copy_from_slice(frame.head());
        copy.set_offload(frame.offload().unwrap_or(Offload::NONE));
        let tail = frame.spill();
        if !tail.is_empty() {
            let Some(mut spill) = self.take_spill() else {
                self.give(copy);
                return None;
            };
            // A spill is never longer than another.
            spill.bytes_mut().iter_mut().zip(tail).for_each(|(to, from)| *to = *from);
            copy.attach(spill, tail.len());
        }
        Some(copy)
    }

    /// Spills that are free.
    pub fn available_spills(&self) -> usize {
        self.pool.shared.spills.len()
    }

    /// Slots the stash and the shared list hold together.
    pub fn available(&self) -> usize {
        self.free.len() + self.pool.free()
    }

    /// The pool behind it.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}

impl Drop for Stash {
    /// Whole chunks go back to the shared list; what does not fill one is topped up from nowhere and lost, at most 63
    /// slots a stash: a stash lives as long as its worker.
    fn drop(&mut self) {
        for chunk in self.free.as_chunks::<CHUNK>().0 {
            let _ = self.pool.shared.chunks.push(chunk.map(|slot| slot.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_comes_back() {
        let pool = Pool::heap(2048, 2);
        let mut stash = pool.stash();
        let mut frames: Vec<Frame> = std::iter::from_fn(|| stash.take()).collect();
        assert_eq!(frames.len(), 2048);
        for (i, frame) in frames.iter_mut().enumerate() {
            assert!(frame.fill(&(i as u64).to_le_bytes()));
        }
        for (i, frame) in frames.iter().enumerate() {
            assert_eq!(frame.head(), (i as u64).to_le_bytes());
        }
        frames.into_iter().for_each(|frame| stash.give(frame));
        assert_eq!(stash.available(), 2048);
        drop(stash);
        assert_eq!(pool.free(), 2048);
    }

    #[test]
    fn a_copy_has_the_same_octets_offload_and_spill_and_its_own_memory() {
        let pool = Pool::heap(64, 2);
        let mut stash = pool.stash();
        let mut frame = stash.take().unwrap();
        assert!(frame.fill(&[7; 1900]));
        let mut spill = stash.take_spill().unwrap();
        spill.bytes_mut()[..3000].fill(9);
        frame.attach(spill, 3000);
        frame.set_offload(Offload { gso_size: 1448, ..Offload::NONE });
        let copy = stash.copy(&frame).unwrap();
        frame.head_mut().fill(0);
        assert_eq!(copy.head(), [7; 1900]);
        assert_eq!(copy.spill(), [9; 3000]);
        assert_eq!(copy.len(), 4900);
        assert_eq!(copy.offload().unwrap().gso_size, 1448);
        assert!(stash.copy(&frame).is_none(), "there is no third spill");
        stash.give(copy);
        stash.give(frame);
        assert_eq!(stash.available(), 64);
        assert!(stash.take_spill().is_some() && stash.take_spill().is_some());
    }

    #[test]
    fn the_front_grows_and_shrinks_within_the_slot() {
        let pool = Pool::heap(64, 0);
        let mut stash = pool.stash();
        let mut frame = stash.take().unwrap();
        assert!(frame.fill(&[1, 2, 3, 4]));
        assert!(frame.grow_front(2) && frame.shrink_front(3));
        assert_eq!(frame.head(), [2, 3, 4]);
        assert!(!frame.shrink_front(4));
        assert!(!frame.grow_front(SLOT));
        assert!(!frame.fill(&[0; SLOT - HEADROOM + 1]) && frame.fill(&[0; SLOT - HEADROOM]));
        assert!(frame.window().is_some());
        stash.give(frame);
    }
}
