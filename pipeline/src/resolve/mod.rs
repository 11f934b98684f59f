//! resolve: a miss walks the stages, is decided, and is remembered.
//!
//! A walk is *decide* (pure) and then *effects* (learn). Frames of a burst that miss on the same key follow the first:
//! it alone walks.

pub mod ahead;
pub mod fragments;
pub mod lists;
pub mod parked;
pub mod program;
pub mod stage;
pub mod stages;
pub mod topology;
pub mod trace;
pub mod tracking;
mod train;
#[cfg(test)]
pub(crate) mod trial;
pub mod walk;

use api::{AddressKey, PortId};

use crate::burst::{Burst, Extra, Lanes, Layers, Verdict, VlanEdit, guard};
use crate::drop::DropReason;
use crate::live::connections::{Committed, Event, Found};
use crate::live::meters::Meter;
use crate::live::stations::Heard;
use crate::parse;
use crate::probe::cache::{Cold, Decision, FlowCache, Hot};
use crate::probe::cells::Moment;
use crate::probe::trail::{Accounts, Trail};
use crate::probe::{Answer, ask, key};
use crate::raw::{Frame, Stash};
use crate::reply::Request;
use crate::rewrite::edits::Edits;
use crate::rewrite::related::{self, Related};
use crate::rewrite::{self, fragment};
use crate::{Turn, key::FlowKey};
use lists::Lists;
use program::Ingress;
use stage::{Next, Reply};
use walk::{Chosen, Effect, Walk};

/// Times that a walk is made for one frame: the second time, what another worker was quicker to do is there to be found.
const ATTEMPTS: usize = 3;

/// What a worker's misses share.
#[derive(Debug, Default)]
pub struct Resolver {
    /// Lists that `Multi` verdicts name.
    pub lists: Lists,
    /// What swept and evicted entries account to.
    pub accounts: Accounts,
    /// Fragments whose others have not come.
    pub fragments: fragments::Fragments,
    /// Frames whose next hop is asked for.
    pub parked: parked::Parked,
    /// Neighbours that walks want asked for.
    questions: Vec<Question>,
    /// What is foreseen of a burst's misses.
    sights: Vec<ahead::Sight>,
    /// Lists of a walk that is over, for the next.
    spare: (Vec<walk::Copy>, Vec<Effect>),
    /// This burst's decisions that are not kept, for those who follow: lane, verdict, tag, headers.
    transient: Vec<(usize, Verdict, VlanEdit, Edits)>,
}

/// A neighbour to be asked for.
#[derive(Debug)]
struct Question {
    port: PortId,
    vlan: VlanEdit,
    request: Request,
}

/// What was decided for a frame, and what is still to be done.
#[derive(Debug)]
struct Judgement {
    verdict: Verdict,
    vlan: VlanEdit,
    edits: Edits,
    /// Instead of the verdict.
    ending: Ending,
    /// To be remembered; `None` if it is not.
    decision: Option<Decision>,
    /// It holds for no other frame.
    looked: bool,
    /// Of the first fragment of a datagram: octets of the whole, transport header included.
    octets: Option<usize>,
}

/// How a walk can end but by a verdict.
#[derive(Debug)]
enum Ending {
    /// By the verdict.
    Verdict,
    /// The sender is answered.
    Reply(Reply, api::MacAddr),
    /// The frame waits for a neighbour.
    Wait(AddressKey),
    /// The packet leaves in pieces of at most so many octets.
    Cut(u16),
    /// The frame was for the switch, which has taken notice.
    Consumed,
    /// The frame is an error about a connection: what it quotes is translated too.
    Related(Related),
}

/// What became of a walk's effects.
enum Effects {
    /// They are brought about; the connection that was made, if one was.
    Done(Option<Found>),
    /// Another worker made the connection first.
    Again,
    /// The connection cannot be made.
    Refused(DropReason),
}

/// What judging a frame needs beside the frame.
#[derive(Clone, Copy)]
struct Court<'a> {
    in_port: PortId,
    ingress: &'a Ingress,
    turn: &'a Turn<'a>,
}

