//! `/metrics`: what the switch counts, as Prometheus reads it.
//!
//! Everything is read where workers write it, as the verbs `ports`, `drops`, `workers` and `coverage` read it: no worker is
//! asked. Rows are bounded: ten a port, one a drop reason, an event, a table; reasons are not multiplied by ports (`vsctl
//! drops` does that), nor are connections counted by anything that a peer can make up. What is kube-proxy's by name
//! (`pkg/proxy/metrics` of Kubernetes) means the same here; what of kube-proxy's cannot be filled honestly is not there.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use api::state::{PortStats, WorkerState};
use parking_lot::Mutex;
use pipeline::counters::Counters;
use pipeline::drop::DropReason;
use pipeline::live::Live;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelValue, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::{MetricType, TypedMetric, histogram::Histogram};
use prometheus_client::registry::Registry;

use super::told::Told;
use crate::stats::Totals;
use crate::worker::clock;

/// A column of rows that each have one number.
type Column<R> = (&'static str, &'static str, fn(&R) -> u64);

const PORTS: [Column<PortStats>; 8] = [
    ("vswitch_port_rx_packets", "Frames that came in", |s| s.rx_packets),
    ("vswitch_port_rx_bytes", "Octets of frames that came in", |s| s.rx_bytes),
    ("vswitch_port_rx_dropped", "Frames that came in and were dropped, for whatever reason", |s| s.rx_dropped),
    ("vswitch_port_rx_errors", "Reads that failed", |s| s.rx_errors),
    ("vswitch_port_tx_packets", "Frames that the device took", |s| s.tx_packets),
    ("vswitch_port_tx_bytes", "Octets of frames that the device took", |s| s.tx_bytes),
    ("vswitch_port_tx_dropped", "Frames that the device could not take in time", |s| s.tx_dropped),
    ("vswitch_port_tx_errors", "Frames that the device refused", |s| s.tx_errors),
];

const WORKERS: [Column<WorkerState>; 6] = [
    ("vswitch_worker_busy_ticks", "Ticks of the time-stamp counter spent on bursts", |w| w.busy_ticks),
    ("vswitch_worker_idle_ticks", "Ticks spent looking for work or asleep", |w| w.idle_ticks),
    ("vswitch_worker_sleeps", "Times the worker went to sleep", |w| w.sleeps),
    ("vswitch_worker_bursts", "Bursts that were not empty", |w| w.bursts),
    ("vswitch_worker_cache_hits", "Frames that a cached decision served", |w| w.hits),
    ("vswitch_worker_cache_misses", "Frames that had to be decided", |w| w.misses),
];

/// Where the numbers are.
pub(super) struct Metrics {
    pub(super) told: Arc<Mutex<Told>>,
    pub(super) workers: Vec<Arc<Counters>>,
    pub(super) live: Arc<Live>,
    /// Answers of `/healthz` and `/livez`, by status code.
    pub(super) answered: Arc<Mutex<[BTreeMap<u16, u64>; 2]>>,
    pub(super) version: String,
}

impl Metrics {
    /// What writes them down.
    pub(super) fn registry(self) -> Registry {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        registry
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.proxy(&mut page)?;
        self.ports(&mut page)?;
        self.workers(&mut page)?;
        self.tables(&mut page)
    }
}

impl Metrics {
    /// What kube-proxy counts, too.
    fn proxy(&self, page: &mut Page<'_>) -> fmt::Result {
        let (updated, durations) = {
            let told = self.told.lock();
            (told.updated, told.durations.clone())
        };
        page.histogram(
            "kubeproxy_sync_proxy_rules_duration_seconds",
            "From the beginning of a transaction until every packet goes by it",
            &durations,
        )?;
        page.number(
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
            "When a transaction last came into force",
            updated.as_millisecond() as f64 / 1000.0,
        )?;
        let answered = self.answered.lock().clone();
        let names = [
            ("kubeproxy_proxy_healthz", "Answers of /healthz by status code"),
            ("kubeproxy_proxy_livez", "Answers of /livez by status code"),
        ];
        for ((name, help), answered) in names.into_iter().zip(&answered) {
            page.counter(name, help, answered.iter().map(|(code, count)| ([("code", code.to_string())], *count)))?;
        }
        let build = [([("version", self.version.clone())], 1.0)];
        page.gauge("vswitch_build_info", "Which vswitchd this is", build)
    }

