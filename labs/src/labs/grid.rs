//! Who reaches whom, as a grid: sources, destinations, ports, transports and versions of IP, all of it asked at once and
//! compared with what a lab says that it is to be.

use std::net::SocketAddr;

use anyhow::Context;

use super::cluster::{Dual, FAMILIES, Ip};
use crate::claim::Probe;
use crate::host::Host;
use crate::mesh::{End, Fate, Mesh, Question, TRANSPORTS, Transport};

/// One of the sources and, if it is told so, of the destinations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member<'a> {
    pub(super) name: &'static str,
    pub(super) host: &'a Host,
    pub(super) address: Dual,
}

/// One question of a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    pub(super) port: u16,
    pub(super) over: Transport,
    pub(super) ip: Ip,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { from, to, port, over, ip } = self;
        write!(f, "{from} → {to} {over} {port} over {}", if *ip == Ip::V4 { "IPv4" } else { "IPv6" })
    }
}

/// The questions, and the sockets for them.
#[derive(Debug)]
pub(super) struct Grid<'a> {
    mesh: Mesh<'a>,
    ends: Vec<(&'static str, Dual)>,
    rows: Vec<&'static str>,
    columns: Vec<&'static str>,
    ports: &'static [u16],
    cases: Vec<Case>,
    questions: Vec<Question>,
}

/// What became of them all.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) fates: Vec<Fate>,
}

