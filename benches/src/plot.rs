//! The SVG of a report: ticks a packet over the ladder of each scenario.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use plotters::prelude::*;

use crate::report::Report;

/// Draw every scenario of the report that has a ladder of flows as a line; one point is a line of one point.
///
/// # Errors
/// When there is nothing to draw, or the file cannot be written.
pub fn draw(report: &Report, path: &Path) -> Result<()> {
    let mut lines: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for outcome in report.results.iter().filter(|outcome| outcome.tsc_per_packet > 0.0) {
        let flows = outcome.params.get("flows").and_then(serde_json::Value::as_f64).unwrap_or(1.0);
        lines.entry(&outcome.scenario).or_default().push((flows.max(1.0), outcome.tsc_per_packet));
    }
    ensure!(!lines.is_empty(), "{}: nothing to draw", path.display());
    let points = || lines.values().flatten();
    let most = points().map(|&(flows, _)| flows).fold(10.0, f64::max);
    let top = points().map(|&(_, tsc)| tsc).fold(0.0, f64::max) * 1.1;

    let area = SVGBackend::new(path, (960, 540)).into_drawing_area();
    let failed = |error: &dyn std::fmt::Display| anyhow!("{}: {error}", path.display());
    area.fill(&WHITE).map_err(|e| failed(&e))?;
    let mut chart = ChartBuilder::on(&area)
        .caption("tsc ticks per packet", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((1.0..most).log_scale(), 0.0..top)
        .map_err(|e| failed(&e))?;
    chart
        .configure_mesh()
        .x_desc(format!("flows    ({})", report.machine))
        .y_desc("ticks")
        .draw()
        .map_err(|e| failed(&e))?;
    for (i, (scenario, points)) in lines.iter().enumerate() {
        let colour = Palette99::pick(i).to_rgba();
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(3))
            .map_err(|e| failed(&e))?
            .label(*scenario)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE).draw().map_err(|e| failed(&e))?;
    area.present().map_err(|e| failed(&e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome;

    #[test]
    fn each_scenario_is_drawn_and_named() {
        let outcome = |scenario: &str, flows: u64, tsc| Outcome {
            scenario: scenario.to_owned(),
            params: BTreeMap::from([("flows".to_owned(), flows.into())]),
            tsc_per_packet: tsc,
            ..Outcome::default()
        };
        let results = vec![outcome("bridge", 1, 40.0), outcome("bridge", 1_000_000, 100.0), outcome("parse", 1, 9.0)];
        let path = std::env::temp_dir().join(format!("vsbench-plot-{}.svg", std::process::id()));
        draw(&Report { results, ..Report::default() }, &path).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(svg.contains("bridge") && svg.contains("parse"));
        assert!(draw(&Report::default(), &path).is_err());
    }
}
