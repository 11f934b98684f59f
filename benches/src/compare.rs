//! `vsbench compare A.json B.json`: the same work before and after.

use std::fmt::Write;

use crate::report::{Outcome, Report, columns, figure};

/// A table of all work that both reports have, and a line for each that only one has. Ratios are B to A: below 1 is
/// faster.
pub fn compare(before: &Report, after: &Report) -> String {
    let mut rows =
        vec![["scenario", "A tsc/pkt", "B tsc/pkt", "B/A", "A best", "B best", "B/A best"].map(str::to_owned).to_vec()];
    let mut alone = String::new();
    for a in &before.results {
        match partner(a, after) {
            Some(b) => rows.push(vec![
                a.label(),
                figure(a.tsc_per_packet, 1),
                figure(b.tsc_per_packet, 1),
                ratio(a.tsc_per_packet, b.tsc_per_packet),
                figure(a.tsc_best, 1),
                figure(b.tsc_best, 1),
                ratio(a.tsc_best, b.tsc_best),
            ]),
            None => _ = writeln!(alone, "only in A: {}", a.label()),
        }
    }
    for b in after.results.iter().filter(|b| partner(b, before).is_none()) {
        let _ = writeln!(alone, "only in B: {}", b.label());
    }
    format!("A: {}\nB: {}\n\n{}{alone}", before.machine, after.machine, columns(&rows))
}

/// The result of the same work in another report.
fn partner<'a>(outcome: &Outcome, report: &'a Report) -> Option<&'a Outcome> {
    report.results.iter().find(|other| other.label() == outcome.label())
}

fn ratio(a: f64, b: f64) -> String {
    if a > 0.0 && b > 0.0 { format!("{:.3}", b / a) } else { "-".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_work_is_set_side_by_side_and_the_rest_is_named() {
        let outcome =
            |scenario: &str, tsc| Outcome { scenario: scenario.to_owned(), tsc_per_packet: tsc, ..Outcome::default() };
        let a = Report { results: vec![outcome("bridge", 40.0), outcome("old", 1.0)], ..Report::default() };
        let b = Report { results: vec![outcome("new", 1.0), outcome("bridge", 30.0)], ..Report::default() };
        let text = compare(&a, &b);
        assert!(text.contains("0.750"), "{text}");
        assert!(text.contains("only in A: old") && text.contains("only in B: new"), "{text}");
    }
}