impl Resolver {
    /// Decide those of `lanes` that are still pending, and edit their frames. At most `turn.walks` walks are made; the rest is
    /// dropped as `miss-overload`. Returns how many were made.
    pub fn resolve<const N: usize>(
        &mut self,
        cache: &mut FlowCache<N>,
        burst: &mut Burst,
        lanes: impl Lanes,
        ingress: &Ingress,
        turn: &Turn<'_>,
        stash: &mut Stash,
    ) -> usize {
        let mut walks = 0;
        self.transient.clear();
        if ingress.routed {
            ahead::look::<N>(&mut self.sights, burst, lanes, ingress.bridge, turn);
        }
        let court = Court { in_port: burst.in_port, ingress, turn };
        for lane in lanes.each() {
            if burst.verdicts.get(lane) != Some(&Verdict::Pending) {
                continue;
            }
            self.lane(cache, burst, lane, court, stash, &mut walks);
        }
        walks
    }

    fn lane<const N: usize>(
        &mut self,
        cache: &mut FlowCache<N>,
        burst: &mut Burst,
        lane: usize,
        court: Court<'_>,
        stash: &mut Stash,
        walks: &mut usize,
    ) {
        let (Some(&layers), Some(&hash)) = (burst.layers.get(lane), burst.hashes.get(lane)) else { return };
        let Some(mut frame) = burst.frames.get_mut(lane).and_then(Option::take) else { return };
        if layers.guard & guard::FRAGMENT != 0 && court.ingress.tracked {
            let key = parse::key(court.in_port, frame.head(), &layers).masked(&court.ingress.mask);
            // What is for a group is not tracked: each fragment goes its way.
            if !key.eth_dst().is_group() {
                self.fragment(frame, layers, key, court.ingress.bridge, court, &mut burst.extra, stash);
                if let Some(verdict) = burst.verdicts.get_mut(lane) {
                    *verdict = Verdict::Taken;
                }
                return;
            }
        }
        let (verdict, vlan) = match self.known(cache, burst, lane, frame.len(), court) {
            Some((verdict, vlan, edits)) => {
                let fits = edits.is_empty() || edits.apply(&mut frame, &layers);
                (if fits { verdict } else { Verdict::Drop(DropReason::NoFrame) }, vlan)
            }
            None if *walks == court.turn.walks => (Verdict::Drop(DropReason::MissOverload), VlanEdit::Keep),
            None => {
                *walks += 1;
                let whole = key::<N>(burst, lane).map_or(FlowKey::EMPTY, FlowKey::of_words);
                let judgement = self.judge(whole, frame.head(), &layers, court);
                self.ask(court.in_port, &mut burst.extra, stash);
                if let (Some(decision), Some(key)) = (&judgement.decision, key::<N>(burst, lane)) {
                    self.remember(cache, (key, hash), frame.len(), decision, court);
                } else {
                    court.turn.counters.coverage.walk_transient.add(1);
                    if !judgement.looked && matches!(judgement.ending, Ending::Verdict) {
                        self.transient.push((lane, judgement.verdict, judgement.vlan, judgement.edits));
                    }
                    self.release(judgement.verdict);
                }
                let vlan = judgement.vlan;
                match self.carry_out(&judgement, frame, &layers, court, &mut burst.extra, stash) {
                    (verdict, Some(back)) => {
                        frame = back;
                        (verdict, vlan)
                    }
                    (verdict, None) => {
                        if let Some(at) = burst.verdicts.get_mut(lane) {
                            *at = verdict;
                        }
                        return;
                    }
                }
            }
        };
        if let (Some(at), Some(edit), Some(place)) =
            (burst.verdicts.get_mut(lane), burst.vlans.get_mut(lane), burst.frames.get_mut(lane))
        {
            (*at, *edit, *place) = (verdict, vlan, Some(frame));
        }
    }

