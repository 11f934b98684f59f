//! The program `vsctl` against a daemon that has no packets: exit codes, what is printed where, files written.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;

use control::fake::FakeSwitch;
use control::{Control, Options, Stopper};

struct Daemon {
    directory: tempfile::TempDir,
    stopper: Stopper,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = Options {
            socket: directory.path().join("ctl.sock"),
            socket_group: None,
            state_dir: directory.path().join("state"),
            cluster: None,
            version: "vswitchd test".to_owned(),
            node: Default::default(),
        };
        let mut switch = FakeSwitch::default();
        let mut control = Control::open(&options, &mut switch).unwrap();
        let stopper = control.stopper();
        let thread = std::thread::spawn(move || control.run(&mut switch).unwrap());
        Self { directory, stopper, thread: Some(thread) }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("ctl.sock")
    }

    fn command(&self, line: &str) -> Command {
        command(&self.socket(), line)
    }

    /// Exit code, standard output, standard error.
    fn run(&self, line: &str) -> (i32, String, String) {
        told(self.command(line).output().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn command(socket: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vsctl"));
    command.env("VSWITCH_SOCKET", socket).args(line.split(' ').filter(|word| !word.is_empty()));
    command
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_session_goes_as_with_ovs_vsctl() {
    let daemon = Daemon::start();
    for (line, code, out, err) in [
        ("add-br br0 -- add-port br0 p1 tag=3 -- set Interface p1 type=null", 0, "", ""),
        ("list-br", 0, "br0\n", ""),
        ("br-exists br0", 0, "", ""),
        ("br-exists br1", 2, "", ""),
        ("--may-exist add-br br0 -- list-ports br0", 0, "p1\n", ""),
        ("get Interface p1 type --format json", 0, "[\"null\"]\n", ""),
        ("list-br -- list-ports br0 --format=json", 0, "[\"br0\"]\n[\"p1\"]\n", ""),
        ("--format json fdb/show br0", 0, "[]\n", ""),
        ("fdb/show br0", 0, " port  VLAN  MAC                Age\n", ""),
        ("version", 0, "vswitchd test\n", ""),
        ("--version", 0, concat!("vsctl ", env!("CARGO_PKG_VERSION"), "\n"), ""),
        ("add-port br1 p2", 1, "", "vsctl: add-port: br1: no bridge named br1\n"),
        ("add-br br1 -- add-port br9 p2", 1, "", "vsctl: add-port: br9: no bridge named br9\n"),
        ("fdb/show br1", 1, "", "vsctl: fdb/show: br1: no bridge named br1\n"),
        ("capture p9", 1, "", "vsctl: capture: p9: no port named p9\n"),
        (
            "frobnicate br0",
            2,
            "",
            "vsctl: \"frobnicate\" is not a valid command (use \"list-commands\" to see a list of valid commands)\n",
        ),
        ("", 2, "", "vsctl: missing command name (use --help for help)\n"),
        ("add-br", 2, "", "vsctl: 'add-br' command requires at least 1 arguments\n"),
        ("add-br br2 -- fdb/show br0", 2, "", "vsctl: fdb/show: not a database command: it cannot stand in a chain\n"),
        ("show -c 1", 2, "", "vsctl: -w and -c belong to capture\n"),
        ("show --colour", 2, "", "vsctl: unexpected argument '--colour' found\n"),
        ("completion tcsh", 2, "", "vsctl: completion: which shell: bash, zsh or fish?\n"),
        ("help frobnicate", 2, "", "vsctl: help: unknown command 'frobnicate'\n"),
        ("list-br", 0, "br0\n", ""),
    ] {
        assert_eq!(daemon.run(line), (code, out.to_owned(), err.to_owned()), "{line}");
    }
    for line in ["help", "--help", "help add-port", "completion bash", "list-commands", "top", "show", "workers"] {
        let (code, out, err) = daemon.run(line);
        assert!(code == 0 && out.lines().count() > 1 && err.is_empty(), "{line}: {code} {out} {err}");
    }
}

#[test]
fn frames_are_printed_counted_and_written() {
    let daemon = Daemon::start();
    daemon.run("add-br br0 -- add-port br0 p1");
    let (code, out, err) = daemon.run("capture p1 -c 1");
    let line = "22:13:20.123456 rx    60  aa:aa:aa:aa:aa:aa > aa:aa:aa:aa:aa:aa type 0xaaaa\n";
    assert_eq!((code, out.as_str(), err.as_str()), (0, line, ""));

    let file = daemon.directory.path().join("x.pcap");
    let (code, out, err) = daemon.run(&format!("capture p1 -c 1 -w {}", file.display()));
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", ""));
    let written = std::fs::read(&file).unwrap();
    assert_eq!(
        (written.len(), &written[..4], &written[40..]),
        (24 + 16 + 60, &[0x4d, 0x3c, 0xb2, 0xa1][..], &[0xaa; 60][..])
    );
    assert_eq!(daemon.command("capture p1 -c 1 -w -").output().unwrap().stdout, written);

    let (code, _, err) = daemon.run("capture p1 -c 1 -w /nonexistent/x.pcap");
    assert_eq!((code, err.as_str()), (1, "vsctl: capture: /nonexistent/x.pcap: No such file or directory\n"));
}

#[test]
fn a_reader_that_goes_away_is_no_fault() {
    let daemon = Daemon::start();
    for line in ["help", "show", "completion zsh", "capture br0 -c 1", "top"] {
        daemon.run("--may-exist add-br br0");
        let mut child = daemon.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let (code, _, err) = told(child.wait_with_output().unwrap());
        assert_eq!((code, err.as_str()), (0, ""), "{line}");
    }
}

#[test]
fn a_daemon_that_is_not_there_or_does_not_answer_is_named_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ctl.sock");
    let run = |line: &str| told(command(&path, line).output().unwrap());
    let why = format!("vsctl: {}: cannot connect (No such file or directory)\n", path.display());
    assert_eq!(run("show"), (1, String::new(), why));

    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let (code, _, err) = run("--timeout 0.2 show");
    assert_eq!((code, err.as_str()), (1, "vsctl: show: no answer from the daemon within 0.2 s\n"));

    let answering = std::thread::spawn(move || {
        // The one that timed out is first in the queue.
        let _ = listener.accept().unwrap();
        for nonsense in ["no json", "", "{\"id\":1,\"result\":7}", "{\"id\":1,\"result\":["] {
            let mut stream = listener.accept().unwrap().0;
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(nonsense.as_bytes()).unwrap();
        }
    });
    for why in [
        "connection to the daemon lost (message is not a JSON object)",
        "connection to the daemon lost (closed by the daemon)",
        "invalid type: integer `7`, expected a sequence",
        "connection to the daemon lost (closed by the daemon)",
    ] {
        assert_eq!(run("show"), (1, String::new(), format!("vsctl: show: {why}\n")));
    }
    answering.join().unwrap();
}

const SERVICES: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.10, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: bad}
spec: {clusterIP: 10.96.0.11, ports: [{port: 65536}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
";

#[test]
fn objects_are_applied_shown_and_deleted_as_with_kubectl() {
    let daemon = Daemon::start();
    let file = daemon.directory.path().join("m/services.yaml");
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    std::fs::write(&file, SERVICES).unwrap();
    let refused = "vsctl: apply: service/bad: spec.ports[0].port: 65536: must be between 1 and 65535\n";
    let skipped = "deployment/web skipped (apps/v1 Deployment is nothing to a switch)\n";
    for (line, code, out, err) in [
        (format!("apply -f {}", file.display()), 1, format!("service/web created\n{skipped}"), refused),
        (
            format!("-f {} apply", file.parent().unwrap().display()),
            1,
            format!("service/web unchanged\n{skipped}"),
            refused,
        ),
        (
            "get svc".to_owned(),
            0,
            "NAME  TYPE       CLUSTER-IP  EXTERNAL-IP  PORT(S)\nweb   ClusterIP  10.96.0.10  <none>       80/TCP\n"
                .to_owned(),
            "",
        ),
        ("get svc nope".to_owned(), 1, String::new(), "vsctl: get: services \"nope\" not found\n"),
        (
            "get deploy".to_owned(),
            1,
            String::new(),
            "vsctl: get: \"deploy\": no kind of object that is kept here; there are nodes, namespaces, pods, services, \
             endpointslices, servicecidrs, networkpolicies, clusternetworkpolicies\n",
        ),
        ("delete svc nope".to_owned(), 1, String::new(), "vsctl: delete: service/nope: not found\n"),
        ("delete svc/web".to_owned(), 0, "service/web deleted\n".to_owned(), ""),
        ("get services -A".to_owned(), 0, "No resources found\n".to_owned(), ""),
        (
            "apply".to_owned(),
            2,
            String::new(),
            "vsctl: apply: which file? (-f FILE, a directory, or - for standard input)\n",
        ),
        (
            "apply -f /nonexistent".to_owned(),
            1,
            String::new(),
            "vsctl: apply: /nonexistent: No such file or directory\n",
        ),
    ] {
        assert_eq!(daemon.run(&line), (code, out, err.to_owned()), "{line}");
    }
    let mut child = daemon.command("apply -f - -n prod").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(SERVICES.replace("65536", "53").as_bytes()).unwrap();
    let (code, out, _) = told(child.wait_with_output().unwrap());
    assert_eq!(
        (code, out),
        (0, format!("service/web in namespace prod created\nservice/bad in namespace prod created\n{skipped}"))
    );
    let (_, yaml, _) = daemon.run("get svc bad -n prod -o yaml");
    assert!(yaml.contains("namespace: prod") && yaml.contains("port: 53"), "{yaml}");
    let (_, json, _) = daemon.run("get -A -ojson svc");
    let list: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
}

#[test]
fn a_file_of_access_rules_is_loaded_whole_or_not_at_all() {
    let daemon = Daemon::start();
    assert_eq!(daemon.run("add-br br0").0, 0);
    let file = daemon.directory.path().join("rules");
    let many: String =
        (0..10_000).map(|n| format!("{} tcp,nw_src=10.{}.{}.0/24 drop\n", n % 9, n / 256, n % 256)).collect();
    std::fs::write(&file, format!("# web first\n32767 tcp,tp_dst=80 allow-related\n{many}0 \"\" drop\n")).unwrap();
    let load = format!("acl-load br0 from-lport {}", file.display());
    assert_eq!(daemon.run(&load), (0, String::new(), String::new()));
    let (_, list, _) = daemon.run("acl-list br0");
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!((lines.len(), lines[0]), (10_002, "from-lport 32767 (tcp,tp_dst=80) allow-related"));
    assert_eq!(lines[10_001], "from-lport     0 () drop");
    std::fs::write(&file, "1 ip allow\n2 ip,nw_src=10.0.0.300 drop\n").unwrap();
    let name = file.display();
    for (line, code, err) in [
        (load.clone(), 1, format!("vsctl: acl-load: {name}: line 2: nw_src=10.0.0.300: not an address or a prefix\n")),
        (
            "acl-load br0 from-lport /nonexistent".into(),
            1,
            "vsctl: acl-load: /nonexistent: No such file or directory\n".into(),
        ),
        ("acl-load br0 sideways -".into(), 2, "vsctl: acl-load: sideways: not one of from-lport, to-lport\n".into()),
        ("acl-load br0".into(), 2, "vsctl: 'acl-load' command requires at least 3 arguments\n".into()),
        (
            "acl-add br0 to-lport 1 tp_dst=80 drop".into(),
            2,
            "vsctl: acl-add: tp_dst=80: needs tcp, udp or sctp (or tcp6, udp6, sctp6)\n".into(),
        ),
        ("acl-add p9 to-lport 1 ip drop".into(), 1, "vsctl: acl-add: p9: no bridge or port named p9\n".to_owned()),
    ] {
        assert_eq!(daemon.run(&line), (code, String::new(), err), "{line}");
    }
    assert_eq!(daemon.run("acl-list br0").1.lines().count(), 10_002, "nothing was changed");
    let mut child = daemon.command("acl-load br0 from-lport -").stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"5 icmp6 reject").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(daemon.run("acl-list br0").1, "from-lport     5 (icmp6) reject\n");
    assert_eq!(daemon.run("acl-del br0").0, 0);
    assert_eq!(daemon.run("acl-list br0").1, "");
}
