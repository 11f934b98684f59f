//! A node with a daemon of its own process, which can be killed in every way.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use api::request::Manifest;
use api::{Request, rpc, verb};
use rustix::process::{Pid, Signal, kill_process};
use vswitch::sys::netlink::{Netlink, Settings};
use vswitch::sys::netns::Namespace;

/// How long the daemon may take for anything.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pods, by number.
pub(super) const PODS: [&str; 3] = ["10.1.0.2", "10.1.0.3", "10.1.0.4"];
const GATEWAY: &str = "10.1.0.1";
pub(super) const NODE: &str = "192.0.2.10";
/// The service of pods 1 and 2.
pub(super) const SERVICE: &str = "10.96.0.1:80";

/// How a data plane, a keeper or both come to their end and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// kill -9 of the data plane: the keeper starts another one.
    DataPlane,
    /// kill -9 of the keeper, with which the data plane dies; both are started again.
    Keeper,
    /// kill -9 of the two, the data plane first.
    Both,
    /// SIGTERM, and a start.
    Restart,
    /// Another file stands where the program was; SIGTERM, and a start.
    Upgrade,
    /// Another file stands where the program was; kill -9 of the data plane.
    UpgradeOfDataPlane,
}

/// A node, its daemon and its pods.
pub(super) struct Node {
    pub(super) space: Namespace,
    pub(super) pods: Vec<Namespace>,
    pub(super) dir: tempfile::TempDir,
    program: PathBuf,
    keeper: Option<Child>,
    workers: usize,
}

impl Node {
    /// A node and so many pods, on a running daemon that knows nothing yet.
    pub(super) fn new(test: &str, pods: usize, workers: usize) -> Option<Self> {
        let possible = Path::new(vswitch::sys::tun::PATH).exists();
        let made = (0..=pods).map(|_| Namespace::new()).collect::<Result<Vec<_>, _>>();
        let mut spaces = match (possible, made) {
            (true, Ok(spaces)) => spaces.into_iter(),
            (_, made) => {
                println!("SKIPPED: {test}: /dev/net/tun: {possible}, a namespace: {:?}", made.map(|_| ()));
                return None;
            }
        };
        let space = spaces.next().unwrap();
        space.run(|| {
            let netlink = Netlink::open().unwrap();
            netlink.add_veth("eth0", "wire", None).unwrap();
            ["lo", "wire", "eth0"].iter().for_each(|name| up(&netlink, name));
            netlink.add_address(netlink.index("eth0").unwrap(), NODE.parse().unwrap(), 24).unwrap();
        });
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("vswitchd");
        std::fs::copy(env!("CARGO_BIN_EXE_vswitchd"), &program).unwrap();
        let mut node = Self { space, pods: spaces.collect(), dir, program, keeper: None, workers };
        node.start();
        Some(node)
    }

    /// The daemon's command line, as it stands in a shell.
    pub(super) fn words(&self) -> Vec<String> {
        let dir = self.dir.path().display();
        let words = format!(
            "{program} --run-dir {dir}/run --state-dir {dir}/state --node n1 --service-cidr 10.96.0.0/16 --workers {workers} \
             --healthz-address= --metrics-address= --shadow 1/16",
            program = self.program.display(),
            workers = self.workers,
        );
        words.split(' ').map(str::to_owned).collect()
    }

    /// Start the daemon, and wait until it answers.
    pub(super) fn start(&mut self) {
        let words = self.words();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        self.start_by(command);
    }

    /// Start the daemon by a command of another kind.
    pub(super) fn start_by(&mut self, mut command: Command) {
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.keeper = Some(self.space.run(|| command.spawn().unwrap()));
        self.wait_until_ready();
    }

