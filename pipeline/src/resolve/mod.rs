//! resolve: a miss walks the stages, is decided, and is remembered.
//!
//! A walk is *decide* (pure) and then *effects* (learn). Frames of a burst that miss on the same key follow the first:
//! it alone walks.

pub mod lists;
pub mod program;
pub mod stage;
pub mod stages;
pub mod walk;

use crate::burst::{Burst, Lanes, Layers, Verdict, VlanEdit};
use crate::drop::DropReason;
use crate::live::stations::Heard;
use crate::parse;
use crate::probe::cache::{Cold, Decision, FlowCache, Hot};
use crate::probe::cells::Moment;
use crate::probe::trail::{Accounts, Trail};
use crate::probe::{Answer, ask, key};
use crate::raw::Frame;
use crate::{Turn, key::FlowKey};
use lists::Lists;
use program::Ingress;
use stage::Next;
use walk::{Effect, Walk};

/// What a worker's misses share.
#[derive(Debug, Default)]
pub struct Resolver {
    /// Lists that `Multi` verdicts name.
    pub lists: Lists,
    /// What swept and evicted entries account to.
    pub accounts: Accounts,
    /// This burst's decisions that are not kept, for those who follow: lane, verdict, edit.
    transient: Vec<(usize, Verdict, VlanEdit)>,
}

/// A decision and how it was come by.
struct Outcome<'a> {
    verdict: Verdict,
    vlan: VlanEdit,
    walk: Walk<'a>,
}

impl Resolver {
    /// Decide those of `lanes` that are still pending. At most `turn.walks` walks are made; the rest is dropped as
    /// `miss-overload`. Returns how many were made.
    pub fn resolve<const N: usize>(
        &mut self,
        cache: &mut FlowCache<N>,
        burst: &mut Burst,
        lanes: impl Lanes,
        ingress: &Ingress,
        moment: Moment,
        turn: &Turn<'_>,
    ) -> usize {
        let mut walks = 0;
        self.transient.clear();
        for lane in lanes.each() {
            if burst.verdicts.get(lane) != Some(&Verdict::Pending) {
                continue;
            }
            let Some((verdict, vlan)) = self.lane(cache, burst, lane, ingress, moment, turn, &mut walks) else {
                continue;
            };
            if let (Some(at), Some(edit)) = (burst.verdicts.get_mut(lane), burst.vlans.get_mut(lane)) {
                (*at, *edit) = (verdict, vlan);
            }
        }
        walks
    }

    #[expect(clippy::too_many_arguments, reason = "the loop body of `resolve`, split off to be read")]
    fn lane<const N: usize>(
        &mut self,
        cache: &mut FlowCache<N>,
        burst: &Burst,
        lane: usize,
        ingress: &Ingress,
        moment: Moment,
        turn: &Turn<'_>,
        walks: &mut usize,
    ) -> Option<(Verdict, VlanEdit)> {
        let key = key::<N>(burst, lane)?;
        let (layers, frame) = (burst.layers.get(lane)?, burst.frames.get(lane)?.as_ref()?);
        let hash = *burst.hashes.get(lane)?;
        // An earlier lane of this burst may have walked for the same flow.
        if let Some(entry) = cache.find(key, hash) {
            match ask(cache, entry, (key, hash), layers.guard, frame.len(), moment, &turn.live.cells) {
                Answer::Hit { verdict, vlan, .. } => return Some((verdict, vlan)),
                Answer::Stale => self.discard(cache, entry, key, hash),
                Answer::No => {}
            }
        }
        let same = |&&(first, ..): &&(usize, Verdict, VlanEdit)| {
            crate::probe::key::<N>(burst, first) == Some(key)
                && burst.layers.get(first).is_some_and(|other| other.guard == layers.guard)
        };
        if let Some(&(_, verdict, vlan)) = self.transient.iter().find(same) {
            return Some((verdict, vlan));
        }
        if *walks == turn.walks {
            return Some((Verdict::Drop(DropReason::MissOverload), VlanEdit::Keep));
        }
        *walks += 1;
        turn.counters.coverage.walk.add(1);
        let Outcome { verdict, vlan, mut walk } = self.decide(burst, frame, layers, ingress, turn);
        Self::effects(&mut walk, turn);
        if walk.transient {
            turn.counters.coverage.walk_transient.add(1);
            self.transient.push((lane, verdict, vlan));
            self.release(verdict);
            return Some((verdict, vlan));
        }
        let decision =
            Decision { verdict, vlan, guard: walk.guard, cells: walk.asked.deps().cells(), trail: walk.trail.pack() };
        let (lists, accounts) = (&mut self.lists, &mut self.accounts);
        let mut evicted = |hot: &Hot<N>, cold: &Cold| {
            turn.counters.coverage.cache_evicted.add(1);
            retire(lists, accounts, hot, cold, turn);
        };
        let entry = cache.insert(*key, hash, moment.generation, turn.now.second(), &decision, &mut evicted);
        match cache.hot(entry) {
            Some(hot) => (hot.packets, hot.bytes) = (1, frame.len() as u64),
            // There was no room, so no entry names the list.
            None => self.release(verdict),
        }
        Some((verdict, vlan))
    }

