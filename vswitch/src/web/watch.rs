//! Whether the switch does what it is told: what `healthy` means.
//!
//! kube-proxy says that it is not healthy once a change has waited for longer than twice its `syncPeriod` of 30 s
//! (`pkg/proxy/healthcheck/proxy_health.go`). Here, what waits is
//!
//! - a request or a manifest, when the control thread does not come round to it: it counts its rounds, and stands still
//!   when a transaction is not in force because a worker does not go by it;
//! - what follows from the cluster's objects, when the switch refused it;
//! - frames, when a worker neither turns nor sleeps. That is noticed sooner: nobody else reads its ports.
//!
//! Time is counted in looks, a second apart: a process that was stopped for a minute and goes on is not late.

/// Looks after which what waits is late: a minute, kube-proxy's twice 30 s.
const LATE: u32 = 60;
/// Looks after which a worker that stands still is stuck. A turn takes less than a thousandth of one.
const STUCK: u32 = 10;

/// What a look finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Rounds of the control thread.
    pub(super) rounds: u64,
    /// What follows from the cluster's objects is not in force.
    pub(super) behind: bool,
    /// Of each worker: ticks that it has accounted for; `None` while it sleeps.
    pub(super) workers: Vec<Option<u64>>,
}

/// What the looks came to.
#[derive(Debug, Default)]
pub(super) struct Watch {
    rounds: Still,
    behind: u32,
    workers: Vec<Still>,
    fault: Option<String>,
}

/// A number that ought to change, and for how many looks it has not.
#[derive(Debug, Default)]
struct Still {
    number: u64,
    looks: u32,
}

impl Still {
    fn look(&mut self, number: u64) -> u32 {
        self.looks = if self.number == number { self.looks.saturating_add(1) } else { 0 };
        self.number = number;
        self.looks
    }
}

impl Watch {
    /// Nothing is late.
    pub(super) fn is_healthy(&self) -> bool {
        self.fault.is_none()
    }

    /// Take in a look. What begins to be wrong, or right again, is logged.
    pub(super) fn look(&mut self, look: &Look) {
        let fault = self.judge(look);
        match (&self.fault, &fault) {
            (None, Some(why)) => tracing::error!("unhealthy: {why}"),
            (Some(_), None) => tracing::info!("healthy again"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        self.fault = fault;
    }

    fn judge(&mut self, look: &Look) -> Option<String> {
        let waits = self.rounds.look(look.rounds);
        self.behind = if look.behind { self.behind.saturating_add(1) } else { 0 };
        self.workers.resize_with(look.workers.len(), Still::default);
        let mut stuck = None;
        for (number, (still, ticks)) in self.workers.iter_mut().zip(&look.workers).enumerate() {
            match ticks {
                None => still.looks = 0,
                Some(ticks) if still.look(*ticks) >= STUCK => stuck = stuck.or(Some(number)),
                Some(_) => {}
            }
        }
        match stuck {
            Some(number) => Some(format!("worker {number} has not turned for {STUCK} seconds")),
            None if waits >= LATE => Some(format!("requests and manifests have waited for {LATE} seconds")),
            None if self.behind >= LATE => {
                Some(format!("the cluster's objects have not been in force for {LATE} seconds"))
            }
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name, what look number n finds, and the look that notices.
    type Row = (&'static str, fn(u32) -> Look, Option<u32>);

    /// The look after which it is not healthy, when `now` says what look number n finds.
    fn fails_after(now: impl Fn(u32) -> Look) -> Option<u32> {
        let mut watch = Watch::default();
        (1..=200).find(|n| {
            watch.look(&now(*n));
            !watch.is_healthy()
        })
    }

    fn well(n: u32) -> Look {
        Look { rounds: n.into(), behind: false, workers: vec![Some(n.into()), None] }
    }

    #[test]
    fn what_stands_still_is_noticed_in_time() {
        assert_eq!(fails_after(well), None);
        let rows: [Row; 6] = [
            ("the control thread stands", |n| Look { rounds: 1, ..well(n) }, Some(1 + LATE)),
            ("it comes round each minute", |n| Look { rounds: (n / LATE).into(), ..well(n) }, None),
            ("a refused transaction", |n| Look { behind: true, ..well(n) }, Some(LATE)),
            ("refused now and then", |n| Look { behind: n % 50 != 0, ..well(n) }, None),
            ("a worker stands", |n| Look { workers: vec![None, Some(7)], ..well(n) }, Some(1 + STUCK)),
            ("a worker sleeps", |n| Look { workers: vec![Some(7).filter(|_| n % 9 != 0)], ..well(n) }, None),
        ];
        for (name, now, expected) in rows {
            assert_eq!(fails_after(now), expected, "{name}");
        }
    }

    #[test]
    fn what_goes_on_is_healthy_again() {
        let mut watch = Watch::default();
        (0..=LATE).for_each(|n| watch.look(&Look { rounds: 1, ..well(n) }));
        assert!(!watch.is_healthy());
        watch.look(&Look { rounds: 2, ..well(LATE + 1) });
        assert!(watch.is_healthy());
    }
}