impl<'a> Grid<'a> {
    /// Every member asks each of the first `columns` at each port, at the address that it has. `others` only listen, at
    /// addresses and ports of their own, and are asked by [`Self::paths`].
    pub(super) fn new(
        members: &[Member<'a>],
        columns: usize,
        ports: &'static [u16],
        others: &[(&'static str, End<'a>)],
    ) -> anyhow::Result<Self> {
        let mut ends: Vec<End<'a>> = members
            .iter()
            .enumerate()
            .map(|(number, member)| End {
                host: member.host,
                at: Vec::new(),
                ports: if number < columns { ports } else { &[] },
            })
            .collect();
        let mut names: Vec<(&'static str, Dual)> = members.iter().map(|member| (member.name, member.address)).collect();
        for (name, end) in others {
            // Who asks, and is asked beside the grid.
            match names.iter().position(|(known, _)| known == name) {
                Some(at) => ends[at] = end.clone(),
                None => {
                    ends.push(end.clone());
                    names.push((name, Dual("0.0.0.0", "::")));
                }
            }
        }
        let rows: Vec<&'static str> = members.iter().map(|member| member.name).collect();
        let mut grid = Self {
            mesh: Mesh::new(&ends)?,
            ends: names,
            columns: rows[..columns].to_vec(),
            rows,
            ports,
            cases: Vec::new(),
            questions: Vec::new(),
        };
        for from in grid.rows.clone() {
            for to in grid.columns.clone() {
                for port in ports {
                    for over in TRANSPORTS {
                        grid.cases.extend(FAMILIES.map(|ip| Case { from, to, port: *port, over, ip }));
                    }
                }
            }
        }
        grid.questions = grid.cases.iter().map(|case| grid.question(case)).collect::<anyhow::Result<_>>()?;
        Ok(grid)
    }

    fn question(&self, case: &Case) -> anyhow::Result<Question> {
        let (_, to) = self.end(case.to)?;
        let (_, seen) = self.end(case.from)?;
        self.path(case.from, to.at(case.ip, case.port), case.over, (case.to, case.port), seen)
    }

    fn end(&self, name: &str) -> anyhow::Result<(usize, Dual)> {
        let at = self.ends.iter().position(|(known, _)| *known == name);
        let at = at.with_context(|| format!("the grid has no {name}"))?;
        Ok((at, self.ends[at].1))
    }

    /// A question beside the grid: to this address, where that end is to hear it at that port, under this address.
    pub(super) fn path(
        &self,
        from: &str,
        at: SocketAddr,
        over: Transport,
        (to, port): (&str, u16),
        seen: Dual,
    ) -> anyhow::Result<Question> {
        let ip = if at.is_ipv4() { Ip::V4 } else { Ip::V6 };
        Ok(Question { from: self.end(from)?.0, at, over, to: self.end(to)?.0, port, seen: seen.of(ip) })
    }

    /// Ask these questions beside the grid, which are all to pass, or all not to. Arrived if any passed; if they are to
    /// pass, if all did.
    pub(super) fn paths(&mut self, questions: &[Question], to_pass: bool) -> anyhow::Result<Probe> {
        let fates = self.mesh.ask(questions, |_| to_pass)?;
        let asked = questions.iter().zip(&fates);
        let said = asked.map(|(question, fate)| {
            let (from, to) = (self.ends[question.from].0, self.ends[question.to].0);
            let text = format!("{from} at {} {}: {to} {fate}", question.at, question.over);
            (matches!(fate, Fate::Silent), matches!(fate, Fate::Passed(_)), text)
        });
        let said: Vec<(bool, bool, String)> = said.collect();
        let texts = |of: &dyn Fn(&(bool, bool, String)) -> bool| {
            let texts: Vec<&str> = said.iter().filter(|said| of(said)).map(|(.., text)| text.as_str()).collect();
            texts.join("; ")
        };
        Ok(match to_pass {
            true if said.iter().all(|(_, passed, _)| *passed) => Probe::Arrived(texts(&|_| true)),
            true => Probe::Silent(texts(&|(_, passed, _)| !passed)),
            false if said.iter().all(|(silent, ..)| *silent) => Probe::Silent(texts(&|_| true)),
            false => Probe::Arrived(texts(&|(silent, ..)| !silent)),
        })
    }

    /// Ask everything.
    pub(super) fn ask(&mut self, expect: impl Fn(&Case) -> bool) -> anyhow::Result<Outcome> {
        let cases = &self.cases;
        let fates = self.mesh.ask(&self.questions, |at| expect(&cases[at]))?;
        Ok(Outcome { fates })
    }

    /// Arrived if every cell is as expected, with one that passed and one that did not; else silent, with those that are not.
    pub(super) fn compare(&self, outcome: &Outcome, expect: impl Fn(&Case) -> bool) -> Probe {
        let cells = || self.cases.iter().zip(&outcome.fates);
        let wrong: Vec<String> = cells()
            .filter(|(case, fate)| !fate.is(expect(case)))
            .map(|(case, fate)| format!("{case} is {fate}"))
            .collect();
        if !wrong.is_empty() {
            let more = if wrong.len() > 3 { ", …" } else { "" };
            let first = wrong[..wrong.len().min(3)].join(", ");
            return Probe::Silent(format!(
                "{} of {} cells are otherwise: {first}{more}",
                wrong.len(),
                self.cases.len()
            ));
        }
        let passed = cells().filter(|(_, fate)| matches!(fate, Fate::Passed(_))).count();
        let first = |which: bool| {
            let found = cells().find(|(case, fate)| case.from != case.to && which == matches!(fate, Fate::Passed(_)));
            found.map_or_else(String::new, |(case, fate)| format!("; {case}: {fate}"))
        };
        Probe::Arrived(format!(
            "all {} cells are as they should be: {passed} passed, {} did not{}{}",
            self.cases.len(),
            self.cases.len() - passed,
            first(true),
            first(false)
        ))
    }

    /// What speaks SCTP.
    pub(super) fn sctp(&self) -> &'static str {
        self.mesh.sctp()
    }

    /// How many questions there are.
    pub(super) fn len(&self) -> usize {
        self.cases.len()
    }

    /// The grid for people. Rows that are all alike are drawn once.
    pub(super) fn draw(&self, outcome: &Outcome, expect: impl Fn(&Case) -> bool) -> String {
        let width = self.ports.len() * TRANSPORTS.len() + 1;
        let label = self.rows.iter().map(|row| row.len()).max().unwrap_or_default() + 2;
        let columns: String = self.columns.iter().map(|name| format!("{name:width$}")).collect();
        let rows = self.rows.iter().map(|row| {
            let columns = self.columns.iter().map(|column| {
                let cell: String = self.cells(row, column, outcome, &expect);
                format!("{cell:width$}")
            });
            (*row, columns.collect::<String>())
        });
        let mut rows: Vec<(&str, String)> = rows.collect();
        if rows.iter().all(|(_, cells)| *cells == rows[0].1) {
            rows.truncate(1);
            rows[0].0 = "each";
        }
        let body = rows.iter().map(|(row, cells)| format!("\n    {row:label$}{}", cells.trim_end()));
        format!("    {:label$}{}{}", "", columns.trim_end(), body.collect::<String>())
    }

    /// The letters of one source and destination: a letter passed over both versions of IP, a digit over that one only.
    fn cells(&self, from: &str, to: &str, outcome: &Outcome, expect: impl Fn(&Case) -> bool) -> String {
        let of = self.cases.iter().zip(&outcome.fates).filter(|(case, _)| case.from == from && case.to == to);
        let of: Vec<(&Case, &Fate)> = of.collect();
        let letters = of.chunks(FAMILIES.len()).map(|pair| {
            let passed: Vec<Ip> =
                pair.iter().filter(|(_, fate)| matches!(fate, Fate::Passed(_))).map(|(case, _)| case.ip).collect();
            match (pair.iter().all(|(case, fate)| fate.is(expect(case))), passed[..].first(), passed.len()) {
                (false, ..) => '!',
                (true, None, _) => '·',
                (true, Some(_), 2) => pair[0].0.over.letter(),
                (true, Some(Ip::V4), _) => '4',
                (true, Some(Ip::V6), _) => '6',
            }
        });
        letters.collect()
    }

    /// What the letters mean.
    pub(super) fn legend(&self) -> String {
        let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
        format!(
            "  rows ask columns; at port {}: T, U, S passed by TCP, UDP, SCTP; 4 or 6: by that IP only; · did not; ! is wrong",
            ports.join(", then ")
        )
    }
}
