//! A switch of one bridge with two [`port`](crate::port)s, and the loop around its pipeline that is measured: receive a
//! burst, run it through the pipeline, send it, count it, sweep.
//!
//! What workers share stands in [`Shared`]; a [`World`] is one worker with the ports that it reads.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use api::{Bridge, BridgeId, Change, Delta, Port, PortId, Transaction, Vlan};
use pipeline::burst::{Burst, LANES, Verdict};
use pipeline::counters::Counters;
use pipeline::live::{Live, Now};
use pipeline::raw::{Pool, Stash};
use pipeline::resolve::program::Program;
use pipeline::resolve::stages::STAGES;
use pipeline::{Limits, Pipeline, Step as PipelineStep, Turn};
use vswitch::ports::{Device, RxQueue, TxBatch};
use vswitch::sys::ticks::ticks;

use crate::frames::Frames;
use crate::machine::Machine;
use crate::measure::{Laps, Moved, Step};
use crate::port::{Generator, SLOTS, Sink};

/// The only bridge.
pub const BRIDGE: BridgeId = BridgeId(1);
/// Its ports.
pub const PORTS: [PortId; 2] = [PortId(1), PortId(2)];

/// What all workers of the switch share.
#[derive(Debug)]
pub struct Shared {
    /// The program in force.
    pub program: Program,
    /// What packets write.
    pub live: Live,
    sinks: [Sink; 2],
    pool: Pool,
}

impl Shared {
    /// A bridge that may learn `stations` stations, with frame memory for `workers`.
    ///
    /// # Errors
    /// When there is not enough memory.
    pub fn new(stations: usize, workers: usize) -> Result<Self> {
        let bridge = Bridge {
            id: BRIDGE,
            name: "br0".to_owned(),
            mac_table_size: u32::try_from(stations)?,
            mac_ageing: Bridge::MAC_AGEING,
            forward_bpdu: false,
            external_ids: Default::default(),
        };
        let port = |id: PortId| Port {
            id,
            name: format!("p{id}"),
            bridge: BRIDGE,
            ofport: id.0,
            kind: "memory".to_owned(),
            options: Default::default(),
            vlan: Vlan::default(),
            mac: None,
            mtu: Port::MTU,
            external_ids: Default::default(),
        };
        let ports = PORTS.map(|id| Change::Port(Delta::add(port(id))));
        let changes = std::iter::once(Change::Bridge(Delta::add(bridge))).chain(ports).collect();
        let live = Live::default();
        live.stations.configure(BRIDGE, stations, Bridge::MAC_AGEING, &live.cells);
        let program = Program::cold(STAGES, &Transaction { changes }, &live.cells);
        let pool = vswitch::pool::frame_pool(SLOTS * workers, 0)?;
        Ok(Self { program, live, sinks: Default::default(), pool })
    }

    /// Frames that arrived at either port's sink.
    pub fn arrived(&self) -> u64 {
        self.sinks.iter().map(Sink::packets).sum()
    }
}

/// One worker.
#[derive(Debug)]
pub struct World {
    shared: Arc<Shared>,
    /// Ports that this worker reads, and what they receive.
    queues: Vec<(PortId, Generator)>,
    /// Whose turn it is.
    next: usize,
    pipeline: Pipeline,
    counters: Counters,
    burst: Box<Burst>,
    batches: [TxBatch; 2],
    stash: Stash,
    start: u64,
    tsc_mhz: f64,
}

impl World {
    /// A worker that reads `queues`.
    pub fn new(shared: Arc<Shared>, queues: Vec<(PortId, Arc<Frames>)>, machine: &Machine) -> Self {
        let hasher = pipeline::parse::KeyHasher::new();
        let memory = &mut |octets| Box::new(pipeline::raw::HeapMemory::new(octets)) as Box<dyn pipeline::raw::Memory>;
        Self {
            stash: shared.pool.stash(),
            shared,
            queues: queues.into_iter().map(|(port, frames)| (port, Generator::new(frames))).collect(),
            next: 0,
            // Two ports of a million pairs are two million flows.
            pipeline: Pipeline::new(Limits { v4: 1 << 21, ..Limits::default() }, hasher, 0, memory),
            counters: Counters::new(8),
            burst: Burst::new(),
            batches: [TxBatch::new(), TxBatch::new()],
            start: ticks(),
            tsc_mhz: machine.tsc_mhz,
        }
    }

    /// The next burst begins with the first frame of its port's list.
    pub fn at_start(&self) -> bool {
        self.queues.get(self.next).is_some_and(|(_, queue)| queue.at_start())
    }