    fn ports(&self, page: &mut Page<'_>) -> fmt::Result {
        let counters = || self.workers.iter().map(|counters| &**counters);
        let (rows, numbers) = {
            let told = self.told.lock();
            let row = |(id, port): (&_, &super::Metered)| {
                (port.name.clone(), Totals::of(*id, counters()).since(&port.baseline).stats)
            };
            (told.ports.iter().map(row).collect::<Vec<_>>(), told.numbers.clone())
        };
        for (name, help, number) in PORTS {
            page.counter(name, help, rows.iter().map(|(port, stats)| ([("port", port.clone())], number(stats))))?;
        }
        // Of all ports that there ever were: a sum of those that there are would fall.
        let mut drops = vec![0; DropReason::COUNT];
        for id in numbers {
            for (sum, dropped) in drops.iter_mut().zip(Totals::of(id, counters()).drops) {
                *sum += dropped;
            }
        }
        let rows = DropReason::ALL.into_iter().zip(drops).map(|((_, name, _), sum)| ([("reason", name)], sum));
        page.counter("vswitch_drops", "Frames dropped by reason, at all ports together", rows)
    }

    fn workers(&self, page: &mut Page<'_>) -> fmt::Result {
        let state = |(number, counters): (usize, &Arc<Counters>)| (number.to_string(), crate::stats::worker(counters));
        let rows: Vec<_> = self.workers.iter().enumerate().map(state).collect();
        for (name, help, number) in WORKERS {
            page.counter(name, help, rows.iter().map(|(worker, w)| ([("worker", worker.clone())], number(w))))?;
        }
        let entries = rows.iter().map(|(worker, state)| ([("worker", worker.clone())], state.entries as f64));
        page.gauge("vswitch_worker_cache_entries", "Live entries of the flow cache", entries)?;
        let events = crate::stats::coverage(self.workers.iter().map(|counters| &**counters));
        let rows = events.into_iter().map(|(event, sum)| ([("event", event)], sum));
        page.counter("vswitch_coverage", "Events, as coverage/show has them", rows)
    }

    fn tables(&self, page: &mut Page<'_>) -> fmt::Result {
        let census = self.live.connections.census();
        let rows = census
            .iter()
            .map(|((proto, state), count)| ([("proto", proto_name(*proto)), ("state", state)], *count as f64));
        page.gauge("vswitch_connections", "Tracked connections by protocol and state", rows)?;
        let (mut tables, bridges) = {
            let told = self.told.lock();
            (told.nouns.clone(), told.bridges.clone())
        };
        let stations = bridges.into_iter().map(|bridge| self.live.stations.list(bridge).len()).sum();
        tables.insert("stations", stations);
        tables.insert("neighbors", self.live.neighbors.list(clock::now()).len());
        tables.insert("connections", self.live.connections.len());
        let rows = tables.into_iter().map(|(table, entries)| ([("table", table)], entries as f64));
        page.gauge("vswitch_table_entries", "Entries of the switch's tables, stated and learned", rows)
    }
}

/// A protocol in few names: what a peer can make up is one of them.
fn proto_name(number: u8) -> &'static str {
    match number {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        58 => "icmpv6",
        132 => "sctp",
        _ => "other",
    }
}

/// What is written.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    /// A family of counters; the encoder puts `_total` behind its name.
    fn counter<const N: usize, V: EncodeLabelValue>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = ([(&'static str, V); N], u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in rows {
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// A family of gauges.
    fn gauge<const N: usize, V: EncodeLabelValue>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = ([(&'static str, V); N], f64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in rows {
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// A gauge that stands for itself.
    fn number(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        ConstGauge::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        histogram.encode(self.0.encode_descriptor(name, help, None, Histogram::TYPE)?)
    }
}