    /// Wait until the daemon answers.
    pub(super) fn wait_until_ready(&mut self) {
        let end = Instant::now() + PATIENCE;
        let ask = |node: &Self| node.ask(&verb::parse(&["list-br"]).unwrap());
        while ask(self).is_err() {
            let ended = self.keeper.as_mut().and_then(|keeper| keeper.try_wait().unwrap());
            assert!(ended.is_none() && Instant::now() < end, "vswitchd does not answer: {ended:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What the daemon said.
    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub(super) fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn data_plane(&self) -> Pid {
        let end = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(self.run_dir().join("dataplane.pid")).unwrap_or_default();
            if let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw).filter(|pid| runs(*pid)) {
                return pid;
            }
            assert!(Instant::now() < end, "there is no data plane: {text:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Let the daemon come to its end, and start it again; returns when it answers.
    pub(super) fn end(&mut self, end: End) {
        match end {
            End::DataPlane | End::UpgradeOfDataPlane => {
                if end == End::UpgradeOfDataPlane {
                    self.exchange_program();
                }
                let plane = self.data_plane();
                kill_process(plane, Signal::KILL).unwrap();
                wait_until_gone(plane);
                self.wait_until_ready();
            }
            End::Keeper | End::Both => {
                self.kill(end);
                self.start();
            }
            End::Restart | End::Upgrade => {
                if end == End::Upgrade {
                    self.exchange_program();
                }
                self.stop(Signal::TERM);
                self.start();
            }
        }
    }

    /// kill -9 of both processes; returns when they are gone.
    pub(super) fn kill(&mut self, end: End) {
        let plane = self.data_plane();
        let mut keeper = self.keeper.take().unwrap();
        if end == End::Both {
            // At once, so that the keeper cannot start another one.
            kill_process(Pid::from_child(&keeper), Signal::STOP).unwrap();
            kill_process(plane, Signal::KILL).unwrap();
        }
        keeper.kill().unwrap();
        keeper.wait().unwrap();
        wait_until_gone(plane);
    }

    /// An orderly end.
    pub(super) fn stop(&mut self, signal: Signal) {
        let mut keeper = self.keeper.take().unwrap();
        kill_process(Pid::from_child(&keeper), signal).unwrap();
        assert!(keeper.wait().unwrap().success(), "{}", self.log());
    }

    /// Another file, of the same name.
    fn exchange_program(&self) {
        let new = self.program.with_extension("new");
        std::fs::copy(&self.program, &new).unwrap();
        std::fs::rename(&new, &self.program).unwrap();
    }

    fn ask(&self, request: &Request) -> Result<serde_json::Value, rpc::ClientError> {
        rpc::Client::connect(&self.run_dir().join("ctl.sock"), Some(PATIENCE))?.ask(request)
    }

    /// What a verb answers, as people see it.
    pub(super) fn vsctl(&self, words: &str) -> String {
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

    /// Apply manifests.
    pub(super) fn apply(&self, text: &str) {
        let manifests = vec![Manifest { name: "-".to_owned(), text: text.to_owned() }];
        self.ask(&Request::Apply { manifests, namespace: None }).unwrap();
    }

    /// A cluster of the pods, with a service of all but the first of them.
    pub(super) fn make_cluster(&self) {
        self.apply(&format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: n1}}\nspec: {{podCIDRs: [10.1.0.0/24]}}\n\
             status: {{addresses: [{{type: InternalIP, address: {NODE}}}]}}\n"
        ));
        for (number, address) in PODS.iter().enumerate().take(self.pods.len()) {
            self.apply(&format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{number}}}\n\
                 spec: {{nodeName: n1, containers: [{{name: main}}]}}\n\
                 status: {{podIP: {address}, podIPs: [{{ip: {address}}}], conditions: [{{type: Ready, status: 'True'}}]}}\n"
            ));
            self.add_port("br-pods", number);
            self.vsctl(&format!("set Interface p{number} external_ids:pod=default/p{number}"));
        }
        let ports = "{name: t, protocol: TCP, port: 80, targetPort: 8080}, {name: u, protocol: UDP, port: 80, targetPort: 8080}";
        let targets = "{name: t, protocol: TCP, port: 8080}, {name: u, protocol: UDP, port: 8080}";
        let of = |address: &&str| format!("{{addresses: ['{address}'], conditions: {{ready: true}}}}");
        let endpoints: Vec<String> = PODS[1..self.pods.len()].iter().map(of).collect();
        self.apply(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{clusterIP: 10.96.0.1, ports: [{ports}]}}\n\
             ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: web-1, labels: {{kubernetes.io/service-name: web}}}}\n\
             addressType: IPv4\nports: [{targets}]\nendpoints: [{}]\n",
            endpoints.join(", ")
        ));
    }

    /// Services of a backend each, by number.
    pub(super) fn add_services(&self, numbers: &[u32]) {
        let one = |number: &u32| {
            let [_, _, high, low] = (256 + number).to_be_bytes();
            format!(
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{number}}}\n\
                 spec: {{clusterIP: 10.96.{high}.{low}, ports: [{{port: 80, targetPort: 8080}}]}}\n\
                 ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
                 metadata: {{name: s{number}-1, labels: {{kubernetes.io/service-name: s{number}}}}}\n\
                 addressType: IPv4\nports: [{{port: 8080}}]\n\
                 endpoints: [{{addresses: ['{}'], conditions: {{ready: true}}}}]\n",
                PODS[1]
            )
        };
        self.apply(&numbers.iter().map(one).collect::<String>());
    }

    /// A port for a pod, and the pod's side of it.
    pub(super) fn add_port(&self, bridge: &str, number: usize) {
        let netns = self.pods[number].path().display();
        self.vsctl(&format!(
            "add-port {bridge} p{number} -- set Interface p{number} type=tap options:netns={netns} options:ifname=eth0"
        ));
        self.pods[number].run(|| {
            let netlink = Netlink::open().unwrap();
            up(&netlink, "lo");
            up(&netlink, "eth0");
            let index = netlink.index("eth0").unwrap();
            netlink.add_address(index, PODS[number].parse().unwrap(), 24).unwrap();
            netlink.add_route(("0.0.0.0".parse().unwrap(), 0), Some(GATEWAY.parse().unwrap()), Some(index)).unwrap();
        });
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- log\n{}", self.log());
        }
        if let Some(mut keeper) = self.keeper.take() {
            let _ = keeper.kill();
            let _ = keeper.wait();
        }
        // It dies with its keeper; its devices go with the namespaces.
        let text = std::fs::read_to_string(self.run_dir().join("dataplane.pid")).unwrap_or_default();
        if let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) {
            wait_until_gone(pid);
        }
    }
}

fn up(netlink: &Netlink, name: &str) {
    let settings = Settings { up: Some(true), ..Settings::default() };
    netlink.set(netlink.index(name).unwrap(), &settings).unwrap();
}

/// There is such a process, and it is no orphan that has yet to be reaped.
fn runs(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

fn wait_until_gone(pid: Pid) {
    let end = Instant::now() + PATIENCE;
    while runs(pid) && Instant::now() < end {
        std::thread::sleep(Duration::from_micros(200));
    }
}
