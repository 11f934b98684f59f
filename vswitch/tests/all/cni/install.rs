//! `vswitchd install-cni`: nothing before the daemon is ready, everything after.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use api::request::Manifest;
use api::rpc::Client;
use api::{Request, reply};
use control::fake::FakeSwitch;
use control::{Control, NodeSettings, Stopper};
use serde_json::Value;

use crate::kit::PATIENCE;

/// What stands for the plugin.
const PLUGIN: &str = "#!/bin/sh\n";

struct Daemon {
    stopper: Stopper,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Daemon {
    fn start(directory: &Path) -> Self {
        let options = control::Options {
            socket: directory.join("run/ctl.sock"),
            socket_group: None,
            state_dir: directory.join("state"),
            cluster: None,
            version: "test".to_owned(),
            node: NodeSettings { name: "n1".to_owned(), ..NodeSettings::default() },
        };
        fs::create_dir_all(directory.join("run")).unwrap();
        let mut switch = FakeSwitch::default();
        let mut control = Control::open(&options, &mut switch).unwrap();
        let stopper = control.stopper();
        let thread = Some(std::thread::spawn(move || control.run(&mut switch).unwrap()));
        Self { stopper, thread }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stopper.stop();
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// Install by a program that has the plugin beside it.
fn install(directory: &Path, timeout: &str) -> Output {
    let program = directory.join("here/vswitchd");
    if !program.exists() {
        fs::create_dir_all(directory.join("here")).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_vswitchd"), &program).unwrap();
        fs::write(directory.join("here/vswitch-cni"), PLUGIN).unwrap();
    }
    let dir = |name: &str| directory.join(name).into_os_string();
    let mut command = Command::new(program);
    command.arg("install-cni");
    for (option, value) in [
        ("--bin-dir", dir("bin")),
        ("--conf-dir", dir("conf")),
        ("--run-dir", dir("run")),
        ("--state-dir", dir("state")),
        ("--timeout", timeout.into()),
    ] {
        command.arg(option).arg(value);
    }
    loop {
        // Another thread's child may hold the copy open for a moment, until it is the program that it shall be.
        match command.output() {
            Err(why) if why.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::sleep(PATIENCE / 1000),
            output => return output.unwrap(),
        }
    }
}

fn files(directory: &Path) -> Vec<String> {
    let Ok(files) = fs::read_dir(directory) else { return Vec::new() };
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn the_plugin_is_installed_when_a_pod_could_be_attached_and_not_before() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let untouched = |says: &str| {
        let output = install(directory, "0");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.starts_with("vswitchd: install-cni: ") && said.contains(says), "{said}");
        assert_eq!((files(&directory.join("bin")), files(&directory.join("conf"))), (vec![], vec![]));
    };
    untouched("cannot connect");
    let _daemon = Daemon::start(directory);
    // Nobody has said yet which addresses its pods have.
    untouched("podCIDR");
    let text = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nspec: {podCIDRs: [10.1.0.0/24]}\n\
                status: {addresses: [{type: InternalIP, address: 192.0.2.10}]}\n";
    let manifests = vec![Manifest { name: "-".to_owned(), text: text.to_owned() }];
    let request = Request::Apply { manifests, namespace: None };
    let answer = Client::connect(&directory.join("run/ctl.sock"), Some(PATIENCE)).unwrap().ask(&request).unwrap();
    assert!(reply::text(&request, answer).unwrap().contains("created"));

    let output = install(directory, "10");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        (files(&directory.join("bin")), files(&directory.join("conf"))),
        (vec!["vswitch-cni".to_owned()], vec!["10-vswitch.conflist".to_owned()])
    );
    let plugin = directory.join("bin/vswitch-cni");
    assert_eq!(fs::read(&plugin).unwrap(), PLUGIN.as_bytes());
    assert_eq!(fs::metadata(&plugin).unwrap().permissions().mode() & 0o777, 0o755);
    let list: Value = serde_json::from_slice(&fs::read(directory.join("conf/10-vswitch.conflist")).unwrap()).unwrap();
    let plugin = &list["plugins"][0];
    assert_eq!((&list["name"], &plugin["type"]), (&Value::from("vswitch"), &Value::from("vswitch-cni")));
    for (key, path) in [("socket", "run/ctl.sock"), ("queue", "state/detach")] {
        assert_eq!(OsStr::new(plugin[key].as_str().unwrap()), directory.join(path).as_os_str());
    }
    // Again, over what is there: an upgrade.
    assert_eq!(install(directory, "10").status.code(), Some(0));
}

#[test]
fn a_missing_plugin_and_a_place_that_cannot_be_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    install(directory, "0");
    fs::remove_file(directory.join("here/vswitch-cni")).unwrap();
    let output = install(directory, "0");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("here/vswitch-cni: No such file or directory"), "{said}");
    assert_eq!(output.status.code(), Some(1));
    let output = Command::new(directory.join("here/vswitchd")).args(["install-cni", "--colour"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
