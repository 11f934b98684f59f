//! A claim, its evidence, its control, and how they print.
//!
//! A claim is proved by a *pair* of runs of one probe: one where it must get through and one, the control, where it
//! must not (or the other way round, for a claim of silence). A probe that cannot fail proves nothing, so there is no
//! way to report a claim without its control. What went wrong with the lab itself (a socket that cannot be bound) is
//! an error, never a [`Probe`]: a control must not pass because the lab was broken.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

/// What one run of a probe saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It got through; what the other end's socket received.
    Arrived(String),
    /// It did not; what was waited for, and how long.
    Silent(String),
}

impl Probe {
    /// It got through.
    pub fn arrived(&self) -> bool {
        matches!(self, Self::Arrived(_))
    }

    /// What was seen.
    pub fn text(&self) -> &str {
        match self {
            Self::Arrived(text) | Self::Silent(text) => text,
        }
    }
}

/// The run of the same probe where it must come out the other way.
#[derive(Clone, Debug)]
pub struct Control {
    /// What was different: `port b removed`.
    pub when: String,
    /// What it saw.
    pub saw: Probe,
}

impl Control {
    /// The same probe, when this was different.
    pub fn new(when: impl Into<String>, saw: Probe) -> Self {
        Self { when: when.into(), saw }
    }
}

/// A line for people. A reader that went away (`labs | head`) is no reason to stop, and none to panic.
pub fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A claim with all that was seen of it.
#[derive(Clone, Debug)]
struct Claim {
    text: &'static str,
    proved: bool,
    evidence: String,
    control: Option<Control>,
}

impl Claim {
    fn print(&self) -> String {
        let mark = if self.proved { '✓' } else { '✗' };
        let mut lines = format!("  {mark} {}\n      {}", self.text, self.evidence);
        if let Some(control) = &self.control {
            lines += &format!("\n      control, {}: {}", control.when, control.saw.text());
        }
        lines
    }

    fn json(&self) -> Value {
        let control = self.control.as_ref().map(|control| json!({"when": control.when, "saw": control.saw.text()}));
        json!({"claim": self.text, "proved": self.proved, "evidence": self.evidence, "control": control})
    }
}

/// What one run of one lab came to. Prints each thing as it is said, unless the report is for a machine.
#[derive(Debug)]
pub struct Report {
    lab: &'static str,
    quiet: bool,
    claims: Vec<Claim>,
    measured: Vec<String>,
    error: Option<String>,
    elapsed: Duration,
}

impl Report {
    /// An empty report; a `quiet` one prints nothing.
    pub fn new(lab: &'static str, quiet: bool) -> Self {
        Self { lab, quiet, claims: Vec::new(), measured: Vec::new(), error: None, elapsed: Duration::ZERO }
    }

    /// Something for people: a drawing, a table, a step.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            print(text);
        }
    }

    /// A figure: neither proved nor disproved.
    pub fn measured(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.say(&format!("  · {text}"));
        self.measured.push(text);
    }

    /// `text` is proved when the probe arrived and its control did not.
    pub fn reaches(&mut self, text: &'static str, probe: &Probe, control: Control) {
        let proved = probe.arrived() && !control.saw.arrived();
        self.add(Claim { text, proved, evidence: probe.text().to_owned(), control: Some(control) });
    }

    /// `text` is proved when the probe stayed silent and its control arrived.
    pub fn separates(&mut self, text: &'static str, probe: &Probe, control: Control) {
        let proved = !probe.arrived() && control.saw.arrived();
        self.add(Claim { text, proved, evidence: probe.text().to_owned(), control: Some(control) });
    }

    /// The run is over; `error` is why it stopped early. Claims of the lab that it did not come to are not proved.
    pub fn finish(&mut self, claims: &'static [&'static str], error: Option<&anyhow::Error>, elapsed: Duration) {
        self.elapsed = elapsed;
        if let Some(error) = error {
            self.error = Some(format!("{error:#}"));
            self.say(&format!("  ! the lab stopped: {error:#}"));
        }
        for text in claims {
            if !self.claims.iter().any(|claim| claim.text == *text) {
                self.add(Claim {
                    text,
                    proved: false,
                    evidence: "the lab did not come to it".to_owned(),
                    control: None,
                });
            }
        }
    }

    /// Every claim is proved, and the run ended in good order.
    pub fn proved(&self) -> bool {
        self.error.is_none() && self.claims.iter().all(|claim| claim.proved)
    }

    /// It stopped with an error.
    pub fn stopped(&self) -> bool {
        self.error.is_some()
    }

    /// How many claims are proved, and how many there are.
    pub fn score(&self) -> (usize, usize) {
        (self.claims.iter().filter(|claim| claim.proved).count(), self.claims.len())
    }

    /// For machines.
    pub fn json(&self) -> Value {
        json!({
            "lab": self.lab,
            "proved": self.proved(),
            "seconds": self.elapsed.as_secs_f64(),
            "claims": self.claims.iter().map(Claim::json).collect::<Vec<_>>(),
            "measured": self.measured,
            "error": self.error,
        })
    }

    fn add(&mut self, claim: Claim) {
        self.say(&claim.print());
        self.claims.push(claim);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived() -> Probe {
        Probe::Arrived("3 octets from 10.0.0.1".into())
    }

    fn silent() -> Probe {
        Probe::Silent("nothing within 1 s".into())
    }

    fn report(probe: &Probe, control: Probe) -> Report {
        let mut report = Report::new("test", true);
        report.reaches("a reaches b", probe, Control::new("b removed", control));
        report
    }

    #[test]
    fn a_claim_needs_both_its_probe_and_its_control() {
        assert!(report(&arrived(), silent()).proved());
        assert!(!report(&arrived(), arrived()).proved());
        assert!(!report(&silent(), silent()).proved());
    }

    #[test]
    fn a_claim_of_silence_needs_a_control_that_arrives() {
        let mut report = Report::new("test", true);
        report.separates("a does not reach c", &silent(), Control::new("same VLAN", arrived()));
        assert!(report.proved());
        report.separates("a does not reach c", &silent(), Control::new("same VLAN", silent()));
        assert!(!report.proved());
    }

    #[test]
    fn claims_that_a_lab_did_not_come_to_are_not_proved() {
        let mut report = report(&arrived(), silent());
        report.finish(&["a reaches b", "b reaches a"], None, Duration::from_secs(1));
        assert_eq!(report.score(), (1, 2));
        assert_eq!(report.json()["claims"][1]["proved"], false);
    }

    #[test]
    fn an_error_after_the_last_claim_is_not_hidden() {
        let mut report = report(&arrived(), silent());
        report.finish(&["a reaches b"], Some(&anyhow::anyhow!("the daemon hung")), Duration::ZERO);
        assert!(!report.proved());
    }

    #[test]
    fn evidence_and_control_are_both_printed() {
        let report = report(&arrived(), silent());
        let text = report.claims[0].print();
        assert!(text.contains("3 octets from 10.0.0.1"), "{text}");
        assert!(text.contains("control, b removed: nothing within 1 s"), "{text}");
    }
}
