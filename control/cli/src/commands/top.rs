//! `top`: ports and workers, with rates, once a second until `q`. Printed once where there is no terminal.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use api::Request;
use api::reply::{PortRow, Ports, Workers};
use api::rpc::Client;
use api::state::WorkerState;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::Stylize;
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Row, Table};
use ratatui::{DefaultTerminal, Frame};

use super::{CommandDef, words};
use crate::Failure;
use crate::options::{Options, Segment};

pub(crate) const COMMAND: CommandDef =
    CommandDef { name: "top", usage: "", help: "ports and workers, refreshed every second", run };

/// What there was to see at one moment.
struct Sample {
    at: Instant,
    ports: Ports,
    workers: Workers,
}

fn run(options: &Options, segment: &Segment) -> Result<u8, Failure> {
    words(&COMMAND, segment, 0)?;
    let mut client = options.connect()?;
    let first = sample(&mut client)?;
    if !io::stdout().is_terminal() {
        write!(io::stdout(), "{}\n{}", first.workers, first.ports)?;
        return Ok(0);
    }
    let mut terminal = ratatui::try_init()?;
    let ended = refresh(&mut terminal, &mut client, first);
    ratatui::try_restore()?;
    ended.map(|()| 0)
}

fn sample(client: &mut Client) -> Result<Sample, Failure> {
    let failed = |e: serde_json::Error| Failure::Refused(format!("top: {e}"));
    let ports = serde_json::from_value(client.ask(&Request::Ports {})?).map_err(failed)?;
    let workers = serde_json::from_value(client.ask(&Request::Workers {})?).map_err(failed)?;
    Ok(Sample { at: Instant::now(), ports, workers })
}

fn refresh(terminal: &mut DefaultTerminal, client: &mut Client, first: Sample) -> Result<(), Failure> {
    let mut before = first;
    loop {
        let deadline = before.at + Duration::from_secs(1);
        while let left = deadline.saturating_duration_since(Instant::now())
            && !left.is_zero()
        {
            if event::poll(left)?
                && let Event::Key(key) = event::read()?
                && (matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
                    || (key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL)))
            {
                return Ok(());
            }
        }
        let now = sample(client)?;
        terminal.draw(|frame| draw(frame, &before, &now))?;
        before = now;
    }
}

fn draw(frame: &mut Frame<'_>, before: &Sample, now: &Sample) {
    let seconds = now.at.duration_since(before.at).as_secs_f64().max(0.001);
    let workers = now.workers.0.iter().map(|worker| {
        let old = before.workers.0.iter().find(|old| old.number == worker.number);
        Row::new(worker_cells(old, worker, seconds))
    });
    let ports = now.ports.0.iter().map(|port| {
        let old = before.ports.0.iter().find(|old| old.port == port.port);
        Row::new(port_cells(old, port, seconds))
    });
    let height = u16::try_from(now.workers.0.len() + 2).unwrap_or(u16::MAX);
    let [head, top, bottom] =
        Layout::vertical([Constraint::Length(2), Constraint::Length(height), Constraint::Min(1)]).areas(frame.area());
    frame.render_widget(Paragraph::new(Line::from("vsctl top    q: quit")), head);
    let heading = Row::new(["WORKER", "CPU", "BUSY%", "PKT/S", "HIT%", "PER BURST", "TICKS/PKT"]).bold();
    frame.render_widget(Table::new(workers, [Constraint::Length(10); 7]).header(heading), top);
    let heading =
        Row::new(["PORT", "BRIDGE", "RX/S", "RX MB/S", "DROP/S", "TX/S", "TX MB/S", "DROP/S", "ERROR"]).bold();
    let widths = [16, 16, 10, 10, 8, 10, 10, 8].map(Constraint::Length).into_iter().chain([Constraint::Min(10)]);
    frame.render_widget(Table::new(ports, widths).header(heading), bottom);
}

fn worker_cells(old: Option<&WorkerState>, new: &WorkerState, seconds: f64) -> Vec<String> {
    let since = |field: fn(&WorkerState) -> u64| field(new).saturating_sub(old.map_or(0, field)) as f64;
    let (busy, idle) = (since(|w| w.busy_ticks), since(|w| w.idle_ticks));
    let (packets, hits, misses) = (since(|w| w.packets), since(|w| w.hits), since(|w| w.misses));
    vec![
        new.number.to_string(),
        new.cpu.map_or_else(|| "-".to_owned(), |cpu| cpu.to_string()),
        format!("{:.1}", busy * 100.0 / (busy + idle).max(1.0)),
        format!("{:.0}", packets / seconds),
        format!("{:.1}", hits * 100.0 / (hits + misses).max(1.0)),
        format!("{:.1}", packets / since(|w| w.bursts).max(1.0)),
        format!("{:.0}", busy / packets.max(1.0)),
    ]
}

fn port_cells(old: Option<&PortRow>, new: &PortRow, seconds: f64) -> Vec<String> {
    let rate = |field: fn(&PortRow) -> u64| field(new).saturating_sub(old.map_or(0, field)) as f64 / seconds;
    let count = |field| format!("{:.0}", rate(field));
    let megabytes = |field| format!("{:.1}", rate(field) / 1e6);
    vec![
        new.port.clone(),
        new.bridge.clone(),
        count(|p| p.stats.rx_packets),
        megabytes(|p| p.stats.rx_bytes),
        count(|p| p.stats.rx_dropped),
        count(|p| p.stats.tx_packets),
        megabytes(|p| p.stats.tx_bytes),
        count(|p| p.stats.tx_dropped),
        new.error.clone().unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    #[test]
    fn rates_are_differences_over_time() {
        let mut old = PortRow { port: "p1".into(), ..PortRow::default() };
        old.stats.rx_packets = 100;
        let mut new = old.clone();
        new.stats.rx_packets = 300;
        new.stats.rx_bytes = 4_000_000;
        assert_eq!(port_cells(Some(&old), &new, 2.0)[2..4], ["100", "2.0"]);
        assert_eq!(port_cells(Some(&new), &old, 2.0)[2], "0", "counters that start again make no negative rate");
    }

    #[test]
    fn it_is_drawn_on_a_terminal_of_any_size() {
        for (width, height) in [(120, 20), (10, 3), (1, 1)] {
            let sample = || Sample {
                at: Instant::now(),
                ports: Ports(vec![PortRow { port: "p1".into(), ..PortRow::default() }]),
                workers: Workers(vec![WorkerState::default()]),
            };
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| draw(frame, &sample(), &sample())).unwrap();
        }
    }
}
