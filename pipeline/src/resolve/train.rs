//! Fragments on a bridge with a router: all of a datagram are decided as the whole would be, and leave one behind the
//! other.

use api::BridgeId;

use super::fragments::{Arrival, Train};
use super::stage::Reply;
use super::{Court, Ending, Judgement, Resolver};
use crate::burst::{Extra, Layers, Verdict, VlanEdit};
use crate::drop::DropReason;
use crate::key::FlowKey;
use crate::raw::{Frame, Stash};
use crate::rewrite;

impl Resolver {
    #[expect(clippy::too_many_arguments, reason = "what a fragment is, and where it goes")]
    /// Take a fragment. If it completes its datagram, all leave, or whatever else is decided.
    pub(super) fn fragment(
        &mut self,
        frame: Frame,
        layers: Layers,
        key: FlowKey,
        zone: BridgeId,
        court: Court<'_>,
        extra: &mut Vec<Extra>,
        stash: &mut Stash,
    ) {
        let turn = court.turn;
        let mut give = |frame, port, reason| {
            turn.counters.dropped(port, reason);
            stash.give(frame);
        };
        let arrival = Arrival { frame, layers, key, in_port: court.in_port, zone };
        if let Some(train) = self.fragments.take(arrival, turn.now, &mut give) {
            self.train(train, court, extra, stash);
        }
    }

    fn train(&mut self, train: Train, court: Court<'_>, extra: &mut Vec<Extra>, stash: &mut Stash) {
        let head = train.fragments.first().map_or(&[][..], |(frame, _)| frame.head());
        let mut judgement = self.judge(train.key, head, &train.layers, court);
        self.ask(court.in_port, extra, stash);
        judgement.octets = Some(train.octets);
        if let Ending::Related(_) = judgement.ending {
            // What such an error quotes lies in pieces.
            (judgement.verdict, judgement.ending) = (Verdict::Drop(DropReason::Invalid), Ending::Verdict);
        }
        for (number, (frame, layers)) in train.fragments.into_iter().enumerate() {
            if number == 1 {
                judgement.edits = judgement.edits.of_later_fragment();
                // One answer is enough.
                if let Ending::Reply(Reply::Error(.., reason) | Reply::Reset(reason), _) = judgement.ending {
                    (judgement.verdict, judgement.ending) = (Verdict::Drop(reason), Ending::Verdict);
                }
            }
            self.piece(&judgement, frame, &layers, court, extra, stash);
        }
        self.release(judgement.verdict);
    }

    /// One fragment of a datagram that was decided.
    fn piece(
        &mut self,
        judgement: &Judgement,
        frame: Frame,
        layers: &Layers,
        court: Court<'_>,
        extra: &mut Vec<Extra>,
        stash: &mut Stash,
    ) {
        let from = court.in_port;
        let (verdict, frame) = self.carry_out(judgement, frame, layers, court, extra, stash);
        let Some(frame) = frame else { return };
        let mut leave = |mut frame: Frame, port, vlan: VlanEdit, stash: &mut Stash| {
            if rewrite::vlan(&mut frame, vlan) {
                extra.push(Extra { frame, port, from });
            } else {
                court.turn.counters.dropped(from, DropReason::NoFrame);
                stash.give(frame);
            }
        };
        match verdict {
            Verdict::Output(port) => leave(frame, port, judgement.vlan, stash),
            Verdict::Multi(list) => {
                for copy in self.lists.get(list) {
                    match stash.copy(&frame) {
                        Some(duplicate) => leave(duplicate, copy.port, copy.vlan, stash),
                        None => court.turn.counters.dropped(from, DropReason::NoFrame),
                    }
                }
                stash.give(frame);
            }
            Verdict::Drop(reason) => {
                court.turn.counters.dropped(from, reason);
                stash.give(frame);
            }
            Verdict::Pending | Verdict::Taken => stash.give(frame),
        }
    }
}
