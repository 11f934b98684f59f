//! Whose first packets are walked when there are too many: deficit round robin (FASTPATH 6), of what is wanted only.
//!
//! A turn is a burst of each ready queue, and a walk costs as much as thirty hits. So what a queue spends on walks is the time
//! of the others, but only of those who *wait*: whose last burst was full and left frames behind, and was not mostly first
//! packets that were refused, for who asks for too much has no claim that others ask for less.
//!
//! | the others | a queue's share of the turn |
//! |---|---|
//! | have no frames | as much as it wants |
//! | ask for too much, all of them | the same as each of them |
//! | have frames, and do not wait | a little, and what is left of the turn, whoever did not want it |
//! | wait, some of them | as much time as they have, on average |
//!
//! What a queue does not use of its share is saved for some turns, and it owes one share at most. Whatever it has spent, a burst may
//! make a few walks. What is beyond is lost: first packets, never hits.

/// Ticks of a turn that are there for whoever wants them, 40 µs: the rings of those who do not wait are not to run over meanwhile.
const SPARE: i64 = 100_000;
/// Ticks of a queue's share of a turn while nobody waits; and of all shares together, where all ask for too much.
const SHARE: i64 = 50_000;
const SHARES: i64 = 1_000_000;
/// Turns for which a queue may save its share.
const SAVED: i64 = 4;
/// Walks that a burst may make whatever its queue has spent: a storm loses what is beyond this, a lone newcomer nothing.
const FLOOR: usize = 4;
/// What a walk is reckoned to cost, ticks, when a share is turned into a number of walks.
const WALK: i64 = 2_000;
/// What a frame and a walk cost at most, ticks: a burst that took longer was interrupted, which is nobody's doing.
const MOST: (u64, u64) = (16_000, 16_000);

/// What a queue has used of its share.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Ticks it may still spend on first packets.
    credit: i64,
    /// It waits, and its last burst cost so many ticks.
    waits: Option<i64>,
    /// It asks for too much.
    greedy: bool,
}

/// What became of a burst.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spent {
    pub(super) ticks: u64,
    pub(super) frames: usize,
    pub(super) walks: usize,
    /// First packets that were not walked.
    pub(super) refused: usize,
    /// There were more frames.
    pub(super) more: bool,
}

/// What the queues of a worker share.
#[derive(Debug, Default)]
pub(super) struct Shares {
    /// What is left of this turn for whoever wants it, ticks.
    spare: i64,
    /// Of the last turn, and of this one so far.
    last: Seen,
    now: Seen,
}

/// What there was in a turn.
#[derive(Debug, Default)]
struct Seen {
    /// Queues that had frames.
    busy: i64,
    /// Those of them that wait, and what their bursts cost, ticks.
    waiting: i64,
    cost: i64,
    /// Those of them that ask for too much.
    greedy: i64,
}

impl Shares {
    /// A turn begins.
    #[inline]
    pub(super) fn turn(&mut self) {
        self.last = std::mem::take(&mut self.now);
        self.spare = SPARE;
    }

    /// Walks that the next burst of a queue may make.
    #[inline]
    pub(super) fn walks(&self, account: &mut Account) -> usize {
        let Seen { busy, waiting, cost, greedy } = self.last;
        if busy <= 1 {
            account.credit = 0;
            return usize::MAX;
        }
        let (others, theirs) = (waiting - i64::from(account.waits.is_some()), cost - account.waits.unwrap_or(0));
        let most = SHARES / busy;
        let share = match others {
            0 if greedy - i64::from(account.greedy) >= busy - 1 => most,
            0 => SHARE.min(most),
            _ => (theirs / others).min(most),
        };
        account.credit = (account.credit + share).min(share * SAVED);
        let ticks = if others > 0 { account.credit } else { account.credit.max(self.spare) };
        usize::try_from(ticks / WALK).unwrap_or(0).max(FLOOR)
    }

