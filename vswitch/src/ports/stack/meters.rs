//! What each ingress port may ask of the host: so many packets a second, and some at once.
//!
//! The generic cell rate algorithm (ITU-T I.371, Annex A, virtual scheduling): one time per port, the one at which its next
//! packet is due if it keeps to the rate; a packet may come early by what a burst may be.

use std::time::Duration;

use api::PortId;
use pipeline::live::Now;

/// Packets a second.
const RATE: u32 = 2000;
/// Packets at once.
const BURST: u32 = 200;
/// Time between two packets at that rate.
const INTERVAL: Duration = Duration::from_nanos(1_000_000_000 / RATE as u64);

/// The accounts of all ports.
#[derive(Debug, Default)]
pub(super) struct Meters {
    /// By port number: when its next packet is due.
    due: Vec<Duration>,
}

impl Meters {
    /// One more packet that came in by this port. Returns false, charging nothing, if that is one too many.
    pub(super) fn allow(&mut self, port: PortId, now: Now) -> bool {
        if self.due.len() <= port.index() {
            self.due.resize(port.index() + 1, Duration::ZERO);
        }
        let Some(due) = self.due.get_mut(port.index()) else { return false };
        let early = due.saturating_sub(now.0);
        if early > INTERVAL * (BURST - 1) {
            return false;
        }
        *due = (*due).max(now.0) + INTERVAL;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many packets at once are allowed.
    fn allowed(meters: &mut Meters, port: u16, millis: u64, packets: u32) -> u32 {
        let now = Now(Duration::from_millis(millis));
        (0..packets).map(|_| u32::from(meters.allow(PortId(port), now))).sum()
    }

    #[test]
    fn a_port_has_a_burst_and_then_its_rate_and_no_other_port_pays_for_it() {
        let mut meters = Meters::default();
        assert_eq!(allowed(&mut meters, 1, 1000, 1000), BURST);
        assert_eq!(allowed(&mut meters, 1, 1000, 1), 0);
        assert_eq!(allowed(&mut meters, 2, 1000, 1000), BURST);
        assert_eq!(allowed(&mut meters, 1, 1010, 1000), 20, "ten milliseconds at 2000 a second");
        assert_eq!(allowed(&mut meters, 1, 100_000, 1000), BURST, "what is saved up is a burst at most");
    }
}