    /// What an earlier lane of this burst has walked for.
    fn known<const N: usize>(
        &mut self,
        cache: &mut FlowCache<N>,
        burst: &Burst,
        lane: usize,
        octets: usize,
        court: Court<'_>,
    ) -> Option<(Verdict, VlanEdit, Edits)> {
        let key = key::<N>(burst, lane)?;
        let (guard, hash) = (burst.layers.get(lane)?.guard, *burst.hashes.get(lane)?);
        let Turn { moment, live, .. } = court.turn;
        if let Some(entry) = cache.find(key, hash) {
            match ask(cache, entry, (key, hash), guard, octets, *moment, &live.cells) {
                Answer::Hit { entry, verdict, vlan, .. } => {
                    let edited = cache.hot(entry).is_some_and(|hot| hot.is_edited());
                    let edits = if edited { cache.edits(entry).copied() } else { None };
                    return Some((verdict, vlan, edits.unwrap_or_default()));
                }
                Answer::Stale => self.discard(cache, entry, key, hash),
                Answer::No => {}
            }
        }
        let same = |&&(first, ..): &&(usize, Verdict, VlanEdit, Edits)| {
            crate::probe::key::<N>(burst, first) == Some(key)
                && burst.layers.get(first).is_some_and(|other| other.guard == guard)
        };
        self.transient.iter().find(same).map(|&(_, verdict, vlan, edits)| (verdict, vlan, edits))
    }

    /// Ask for neighbours, as walks said.
    fn ask(&mut self, in_port: PortId, extra: &mut Vec<Extra>, stash: &mut Stash) {
        for Question { port, vlan, request } in self.questions.drain(..) {
            let Some(mut frame) = stash.take() else { continue };
            if crate::reply::request(&mut frame, &request) && rewrite::vlan(&mut frame, vlan) {
                extra.push(Extra { frame, port, from: in_port });
            } else {
                stash.give(frame);
            }
        }
    }

    /// Put a decision into the cache.
    fn remember<const N: usize>(
        &mut self,
        cache: &mut FlowCache<N>,
        (key, hash): (&[u64; N], u64),
        octets: usize,
        decision: &Decision,
        court: Court<'_>,
    ) {
        let turn = court.turn;
        let (lists, accounts) = (&mut self.lists, &mut self.accounts);
        let mut evicted = |hot: &Hot<N>, cold: &Cold| {
            turn.counters.coverage.cache_evicted.add(1);
            retire(lists, accounts, hot, cold, turn);
        };
        let entry = cache.insert(*key, hash, turn.moment.generation, turn.now.second(), decision, &mut evicted);
        match cache.hot(entry) {
            Some(hot) => (hot.packets, hot.bytes) = (1, octets as u64),
            // There was no room, so no entry names the list.
            None => self.release(decision.verdict),
        }
    }

    /// No entry names the list of this verdict any more, or none ever will.
    fn release(&mut self, verdict: Verdict) {
        if let Verdict::Multi(list) = verdict {
            self.lists.release(list);
        }
    }

    /// Decide one frame, of which this is the masked key, and bring about what the decision says, but for what is done to the
    /// frame itself.
    fn judge(&mut self, key: FlowKey, head: &[u8], layers: &Layers, court: Court<'_>) -> Judgement {
        let turn = court.turn;
        for _ in 0..ATTEMPTS {
            turn.counters.coverage.walk.add(1);
            let mut walk = Walk::new(key, *layers, head, turn.program.topology(), turn.live, turn.now);
            // Lists that have grown already: a walk asks the system for no memory.
            (walk.outputs, walk.effects) = std::mem::take(&mut self.spare);
            let next = turn.program.decide(&mut walk);
            if let Some(denied) = walk.denied.take() {
                walk.trail = Trail::Denial(turn.live.denials.note(&denied, walk.tuple, turn.now));
            }
            match self.effects(&mut walk, next, turn) {
                Effects::Done(made) => return self.judgement(&mut walk, next, made),
                Effects::Again => {}
                Effects::Refused(reason) => {
                    walk.transient = true;
                    return self.judgement(&mut walk, Next::Drop(reason), None);
                }
            }
        }
        let mut walk = Walk::new(key, *layers, head, turn.program.topology(), turn.live, turn.now);
        walk.transient = true;
        self.judgement(&mut walk, Next::Drop(DropReason::WalkTooLong), None)
    }

