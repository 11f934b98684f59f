//! The parser against etherparse, on sound frames, on changed ones, and on octets without any order.

#[path = "../kit/frames.rs"]
mod frames;
#[path = "../kit/oracle.rs"]
mod oracle;

use proptest::prelude::*;

/// A sound frame, changed in up to four octets and cut or padded.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let frames = frames::all();
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (prop::sample::select(frames), changes, 0usize..8, 0usize..40).prop_map(|(mut frame, changes, how, by)| {
        for (index, value) in changes {
            // The addresses of the link say little.
            let at = 12 + index.index(frame.len() - 12);
            frame[at] = value;
        }
        match how {
            0 => frame.truncate(frame.len().saturating_sub(by)),
            1 => frame.resize(frame.len() + by, 0),
            _ => {}
        }
        frame
    })
}

#[test]
fn etherparse_agrees_on_every_kind_of_frame() {
    frames::all().iter().for_each(|frame| oracle::agrees(frame));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn etherparse_agrees_on_mutated_frames(frame in mutated()) {
        oracle::agrees(&frame);
    }

    #[test]
    fn octets_without_any_order_never_panic(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
        oracle::agrees(&frame);
    }
}
