//! A switch and its control loop, and a way to its tables behind control's back.

use std::cell::RefCell;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use api::reply::{ObjectRow, Outcome, Verified};
use api::request::Manifest;
use api::state::{
    Captured, ConnectionState, Coverage, DropState, NeighborState, PortState, Probe, StationState, Traced, Walked,
    WorkerState,
};
use api::{BridgeId, Change, Delta, MacAddr, Port, PortId, Request, Transaction, rpc, verb};
use control::{Control, NodeSettings, Refusal, Stopper, Switch as _};
use serde_json::Value;
use vswitch::keeper::Keeper;
use vswitch::switch::Switch;

/// What a test does to the tables: from their rows, changes.
type Harm = Box<dyn FnOnce(&[Change]) -> Vec<Change> + Send>;

/// A switch whose tables somebody else has a hand in.
struct Harmed {
    switch: RefCell<Switch>,
    harms: Receiver<Option<Harm>>,
    done: RefCell<Vec<Transaction>>,
}

impl Harmed {
    /// Do what the test has said since, or take it all back.
    fn suffer(&self) {
        while let Ok(harm) = self.harms.try_recv() {
            let mut switch = self.switch.borrow_mut();
            match harm {
                Some(harm) => {
                    let transaction = Transaction { changes: harm(&switch.programmed()) };
                    assert!(!transaction.changes.is_empty(), "the harm finds nothing to do");
                    switch.apply(&transaction).unwrap();
                    self.done.borrow_mut().push(transaction);
                }
                None => {
                    for transaction in self.done.borrow_mut().drain(..).rev() {
                        switch.apply(&transaction.inverse()).unwrap();
                    }
                }
            }
        }
    }
}

/// A port that needs no device of the kernel's.
fn without_device(port: &Option<Port>) -> Option<Port> {
    let mut port = port.clone()?;
    if port.kind == "internal" {
        port.kind = "null".to_owned();
    }
    Some(port)
}

impl control::Switch for Harmed {
    fn apply(&mut self, transaction: &Transaction) -> Result<(), Refusal> {
        let changes = transaction.changes.iter().map(|change| match change {
            Change::Port(Delta { old, new }) => {
                Change::Port(Delta { old: without_device(old), new: without_device(new) })
            }
            other => other.clone(),
        });
        self.switch.get_mut().apply(&Transaction { changes: changes.collect() })
    }

    fn ports(&self) -> Vec<PortState> {
        let mut ports = self.switch.borrow().ports();
        for port in &mut ports {
            let [a, b] = port.id.0.to_be_bytes();
            port.mac = port.mac.or(Some(MacAddr([2, 0, 0, 1, a, b])));
        }
        ports
    }

    fn trace(&self, probe: &Probe) -> Traced {
        self.switch.borrow().trace(probe)
    }

    fn probe_all(&self, probes: &[Probe]) -> Vec<Walked> {
        self.switch.borrow().probe_all(probes)
    }

    fn programmed(&self) -> Vec<Change> {
        self.suffer();
        self.switch.borrow().programmed()
    }

    fn stations(&self, bridge: BridgeId) -> Vec<StationState> {
        self.switch.borrow().stations(bridge)
    }

    fn flush_stations(&mut self, bridge: Option<BridgeId>) -> usize {
        self.switch.get_mut().flush_stations(bridge)
    }

    fn drops(&self) -> Vec<DropState> {
        self.switch.borrow().drops()
    }

    fn workers(&self) -> Vec<WorkerState> {
        self.switch.borrow().workers()
    }

    fn coverage(&self) -> Vec<Coverage> {
        self.switch.borrow().coverage()
    }

    fn capture(&mut self, port: PortId) -> Result<Receiver<Captured>, Refusal> {
        self.switch.get_mut().capture(port)
    }

    fn connections(&self) -> Vec<ConnectionState> {
        self.switch.borrow().connections()
    }

    fn flush_connections(&mut self, doomed: &dyn Fn(&ConnectionState) -> bool) -> usize {
        self.switch.get_mut().flush_connections(doomed)
    }

    fn neighbors(&self) -> Vec<NeighborState> {
        self.switch.borrow().neighbors()
    }
}

