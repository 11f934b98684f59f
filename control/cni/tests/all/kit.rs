//! A daemon that says what it is told to, and the plugin run as a runtime runs it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::attachment::code;
use api::reply::{AttachmentRow, Attachments};
use api::rpc::{Call, Reply, Splitter};
use api::{
    Addressing, Assigned, Attach, AttachRefusal, AttachReply, Attached, AttachmentId, Expected, Interface,
    InterfaceRoute, Request,
};
use serde_json::{Value, json};

/// Everything ends within this.
const PATIENCE: Duration = Duration::from_secs(30);

/// All versions, oldest first.
pub(crate) const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A directory with what a plugin needs: the socket's place, the queue's, plugins to delegate to.
pub(crate) struct Bed {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) state: Arc<Mutex<State>>,
}

/// What the daemon knows and what it heard.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) attached: BTreeMap<AttachmentId, (Attach, Attached)>,
    pub(crate) heard: Vec<String>,
    /// By method: a refusal as the daemon says it, an error of the socket, or silence.
    pub(crate) script: BTreeMap<&'static str, Said>,
}

/// What is answered instead of the right thing.
#[derive(Clone)]
pub(crate) enum Said {
    Refusal(u32, &'static str),
    Error(&'static str),
    /// The connection is closed after the thing was done.
    HangUp,
}

/// What the plugin came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Outcome {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }

    /// It was done.
    #[track_caller]
    pub(crate) fn done(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// It was refused: code and message.
    #[track_caller]
    pub(crate) fn refused(&self) -> (u64, String) {
        assert_eq!(self.code, 1, "{self:?}");
        let error = self.json();
        (error["code"].as_u64().unwrap(), error["msg"].as_str().unwrap().to_owned())
    }
}

impl Bed {
    /// With a daemon.
    pub(crate) fn new() -> Self {
        let bed = Self::without_daemon();
        bed.start_daemon();
        bed
    }

    pub(crate) fn without_daemon() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("bin")).unwrap();
        // Any file stands for a namespace here: it is the daemon who enters it.
        std::fs::write(directory.path().join("netns"), "").unwrap();
        Self { directory, state: Arc::default() }
    }

