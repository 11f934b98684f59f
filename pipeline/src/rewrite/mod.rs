//! rewrite: apply what was decided to the frames themselves.

pub mod edits;
pub mod fragment;
pub mod related;
pub mod sctp;

use crate::burst::{Burst, Lanes, Verdict, VlanEdit};
use crate::drop::DropReason;
use crate::offload::Offload;
use crate::probe::cache::FlowCache;
use crate::raw::Frame;

/// Octets of the two Ethernet addresses, which stay in front of a tag.
const ADDRESSES: usize = 12;
/// Octets of an 802.1Q tag.
const TAG: usize = 4;
/// Tag protocol identifier of a customer VLAN (IEEE 802.1Q, table 9-1).
const TPID: [u8; 2] = [0x81, 0x00];

/// Apply the edits of all lanes that leave by one port. Copies for several ports are edited when they are made.
pub fn rewrite(burst: &mut Burst) {
    let lanes = burst.len();
    let lanes = burst.frames.iter_mut().zip(&mut burst.verdicts).zip(&burst.vlans).take(lanes);
    for ((frame, verdict), &edit) in lanes {
        if edit == VlanEdit::Keep || !matches!(verdict, Verdict::Output(_)) {
            continue;
        }
        if let Some(frame) = frame
            && !vlan(frame, edit)
        {
            *verdict = Verdict::Drop(DropReason::NoFrame);
        }
    }
}

/// Edit the headers of the lanes that hit an entry with edits.
pub fn edit<const N: usize>(cache: &FlowCache<N>, burst: &mut Burst) {
    let Burst { frames, layers, edited, edits, verdicts, .. } = burst;
    for lane in edited.each() {
        let (Some(&entry), Some(layers), Some(Some(frame))) = (edits.get(lane), layers.get(lane), frames.get_mut(lane))
        else {
            continue;
        };
        if let Some(edits) = cache.edits(entry)
            && !edits.apply(frame, layers)
            && let Some(verdict) = verdicts.get_mut(lane)
        {
            *verdict = Verdict::Drop(DropReason::NoFrame);
        }
    }
}

/// Edit the outermost tag. Returns false, leaving the frame as it is, when it has no headroom left or no tag to edit.
pub fn vlan(frame: &mut Frame, edit: VlanEdit) -> bool {
    match edit {
        VlanEdit::Keep => true,
        VlanEdit::Pop => pop(frame),
        VlanEdit::Push(vid) => push(frame, vid),
        VlanEdit::Set(vid) => set(frame, vid),
    }
}

fn push(frame: &mut Frame, vid: u16) -> bool {
    if frame.head().len() < ADDRESSES || !frame.grow_front(TAG) {
        return false;
    }
    let head = frame.head_mut();
    head.copy_within(TAG..TAG + ADDRESSES, 0);
    if let Some(tag) = head.get_mut(ADDRESSES..ADDRESSES + TAG) {
        let [a, b] = TPID;
        let [c, d] = (vid & 0xfff).to_be_bytes();
        tag.copy_from_slice(&[a, b, c, d]);
    }
    shift(frame, TAG as i16);
    true
}

fn pop(frame: &mut Frame) -> bool {
    let head = frame.head_mut();
    if head.len() < ADDRESSES + TAG {
        return false;
    }
    head.copy_within(..ADDRESSES, TAG);
    frame.shrink_front(TAG);
    shift(frame, -(TAG as i16));
    true
}

fn set(frame: &mut Frame, vid: u16) -> bool {
    let Some([high, low]) = frame.head_mut().get_mut(ADDRESSES + 2..ADDRESSES + 4) else { return false };
    // The priority and drop-eligible bits stay.
    [*high, *low] = ((u16::from(*high) << 8 | u16::from(*low)) & 0xf000 | vid & 0xfff).to_be_bytes();
    true
}

/// What the offload points to has moved by `n` octets.
fn shift(frame: &mut Frame, n: i16) {
    if let Some(offload) = frame.offload() {
        frame.set_offload(Offload::shifted(offload, n));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::Pool;

    const FRAME: [u8; 18] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x08, 0x00, 0xa, 0xb, 0xc, 0xd];

    #[test]
    fn a_tag_is_put_on_changed_and_taken_off() {
        let mut stash = Pool::heap(64, 0).stash();
        let mut frame = stash.take().unwrap();
        assert!(frame.fill(&FRAME));
        let offload =
            Offload { flags: Offload::NEEDS_CSUM, csum_start: 34, csum_offset: 6, hdr_len: 42, ..Offload::NONE };
        frame.set_offload(offload);
        assert!(vlan(&mut frame, VlanEdit::Push(10)));
        assert_eq!(frame.head()[..18], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x81, 0, 0, 10, 0x08, 0x00]);
        assert_eq!(frame.offload().unwrap(), Offload { csum_start: 38, hdr_len: 46, ..offload });
        frame.head_mut()[14] = 0xe0;
        assert!(vlan(&mut frame, VlanEdit::Set(0xabc)));
        assert_eq!(frame.head()[12..16], [0x81, 0, 0xea, 0xbc], "the priority stays");
        assert!(vlan(&mut frame, VlanEdit::Pop));
        assert_eq!((frame.head(), frame.offload().unwrap()), (FRAME.as_slice(), offload));
        stash.give(frame);
    }

    #[test]
    fn a_frame_without_room_or_tag_is_left_as_it_is() {
        let mut stash = Pool::heap(64, 0).stash();
        let mut frame = stash.take().unwrap();
        assert!(frame.fill(&FRAME[..13]));
        assert!(!vlan(&mut frame, VlanEdit::Pop) && !vlan(&mut frame, VlanEdit::Set(1)));
        assert_eq!(frame.head(), &FRAME[..13]);
        while frame.grow_front(1) {}
        assert!(!vlan(&mut frame, VlanEdit::Push(1)));
        stash.give(frame);
    }
}