/// A running switch of node n1, with an uplink.
pub(crate) struct Bed {
    directory: tempfile::TempDir,
    stopper: Stopper,
    thread: Option<JoinHandle<()>>,
    harm: Sender<Option<Harm>>,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let control = control::Options {
            socket: directory.path().join("ctl.sock"),
            socket_group: None,
            state_dir: directory.path().join("state"),
            cluster: None,
            version: "test".to_owned(),
            node: NodeSettings {
                name: "n1".to_owned(),
                service_cidrs: vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/112".parse().unwrap()],
                uplink: Some("up".to_owned()),
                ..NodeSettings::default()
            },
        };
        let (harm, harms) = channel();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            let switch = Switch::start(&crate::memory::options(1), Keeper::none()).unwrap();
            let mut switch = Harmed { switch: RefCell::new(switch), harms, done: RefCell::default() };
            let mut control = Control::open(&control, &mut switch).unwrap();
            tell.send(control.stopper()).unwrap();
            control.run(&mut switch).unwrap();
            switch.switch.into_inner().stop();
        });
        let stopper = told.recv().expect("the switch starts");
        Self { directory, stopper, thread: Some(thread), harm }
    }

    fn ask(&self, request: &Request) -> Value {
        let socket = self.directory.path().join("ctl.sock");
        let mut client = rpc::Client::connect(&socket, Some(Duration::from_secs(60))).unwrap();
        client.ask(request).unwrap_or_else(|why| panic!("{}: {why}", request.to_wire().0))
    }

    /// A chain of database commands, or one other verb.
    pub(crate) fn vsctl(&self, words: &str) -> Value {
        let mut chain = Vec::new();
        for part in words.split(" -- ") {
            match verb::parse(&part.split_whitespace().collect::<Vec<_>>()).unwrap() {
                Request::Transact { commands } => chain.extend(commands),
                single => return self.ask(&single),
            }
        }
        self.ask(&Request::Transact { commands: chain })
    }

    /// Apply objects; all are taken.
    pub(crate) fn apply(&self, objects: &[Value]) {
        let text: String = objects.iter().map(|object| format!("---\n{object}\n")).collect();
        let manifests = vec![Manifest { name: "-".to_owned(), text }];
        let rows = self.ask(&Request::Apply { manifests, namespace: None });
        let rows: Vec<ObjectRow> = serde_json::from_value(rows).unwrap();
        for ObjectRow { object, outcome } in rows {
            assert!(!matches!(outcome, Outcome::Refused(_) | Outcome::Skipped(_)), "{object}: {outcome:?}");
        }
    }

    /// Delete an object, be it there or not.
    pub(crate) fn vsctl_delete(&self, object: &Value) {
        let text = object.to_string();
        let manifests = vec![Manifest { name: "-".to_owned(), text }];
        self.ask(&Request::Delete { manifests, kind: None, names: Vec::new(), namespace: None });
    }

    /// Bind a port to each pod, and make the uplink with a default route of each IP version.
    pub(crate) fn bind(&self, pods: &[(&str, &str)]) {
        let mut chain = vec!["--may-exist add-port br-pods up -- set Interface up type=null".to_owned()];
        chain.extend(pods.iter().enumerate().map(|(n, (namespace, name))| {
            let mac = format!("02:00:00:02:{:02x}:{:02x}", n >> 8, n & 0xff);
            format!(
                "add-port br-pods {namespace}.{name} -- set Interface {namespace}.{name} type=null \
                 mac=\"{mac}\" external_ids:pod={namespace}/{name}"
            )
        }));
        self.vsctl(&chain.join(" -- "));
        self.vsctl("route/add br-pods 0.0.0.0/0 dev up");
        self.vsctl("route/add br-pods ::/0 dev up");
    }

    pub(crate) fn verify(&self) -> Verified {
        serde_json::from_value(self.vsctl("verify")).unwrap()
    }

    /// Do this to the tables before they are next looked at.
    pub(crate) fn harm(&self, harm: impl FnOnce(&[Change]) -> Vec<Change> + Send + 'static) {
        self.harm.send(Some(Box::new(harm))).unwrap();
    }

    /// Take it back.
    pub(crate) fn heal(&self) {
        self.harm.send(None).unwrap();
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.stopper.stop();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_none_or(|ended| ended.is_ok()), "the switch died");
    }
}