    /// A burst was taken and carried out.
    #[inline]
    pub(super) fn charge(&mut self, account: &mut Account, spent: Spent) {
        let Spent { ticks, frames, walks, refused, more } = spent;
        let most = frames as u64 * MOST.0 + walks as u64 * MOST.1;
        let cost = ticks.min(most) as i64;
        self.spare -= walks as i64 * WALK;
        account.credit = (account.credit - cost).max(-SHARE);
        if !more {
            // Whoever leaves nothing behind owes nothing.
            account.credit = account.credit.max(0);
        }
        account.greedy = refused * 2 > frames;
        account.waits = (more && !account.greedy).then_some(cost);
        self.now.busy += i64::from(frames != 0);
        self.now.greedy += i64::from(account.greedy);
        self.now.waiting += i64::from(account.waits.is_some());
        self.now.cost += account.waits.unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue of a model: what comes in a tick, of what it is full of, and what became of it.
    #[derive(Default)]
    struct Queue {
        account: Account,
        rate: f64,
        /// A frame is a first one; else a hit.
        first: bool,
        waiting: f64,
        served: u64,
        /// First packets beyond the walks that were allowed, and frames beyond the ring.
        dropped: u64,
        overrun: f64,
    }

    const HIT: u64 = 70;
    const BURST: u64 = 256;
    const RING: f64 = 1024.0;

    impl Queue {
        fn of(rate: f64, first: bool) -> Self {
            Self { rate, first, ..Self::default() }
        }

        fn burst(&mut self, shares: &mut Shares) -> u64 {
            let frames = BURST.min(self.waiting as u64);
            self.waiting -= frames as f64;
            if frames == 0 {
                shares.charge(&mut self.account, Spent { ticks: 20, ..Spent::default() });
                return 20;
            }
            let walks = shares.walks(&mut self.account).min(if self.first { frames as usize } else { 0 });
            let ticks = frames * HIT + walks as u64 * WALK as u64;
            let lost = if self.first { frames - walks as u64 } else { 0 };
            let (frames, refused, more) = (frames as usize, lost as usize, self.waiting >= 1.0);
            shares.charge(&mut self.account, Spent { ticks, frames, walks, refused, more });
            let frames = frames as u64;
            (self.served, self.dropped) = (self.served + frames - lost, self.dropped + lost);
            ticks
        }
    }

    /// What becomes of queues in so many ticks.
    fn run(queues: &mut [Queue], until: u64) {
        let (mut shares, mut now) = (Shares::default(), 0);
        while now < until {
            shares.turn();
            let took: u64 = queues.iter_mut().map(|queue| queue.burst(&mut shares)).sum();
            now += took;
            for queue in queues.iter_mut() {
                let waiting = queue.waiting + queue.rate * took as f64;
                queue.waiting = waiting.min(RING);
                queue.overrun += waiting - queue.waiting;
            }
        }
    }

    #[test]
    fn a_victim_that_asks_for_less_than_its_share_loses_nothing_to_a_flood_of_first_packets() {
        for floods in [1, 3] {
            // A third of what the worker could carry of hits, and as many first packets as a ring holds.
            let mut queues = vec![Queue::of(0.33 / HIT as f64 / floods as f64, false)];
            queues.extend((0..floods).map(|_| Queue::of(1.0, true)));
            run(&mut queues, 1_000_000_000);
            let victim = &queues[0];
            assert!(victim.overrun < victim.served as f64 / 100.0, "{floods}: {} of {}", victim.overrun, victim.served);
            assert!(queues[1].served > 10_000, "the flood has its share, too: {}", queues[1].served);
        }
    }

    #[test]
    fn newcomers_get_what_others_do_not_want_however_many_these_are() {
        // 100 queues with a few hits now and then, and one with 200,000 first packets a second: 30 in a turn, or more.
        let mut queues: Vec<Queue> = (0..100).map(|_| Queue::of(0.0001, false)).collect();
        queues.push(Queue::of(200_000.0 / 2.6e9, true));
        run(&mut queues, 1_000_000_000);
        let newcomer = queues.last().unwrap();
        assert!(newcomer.served > 70_000);
        assert_eq!(newcomer.dropped, 0);
    }

    #[test]
    fn who_all_have_first_packets_only_lose_little_time_on_what_they_lose() {
        let mut queues = vec![Queue::of(1.0, true), Queue::of(1.0, true)];
        run(&mut queues, 1_000_000_000);
        let walks = queues.iter().map(|queue| queue.served).sum::<u64>();
        assert!(walks as i64 * WALK > 900_000_000, "{walks} walks in a billion ticks");
        assert!(queues[0].served.abs_diff(queues[1].served) < walks / 10, "the same each");
    }

    #[test]
    fn nobody_pays_for_an_interruption() {
        let mut shares = Shares { last: Seen { busy: 2, waiting: 1, cost: 9000, greedy: 0 }, ..Shares::default() };
        let mut account = Account::default();
        // Four milliseconds in which the system ran somebody else: it is not known who it was.
        let spent = Spent { ticks: 10_000_000, frames: 1, walks: 1, refused: 0, more: true };
        shares.charge(&mut account, spent);
        assert_eq!(account.credit, -32_000);
        assert!(shares.walks(&mut account) >= FLOOR);
        shares.charge(&mut account, Spent { more: false, ..spent });
        assert_eq!(account.credit, 0, "who leaves nothing behind owes nothing");
    }

    #[test]
    fn a_lone_queue_walks_as_much_as_it_wants_and_every_queue_a_little() {
        let mut account = Account { credit: -SHARE, waits: Some(9000), greedy: false };
        let seen =
            |busy| Shares { last: Seen { busy, waiting: busy, cost: 9000 * busy, greedy: 0 }, ..Shares::default() };
        assert_eq!(seen(1).walks(&mut account), usize::MAX);
        account.credit = -SHARE;
        assert_eq!(seen(9).walks(&mut account), FLOOR);
    }
}
