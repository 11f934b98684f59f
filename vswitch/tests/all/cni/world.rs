//! A machine of its own for runtimes: namespaces for mounts, processes and the network, in which the daemon and the
//! runtimes run, with `/run` and the directories of CNI empty. When it is dropped, all that runs in it ends.
//!
//! ```text
//!   containers 10.1.0.0/24 fd00:1::/64 ── br-pods ──┬─ the machine 192.0.2.10
//!   containers 10.77.0.0/24 ── br-two               └─ up: outside 203.0.113.9
//! ```

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use api::reply::{AttachmentRow, Attachments};
use api::request::Manifest;
use api::{Request, reply, rpc, verb};
use serde_json::{Value, json};
use vswitch::sys::netlink::{Netlink, Settings};
use vswitch::sys::netns::{self, Namespace};

use crate::kit::{Host, PATIENCE, SERVICE_CIDR, eventually};

/// Seconds that a program of a runtime may take.
const LIMIT: &str = "60";
/// The networks: ours, and a second one of ours with addresses by an IPAM plugin.
pub(crate) const NETWORK: &str = "vswitch";
pub(crate) const SECOND: &str = "second";
/// The machine's address.
pub(crate) const NODE: &str = "192.0.2.10";
/// Where containers serve.
pub(crate) const PORT: u16 = 8080;

const NODE_MANIFEST: &str = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n\
    spec: {podCIDRs: [10.1.0.0/24, 'fd00:1::/64']}\n\
    status: {addresses: [{type: InternalIP, address: 192.0.2.10}]}\n";

/// What the machine does once it is alone, with the path of the outside's namespace and a directory of ours. The mounts
/// are nobody else's.
const ALONE: &str = "mount -t tmpfs none /run && mkdir /run/netns && touch /run/netns/outside && \
    mount --bind \"$1\" /run/netns/outside && mount -t proc none /proc && \
    mount -t tmpfs none /var/lib/cni && mount --bind \"$2/bin\" /usr/lib/cni && mount --bind \"$2/conf\" /etc/cni/net.d && \
    echo ready && exec sleep infinity";

pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) outside: Host,
    /// Ends everything when it ends.
    holder: Child,
    /// The first process inside, as seen from here.
    pid: u32,
}