    /// What a walk that ended with `next` comes to.
    fn judgement(&mut self, walk: &mut Walk<'_>, next: Next, made: Option<Found>) -> Judgement {
        let mut ending = Ending::Verdict;
        if let Some(found) = made {
            // Only now is it known where it seems to come from.
            tracking::translate(&mut walk.key, &found.reply.turned());
        }
        let (verdict, vlan) = match next {
            Next::Deliver | Next::Continue | Next::Enter(_) => self.ways(walk),
            Next::Drop(reason) => (Verdict::Drop(reason), VlanEdit::Keep),
            Next::Reply(reply) => {
                let mac = walk.router.map(|router| router.mac).unwrap_or_default();
                ending = Ending::Reply(reply, mac);
                (Verdict::Taken, VlanEdit::Keep)
            }
            Next::Wait(neighbor, _) => {
                ending = Ending::Wait(neighbor);
                (Verdict::Taken, VlanEdit::Keep)
            }
            Next::Consumed => {
                ending = Ending::Consumed;
                (Verdict::Taken, VlanEdit::Keep)
            }
        };
        let delivers = matches!(verdict, Verdict::Output(_) | Verdict::Multi(_));
        if let (true, Some(related)) = (delivers, walk.related) {
            ending = Ending::Related(related);
        }
        if let (true, Some(mtu)) = (delivers, walk.cut) {
            ending = Ending::Cut(mtu);
        }
        let edits = if delivers { Edits::between(&walk.start, &walk.key, walk.hops) } else { Edits::default() };
        let connection = walk.connection.or(made).map(|found| (found.name, found.direction));
        // The choice among a service's backends is of the moment: only a connection keeps it.
        let fleeting = walk.service.is_some() && made.is_none();
        let transient = walk.transient || fleeting || !matches!(ending, Ending::Verdict) || {
            // A remembered decision for a frame without a connection ends when there is one.
            connection.is_none()
                && walk.tuple.is_some_and(|tuple| !walk.live.connections.rest_on_absence(&tuple, &walk.live.cells))
        };
        let decision = (!transient).then(|| Decision {
            verdict,
            vlan,
            guard: walk.guard,
            deps: walk.asked.deps(made.is_some()),
            trail: walk.trail.pack(),
            edits,
            connection,
        });
        self.spare = (std::mem::take(&mut walk.outputs), std::mem::take(&mut walk.effects));
        self.spare.0.clear();
        self.spare.1.clear();
        Judgement { verdict, vlan, edits, ending, decision, looked: walk.looked, octets: None }
    }

    /// The ways out of a walk as a verdict. Pure but for the interned list.
    fn ways(&mut self, walk: &Walk<'_>) -> (Verdict, VlanEdit) {
        match *walk.outputs.as_slice() {
            [] => (Verdict::Drop(DropReason::NoPort), VlanEdit::Keep),
            [copy] => (Verdict::Output(copy.port), copy.vlan),
            ref list => (Verdict::Multi(self.lists.obtain(list)), VlanEdit::Keep),
        }
    }

    /// Do to a frame what was decided. Gives it back if it is still there.
    fn carry_out(
        &mut self,
        judgement: &Judgement,
        mut frame: Frame,
        layers: &Layers,
        court: Court<'_>,
        extra: &mut Vec<Extra>,
        stash: &mut Stash,
    ) -> (Verdict, Option<Frame>) {
        let Court { in_port, turn, .. } = court;
        let (verdict, fits) = match &judgement.ending {
            Ending::Verdict => {
                let edits = &judgement.edits;
                (judgement.verdict, edits.is_empty() || edits.apply_to(&mut frame, layers, judgement.octets))
            }
            Ending::Related(related) => {
                let finished = !frame.offload().is_some_and(|offload| offload.needs_csum());
                let fits = related::translate(frame.head_mut(), layers, related, finished)
                    && judgement.edits.of_the_link().apply(&mut frame, layers);
                (judgement.verdict, fits)
            }
            Ending::Reply(reply, mac) => (self.reply(&mut frame, layers, reply, *mac, court, stash), true),
            Ending::Wait(neighbor) => match self.parked.park(frame, in_port, *neighbor, turn.now) {
                Ok(()) => return (Verdict::Taken, None),
                Err((back, reason)) => {
                    frame = back;
                    (Verdict::Drop(reason), true)
                }
            },
            Ending::Cut(mtu) => {
                let fits = judgement.edits.apply(&mut frame, layers);
                if let (true, Verdict::Output(port)) = (fits, judgement.verdict) {
                    let mut leave = |frame| extra.push(Extra { frame, port, from: in_port });
                    let done = rewrite::vlan(&mut frame, judgement.vlan)
                        .then(|| fragment::fragment(frame, layers, *mtu, stash, &mut leave));
                    if let Some(Err(reason)) = done {
                        turn.counters.dropped(in_port, reason);
                    }
                    return (Verdict::Taken, None);
                }
                (Verdict::Drop(DropReason::ExceedsMtu), true)
            }
            Ending::Consumed => {
                stash.give(frame);
                return (Verdict::Taken, None);
            }
        };
        (if fits { verdict } else { Verdict::Drop(DropReason::NoFrame) }, Some(frame))
    }

