//! Which CPUs there are, and which one a thread runs on.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPUs that this process may run on, ascending. Never empty: CPU 0 when the system does not say.
pub fn usable() -> Vec<u16> {
    let Ok(set) = sched_getaffinity(None) else { return vec![0] };
    let cpus: Vec<u16> = (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).map(|cpu| cpu as u16).collect();
    if cpus.is_empty() { vec![0] } else { cpus }
}

/// Keep the calling thread on one CPU.
///
/// # Errors
/// When there is no such CPU, or the process may not use it.
pub fn pin(cpu: u16) -> io::Result<()> {
    let mut set = CpuSet::new();
    if usize::from(cpu) >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    set.set(usize::from(cpu));
    Ok(sched_setaffinity(None, &set)?)
}

/// A list of CPUs as `--cpus` and the kernel's own files write it: `0,2-3`. Order and repetition do not matter.
///
/// # Errors
/// What is wrong with it: one line.
pub fn parse_list(text: &str) -> Result<Vec<u16>, String> {
    let mut cpus = std::collections::BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| match text.trim().parse::<u16>() {
            Ok(cpu) if usize::from(cpu) < CpuSet::MAX_CPU => Ok(cpu),
            _ => Err(format!("{part:?} is neither a CPU below {} nor a range of them", CpuSet::MAX_CPU)),
        };
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("{part:?} is a range that ends before it begins"));
        }
        cpus.extend(first..=last);
    }
    Ok(cpus.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_ranges_and_numbers_between_commas() {
        assert_eq!(parse_list("0,2-3").unwrap(), [0, 2, 3]);
        assert_eq!(parse_list("3, 1,1-2").unwrap(), [1, 2, 3]);
        for text in ["", "x", "1,", "3-1", "0-", "-1", "1024", "0-70000", "1-2-3"] {
            assert!(parse_list(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_thread_is_kept_on_the_cpu_it_was_pinned_to() {
        let cpu = usable()[0];
        std::thread::spawn(move || {
            pin(cpu).unwrap();
            assert_eq!(usable(), [cpu]);
            assert!(pin(u16::MAX).is_err());
        })
        .join()
        .unwrap();
    }
}