impl World {
    /// With the daemon running and its networks configured; `None`, and said so, where something is missing.
    pub(crate) fn new(test: &str, programs: &[&str]) -> Option<Self> {
        let plugin = Path::new(env!("CARGO_BIN_EXE_vswitchd")).with_file_name("vswitch-cni");
        let files =
            ["/dev/net/tun", "/usr/lib/cni/host-local", "/usr/lib/cni/loopback", "/etc/cni/net.d", "/bin/busybox"];
        let mut missing: Vec<String> = programs
            .iter()
            .chain(&["unshare", "nsenter", "mount", "timeout"])
            .filter(|program| {
                !["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|dir| Path::new(dir).join(program).exists())
            })
            .map(|program| (*program).to_owned())
            .collect();
        missing.extend(files.iter().filter(|file| !Path::new(file).exists()).map(|file| (*file).to_owned()));
        if !plugin.exists() {
            missing.push(format!("{} (cargo build --release -p vswitch-cni)", plugin.display()));
        }
        let space = match (missing.is_empty(), Namespace::new()) {
            (true, Ok(space)) => space,
            (_, space) => {
                println!("SKIPPED: {test}: missing: {missing:?}, a namespace: {:?}", space.map(|_| ()));
                return None;
            }
        };
        let outside = Host { name: "outside", addresses: ["203.0.113.9", "2001:db8:9::9"], space };
        let directory = tempfile::tempdir().unwrap();
        for name in ["bin", "conf", "run", "state"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        for plugin in [&plugin, Path::new("/usr/lib/cni/host-local"), Path::new("/usr/lib/cni/loopback")] {
            fs::copy(plugin, directory.path().join("bin").join(plugin.file_name().unwrap())).unwrap();
        }
        let mut alone = Command::new("unshare");
        alone.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", ALONE, "sh"]);
        alone.arg(outside.space.path()).arg(directory.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut holder = alone.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line != "ready\n" {
            let _ = (holder.kill(), holder.wait());
            println!("SKIPPED: {test}: no namespaces for mounts and processes");
            return None;
        }
        let children = format!("/proc/{0}/task/{0}/children", holder.id());
        let pid = fs::read_to_string(children).unwrap().trim().parse().unwrap();
        let world = Self { directory, outside, holder, pid };
        Some(world.prepared())
    }

    fn prepared(self) -> Self {
        self.within(|| {
            let netlink = Netlink::open().unwrap();
            netlink.add_veth("eth0", "wire", None).unwrap();
            for name in ["lo", "wire", "eth0"] {
                up(&netlink, name);
            }
            netlink.add_address(netlink.index("eth0").unwrap(), NODE.parse().unwrap(), 24).unwrap();
        });
        self.start_daemon();
        self.apply(NODE_MANIFEST);
        self.vsctl("add-port br-pods up -- set Interface up type=tap options:netns=outside options:ifname=eth0");
        self.vsctl("route/add br-pods 0.0.0.0/0 dev up");
        self.outside.space.run(|| {
            let netlink = Netlink::open().unwrap();
            up(&netlink, "lo");
            up(&netlink, "eth0");
            let index = netlink.index("eth0").unwrap();
            netlink.add_address(index, self.outside.address(0), 24).unwrap();
            netlink.add_route((NODE.parse().unwrap(), 32), None, Some(index)).unwrap();
        });
        for (file, network) in [
            ("10-vswitch.conflist", self.network(NETWORK, "1.0.0", json!({}))),
            ("20-second.conflist", self.network(SECOND, "1.0.0", self.second())),
        ] {
            fs::write(self.path("conf").join(file), network.to_string()).unwrap();
        }
        self
    }

    /// The control group of all containers.
    pub(crate) fn group(&self) -> String {
        format!("/vswitch-test-{}", self.pid)
    }

    /// What makes the second network another.
    fn second(&self) -> Value {
        json!({"bridge": "br-two", "ipam": {
            "type": "host-local", "dataDir": self.path("ipam"),
            "ranges": [[{"subnet": "10.77.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}],
        }})
    }

    /// A list of one plugin, ours, with more members.
    pub(crate) fn network(&self, name: &str, version: &str, more: Value) -> Value {
        let mut plugin = json!({
            "type": "vswitch-cni",
            "socket": self.path("run/ctl.sock"),
            "queue": self.path("state/detach"),
            "capabilities": {"portMappings": true, "bandwidth": true, "ips": true, "mac": true},
        });
        plugin.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"cniVersion": version, "name": name, "plugins": [plugin]})
    }

    /// Start the daemon, also after its end.
    pub(crate) fn start_daemon(&self) {
        let mut daemon = self.command(env!("CARGO_BIN_EXE_vswitchd"));
        let log = fs::File::options().create(true).append(true).open(self.path("vswitchd.log")).unwrap();
        for (option, value) in [("--run-dir", self.path("run")), ("--state-dir", self.path("state"))] {
            daemon.arg(option).arg(value);
        }
        daemon.args(["--node", "n1", "--uplink", "up", "--service-cidr", &SERVICE_CIDR.join(",")]);
        daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // It ends with the world.
        drop(daemon.spawn().unwrap());
        eventually("the daemon answers", || self.ask(&Request::Version {}).is_ok());
    }

    /// kill -9 of both its processes.
    pub(crate) fn kill_daemon(&self) {
        for file in ["run/vswitchd.pid", "run/dataplane.pid"] {
            let pid = fs::read_to_string(self.path(file)).unwrap();
            assert!(self.run(&["kill", "-9", pid.trim()], &[]).status.success(), "{file}: {pid}");
        }
        eventually("the daemon is gone", || self.ask(&Request::Version {}).is_err());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A path inside, as it is seen from here.
    pub(crate) fn inside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid))
    }

    /// Do something in the machine's network.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let ns = netns::open(Path::new(&format!("/proc/{}/ns/net", self.pid))).unwrap();
        netns::within(ns.as_fd(), work).unwrap()
    }

    /// A program inside, which runs as long as it likes.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--net", "--pid", "--target", &self.pid.to_string(), "--", program]);
        command
    }

