//! A node of a cluster for tests: a real switch and its control socket in a namespace of the node, pods and the outside
//! in namespaces of their own, programmed by manifests as text.
//!
//! ```text
//!   pod a  10.1.0.2  fd00:1::2 ─┐              ┌─ the node  192.0.2.10   2001:db8::10
//!   pod b  10.1.0.3  fd00:1::3 ─┼─ br-pods ────┤
//!   pod c  10.1.0.4  fd00:1::4 ─┘  (gateway 1) └─ up: outside  203.0.113.9  2001:db8:9::9
//! ```

use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use api::reply::{ObjectRow, Outcome};
use api::request::Manifest;
use api::{Request, rpc, verb};
use control::{Control, NodeSettings, Stopper};
use parking_lot::Mutex;
use serde_json::Value;
use vswitch::keeper::Keeper;
use vswitch::switch::{Options, Switch};
use vswitch::sys::netlink::{Netlink, Settings};
use vswitch::sys::netns::Namespace;
use vswitch::web;

pub(crate) mod beyond;
pub(crate) mod host;
pub(crate) mod manifests;
pub(crate) mod server;

pub(crate) use beyond::*;
pub(crate) use host::Host;
pub(crate) use manifests::*;

/// How long an answer may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How long silence is waited for.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);
/// Where the node says how it is.
const HEALTHZ: &str = "0.0.0.0:10256";
/// By IP version: the gateway, and the prefix lengths of pods and of the outside.
pub(crate) const GATEWAY: [&str; 2] = ["10.1.0.1", "fd00:1::1"];
pub(crate) const PREFIX: [u8; 2] = [24, 64];
/// Both IP versions, as the position in every array of two addresses.
pub(crate) const FAMILIES: [usize; 2] = [0, 1];

/// A node, three pods, the outside, and the switch between them.
pub(crate) struct Bed {
    pub(crate) a: Host,
    pub(crate) b: Host,
    pub(crate) c: Host,
    pub(crate) node: Host,
    pub(crate) outside: Host,
    dir: tempfile::TempDir,
    options: Options,
    running: Mutex<Option<Running>>,
}

/// The switch and its control loop, on a thread in the node's namespace.
struct Running {
    stopper: Stopper,
    thread: JoinHandle<()>,
}

/// Run `work` on a node of its own, with one worker and with two.
pub(crate) fn on_a_node(test: &str, work: impl Fn(&Bed)) {
    on_a_node_with(test, |_| {}, work);
}

/// The same on a node whose switch is started otherwise.
pub(crate) fn on_a_node_with(test: &str, other: impl Fn(&mut Options), work: impl Fn(&Bed)) {
    for workers in [1, 2] {
        // Every hit is walked again; streams come in super-frames.
        let mut options = Options { shadow: 1, spills: 256, ..crate::memory::options(workers) };
        other(&mut options);
        let Some(bed) = Bed::new(test, options) else { return };
        work(&bed);
        let coverage = bed.vsctl("coverage/show");
        assert!(!coverage.contains("cache_divergence"), "a cached decision differed from a fresh one:\n{coverage}");
    }
}

impl Bed {
    fn new(test: &str, options: Options) -> Option<Self> {
        let possible = std::path::Path::new(vswitch::sys::tun::PATH).exists();
        let made = (0..5).map(|_| Namespace::new()).collect::<Result<Vec<_>, _>>();
        let spaces = match (possible, made) {
            (true, Ok(spaces)) => spaces,
            (_, made) => {
                println!("SKIPPED: {test}: /dev/net/tun: {possible}, a namespace: {:?}", made.map(|_| ()));
                return None;
            }
        };
        let mut spaces = spaces.into_iter();
        let mut host = |name, addresses| Host { name, addresses, space: spaces.next().unwrap() };
        let bed = Self {
            a: host("a", ["10.1.0.2", "fd00:1::2"]),
            b: host("b", ["10.1.0.3", "fd00:1::3"]),
            c: host("c", ["10.1.0.4", "fd00:1::4"]),
            node: host("node", ["192.0.2.10", "2001:db8::10"]),
            outside: host("outside", ["203.0.113.9", "2001:db8:9::9"]),
            dir: tempfile::tempdir().unwrap(),
            options,
            running: Mutex::new(None),
        };
        bed.prepare_node();
        bed.start();
        bed.attach();
        Some(bed)
    }

    /// The node has its addresses on an interface that leads nowhere.
    fn prepare_node(&self) {
        self.node.space.run(|| {
            let netlink = Netlink::open().unwrap();
            netlink.add_veth("eth0", "wire", None).unwrap();
            for name in ["lo", "wire", "eth0"] {
                up(&netlink, name);
            }
            let eth0 = netlink.index("eth0").unwrap();
            for (address, prefix) in self.node.addresses.iter().zip(PREFIX) {
                netlink.add_address(eth0, address.parse().unwrap(), prefix).unwrap();
            }
        });
    }

    /// Start the switch; after [`Self::stop`] with what it was told before.
    pub(crate) fn start(&self) {
        let node = NodeSettings {
            name: "n1".to_owned(),
            service_cidrs: SERVICE_CIDR.map(|prefix| prefix.parse().unwrap()).to_vec(),
            uplink: Some("up".to_owned()),
            ..NodeSettings::default()
        };
        let control = control::Options {
            socket: self.socket(),
            socket_group: None,
            state_dir: self.dir.path().join("state"),
            cluster: None,
            version: "test".to_owned(),
            node,
        };
        let options = self.options.clone();
        let (tell, told) = channel();
        let thread = self.node.space.run(|| {
            std::thread::spawn(move || {
                let mut switch = Switch::start(&options, Keeper::none()).unwrap();
                switch.serve(web::Settings { healthz: HEALTHZ.parse().ok(), ..web::Settings::default() }).unwrap();
                let mut control = Control::open(&control, &mut switch).unwrap();
                tell.send(control.stopper()).unwrap();
                control.run(&mut switch).unwrap();
                switch.stop();
            })
        });
        let stopper = told.recv().expect("the switch starts");
        *self.running.lock() = Some(Running { stopper, thread });
    }