    /// What the worker counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Send what leaves by one port and drop the rest; returns how many were dropped.
    fn transmit(&mut self, port: PortId) -> u64 {
        let (lanes, mut drops) = (self.burst.len(), 0);
        for lane in 0..lanes {
            let Some(frame) = self.burst.frames.get_mut(lane).and_then(Option::take) else { continue };
            match self.burst.verdicts.get(lane) {
                Some(&Verdict::Output(out)) => match batch(&mut self.batches, out) {
                    Some(batch) => batch.push(frame, port),
                    None => self.stash.give(frame),
                },
                Some(&Verdict::Multi(list)) => {
                    for copy in self.pipeline.copies(list) {
                        let Some(mut twin) = self.stash.take() else { continue };
                        let _ = twin.fill(frame.head());
                        match batch(&mut self.batches, copy.port) {
                            Some(batch) => batch.push(twin, port),
                            None => self.stash.give(twin),
                        }
                    }
                    self.stash.give(frame);
                }
                other => {
                    if let Some(Verdict::Drop(reason)) = other {
                        self.counters.dropped(port, *reason);
                    }
                    self.stash.give(frame);
                    drops += 1;
                }
            }
        }
        for ((batch, sink), port) in self.batches.iter_mut().zip(&self.shared.sinks).zip(PORTS) {
            if !batch.is_empty() {
                let counters = self.counters.port(port);
                counters.tx_packets.add(batch.len() as u64);
                counters.tx_bytes.add(batch.bytes() as u64);
                let _ = sink.tx(batch, &mut self.stash);
            }
        }
        drops
    }
}

/// The send list of a port.
fn batch(batches: &mut [TxBatch; 2], port: PortId) -> Option<&mut TxBatch> {
    batches.get_mut(port.index().wrapping_sub(1))
}

impl Step for World {
    fn names(&self) -> &'static [&'static str] {
        &["rx", "parse", "probe", "resolve", "rewrite", "tx"]
    }

    fn step(&mut self, laps: &mut Laps) -> Moved {
        laps.start();
        let Some((port, queue)) = self.queues.get_mut(self.next) else { return Moved::default() };
        let port = *port;
        self.burst.reset(port);
        let _ = queue.rx(&mut self.burst, LANES, &mut self.stash);
        self.next = (self.next + 1) % self.queues.len();
        let packets = self.burst.len() as u64;
        let octets: usize = self.burst.frames.iter().take(LANES).flatten().map(pipeline::raw::Frame::len).sum();
        let counters = self.counters.port(port);
        counters.rx_packets.add(packets);
        counters.rx_bytes.add(octets as u64);
        let now = Now(Duration::from_nanos(((ticks() - self.start) as f64 * 1000.0 / self.tsc_mhz) as u64));
        let mut spent = laps.lap(0);
        let Shared { program, live, .. } = &*self.shared;
        let turn = Turn { program, live, counters: &self.counters, now, walks: LANES };
        self.pipeline.run_measured(&mut self.burst, &turn, |step| {
            spent += laps.lap(match step {
                PipelineStep::Parse => 1,
                PipelineStep::Probe => 2,
                PipelineStep::Resolve => 3,
                PipelineStep::Rewrite => 4,
            });
        });
        let drops = self.transmit(port);
        let turn = Turn {
            program: &self.shared.program,
            live: &self.shared.live,
            counters: &self.counters,
            now,
            walks: LANES,
        };
        self.pipeline.sweep(&turn);
        spent += laps.lap(5);
        Moved { packets, drops, ticks: spent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::Size;

    #[test]
    fn every_frame_between_known_stations_arrives() {
        let shared = Arc::new(Shared::new(1000, 1).unwrap());
        let [left, right] = Frames::pairs(10, Size::Fixed(64)).unwrap().map(Arc::new);
        let mut world = World::new(Arc::clone(&shared), vec![(PORTS[0], left), (PORTS[1], right)], &Machine::measure());
        let (mut sent, mut drops) = (0, 0);
        for _ in 0..100 {
            let moved = world.step(&mut Laps::default());
            (sent, drops) = (sent + moved.packets, drops + moved.drops);
        }
        assert_eq!((sent, drops, shared.arrived()), (25_600, 0, 25_600));
        assert_eq!(world.counters().port(PORTS[0]).tx_packets.get(), 12_800);
        let hits = world.counters().coverage.cache_hit.get();
        assert!(hits > 24_000, "{hits} hits");
    }
}