    /// Run a program inside, for a bounded time.
    pub(crate) fn run(&self, words: &[&str], variables: &[(&str, PathBuf)]) -> Output {
        let mut command = self.command("timeout");
        let log = self.path("output");
        command.args(["--kill-after=5", LIMIT]).args(words).envs(variables.iter().map(|(name, value)| (name, value)));
        // To a file: what it leaves running may keep its output open.
        let open = |name: &str| fs::File::create(log.with_extension(name)).unwrap();
        let status = command.stdin(Stdio::null()).stdout(open("out")).stderr(open("err")).status().unwrap();
        let read = |name: &str| fs::read(log.with_extension(name)).unwrap();
        Output { status, stdout: read("out"), stderr: read("err") }
    }

    pub(crate) fn ask(&self, request: &Request) -> Result<Value, rpc::ClientError> {
        rpc::Client::connect(&self.path("run/ctl.sock"), Some(PATIENCE * 4))?.ask(request)
    }

    /// Verbs, in a chain; all are done.
    pub(crate) fn vsctl(&self, words: &str) {
        let parts = words.split(" -- ").map(|part| verb::parse(&part.split_whitespace().collect::<Vec<_>>()).unwrap());
        let mut requests = parts.collect::<Vec<_>>();
        let mut request = requests.remove(0);
        for more in requests {
            let (Request::Transact { commands }, Request::Transact { commands: more }) = (&mut request, more) else {
                panic!("{words}: no chain")
            };
            commands.extend(more);
        }
        self.ask(&request).unwrap_or_else(|why| panic!("{words}: {why}"));
    }

    /// Take manifests into the cluster.
    pub(crate) fn apply(&self, text: &str) {
        let manifests = vec![Manifest { name: "-".to_owned(), text: text.to_owned() }];
        let request = Request::Apply { manifests, namespace: None };
        let said = reply::text(&request, self.ask(&request).unwrap()).unwrap();
        assert!(!said.contains("refused") && !said.contains("skipped"), "{said}");
    }

    /// All attachments.
    pub(crate) fn attachments(&self) -> Vec<AttachmentRow> {
        let answer = self.ask(&Request::Attachments {}).unwrap();
        serde_json::from_value::<Attachments>(answer).unwrap().0
    }

    /// Make a service whose endpoint is at an address.
    pub(crate) fn serve_at(&self, name: &str, n: u16, endpoint: &str) {
        let endpoint = format!("{{addresses: ['{endpoint}'], conditions: {{{}}}}}", crate::kit::READY);
        let slice = crate::kit::slice(name, "v4", "IPv4", crate::kit::TARGETS, &endpoint);
        self.apply(&(crate::kit::service(name, n) + &slice));
    }

    /// A root file system of busybox, in which `/www/who` says a name.
    pub(crate) fn root(&self, name: &str) -> PathBuf {
        let root = self.path(&format!("root-{name}"));
        for dir in ["bin", "proc", "sys", "dev", "etc", "tmp", "run", "www"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in ["sh", "sleep", "nc", "ip", "httpd", "cat", "printf"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        fs::write(root.join("www/who"), name).unwrap();
        root
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- vswitchd\n{}", fs::read_to_string(self.path("vswitchd.log")).unwrap_or_default());
        }
        // With it ends its first process, and with that all others.
        let _ = (self.holder.kill(), self.holder.wait());
        // Mounts of containers go with the last process of their namespace.
        eventually("everything ends", || !Path::new(&format!("/proc/{}", self.pid)).exists());
        let controllers = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
        for place in controllers.chain([PathBuf::from("/sys/fs/cgroup")]) {
            remove_group(&place.join(self.group().trim_start_matches('/')));
        }
    }
}

/// What a container runs to ask a server of its kind at `/www/who`, and to hear what another says by itself.
pub(crate) fn question(address: &str, port: u16) -> String {
    format!("printf 'GET /who HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {address} {port}")
}

/// Remove a control group that nobody is in, and those in it.
fn remove_group(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}

fn up(netlink: &Netlink, name: &str) {
    let settings = Settings { up: Some(true), ..Settings::default() };
    netlink.set(netlink.index(name).unwrap(), &settings).unwrap();
}