    /// No entry names the list of this verdict any more, or none ever will.
    fn release(&mut self, verdict: Verdict) {
        if let Verdict::Multi(list) = verdict {
            self.lists.release(list);
        }
    }

    /// Decide one frame: pure but for the interned list that the verdict may name.
    fn decide<'a>(
        &mut self,
        burst: &Burst,
        frame: &Frame,
        layers: &Layers,
        ingress: &Ingress,
        turn: &Turn<'a>,
    ) -> Outcome<'a> {
        let key: FlowKey = parse::key(burst.in_port, frame.head(), layers).masked(&ingress.mask);
        let mut walk = Walk::new(key, *layers, turn.live, turn.now);
        let (verdict, vlan) = match turn.program.decide(&mut walk) {
            Next::Drop(reason) => (Verdict::Drop(reason), VlanEdit::Keep),
            _ => match *walk.outputs.as_slice() {
                [] => (Verdict::Drop(DropReason::NoPort), VlanEdit::Keep),
                [copy] => (Verdict::Output(copy.port), copy.vlan),
                ref list => (Verdict::Multi(self.lists.obtain(list)), VlanEdit::Keep),
            },
        };
        Outcome { verdict, vlan, walk }
    }

    /// Bring about what a decision says.
    fn effects(walk: &mut Walk<'_>, turn: &Turn<'_>) {
        for effect in std::mem::take(&mut walk.effects) {
            match effect {
                Effect::Hear { bridge, address } => {
                    let in_port = walk.key.in_port();
                    match turn.live.stations.hear(bridge, address, in_port, turn.now, &turn.live.cells) {
                        Some(Heard::Learned(slot)) => {
                            turn.counters.coverage.mac_learned.add(1);
                            walk.trail = Trail::Station(slot);
                        }
                        Some(Heard::Known(slot)) => walk.trail = Trail::Station(slot),
                        Some(Heard::TooSoon) | None => walk.transient = true,
                    }
                }
            }
        }
    }

    /// Take a worthless entry out.
    fn discard<const N: usize>(&mut self, cache: &mut FlowCache<N>, entry: u32, key: &[u64; N], hash: u64) {
        // What it rested on is no more: there is nobody to account to.
        if let Some(verdict) = cache.hot(entry).map(|hot| hot.verdict()) {
            self.release(verdict);
        }
        cache.remove(key, hash);
    }

    /// Walk again for a lane that was a hit, and compare. The walk's own effects are not brought about.
    pub fn agrees(
        &mut self,
        burst: &Burst,
        lane: usize,
        ingress: &Ingress,
        moment: Moment,
        turn: &Turn<'_>,
    ) -> Option<bool> {
        let (layers, frame) = (burst.layers.get(lane)?, burst.frames.get(lane)?.as_ref()?);
        let (verdict, vlan) = (*burst.verdicts.get(lane)?, *burst.vlans.get(lane)?);
        let outcome = self.decide(burst, frame, layers, ingress, turn);
        self.release(outcome.verdict);
        // A change in between explains any difference, and a transient verdict is nobody's to compare.
        if outcome.walk.transient || turn.live.cells.now() != moment {
            return None;
        }
        Some((outcome.verdict, outcome.vlan) == (verdict, vlan))
    }
}

/// An entry goes: it accounts for what it served since the last sweep, and names its list no longer.
pub(crate) fn retire<const N: usize>(
    lists: &mut Lists,
    accounts: &mut Accounts,
    hot: &Hot<N>,
    cold: &Cold,
    turn: &Turn<'_>,
) {
    if let Verdict::Multi(list) = hot.verdict() {
        lists.release(list);
    }
    if hot.packets != 0 {
        account(accounts, hot, cold, turn);
    }
}

/// The facts that an entry rests on were used, if it still rests on them.
pub(crate) fn account<const N: usize>(accounts: &mut Accounts, hot: &Hot<N>, cold: &Cold, turn: &Turn<'_>) {
    let made = Moment { generation: hot.generation, ..turn.moment };
    if cold.trail == 0 || !turn.live.cells.unchanged_since(&cold.cells, made) {
        return;
    }
    if let Some(ingress) = turn.program.ingress(FlowKey::in_port_of(&hot.key)) {
        accounts.used(ingress.bridge, cold.trail, turn.live, turn.now);
    }
}
