//! The switch: ports, workers and the published program together; what the control side programs.
//!
//! The order of a transaction (FASTPATH 3 and 4): new devices are opened; queues of ports that go are taken from their
//! workers; the new program and devices are published in one step; every worker goes by them; stations of ports that
//! went are forgotten and their devices removed; connections that rested on what went are ended; queues of new ports are
//! given to workers; the node's kernel is told. What fails before the step leaves everything as it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use api::state::{
    Captured, ConnectionState, Coverage, DenialState, DropState, NeighborState, PortState, Probe, StationState, Traced,
    Walked, WorkerState,
};
use api::{
    AddressKey, Bridge, BridgeId, Change, Delta, MacAddr, Neighbor, Port, PortId, Router, ServiceKey, Station,
    StationKey, Transaction,
};
use control::{Refusal, Switch as Control};
use parking_lot::Mutex;
use pipeline::counters::Counters;
use pipeline::drop::DropReason;
use pipeline::live::connections::{Connections, Limits as ConnectionLimits, Restored, View};
use pipeline::live::{Live, Now};
use pipeline::parse::KeyHasher;
use pipeline::raw::{HeapMemory, Memory, Pool};
use pipeline::resolve::program::Program;
use pipeline::resolve::stages::STAGES;
use pipeline::{Limits, Pipeline};

use crate::capture::Captures;
use crate::cleanup::Doomed;
use crate::keeper::Keeper;
use crate::node::Node;
use crate::pool;
use crate::ports::{Device, Environment, Offered, Opened, PORT_TYPES, PortError, RxQueue, stack};
use crate::publish::{Publisher, Reader, channel};
use crate::stats::{self, Totals};
use crate::survival::{self, learned::Learned};
use crate::sys::affinity;
use crate::upkeep::{self, Upkeep};
use crate::web::{self, Metered, Web};
use crate::worker::{Handle, Snapshot, Worker, clock};

/// How long a removed device may be referred to by a burst that has begun.
const LET_GO: Duration = Duration::from_secs(1);
/// Captures at a time.
const CAPTURES: usize = 16;

mod check;
mod probe;

/// How a switch is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of workers.
    pub workers: usize,
    /// The CPU of each worker; fewer than workers: the rest is not pinned.
    pub cpus: Vec<u16>,
    /// Frame slots.
    pub frames: usize,
    /// Spills for super-frames.
    pub spills: usize,
    /// Entries of each worker's caches.
    pub limits: Limits,
    /// Connections of all workers together.
    pub connections: ConnectionLimits,
    /// One hit in so many is walked again and compared; 0 for none.
    pub shadow: u64,
    /// When policies change, connections that they deny now are cut; else they are kept.
    pub cut_existing: bool,
    /// The directory in which what packets wrote outlives the process. No packet is read before [`Control::restored`] was
    /// called, so that none meets half of what was configured. `None`: it goes with the process, and packets are read at once.
    pub survival: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: 1,
            cpus: Vec::new(),
            frames: 16 * 1024,
            spills: 512,
            limits: Limits::default(),
            connections: ConnectionLimits::default(),
            shadow: 0,
            cut_existing: false,
            survival: None,
        }
    }
}

/// A switch with its workers.
pub struct Switch {
    pool: Pool,
    keeper: Keeper,
    offered: Offered,
    live: Arc<Live>,
    publisher: Publisher<Snapshot>,
    workers: Vec<Handle>,
    threads: Vec<JoinHandle<()>>,
    cpus: Vec<u16>,
    bridges: BTreeMap<BridgeId, Bridge>,
    ports: BTreeMap<PortId, OpenPort>,
    stations: BTreeMap<StationKey, Station>,
    routers: BTreeMap<BridgeId, Router>,
    /// Ethernet addresses of endpoints.
    endpoints: BTreeMap<AddressKey, MacAddr>,
    /// Static neighbours.
    neighbors: BTreeMap<AddressKey, Neighbor>,
    /// What the node's kernel knows of us.
    node: Arc<Mutex<Node>>,
    /// As in [`Options::cut_existing`].
    cut_existing: bool,
    /// Where what was learned is written down.
    learned: Option<Arc<Learned>>,
    /// Until all that was configured is told again: queues of ports, read by nobody.
    waiting: Option<Vec<Waiting>>,
    /// `None` for a switch whose workers are driven by the caller.
    upkeep: Option<Upkeep>,
    /// `None` for a switch that opens no sockets.
    web: Option<Web>,
}