    pub(crate) fn start_daemon(&self) {
        let listener = UnixListener::bind(self.path("ctl.sock")).unwrap();
        let state = Arc::clone(&self.state);
        // It ends with the tests.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&state);
                std::thread::spawn(move || serve(stream.unwrap(), &state));
            }
        });
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn netns(&self) -> String {
        self.path("netns").display().to_string()
    }

    pub(crate) fn says(&self, method: &'static str, said: Said) {
        self.state.lock().unwrap().script.insert(method, said);
    }

    pub(crate) fn heard(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().heard)
    }

    pub(crate) fn attached(&self) -> Vec<AttachmentId> {
        self.state.lock().unwrap().attached.keys().cloned().collect()
    }

    /// What was asked at ADD of the one attachment.
    #[track_caller]
    pub(crate) fn asked(&self) -> Attach {
        let state = self.state.lock().unwrap();
        assert_eq!(state.attached.len(), 1);
        state.attached.values().next().unwrap().0.clone()
    }

    /// Names of the files in the queue.
    pub(crate) fn queue(&self) -> Vec<String> {
        let Ok(files) = std::fs::read_dir(self.path("queue")) else { return Vec::new() };
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A configuration of a version, with more members.
    pub(crate) fn config(&self, version: &str, more: Value) -> Value {
        let mut config = json!({
            "cniVersion": version,
            "name": "net",
            "type": "vswitch-cni",
            "socket": self.path("ctl.sock"),
            "queue": self.path("queue"),
        });
        let members = config.as_object_mut().unwrap();
        for (name, value) in more.as_object().unwrap() {
            members.insert(name.clone(), value.clone());
        }
        config
    }

    /// The environment of a verb.
    pub(crate) fn environment(&self, verb: &str) -> BTreeMap<&'static str, String> {
        let mut variables = BTreeMap::from([("CNI_COMMAND", verb.to_owned())]);
        variables.insert("CNI_PATH", format!("/nonexistent:{}", self.path("bin").display()));
        if matches!(verb, "ADD" | "DEL" | "CHECK") {
            variables.insert("CNI_CONTAINERID", "c1".to_owned());
            variables.insert("CNI_NETNS", self.netns());
            variables.insert("CNI_IFNAME", "eth0".to_owned());
        }
        variables
    }

    /// Run a verb as a runtime does.
    #[track_caller]
    pub(crate) fn run(&self, verb: &str, config: &Value) -> Outcome {
        run(&self.environment(verb), config.to_string().as_bytes())
    }

    #[track_caller]
    pub(crate) fn run_with(&self, verb: &str, variables: &[(&'static str, &str)], config: &Value) -> Outcome {
        let mut environment = self.environment(verb);
        environment.extend(variables.iter().map(|&(name, value)| (name, value.to_owned())));
        run(&environment, config.to_string().as_bytes())
    }
}

/// Run the plugin in an environment of its own.
#[track_caller]
pub(crate) fn run(environment: &BTreeMap<&'static str, String>, stdin: &[u8]) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vswitch-cni"));
    command.env_clear().envs(environment).env("PATH", "/usr/bin:/bin");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // A plugin that refuses its environment does not read.
    let _ = input.write_all(stdin);
    drop(input);
    let end = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            let _ = child.kill();
            panic!("the plugin does not end: {environment:?}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Outcome { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn serve(mut stream: UnixStream, state: &Mutex<State>) {
    let mut splitter = Splitter::new(1 << 20);
    let mut chunk = [0; 4096];
    loop {
        let read = stream.read(&mut chunk).unwrap_or(0);
        if read == 0 {
            return;
        }
        splitter.push(&chunk[..read]);
        while let Some(object) = splitter.next_object().unwrap() {
            let call: Call = serde_json::from_slice(&object).unwrap();
            let Some(reply) = answer(&call, state) else { return };
            stream.write_all(&serde_json::to_vec(&reply).unwrap()).unwrap();
        }
    }
}

fn answer(call: &Call, state: &Mutex<State>) -> Option<Reply> {
    let mut state = state.lock().unwrap();
    state.heard.push(call.method.clone());
    let request = Request::from_wire(&call.method, call.params[0].clone()).unwrap();
    let said = state.script.get(call.method.as_str()).cloned();
    let value = match said {
        Some(Said::Error(why)) => return Some(Reply::refused(call.id.clone(), why)),
        Some(Said::Refusal(code, what)) => refused(code, what),
        Some(Said::HangUp) => {
            state.carry_out(&request);
            return None;
        }
        None => state.carry_out(&request),
    };
    Some(Reply::done(call.id.clone(), value))
}

fn refused(code: u32, what: &str) -> Value {
    serde_json::to_value(AttachReply::Refused(AttachRefusal { code, what: what.to_owned() })).unwrap()
}

impl State {
    fn carry_out(&mut self, request: &Request) -> Value {
        let fine = serde_json::to_value(AttachReply::Fine).unwrap();
        match request {
            Request::Attach(attach) if self.attached.contains_key(&attach.id) => refused(code::FAILED, "is there"),
            Request::Attach(attach) => {
                let attached = made(attach);
                self.attached.insert(attach.id.clone(), ((**attach).clone(), attached.clone()));
                serde_json::to_value(AttachReply::Attached(attached)).unwrap()
            }
            Request::Detach { id } => {
                self.attached.remove(id);
                json!("")
            }
            Request::AttachmentCheck { id, expected } => match self.attached.get(id) {
                None => refused(code::UNKNOWN_CONTAINER, "no such attachment"),
                Some((attach, attached)) => {
                    differs(attach, attached, expected).map_or(fine, |what| refused(code::DIFFERENT, &what))
                }
            },
            Request::AttachmentGc { network, valid } => {
                self.attached.retain(|id, _| {
                    id.network != *network || valid.contains(&(id.container.clone(), id.ifname.clone()))
                });
                json!("")
            }
            Request::AttachmentStatus { .. } => fine,
            Request::Attachments {} => {
                let row = |(id, (attach, _)): (&AttachmentId, &(Attach, Attached))| AttachmentRow {
                    id: id.clone(),
                    netns: attach.netns.clone(),
                    bridge: "br-pods".to_owned(),
                    port: "p".to_owned(),
                    addresses: Vec::new(),
                    pod: None,
                    error: None,
                };
                serde_json::to_value(Attachments(self.attached.iter().map(row).collect())).unwrap()
            }
            Request::Version {} => json!("vswitchd 9.9.9"),
            other => panic!("{other:?}"),
        }
    }
}

/// What the daemon makes of a request.
fn made(attach: &Attach) -> Attached {
    let interface = match &attach.addresses {
        Addressing::Given(interface) => interface.clone(),
        Addressing::None => Interface::default(),
        Addressing::Daemon { .. } => {
            let address = |address: &str, gateway: &str| Assigned {
                address: address.parse().unwrap(),
                gateway: Some(gateway.parse().unwrap()),
            };
            let route = |prefix: &str, gateway: &str| InterfaceRoute {
                prefix: prefix.parse().unwrap(),
                gateway: Some(gateway.parse().unwrap()),
            };
            Interface {
                addresses: vec![address("10.1.0.2/24", "10.1.0.1"), address("fd00:1::2/64", "fd00:1::1")],
                routes: vec![route("0.0.0.0/0", "10.1.0.1"), route("::/0", "fd00:1::1")],
            }
        }
    };
    let mac = attach.mac.unwrap_or(api::MacAddr([2, 0, 0, 0, 0, 2]));
    Attached { mac, mtu: attach.mtu.unwrap_or(1450), interface }
}

fn differs(attach: &Attach, attached: &Attached, expected: &Expected) -> Option<String> {
    let Expected { netns, mac, mtu, interface } = expected;
    let fine = *netns == attach.netns
        && mac.is_none_or(|mac| mac == attached.mac)
        && mtu.is_none_or(|mtu| mtu == attached.mtu)
        && interface.addresses.iter().all(|address| attached.interface.addresses.contains(address))
        && interface.routes.iter().all(|route| attached.interface.routes.contains(route));
    (!fine).then(|| format!("{expected:?} is expected"))
}

/// A program that stands for an IPAM plugin. It notes what it is asked (`calls`) and answers from files:
/// `VERB.out` is said, `VERB.fails` makes it fail.
pub(crate) fn ipam_plugin(bed: &Bed, name: &str) {
    use std::os::unix::fs::PermissionsExt;
    let directory = bed.directory.path().display();
    let script = format!(
        "#!/bin/sh\ncat > {directory}/stdin.$CNI_COMMAND\necho $CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME >> {directory}/calls\n\
         if [ -e {directory}/$CNI_COMMAND.out ]; then cat {directory}/$CNI_COMMAND.out; fi\n\
         if [ -e {directory}/$CNI_COMMAND.fails ]; then exit 1; fi\n"
    );
    let program = bed.path("bin").join(name);
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
}

/// What the IPAM plugin was asked, and forget it.
pub(crate) fn ipam_calls(directory: &Path) -> Vec<String> {
    let calls = std::fs::read_to_string(directory.join("calls")).unwrap_or_default();
    let _ = std::fs::remove_file(directory.join("calls"));
    calls.lines().map(str::to_owned).collect()
}