    /// Turn a frame into the answer to it.
    fn reply(
        &mut self,
        frame: &mut Frame,
        layers: &Layers,
        reply: &Reply,
        mac: api::MacAddr,
        court: Court<'_>,
        stash: &mut Stash,
    ) -> Verdict {
        let Court { in_port, turn, .. } = court;
        let reason = match reply {
            Reply::Neighbor(_) => None,
            Reply::Error(_, _, reason) | Reply::Reset(reason) => Some(*reason),
        };
        let meter = if reason.is_none() { Meter::Neighbors } else { Meter::Errors };
        let refused = Verdict::Drop(reason.unwrap_or(DropReason::ReplyLimit));
        if !turn.live.meters.admit(in_port, meter, turn.now)
            || crate::reply::answer(frame, layers, reply, mac, stash).is_err()
        {
            return refused;
        }
        if let Some(reason) = reason {
            turn.counters.dropped(in_port, reason);
        }
        turn.counters.coverage.reply_sent.add(1);
        Verdict::Output(in_port)
    }

    /// Bring about what a decision says.
    fn effects(&mut self, walk: &mut Walk<'_>, next: Next, turn: &Turn<'_>) -> Effects {
        let live = turn.live;
        let mut made = None;
        let mut effects = std::mem::take(&mut walk.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Hear { bridge, address } => {
                    let in_port = walk.key.in_port();
                    match live.stations.hear(bridge, address, in_port, turn.now, &live.cells) {
                        Some(Heard::Learned(slot)) => {
                            turn.counters.coverage.mac_learned.add(1);
                            walk.trail = Trail::Station(slot);
                        }
                        Some(Heard::Known(slot)) => walk.trail = Trail::Station(slot),
                        Some(Heard::TooSoon) | None => walk.transient = true,
                    }
                }
                Effect::Neighbor { key, mac } => {
                    live.neighbors.learn(key, walk.start.in_port(), mac, turn.now, &live.cells);
                }
                Effect::Solicit { key, port, vlan, request } => {
                    // A port that scans a link does not make the switch flood it.
                    if live.neighbors.solicit(key, port, turn.now, &live.cells)
                        && live.meters.admit(walk.start.in_port(), Meter::Neighbors, turn.now)
                    {
                        self.questions.push(Question { port, vlan, request });
                    }
                }
                Effect::Advance { name, direction, event } => {
                    if !live.connections.advance(name, direction, event, turn.now) {
                        return Effects::Again;
                    }
                }
                Effect::Kill(name) => live.connections.kill(name, turn.now, &live.cells),
                Effect::Commit(plan) if next == Next::Deliver => {
                    let commit = || live.connections.commit(&plan, turn.now, &live.cells);
                    let committed = match walk.service {
                        Some(Chosen { backend, visit: Some(visit), .. }) => {
                            live.affinity.keep(&visit, backend, plan.port, turn.now, commit)
                        }
                        _ => commit(),
                    };
                    match committed {
                        Committed::New(found) => {
                            turn.counters.coverage.connection_made.add(1);
                            made = Some(found);
                        }
                        Committed::Lost => return Effects::Again,
                        Committed::Full => return Effects::Refused(DropReason::ConnectionsFull),
                        Committed::NoPort => return Effects::Refused(DropReason::SnatPorts),
                    }
                }
                Effect::Commit(_) => {}
            }
        }
        walk.effects = effects;
        Effects::Done(made)
    }

    /// Look at what waits: what has been waited for may have come, or the time may be over.
    pub fn wait(&mut self, turn: &Turn<'_>, stash: &mut Stash) {
        let Turn { live, counters, now, .. } = turn;
        if !self.parked.is_empty() {
            self.parked.ready(live.neighbors.changes(), &|neighbor| live.neighbors.is_known(neighbor));
            self.parked.expire(*now, &mut |expired| {
                counters.dropped(expired.in_port, expired.reason);
                stash.give(expired.frame);
            });
        }
        if !self.fragments.is_empty() {
            self.fragments.expire(*now, &mut |frame, port, reason| {
                counters.dropped(port, reason);
                stash.give(frame);
            });
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

    /// Hits that say that their connection ends: its state follows, though the cache has decided.
    pub fn close<const N: usize>(cache: &FlowCache<N>, burst: &Burst, turn: &Turn<'_>) {
        for &(lane, entry) in &burst.closing {
            let lane = usize::from(lane);
            let (Some(layers), Some(Some(frame))) = (burst.layers.get(lane), burst.frames.get(lane)) else { continue };
            let flags = frame.head().get(usize::from(layers.l4) + 13).copied().unwrap_or(0);
            if let Some((name, direction)) = cache.cold(entry).and_then(Cold::tracked) {
                turn.live.connections.advance(name, direction, Event { flags }, turn.now);
            }
        }
    }

    /// Walk again for a lane that was a hit, and compare; its frame is not edited yet. The walk's own effects are not
    /// brought about.
    pub fn agrees<const N: usize>(
        &mut self,
        cache: &FlowCache<N>,
        burst: &Burst,
        lane: usize,
        ingress: &Ingress,
        turn: &Turn<'_>,
    ) -> Option<bool> {
        let (layers, frame) = (burst.layers.get(lane)?, burst.frames.get(lane)?.as_ref()?);
        let (verdict, vlan) = (*burst.verdicts.get(lane)?, *burst.vlans.get(lane)?);
        let edited = if burst.edited.has(lane) { burst.edits.get(lane) } else { None };
        let edits = edited.and_then(|entry| cache.edits(*entry)).copied().unwrap_or_default();
        let key: FlowKey = parse::key(burst.in_port, frame.head(), layers).masked(&ingress.mask);
        let mut walk = Walk::new(key, *layers, frame.head(), turn.program.topology(), turn.live, turn.now);
        let next = turn.program.decide(&mut walk);
        // What would make a connection chooses anew.
        let commits = walk.effects.iter().any(|effect| matches!(effect, Effect::Commit(_)));
        let transient = walk.transient || commits || !matches!(next, Next::Deliver | Next::Drop(_));
        let again = self.judgement(&mut walk, next, None);
        self.release(again.verdict);
        // A change in between explains any difference, and a transient verdict is nobody's to compare.
        if transient || turn.live.cells.now() != turn.moment {
            return None;
        }
        Some((again.verdict, again.vlan, again.edits) == (verdict, vlan, edits))
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
        account(accounts, hot, cold, hot.was_hit(cold), turn);
    }
}

/// The facts that an entry rests on were used, if it still rests on them. Returns false when its connection is another's
/// by now: it must go.
///
/// `hit`: beside the frame that made the entry, of which its connection knows, there were others.
pub(crate) fn account<const N: usize>(
    accounts: &mut Accounts,
    hot: &Hot<N>,
    cold: &Cold,
    hit: bool,
    turn: &Turn<'_>,
) -> bool {
    if hit
        && let Some((name, direction)) = cold.tracked()
        && !turn.live.connections.seen(name, direction, turn.now)
    {
        return false;
    }
    if let Trail::Denial(slot) = Trail::unpack(cold.trail) {
        // The walk that made the entry has counted its own frame.
        let packets = hot.packets - u32::from(cold.packets == 0).min(hot.packets);
        turn.live.denials.count(slot, packets.into(), turn.now);
        return true;
    }
    let made = Moment { generation: hot.generation, ..turn.moment };
    if cold.trail == 0 || !turn.live.cells.unchanged_since(&cold.cells, made) {
        return true;
    }
    if let Some(ingress) = turn.program.ingress(FlowKey::in_port_of(&hot.key)) {
        accounts.used(ingress.bridge, cold.trail, turn.live, turn.now);
    }
    true
}
