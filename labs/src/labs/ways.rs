//! One probe over every version of IP and every transport, at once: what holds for one need not hold for another.

use crate::claim::Probe;
use crate::greeter::{BOTH, Over};

use super::cluster::{FAMILIES, Ip};

/// Arrived if it did over both versions of IP.
pub(super) fn every(probe: impl Fn(Ip) -> anyhow::Result<Probe> + Sync) -> anyhow::Result<Probe> {
    Ok(all(&at_once(&FAMILIES, |ip| probe(*ip))?))
}

/// Silent if it was over both versions of IP: for controls.
pub(super) fn some(probe: impl Fn(Ip) -> anyhow::Result<Probe> + Sync) -> anyhow::Result<Probe> {
    Ok(any(&at_once(&FAMILIES, |ip| probe(*ip))?))
}

/// Over both versions of IP and both transports.
pub(super) fn each_way(probe: impl Fn(Ip, Over) -> anyhow::Result<Probe> + Sync) -> anyhow::Result<Vec<Probe>> {
    at_once(&ways(), |(ip, over)| probe(*ip, *over))
}

/// Arrived if it did over both versions of IP and both transports.
pub(super) fn every_way(probe: impl Fn(Ip, Over) -> anyhow::Result<Probe> + Sync) -> anyhow::Result<Probe> {
    Ok(all(&each_way(probe)?))
}

/// Silent if it was over both versions of IP and both transports: for controls.
pub(super) fn some_way(probe: impl Fn(Ip, Over) -> anyhow::Result<Probe> + Sync) -> anyhow::Result<Probe> {
    Ok(any(&each_way(probe)?))
}

/// Arrived if all did; else silent, with the text of those that did not.
pub(super) fn all(probes: &[Probe]) -> Probe {
    if probes.iter().all(Probe::arrived) {
        Probe::Arrived(texts(probes, true))
    } else {
        Probe::Silent(texts(probes, false))
    }
}

/// Arrived if any did, with the text of those that did.
pub(super) fn any(probes: &[Probe]) -> Probe {
    if probes.iter().any(Probe::arrived) {
        Probe::Arrived(texts(probes, true))
    } else {
        Probe::Silent(texts(probes, false))
    }
}

fn texts(probes: &[Probe], arrived: bool) -> String {
    let mut texts: Vec<&str> = probes.iter().filter(|probe| probe.arrived() == arrived).map(Probe::text).collect();
    texts.dedup();
    texts.join("; ")
}

fn ways() -> Vec<(Ip, Over)> {
    FAMILIES.iter().flat_map(|ip| BOTH.map(|over| (*ip, over))).collect()
}

/// A probe waits, most of the time.
pub(super) fn at_once<T: Sync>(
    cases: &[T],
    probe: impl Fn(&T) -> anyhow::Result<Probe> + Sync,
) -> anyhow::Result<Vec<Probe>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = cases.iter().map(|case| scope.spawn(|| probe(case))).collect();
        let joined =
            threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a probe panicked"))?);
        joined.collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_needs_every_way_and_its_control_none() {
        let probe = |arrived: bool| match arrived {
            true => Probe::Arrived("yes".to_owned()),
            false => Probe::Silent("no".to_owned()),
        };
        let mixed = |ip, over| Ok(probe((ip, over) != (Ip::V6, Over::Udp)));
        assert_eq!(every_way(mixed).unwrap(), probe(false));
        assert_eq!(some_way(mixed).unwrap(), Probe::Arrived("yes".to_owned()));
        assert!(every_way(|_, _| Ok(probe(true))).unwrap().arrived());
        assert!(!some_way(|_, _| Ok(probe(false))).unwrap().arrived());
        assert!(every(|_| anyhow::bail!("a socket fails")).is_err());
    }
}