/// Queues of a port that nobody reads yet.
type Waiting = (PortId, Vec<Box<dyn RxQueue>>);

/// A port of the program and its device.
struct OpenPort {
    spec: Port,
    /// `None` when the device went away by itself.
    device: Option<Arc<dyn Device>>,
    /// Why there is no device.
    error: Option<String>,
    /// Which worker reads it.
    worker: Option<usize>,
    /// What the counters of its number stood at when it was made.
    baseline: Totals,
}

/// A port that was opened for a transaction that is not in force yet.
struct Pending {
    spec: Port,
    queues: Vec<Box<dyn RxQueue>>,
    device: Arc<dyn Device>,
}

impl Switch {
    /// A switch whose workers run on threads of their own.
    ///
    /// # Errors
    /// When the system has no memory, descriptor or thread left, or a CPU to pin to is not there.
    pub fn start(options: &Options, keeper: Keeper) -> std::io::Result<Self> {
        let (mut switch, workers) = Self::assemble(options, keeper)?;
        for (number, worker) in workers.into_iter().enumerate() {
            let cpu = options.cpus.get(number).copied();
            let (pinned, wait) = std::sync::mpsc::channel();
            let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                let result = cpu.map_or(Ok(()), affinity::pin);
                let failed = result.is_err();
                let _ = pinned.send(result);
                if !failed {
                    worker.run();
                }
            })?;
            switch.threads.push(thread);
            wait.recv().unwrap_or(Ok(()))?;
        }
        let learned = switch.learned.clone();
        switch.upkeep = Some(Upkeep::start(Arc::clone(&switch.live), Arc::clone(&switch.node), learned)?);
        Ok(switch)
    }

    /// A switch, and its workers to be driven by the caller: for benches and tests.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn assemble(options: &Options, keeper: Keeper) -> std::io::Result<(Self, Vec<Worker>)> {
        let pool = pool::frame_pool(options.frames, options.spills)?;
        let (connections, learned) = match &options.survival {
            Some(directory) => (recall(directory, &keeper)?, Some(Arc::new(Learned::new(directory)?))),
            None => Default::default(),
        };
        let live = Arc::new(Live { connections, ..Live::default() });
        live.connections.configure(options.connections);
        if options.cut_existing {
            live.be_strict();
        }
        let snapshot = Snapshot {
            since: live.cells.now(),
            program: Arc::new(Program::new(STAGES)),
            devices: Arc::new(Vec::new()),
            captures: Captures::default(),
        };
        let (publisher, readers) = channel(snapshot, options.workers);
        let mut workers = Vec::new();
        let mut handles = Vec::new();
        for reader in readers {
            let (worker, handle) = make_worker(reader, &live, options, &pool)?;
            workers.push(worker);
            handles.push(handle);
        }
        let switch = Self {
            pool,
            keeper,
            offered: Offered::default(),
            live,
            publisher,
            workers: handles,
            threads: Vec::new(),
            cpus: options.cpus.clone(),
            bridges: BTreeMap::new(),
            ports: BTreeMap::new(),
            stations: BTreeMap::new(),
            routers: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            neighbors: BTreeMap::new(),
            node: Arc::default(),
            cut_existing: options.cut_existing,
            waiting: learned.as_ref().map(|_| Vec::new()),
            learned,
            upkeep: None,
            web: None,
        };
        Ok((switch, workers))
    }

    /// Serve health checks and metrics, in the calling thread's namespace. To be called before the first transaction.
    ///
    /// # Errors
    /// When the system has no thread or descriptor left. An address that cannot be had is no error.
    pub fn serve(&mut self, settings: web::Settings) -> std::io::Result<()> {
        let counters = self.workers.iter().map(|worker| Arc::clone(&worker.counters)).collect();
        let workers = web::Workers { counters, sleepers: self.publisher.sleepers() };
        self.web = Some(Web::start(settings, workers, Arc::clone(&self.live))?);
        Ok(())
    }

    /// What the workers count.
    fn counters(&self) -> impl Iterator<Item = &Counters> {
        self.workers.iter().map(|worker| &*worker.counters)
    }

    /// Frame memory, for the far ends of memory ports.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The port of this name will be this one, once it is added with `type=memory`.
    pub fn offer(&self, name: &str, port: Opened) {
        self.offered.lock().insert(name.to_owned(), port);
    }

    /// Ends the workers and leaves all as it is for the next start: devices, connections, and the node's routes, so that
    /// processes of the node wait for it as pods do. Without the routes their packets would leave by another way, and be
    /// answered there.
    pub fn stop(mut self) {
        self.end();
        if let Some(learned) = &self.learned {
            learned.write(&self.live);
        }
    }

    /// As [`Self::stop`], for good: the node's routes go, since nobody is behind them any more.
    pub fn withdraw(mut self) {
        self.node.lock().withdraw();
        self.end();
    }

    fn end(&mut self) {
        self.upkeep = None;
        self.web = None;
        self.workers.iter().for_each(Handle::stop);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }

    /// A step of the housekeeping that a switch with threads does by itself: connections that nobody uses end, and the
    /// records of those that have ended are free again. For who drives the workers.
    pub fn look_after_connections(&self) {
        upkeep::connections(&self.live);
    }

    fn open(&self, spec: &Port) -> Result<Pending, Refusal> {
        let refuse = |why: String| Refusal(format!("{}: {why}", spec.name));
        if spec.id == PortId::NONE || spec.id.index() >= PortId::LIMIT {
            return Err(refuse(format!("a switch has at most {} ports", PortId::LIMIT - 1)));
        }
        let Some(def) = PORT_TYPES.iter().find(|def| def.name == spec.kind) else {
            // Nobody can add the switch's own.
            let known = PORT_TYPES.iter().map(|def| def.name).filter(|&name| name != stack::PORT.name);
            let known: Vec<_> = known.collect();
            return Err(refuse(format!("type={}: no such kind of port; there are {}", spec.kind, known.join(", "))));
        };
        if let Some(option) = spec.options.keys().find(|key| !def.options.iter().any(|(name, _)| name == key)) {
            return Err(refuse(format!("options:{option}: type={} has no such option", spec.kind)));
        }
        let environment = Environment { pool: &self.pool, keeper: &self.keeper, offered: &self.offered };
        let Opened { queues, device } = (def.open)(spec, &environment).map_err(|PortError(why)| refuse(why))?;
        Ok(Pending { spec: spec.clone(), queues, device })
    }

    /// The worker that reads the fewest ports.
    fn least_loaded(&self) -> usize {
        let ports = |worker: usize| self.ports.values().filter(|port| port.worker == Some(worker)).count();
        (0..self.workers.len()).min_by_key(|&worker| ports(worker)).unwrap_or(0)
    }

    /// Take the queues of a port from its worker.
    fn detach(&mut self, id: PortId) {
        self.waiting.iter_mut().for_each(|waiting| waiting.retain(|(port, _)| *port != id));
        let worker = self.ports.get_mut(&id).and_then(|port| port.worker.take());
        if let Some(worker) = worker.and_then(|number| self.workers.get(number)) {
            drop(worker.detach(id));
        }
    }

    /// Publish what follows from a transaction, and wait until every worker goes by it.
    fn publish(&mut self, transaction: &Transaction) {
        let mut devices: Vec<Option<Arc<dyn Device>>> = Vec::new();
        for (id, port) in &self.ports {
            devices.resize(id.index() + 1, None);
            if let Some(place) = devices.get_mut(id.index()) {
                place.clone_from(&port.device);
            }
        }
        let Self { live, publisher, ports, .. } = self;
        let captures = publisher.current().captures.open_ones(|port| !ports.contains_key(&port));
        live.cells.change(|touched| {
            let program = Arc::new(publisher.current().program.apply(transaction, touched));
            let since = touched.in_force();
            publisher.publish(Snapshot { since, program, devices: Arc::new(devices), captures });
        });
        publisher.wait();
    }

    /// Publish other captures, and nothing else.
    fn publish_captures(&mut self, captures: Captures) {
        let current = self.publisher.current();
        let (since, program, devices) = (current.since, Arc::clone(&current.program), Arc::clone(&current.devices));
        self.publisher.publish(Snapshot { since, program, devices, captures });
        self.publisher.wait();
    }

    /// The device of a port went away: nothing is sent there any more, and the port says why.
    fn lose(&mut self, id: PortId, why: String) {
        self.detach(id);
        let Some(port) = self.ports.get_mut(&id) else { return };
        tracing::warn!("port {}: {why}", port.spec.name);
        let bridge = port.spec.bridge;
        (port.device, port.error) = (None, Some(why));
        self.publish(&Transaction::default());
        self.live.stations.flush(bridge, Some(id), &self.live.cells);
        self.live.neighbors.flush_port(id, &self.live.cells);
    }

    /// A port whose device went away gets it back as soon as it can be opened again: its namespace may have returned.
    fn regain(&mut self, id: PortId) {
        let Some(OpenPort { spec, device: None, .. }) = self.ports.get(&id) else { return };
        let Ok(Pending { queues, device, .. }) = self.open(&spec.clone()) else { return };
        if let Some(port) = self.ports.get_mut(&id) {
            tracing::info!("port {}: opened again", port.spec.name);
            (port.device, port.error) = (Some(device), None);
        }
        self.publish(&Transaction::default());
        self.attach(id, queues);
    }

    /// Give the queues of a port to a worker.
    fn attach(&mut self, id: PortId, queues: Vec<Box<dyn RxQueue>>) {
        if let Some(waiting) = &mut self.waiting {
            waiting.push((id, queues));
            return;
        }
        self.attach_by(id, queues, Handle::attach);
    }

    fn attach_by(&mut self, id: PortId, queues: Vec<Box<dyn RxQueue>>, attach: fn(&Handle, PortId, Box<dyn RxQueue>)) {
        let worker = self.least_loaded();
        let Some(handle) = self.workers.get(worker) else { return };
        for queue in queues {
            attach(handle, id, queue);
            if let Some(port) = self.ports.get_mut(&id) {
                port.worker = Some(worker);
            }
        }
    }

    /// Wait until nobody refers to a device that was removed: its interface is there until then. Workers that sleep
    /// have to be woken for it.
    fn let_go(&mut self, device: Arc<dyn Device>) {
        self.workers.iter().for_each(Handle::wake);
        let start = Instant::now();
        while start.elapsed() < LET_GO {
            self.publisher.free();
            if Arc::strong_count(&device) == 1 {
                return;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Whether the device must be made anew for the port to be as it shall be.
    fn needs_reopening(old: &Port, new: &Port) -> bool {
        (&old.kind, &old.options, &old.name) != (&new.kind, &new.options, &new.name)
    }

    /// Take over what the maps of this side hold.
    fn record(&mut self, transaction: &Transaction) {
        for change in &transaction.changes {
            match change {
                Change::Bridge(delta) => match (&delta.old, &delta.new) {
                    (_, Some(bridge)) => _ = self.bridges.insert(bridge.id, bridge.clone()),
                    (Some(bridge), None) => _ = self.bridges.remove(&bridge.id),
                    (None, None) => {}
                },
                Change::Station(delta) => match (&delta.old, &delta.new) {
                    (_, Some(station)) => _ = self.stations.insert(station.key, *station),
                    (Some(station), None) => _ = self.stations.remove(&station.key),
                    (None, None) => {}
                },
                Change::Port(Delta { new: Some(port), .. }) => {
                    if let Some(open) = self.ports.get_mut(&port.id) {
                        open.spec = port.clone();
                    }
                }
                Change::Router(delta) => match (&delta.old, &delta.new) {
                    (_, Some(router)) => _ = self.routers.insert(router.bridge, router.clone()),
                    (Some(router), None) => _ = self.routers.remove(&router.bridge),
                    (None, None) => {}
                },
                Change::Endpoint(delta) => match (&delta.old, &delta.new) {
                    (_, Some(endpoint)) => _ = self.endpoints.insert(endpoint.key, endpoint.mac),
                    (Some(endpoint), None) => _ = self.endpoints.remove(&endpoint.key),
                    (None, None) => {}
                },
                Change::Neighbor(delta) => match (&delta.old, &delta.new) {
                    (_, Some(neighbor)) => _ = self.neighbors.insert(neighbor.key, *neighbor),
                    (Some(neighbor), None) => _ = self.neighbors.remove(&neighbor.key),
                    (None, None) => {}
                },
                _ => {}
            }
        }
    }

    /// The Ethernet address that whoever sends a probe would send it to: of an endpoint on its own link, else the router's.
    fn next_hop(&self, probe: &Probe) -> Option<MacAddr> {
        let bridge = self.ports.get(&probe.port)?.spec.bridge;
        let router = self.routers.get(&bridge)?;
        let on_link = router.gateways.iter().any(|link| link.contains(&probe.src) && link.contains(&probe.dst));
        let neighbor = self.endpoints.get(&AddressKey { bridge, address: probe.dst }).filter(|_| on_link);
        Some(neighbor.copied().unwrap_or(router.mac))
    }

    /// Tell devices of the routers of their bridges.
    fn tell_routers(&self) {
        for port in self.ports.values() {
            if let (Some(device), Some(router)) = (&port.device, self.routers.get(&port.spec.bridge)) {
                device.routed(router);
            }
        }
    }

    /// Connections of an earlier process end with what they rest on, if that went while nobody looked. Of endpoints whoever
    /// comes upon the connection asks.
    fn end_what_changed(&self, now: Now) {
        let Self { live, .. } = self;
        if live.connections.is_empty() {
            return;
        }
        let program = &self.publisher.current().program;
        let doomed = Doomed::beside(&program.dump());
        let ends =
            |view: &View| doomed.ends_beside(&view.original, &view.reply) || self.cut_existing && !program.stands(view);
        let ended = live.connections.kill_where(&ends, now, &live.cells);
        tracing::info!(ended, kept = live.connections.len(), "connections that rested on what is no more");
    }

    /// What packets learned, and what was made of them, ends with what it rests on.
    fn forget(&self, transaction: &Transaction, removed: &[PortId]) {
        let Self { live, .. } = self;
        for &port in removed {
            live.neighbors.flush_port(port, &live.cells);
        }
        if self.waiting.is_some() {
            // What is told is what there was before. What of it is no more is looked at when all of it is known.
            return;
        }
        if let Some(doomed) = Doomed::of(transaction) {
            let ends = |view: &View| doomed.ends(&view.original, &view.reply, view.identities);
            let ended = live.connections.kill_where(&ends, clock::now(), &live.cells);
            tracing::debug!(ended, "connections to what is no more");
        }
        if self.cut_existing && transaction.changes.iter().any(is_of_policy) {
            let program = &self.publisher.current().program;
            let ended = live.connections.kill_where(&|view| !program.stands(view), clock::now(), &live.cells);
            tracing::debug!(ended, "connections that policies do not let through any more");
        }
    }
}

/// The connections in the memory of a directory.
fn recall(directory: &Path, keeper: &Keeper) -> std::io::Result<Connections> {
    let memory = survival::connections::Connections::open(directory, keeper)?;
    let (connections, Restored { live, resting, discarded }) = Connections::restore(Box::new(memory), clock::now());
    if discarded != 0 {
        tracing::warn!(discarded, "records of connections that nobody could have left");
    }
    tracing::info!(live, resting, "connections of an earlier process");
    Ok(connections)
}

/// It may alter what policies say of connections.
fn is_of_policy(change: &Change) -> bool {
    matches!(change, Change::Ruleset(_) | Change::Subject(_))
}

/// A worker with caches in memory that large pages may back.
fn make_worker(
    reader: Reader<Snapshot>,
    live: &Arc<Live>,
    options: &Options,
    pool: &Pool,
) -> std::io::Result<(Worker, Handle)> {
    let mut failed = None;
    let mut memory = |octets: usize| -> Box<dyn Memory> {
        pool::memory(octets).unwrap_or_else(|error| {
            failed = Some(error);
            Box::new(HeapMemory::new(64))
        })
    };
    let pipeline = Pipeline::new(options.limits, KeyHasher::new(), options.shadow, &mut memory);
    match failed {
        Some(error) => Err(error),
        None => Worker::new(reader, Arc::clone(live), pipeline, pool.stash()),
    }
}

impl Control for Switch {
    fn apply(&mut self, transaction: &Transaction) -> Result<(), Refusal> {
        let start = Instant::now();
        self.check(transaction)?;
        // Ports that go, or whose device changes so much that it is another one.
        let mut gone: Vec<Port> = Vec::new();
        let mut opened: Vec<Pending> = Vec::new();
        let mut configured: Vec<(Arc<dyn Device>, Port)> = Vec::new();
        let mut result = Ok(());
        for change in &transaction.changes {
            let Change::Port(delta) = change else { continue };
            let known = delta.old.as_ref().and_then(|old| self.ports.get(&old.id));
            result = match (known, &delta.old, &delta.new) {
                (_, Some(old), None) => {
                    gone.push(old.clone());
                    Ok(())
                }
                (Some(OpenPort { device: Some(device), .. }), Some(old), Some(new))
                    if !Self::needs_reopening(old, new) =>
                {
                    if (old.mac, old.mtu) == (new.mac, new.mtu) {
                        continue;
                    }
                    let done = device.configure(new).map_err(|PortError(why)| Refusal(format!("{}: {why}", new.name)));
                    if done.is_ok() {
                        configured.push((Arc::clone(device), old.clone()));
                    }
                    done
                }
                (Some(OpenPort { device: Some(_), .. }), Some(old), Some(new)) => Err(Refusal(format!(
                    "{}: the type and options of a port ({}) cannot be changed; delete it and add it again",
                    new.name, old.kind
                ))),
                (_, _, Some(new)) => self.open(new).map(|pending| opened.push(pending)),
                (_, None, None) => Ok(()),
            };
            if result.is_err() {
                break;
            }
        }
        if let Err(refusal) = result {
            opened.iter().for_each(|pending| pending.device.remove());
            for (device, old) in configured {
                if let Err(PortError(why)) = device.configure(&old) {
                    tracing::error!("{}: cannot be set back: {why}", old.name);
                }
            }
            return Err(refusal);
        }
        for change in &transaction.changes {
            if let Change::Bridge(Delta { new: Some(bridge), .. }) = change {
                let (limit, ageing) = (bridge.mac_table_size as usize, bridge.mac_ageing);
                self.live.stations.configure(bridge.id, limit, ageing, &self.live.cells);
            }
        }
        let mut removed = Vec::new();
        for port in &gone {
            self.detach(port.id);
            removed.extend(self.ports.remove(&port.id));
        }
        let opened_any = !opened.is_empty();
        let mut queues = Vec::new();
        for Pending { spec, queues: rx, device } in opened {
            let id = spec.id;
            self.detach(id);
            let baseline = Totals::of(id, self.counters());
            self.ports.insert(id, OpenPort { spec, device: Some(device), error: None, worker: None, baseline });
            queues.push((id, rx));
        }
        self.record(transaction);
        if opened_any || transaction.changes.iter().any(|change| matches!(change, Change::Router(_))) {
            self.tell_routers();
        }
        self.publish(transaction);
        let gone: Vec<PortId> = gone.iter().map(|port| port.id).collect();
        self.forget(transaction, &gone);
        for port in removed {
            self.live.stations.flush(port.spec.bridge, Some(port.spec.id), &self.live.cells);
            if let Some(device) = port.device {
                device.remove();
                self.let_go(device);
            }
        }
        for change in &transaction.changes {
            match change {
                Change::Bridge(Delta { old: Some(bridge), new: None }) => self.live.stations.remove(bridge.id),
                // Who was heard in the old VLANs is not there any more.
                Change::Port(Delta { old: Some(old), new: Some(new) }) if old.vlan != new.vlan => {
                    self.live.stations.flush(old.bridge, Some(old.id), &self.live.cells);
                    self.live.neighbors.flush_port(old.id, &self.live.cells);
                }
                _ => {}
            }
        }
        for (id, queues) in queues {
            self.attach(id, queues);
        }
        let mut node = self.node.lock();
        node.record(transaction);
        node.settle();
        drop(node);
        if let Some(web) = &self.web {
            let metered = |port: &OpenPort| Metered { name: port.spec.name.clone(), baseline: port.baseline.clone() };
            web.record(transaction, start.elapsed(), |id| self.ports.get(&id).map(metered));
        }
        Ok(())
    }

    fn ports(&self) -> Vec<PortState> {
        let state = |(id, port): (&PortId, &OpenPort)| {
            let status = port.device.as_ref().map(|device| device.status()).unwrap_or_default();
            PortState {
                id: *id,
                error: port.error.clone().or(status.error),
                ifname: status.ifname,
                mac: status.mac.or(port.spec.mac),
                mtu: if status.mtu == 0 { port.spec.mtu } else { status.mtu },
                link: status.link,
                offloads: status.offloads,
                worker: port.worker.map(|worker| worker as u16),
                stats: Totals::of(*id, self.counters()).since(&port.baseline).stats,
            }
        };
        self.ports.iter().map(state).collect()
    }

    fn stations(&self, bridge: BridgeId) -> Vec<StationState> {
        let now = clock::now().second();
        let learned = self.live.stations.list(bridge).into_iter().map(|station| StationState {
            key: StationKey { bridge, vlan: station.address.vlan, mac: station.address.mac },
            port: station.port,
            age: Some(now.saturating_sub(station.heard)),
        });
        let placed = self.stations.values().filter(|station| station.key.bridge == bridge);
        let placed = placed.map(|station| StationState { key: station.key, port: station.port, age: None });
        // A station that was learned before it was placed is still in both tables.
        learned.filter(|row| !self.stations.contains_key(&row.key)).chain(placed).collect()
    }

    fn flush_stations(&mut self, bridge: Option<BridgeId>) -> usize {
        let bridges = self.bridges.keys().copied().filter(|id| bridge.is_none_or(|bridge| bridge == *id));
        bridges.map(|id| self.live.stations.flush(id, None, &self.live.cells)).sum()
    }

    fn drops(&self) -> Vec<DropState> {
        let mut rows = Vec::new();
        for (id, port) in &self.ports {
            let totals = Totals::of(*id, self.counters()).since(&port.baseline);
            for ((_, name, sentence), packets) in DropReason::ALL.into_iter().zip(totals.drops) {
                if packets != 0 {
                    rows.push(DropState { port: *id, reason: name.to_owned(), sentence: sentence.to_owned(), packets });
                }
            }
        }
        rows
    }

    fn workers(&self) -> Vec<WorkerState> {
        let state = |(number, worker): (usize, &Handle)| WorkerState {
            number: number as u16,
            cpu: self.cpus.get(number).copied(),
            ports: self.ports.values().filter(|port| port.worker == Some(number)).count() as u32,
            ..stats::worker(&worker.counters)
        };
        self.workers.iter().enumerate().map(state).collect()
    }

    fn coverage(&self) -> Vec<Coverage> {
        let sums = stats::coverage(self.counters());
        sums.into_iter().map(|(name, total)| Coverage { name: name.to_owned(), total }).collect()
    }

    fn capture(&mut self, port: PortId) -> Result<Receiver<Captured>, Refusal> {
        let mut captures = self.publisher.current().captures.clone();
        if captures.len() >= CAPTURES {
            return Err(Refusal(format!("there are {CAPTURES} captures already")));
        }
        if !self.ports.contains_key(&port) {
            return Err(Refusal(format!("no port numbered {port}")));
        }
        let receiver = captures.open(port);
        self.publish_captures(captures);
        Ok(receiver)
    }

    fn connections(&self) -> Vec<ConnectionState> {
        let now = clock::now();
        self.live.connections.list().iter().map(|view| view.state(now)).collect()
    }

    fn flush_connections(&mut self, doomed: &dyn Fn(&ConnectionState) -> bool) -> usize {
        let now = clock::now();
        self.live.connections.kill_where(&|view| doomed(&view.state(now)), now, &self.live.cells)
    }

    fn neighbors(&self) -> Vec<NeighborState> {
        let learned = self.live.neighbors.list(clock::now());
        let stated = self.neighbors.values().map(|neighbor| NeighborState {
            key: neighbor.key,
            port: neighbor.port,
            mac: Some(neighbor.mac),
            state: "permanent".to_owned(),
            age: None,
        });
        // One that was learned before it was stated is still in both tables.
        learned.into_iter().filter(|row| !self.neighbors.contains_key(&row.key)).chain(stated).collect()
    }

    fn unreached_by_node(&self, service: &ServiceKey) -> Option<String> {
        self.node.lock().unreached(service)
    }

    fn trace(&self, probe: &Probe) -> Traced {
        let to = probe.eth_dst.or_else(|| self.next_hop(probe)).unwrap_or(MacAddr::BROADCAST);
        let Some(octets) = probe::frame_of(probe, to) else {
            return Traced {
                verdict: "drop".to_owned(),
                reason: format!("{} and {} are not of one IP version", probe.src, probe.dst),
                ..Traced::default()
            };
        };
        let program = &self.publisher.current().program;
        pipeline::resolve::trace::trace(program, &self.live, (probe.port, &octets), probe.everywhere, clock::now())
    }

    fn denials(&self) -> Vec<DenialState> {
        self.live.denials.list()
    }

    fn probe_all(&self, probes: &[Probe]) -> Vec<Walked> {
        let (program, now) = (&self.publisher.current().program, clock::now());
        let mut octets = Vec::new();
        let walk = |probe: &Probe| {
            let to = probe.eth_dst.or_else(|| self.next_hop(probe)).unwrap_or(MacAddr::BROADCAST);
            if !probe::write_frame(probe, to, &mut octets) {
                return Walked::default();
            }
            pipeline::resolve::trace::walk(program, &self.live, (probe.port, &octets), probe.everywhere, now)
        };
        probes.iter().map(walk).collect()
    }

    fn programmed(&self) -> Vec<Change> {
        self.publisher.current().program.dump()
    }

    fn behind(&mut self, behind: bool) {
        self.web.iter().for_each(|web| web.behind(behind));
    }

    fn restored(&mut self) {
        let Some(waiting) = self.waiting.take() else { return };
        let now = clock::now();
        if let Some(learned) = &self.learned {
            let is_there = |bridge, id| self.ports.get(&id).is_some_and(|port| port.spec.bridge == bridge);
            let (stations, clients) = learned.recall(&self.live, is_there, now);
            tracing::info!(stations, clients, "learned by an earlier process");
        }
        self.end_what_changed(now);
        let attach = if self.live.connections.is_empty() { Handle::attach } else { Handle::attach_again };
        for (id, queues) in waiting {
            self.attach_by(id, queues, attach);
        }
    }

    fn tick(&mut self) {
        self.web.iter().for_each(Web::round);
        let gone: Vec<PortId> = self.workers.iter().flat_map(Handle::gone).collect();
        for id in gone {
            let why = self.ports.get(&id).and_then(|port| port.device.as_ref()?.status().error);
            self.lose(id, why.unwrap_or_else(|| "the device is gone".to_owned()));
        }
        let faults: Vec<(PortId, String)> =
            self.ports.iter().filter_map(|(id, port)| Some((*id, port.device.as_ref()?.fault()?))).collect();
        let lost: Vec<PortId> =
            self.ports.iter().filter(|(_, port)| port.device.is_none()).map(|(id, _)| *id).collect();
        for (id, why) in faults {
            self.lose(id, why);
        }
        // Those lost earlier: a device has a second to go for good before it is made again.
        for id in lost {
            self.regain(id);
        }
        if self.publisher.current().captures.any_closed() {
            let captures = self.publisher.current().captures.open_ones(|_| false);
            self.publish_captures(captures);
        }
        // Requests are answered only when what is configured was brought back.
        self.node.lock().complete();
        self.publisher.free();
    }
}