    /// Stop the switch; its devices and what it was told stay.
    pub(crate) fn stop(&self) {
        let Some(running) = self.running.lock().take() else { return };
        running.stopper.stop();
        let ended = running.thread.join();
        assert!(std::thread::panicking() || ended.is_ok(), "the switch died");
    }

    /// The cluster's nodes and pods, a port for each pod, and the outside.
    fn attach(&self) {
        self.apply(&node_manifest(&self.node));
        for pod in [&self.a, &self.b, &self.c] {
            self.apply(&pod_manifest(pod, ""));
            self.add_port(pod.name, pod);
            self.vsctl(&format!("set Interface {} external_ids:pod=default/{}", pod.name, pod.name));
        }
        self.add_port("up", &self.outside);
        self.vsctl("route/add br-pods 0.0.0.0/0 dev up");
        self.vsctl("route/add br-pods ::/0 dev up");
        self.outside.space.run(|| {
            let netlink = Netlink::open().unwrap();
            let index = netlink.index("eth0").unwrap();
            for family in FAMILIES {
                let to = (self.node.address(family), [32, 128][family]);
                netlink.add_route(to, None, Some(index)).unwrap();
            }
        });
    }

    fn add_port(&self, name: &str, host: &Host) {
        let netns = host.space.path().display();
        self.vsctl(&format!(
            "add-port br-pods {name} -- set Interface {name} type=tap options:netns={netns} options:ifname=eth0"
        ));
        host.space.run(|| {
            let netlink = Netlink::open().unwrap();
            up(&netlink, "lo");
            up(&netlink, "eth0");
            let index = netlink.index("eth0").unwrap();
            for family in FAMILIES {
                netlink.add_address(index, host.address(family), PREFIX[family]).unwrap();
                if name != "up" {
                    let all = (["0.0.0.0", "::"][family].parse().unwrap(), 0);
                    netlink.add_route(all, Some(GATEWAY[family].parse().unwrap()), Some(index)).unwrap();
                }
            }
        });
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("ctl.sock")
    }

    pub(crate) fn ask(&self, request: &Request) -> Result<Value, rpc::ClientError> {
        rpc::Client::connect(&self.socket(), Some(PATIENCE * 4))?.ask(request)
    }

    /// What a verb answers, as people see it.
    pub(crate) fn vsctl(&self, words: &str) -> String {
        let mut commands = words.split(" -- ").map(|part| {
            let words: Vec<&str> = part.split_whitespace().collect();
            verb::parse(&words).unwrap_or_else(|why| panic!("{words:?}: {why}"))
        });
        let mut request = commands.next().unwrap();
        for more in commands {
            match (&mut request, more) {
                (Request::Transact { commands }, Request::Transact { commands: more }) => commands.extend(more),
                (_, more) => panic!("{words}: {more:?} in a chain"),
            }
        }
        let answer = self.ask(&request).unwrap_or_else(|why| panic!("{words}: {why}"));
        api::reply::text(&request, answer).unwrap()
    }

    /// Apply manifests; all are taken.
    pub(crate) fn apply(&self, text: &str) {
        let manifests = vec![Manifest { name: "-".to_owned(), text: text.to_owned() }];
        self.rows(&Request::Apply { manifests, namespace: None });
    }

    /// Apply a manifest of one object that is refused; why.
    pub(crate) fn refused(&self, text: &str) -> String {
        let manifests = vec![Manifest { name: "-".to_owned(), text: text.to_owned() }];
        let answer = self.ask(&Request::Apply { manifests, namespace: None }).unwrap();
        let rows: Vec<ObjectRow> = serde_json::from_value(answer).unwrap();
        match &rows[..] {
            [ObjectRow { outcome: Outcome::Refused(why), .. }] => why.clone(),
            rows => panic!("{rows:?}"),
        }
    }

    /// Ask for what is done to objects; all of it is done.
    fn rows(&self, request: &Request) {
        let rows: Vec<ObjectRow> = serde_json::from_value(self.ask(request).unwrap()).unwrap();
        for ObjectRow { object, outcome } in rows {
            assert!(!matches!(outcome, Outcome::Refused(_) | Outcome::Skipped(_)), "{object}: {outcome:?}");
        }
    }

    /// Delete an object.
    pub(crate) fn delete(&self, kind: &str, name: &str) {
        self.delete_in("default", kind, name);
    }

    /// Delete an object of a namespace.
    pub(crate) fn delete_in(&self, namespace: &str, kind: &str, name: &str) {
        let request = Request::Delete {
            manifests: Vec::new(),
            kind: Some(kind.to_owned()),
            names: vec![name.to_owned()],
            namespace: Some(namespace.to_owned()),
        };
        self.rows(&request);
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if std::thread::panicking() && self.running.lock().is_some() {
            for verb in ["services", "connections", "neighbors", "routes", "drops"] {
                let request = verb::parse(&[verb]).unwrap();
                let said = self.ask(&request).map(|answer| api::reply::text(&request, answer));
                println!("--- {verb}\n{}", said.map_or_else(|why| why.to_string(), |text| text.unwrap_or_default()));
            }
        }
        self.stop();
    }
}

fn up(netlink: &Netlink, name: &str) {
    let settings = Settings { up: Some(true), ..Settings::default() };
    netlink.set(netlink.index(name).unwrap(), &settings).unwrap();
}

/// Wait for what must come to be.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
