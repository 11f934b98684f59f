//! The control side over a real socket, with a switch that has no packets.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use api::Request;
use api::reply::{Frame, Outputs};
use api::rpc::{Client, ClientError};
use api::state::{ConnectionState, Tuple};
use control::fake::FakeSwitch;
use control::{Control, Options, Stopper};
use serde_json::{Value, json};

mod directory;

/// A daemon without packets, on a thread; stopping it gives its switch back.
struct Daemon {
    directory: PathBuf,
    stopper: Stopper,
    thread: Option<JoinHandle<FakeSwitch>>,
}

fn options(directory: &Path) -> Options {
    Options {
        socket: directory.join("ctl.sock"),
        socket_group: None,
        state_dir: directory.join("state"),
        cluster: None,
        version: "vswitchd (vswitch) test".to_owned(),
        node: Default::default(),
    }
}

impl Daemon {
    fn start(directory: &Path) -> Self {
        Self::start_with(directory, FakeSwitch::default())
    }

    fn start_with(directory: &Path, switch: FakeSwitch) -> Self {
        Self::start_by(&options(directory), switch)
    }

    fn start_by(options: &Options, mut switch: FakeSwitch) -> Self {
        let mut control = Control::open(options, &mut switch).unwrap();
        let stopper = control.stopper();
        let thread = std::thread::spawn(move || {
            control.run(&mut switch).unwrap();
            switch
        });
        let directory = options.socket.parent().unwrap().to_owned();
        Self { directory, stopper, thread: Some(thread) }
    }

    fn stop(mut self) -> FakeSwitch {
        self.stopper.stop();
        self.thread.take().unwrap().join().unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("ctl.sock")
    }

    fn client(&self) -> Client {
        Client::connect(&self.socket(), Some(Duration::from_secs(10))).unwrap()
    }

    fn state(&self) -> Vec<u8> {
        fs::read(self.directory.join("state/state.json")).unwrap_or_default()
    }

    /// Ask in typed sentences, as vsctl does: database commands chain with `--`.
    fn ask(&self, line: &str) -> Result<String, String> {
        let requests: Vec<_> = line.split(" -- ").map(|part| words(part).unwrap()).collect();
        let mut commands = Vec::new();
        for request in &requests {
            match request {
                Request::Transact { commands: more } => commands.extend(more.iter().cloned()),
                other => {
                    let answer = self.client().ask(other).map_err(|e| e.to_string())?;
                    return Ok(api::reply::text(other, answer).unwrap());
                }
            }
        }
        let request = Request::Transact { commands };
        let answer = self.client().ask(&request).map_err(|e| e.to_string())?;
        Ok(serde_json::from_value::<Outputs>(answer).unwrap().to_string())
    }

    /// Ask in words, as ovs-appctl does.
    fn say(&self, line: &str) -> Result<String, String> {
        let mut words = line.split(' ');
        let method = words.next().unwrap();
        let answer = self.client().call(method, words.map(Value::from).collect()).map_err(|e| e.to_string())?;
        Ok(answer.as_str().unwrap().to_owned())
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

fn words(line: &str) -> Result<Request, String> {
    api::verb::parse(&line.split(' ').collect::<Vec<_>>())
}

#[test]
fn every_verb_says_the_same_in_words_and_in_data() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path());
    for (line, text) in [
        ("add-br br0", ""),
        ("add-port br0 p1 tag=10", ""),
        ("add-port br0 p2 trunks=20,10", ""),
        ("set Interface p2 type=null mac=02:00:00:00:00:22 mtu_request=9000 ofport_request=7", ""),
        ("set Port p2 external_ids:pod=ns/name", ""),
        ("set Bridge br0 other_config:mac-aging-time=60 datapath_type=netdev", ""),
        ("list-br", "br0\n"),
        ("list-ports br0", "p1\np2\n"),
        ("port-to-br p2", "br0\n"),
        ("br-exists br0", ""),
        ("get Interface p2 ofport type mac mtu", "7\nnull\n\"02:00:00:00:00:22\"\n9000\n"),
        ("get Port p2 trunks tag external_ids:pod", "[10, 20]\n[]\n\"ns/name\"\n"),
        ("get Bridge br0 other_config ports", "{mac-aging-time=\"60\"}\n[br0, p1, p2]\n"),
        ("--if-exists get Port p9 tag", ""),
        ("--columns=name,tag list Port p1", "name                : p1\ntag                 : 10\n"),
        ("--columns=name find Interface type!=internal mtu=9000", "name                : p2\n"),
        ("--columns=name find Interface link_state=up options:netns!=x", ""),
        ("clear Port p2 trunks external_ids", ""),
        ("set Port p2 trunks=1,2,3 external_ids:a=b external_ids:c=d -- remove Port p2 trunks 2 9", ""),
        ("remove Port p2 external_ids a c=x", ""),
        ("get Port p2 trunks external_ids", "[1, 3]\n{c=d}\n"),
        ("remove Port p2 trunks 1,3 -- remove Port p2 external_ids c=d", ""),
        ("remove Interface p2 mtu_request 1 -- get Interface p2 mtu_request", "9000\n"),
        ("clear Bridge br0 other_config:mac-aging-time -- get Bridge br0 other_config", "{}\n"),
        ("get Port p2 trunks external_ids vlan_mode", "[]\n{}\ntrunk\n"),
        ("fdb/add br0 p1 10 02:00:00:00:00:01", ""),
        ("fdb/show br0", " port  VLAN  MAC                Age\n    1    10  02:00:00:00:00:01  static\n"),
        ("fdb/del br0 10 02:00:00:00:00:01", ""),
        ("acl-add br0 from-lport 9 tcp,nw_dst=10.0.0.0/8,tp_dst=80-89 allow-related", ""),
        ("--may-exist acl-add br0 from-lport 9 tcp,nw_dst=10.0.0.0/8,tp_dst=80-89 drop", ""),
        ("acl-add p1 to-lport 1 ip reject", ""),
        ("acl-list br0", "from-lport     9 (tcp,nw_dst=10.0.0.0/8,tp_dst=80-89) allow-related\n"),
        ("acl-del p1 to-lport 1 ip", ""),
        ("acl-list p1", ""),
        ("fdb/flush br0", "table successfully flushed\n"),
        ("fdb/flush", "table successfully flushed\n"),
        (
            "dump-ports br0 p1",
            "OFPST_PORT reply (xid=0x2): 1 ports\n  \
               port  1: rx pkts=6, bytes=512, drop=0, errs=0, frame=0, over=0, crc=0\n           \
                        tx pkts=13, bytes=1062, drop=0, errs=0, coll=0\n",
        ),
        ("drops p1", "PORT  PACKETS  REASON   MEANING\np1          3  no-port  no port to send to\n"),
        (
            "coverage/show",
            "Event coverage since start:\nflow_miss                      total: 10\n1 events never hit\n",
        ),
        ("version", "vswitchd (vswitch) test\n"),
        ("del-port p1", ""),
        ("del-port br0 p2", ""),
        ("--if-exists del-port p2", ""),
        ("--may-exist add-br br0", ""),
        ("del-br br0", ""),
        ("--if-exists del-br br0", ""),
        ("show", "vswitchd (vswitch) test\n"),
    ] {
        assert_eq!(daemon.ask(line).as_deref(), Ok(text), "{line}");
    }
    daemon.ask("add-br br0 -- add-port br0 p1 tag=5 -- set Interface p1 type=null").unwrap();
    let show = "vswitchd (vswitch) test\n    Bridge br0\n        Port br0\n            Interface br0\n                \
                type: internal\n        Port p1\n            tag: 5\n            Interface p1\n                type: null\n";
    for line in [
        "show",
        "list-br",
        "get Interface p1 ofport",
        "ports",
        "workers",
        "drops",
        "dump-ports br0",
        "list-commands",
        "fdb/show br0",
        "list Bridge",
    ] {
        let in_words = daemon.say(line).unwrap();
        assert_eq!(daemon.ask(line).unwrap(), in_words, "{line}");
        assert!(line != "show" || in_words == show, "{in_words}");
    }
}

#[test]
fn bad_input_is_refused_in_one_line_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path());
    daemon.ask("add-br br0 -- add-br br1 -- add-port br0 p1 tag=5 -- add-port br1 q1").unwrap();
    let before = daemon.state();
    for (line, why) in [
        ("add-br sixteen-bytes-xx", "add-br: \"sixteen-bytes-xx\": a name has at most 15 bytes, this has 16"),
        ("add-port br0 a/b", "add-port: \"a/b\": a name must not contain '/'"),
        ("add-port br0 ..", "add-port: \"..\": not a name"),
        ("add-br br0", "add-br: br0: cannot create a bridge named br0 because a bridge named br0 already exists"),
        (
            "add-br p1",
            "add-br: p1: cannot create a bridge named p1 because a port named p1 already exists on bridge br0",
        ),
        ("add-port nosuch p2", "add-port: nosuch: no bridge named nosuch"),
        (
            "add-port br0 p1",
            "add-port: p1: cannot create a port named p1 because a port named p1 already exists on bridge br0",
        ),
        (
            "add-port br0 q1 --may-exist",
            "add-port: q1: \"--may-exist add-port br0 q1\" but q1 is actually attached to bridge br1",
        ),
        ("add-port br0 br1", "add-port: br1: cannot create a port named br1 because a bridge named br1 already exists"),
        (
            "add-port br0 lo",
            "add-port: lo: is an existing interface; to attach it, type: vsctl add-port br0 lo -- set Interface lo type=packet (or, once it is supported, type=afxdp)",
        ),
        (
            "add-port br0 p2 tag=5000",
            "add-port: p2: tag=5000: constraint violation: 5000 is not in the valid range 0 to 4095 (inclusive)",
        ),
        ("add-port br0 p2 tag=x", "add-port: p2: tag=x: \"x\" is not a valid integer"),
        ("add-port br0 p2 colour=red", "add-port: p2: Port does not contain a column whose name matches \"colour\""),
        ("add-port br0 p2 -- set Interface p2 type=bogus", "add-port: p2: type=bogus: no such kind of port"),
        ("add-port br0 p2 -- set Interface p2 type=vxlan", "add-port: p2: type=vxlan: not supported yet"),
        (
            "add-port br0 p2 -- set Interface p2 options:netns=gone",
            "add-port: p2: options:netns=gone: no such network namespace",
        ),
        ("add-port br0 p2 -- set Interface p2 options:color=red", "add-port: p2: options:color: no such option of tap"),
        ("del-br nosuch", "del-br: nosuch: no bridge named nosuch"),
        ("del-port nosuch", "del-port: nosuch: no port named nosuch"),
        ("del-port br1 p1", "del-port: p1: bridge br1 does not have a port p1 (it is on bridge br0)"),
        (
            "del-port br0",
            "del-port: br0: cannot delete port br0 because it is the local port for bridge br0 (deleting this port requires deleting the entire bridge)",
        ),
        ("list-ports nosuch", "list-ports: nosuch: no bridge named nosuch"),
        ("port-to-br nosuch", "port-to-br: nosuch: no port named nosuch"),
        ("get Interface nosuch type", "get: nosuch: no row \"nosuch\" in table Interface"),
        ("get Interface p1 bogus", "get: p1: Interface does not contain a column whose name matches \"bogus\""),
        ("get Interface p1 options:x", "get: p1: no key \"x\" in Interface record \"p1\" column options"),
        ("get Interface p1 type:x", "get: p1: cannot specify key for non-map column type"),
        ("set Interface p1 ofport=5", "set: p1: cannot modify read-only column ofport in table Interface"),
        ("set Interface p1 ofport_request=65280", "set: p1: ofport_request=65280: a port number is from 1 to 65279"),
        (
            "set Interface br0 ofport_request=5",
            "set: br0: ofport_request=5: the local port of a bridge keeps its number",
        ),
        ("set Interface br0 type=tap", "set: br0: type=tap: the local port of a bridge is internal"),
        ("set Interface p1 mac=01:00:00:00:00:01", "set: p1: mac=01:00:00:00:00:01: no device can have this address"),
        ("set Interface p1 mtu_request=67", "set: p1: mtu_request=67: an MTU is a number from 68 to 65535"),
        (
            "set Bridge br0 other_config:stp=true",
            "set: br0: other_config:stp=true: unknown key (there are forward-bpdu, mac-aging-time, mac-table-size)",
        ),
        (
            "set Bridge br0 other_config:mac-table-size=0",
            "set: br0: other_config:mac-table-size=0: mac-table-size is a number from 10 to 1000000",
        ),
        ("set Bridge br0 datapath_type=system", "set: br0: datapath_type=system: the only datapath here is netdev"),
        (
            "set Port p1 vlan_mode=dot1q-tunnel",
            "set: p1: vlan_mode=dot1q-tunnel: not one of the allowed values (access, native-tagged, native-untagged, trunk)",
        ),
        ("set Port p1 trunks=1", "set: p1: tag and trunks together need vlan_mode=native-tagged or native-untagged"),
        ("remove Interface p1 type tap", "remove: p1: nothing can be removed from column type"),
        ("remove Interface p1 ofport 1", "remove: p1: cannot modify read-only column ofport in table Interface"),
        ("clear Interface p1 type:x", "clear: p1: cannot specify key for non-map column type"),
        ("find Port colour=red", "find: Port does not contain a column whose name matches \"colour\""),
        ("fdb/show nosuch", "fdb/show: nosuch: no bridge named nosuch"),
        ("fdb/add br0 q1 1 02:00:00:00:00:01", "fdb/add: br0: couldn't find port `q1'"),
        (
            "fdb/add br0 p1 4096 02:00:00:00:00:01",
            "fdb/add: constraint violation: 4096 is not in the valid range 0 to 4095 (inclusive)",
        ),
        ("fdb/add br0 p1 1 ff:ff:ff:ff:ff:ff", "fdb/add: ff:ff:ff:ff:ff:ff: no station can have this address"),
        (
            "fdb/del br0 1 02:00:00:00:00:01",
            "fdb/del: 02:00:00:00:00:01: no static entry of this address in VLAN 1 of bridge br0",
        ),
        ("dump-ports br0 9", "dump-ports: br0: couldn't find port `9'"),
        ("drops nosuch", "drops: nosuch: no port named nosuch"),
    ] {
        assert_eq!(daemon.ask(line).unwrap_err(), why, "{line}");
    }
    let name = daemon.client().call("add-br", vec!["a\nb".into()]).unwrap_err().to_string();
    assert_eq!(name, "add-br: \"a\\nb\": a name must not contain '\\n'");
    assert_eq!(daemon.state(), before);
    let switch = daemon.stop();
    assert_eq!((switch.applied, switch.bridges.len(), switch.ports.len()), (1, 2, 4));
}

#[test]
fn a_chain_is_done_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path());
    let why =
        daemon.ask("add-br br0 -- add-port br0 p1 -- set Interface p1 type=null -- add-port nosuch p2").unwrap_err();
    assert_eq!(why, "add-port: nosuch: no bridge named nosuch");
    let why = daemon.ask("add-br br0 -- add-port br0 p1 -- set Interface p1 type=bogus").unwrap_err();
    assert_eq!(why, "add-br: p1: type=bogus: no such kind of port");
    assert_eq!(daemon.ask("list-br").unwrap(), "");
    assert_eq!(daemon.ask("add-br br0 -- list-br -- del-br br0 -- list-br").unwrap(), "br0\n");
    // What takes a name over does not take its number over.
    daemon.ask("add-br br0 -- add-port br0 p1").unwrap();
    daemon.ask("fdb/add br0 p1 0 02:00:00:00:00:01").unwrap();
    daemon.ask("del-br br0 -- add-br br0 -- add-port br0 p1").unwrap();
    let switch = daemon.stop();
    assert_eq!(switch.ports.keys().map(|id| id.0).collect::<Vec<_>>(), [3, 4]);
    assert!(switch.stations.is_empty());
}

#[test]
fn configuration_is_there_again_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path());
    daemon.ask("add-br br0 -- add-port br0 p1 vlan_mode=native-tagged tag=3 trunks=4").unwrap();
    daemon.ask("set Interface p1 type=null ofport_request=9 external_ids:a=b").unwrap();
    daemon.ask("fdb/add br0 p1 3 02:00:00:00:00:01").unwrap();
    let show = daemon.ask("show").unwrap();
    let before = daemon.stop();
    assert!(!directory.path().join("ctl.sock").exists());

    let daemon = Daemon::start(directory.path());
    assert_eq!(daemon.ask("show").unwrap(), show);
    let after = daemon.stop();
    assert_eq!((after.bridges, after.ports, after.stations), (before.bridges, before.ports, before.stations));
}

#[test]
fn a_port_that_cannot_be_opened_again_is_shown_and_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let switch = FakeSwitch::default();
    switch.namespaces.lock().unwrap().push("pod1".to_owned());
    let daemon = Daemon::start_with(directory.path(), switch);
    daemon.ask("add-br br0 -- add-port br0 p1 -- set Interface p1 options:netns=pod1 -- add-port br0 p2").unwrap();
    daemon.ask("fdb/add br0 p1 0 02:00:00:00:00:01").unwrap();
    daemon.stop();

    // The namespace is gone, and appears again by itself.
    let switch = FakeSwitch::default();
    let namespaces = switch.namespaces.clone();
    let daemon = Daemon::start_with(directory.path(), switch);
    assert!(daemon.ask("get Interface p1 error").unwrap().contains("no such network namespace"));
    namespaces.lock().unwrap().push("pod1".to_owned());
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while daemon.ask("get Interface p1 error").unwrap() != "[]\n" {
        assert!(std::time::Instant::now() < deadline, "it is not tried again");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(daemon.stop().stations.len(), 1);

    let daemon = Daemon::start(directory.path());
    let error = "p1: options:netns=pod1: no such network namespace";
    assert_eq!(daemon.ask("get Interface p1 error").unwrap(), format!("\"{error}\"\n"));
    assert_eq!(daemon.ask("get Interface p2 error").unwrap(), "[]\n");
    assert!(daemon.ask("show").unwrap().contains(&format!("                error: \"{error}\"\n")));
    // It can be looked at, changed and repaired while it is not in force, and others are not disturbed.
    daemon.ask("set Port p1 tag=7 -- add-port br0 p3").unwrap();
    daemon.ask("fdb/add br0 p1 7 02:00:00:00:00:02").unwrap();
    daemon.ask("clear Interface p1 options:netns").unwrap();
    assert_eq!(daemon.ask("get Interface p1 error").unwrap(), "[]\n");
    let switch = daemon.stop();
    assert_eq!((switch.ports.len(), switch.stations.len()), (4, 2));

    let daemon = Daemon::start_with(directory.path(), FakeSwitch { refuse: true, ..FakeSwitch::default() });
    assert!(daemon.ask("show").unwrap().contains("    Bridge br0\n        error: \"refused by the test\"\n"));
    daemon.ask("add-port br0 p4").unwrap();
    assert!(daemon.ask("get Interface p4 error").unwrap().contains("its bridge is not there"));
    daemon.ask("del-br br0").unwrap();
    assert_eq!(daemon.ask("show").unwrap(), "vswitchd (vswitch) test\n");
}

#[test]
fn a_full_disk_refuses_the_command_and_names_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path());
    daemon.ask("add-br br0").unwrap();
    let before = daemon.state();
    // A directory stands where the new state would be written: it cannot be, not even by root.
    let blocked = directory.path().join("state/state.json.new");
    fs::create_dir(&blocked).unwrap();
    let why = daemon.ask("add-br br1").unwrap_err();
    assert_eq!(why, format!("add-br: {}: Is a directory", blocked.display()));
    fs::remove_dir(&blocked).unwrap();
    // The last step fails: the switch has it already and must give it back.
    let state = directory.path().join("state/state.json");
    fs::remove_file(&state).unwrap();
    fs::create_dir_all(state.join("x")).unwrap();
    assert!(daemon.ask("add-br br1").unwrap_err().starts_with(&format!("add-br: {}: ", state.display())));
    fs::remove_dir_all(&state).unwrap();
    fs::write(&state, &before).unwrap();
    assert_eq!(daemon.ask("list-br").unwrap(), "br0\n");
    let switch = daemon.stop();
    assert_eq!((switch.bridges.len(), switch.ports.len()), (1, 1));
}

#[test]
fn no_space_left_is_said_as_it_is() {
    // The system's own full disk.
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path());
    let temporary = directory.path().join("state/state.json.new");
    std::os::unix::fs::symlink("/dev/full", &temporary).unwrap();
    let why = daemon.ask("add-br br0").unwrap_err();
    assert_eq!(why, format!("add-br: {}: No space left on device", temporary.display()));
    assert_eq!(daemon.ask("list-br").unwrap(), "");
    assert!(daemon.stop().bridges.is_empty());
}

#[test]
fn a_damaged_state_stops_the_start() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("state")).unwrap();
    let state = directory.path().join("state/state.json");
    fs::write(&state, "{\"version\":1,\n\"bridges\":[x").unwrap();
    let why = Control::open(&options(directory.path()), &mut FakeSwitch::default()).unwrap_err().to_string();
    assert!(
        why.starts_with(&format!(
            "{}: damaged: expected value at line 2 column 12; nothing was changed",
            state.display()
        )),
        "{why}"
    );
    assert!(!directory.path().join("ctl.sock").exists());
}

/// Write octets, and read what comes until the end.
fn raw(daemon: &Daemon, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn what_is_no_request_gets_a_line_and_the_connection_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path());
    for (bytes, why) in [
        (&b"hello"[..], "request: message is not a JSON object"),
        (b"{]", "request: not understood: key must be a string at line 1 column 2"),
        (b"{\"a\":tru}", "request: not understood: expected ident at line 1 column 9"),
        (b"{\"id\":1}", "request: not understood: missing field `method` at line 1 column 8"),
        (
            b"{\"method\":\"show\",\"params\":7}",
            "request: not understood: invalid type: integer `7`, expected a sequence at line 1 column 27",
        ),
        (&[b'[', 0xff, 0], "request: message is not a JSON object"),
    ] {
        let reply: Value = serde_json::from_str(&raw(&daemon, bytes)).unwrap();
        assert_eq!(reply, json!({"id": null, "result": null, "error": format!("{why}\n")}));
    }
    let deep = format!("{{\"method\":{}", "[".repeat(5000));
    assert!(raw(&daemon, deep.as_bytes()).contains("nested deeper than 32 levels"));
    // Half a request says nothing; two at once get two answers, in their order.
    assert_eq!(raw(&daemon, b"{\"method\":\"version\""), "");
    let two = raw(&daemon, br#"{"id":1,"method":"version","params":[]} {"id":"two","method":"nosuch","params":[]}"#);
    let wanted = concat!(
        r#"{"id":1,"result":"vswitchd (vswitch) test\n","error":null}"#,
        r#"{"id":"two","result":null,"error":"\"nosuch\" is not a valid command (use \"list-commands\" to see a list of valid commands)\n"}"#
    );
    assert_eq!(two, wanted);
    for (params, why) in [
        (json!([{"bridge": "br0"}, {}]), "fdb/show: params are words, or one object"),
        (json!([7]), "fdb/show: invalid type"),
        (json!([{"bridge": "br0", "x": 1}]), "fdb/show: unknown field `x`"),
        (json!([]), "'fdb/show' command requires at least 1 arguments"),
    ] {
        let params = params.as_array().unwrap().clone();
        let refused = daemon.client().call("fdb/show", params).unwrap_err().to_string();
        assert!(refused.starts_with(why), "{refused}");
    }
}

#[test]
fn a_request_of_100_mib_is_refused_without_being_held() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path());
    let huge = "x".repeat(100 << 20);
    let refused = daemon.client().call("add-br", vec![huge.into()]).unwrap_err();
    assert_eq!(refused.to_string(), "request: message longer than 100663296 octets");
    assert_eq!(daemon.ask("list-br").unwrap(), "");
}

#[test]
fn clients_that_fill_the_memory_together_are_refused_and_others_are_answered() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path());
    let most = vec![b' '; 1 << 20];
    let begun = || {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.write_all(b"{\"method\":\"").unwrap();
        // Until all of it is sent, or the daemon had enough.
        let sent = (0..90).take_while(|_| stream.write_all(&most).is_ok()).count();
        (stream, sent)
    };
    let held: Vec<_> = (0..2).map(|_| begun()).collect();
    assert!(held.iter().all(|(_, sent)| *sent == 90));
    let (mut third, sent) = begun();
    assert!(sent < 90, "more than 256 MiB");
    let mut why = String::new();
    let _ = third.read_to_string(&mut why);
    assert!(why.contains("with those of other clients more than 268435456 octets"), "{why}");
    assert_eq!(daemon.ask("add-br br0 -- list-br").unwrap(), "br0\n");
    drop(held);
    assert_eq!(daemon.ask("list-br").unwrap(), "br0\n");
    let (_, sent) = begun();
    assert_eq!(sent, 90, "there is room again");
}

#[test]
fn clients_that_hang_hold_nobody_up() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path());
    daemon.ask("add-br br0").unwrap();
    // Half a request; nothing at all; requests without ever reading an answer; and more of them than there is room for.
    let mut hanging = Vec::new();
    for i in 0..300 {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        let _ = match i % 3 {
            0 => stream.write_all(b"{\"method\":\"sho"),
            1 => Ok(()),
            _ => {
                stream.set_nonblocking(true).unwrap();
                let requests = br#"{"id":1,"method":"list-commands","params":[]}"#.repeat(2000);
                stream.write(&requests).map(drop)
            }
        };
        hanging.push(stream);
    }
    assert_eq!(daemon.ask("list-br").unwrap(), "br0\n");
    assert_eq!(daemon.ask("add-br br1 -- list-br").unwrap(), "br0\nbr1\n");
}

#[test]
fn frames_are_told_until_the_client_leaves() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path());
    daemon.ask("add-br br0 -- add-port br0 p1").unwrap();
    let mut client = daemon.client();
    let refused = client.ask(&Request::Capture { port: "nosuch".into() }).unwrap_err();
    assert_eq!(refused.to_string(), "capture: nosuch: no port named nosuch");
    client.ask(&Request::Capture { port: "p1".into() }).unwrap();
    let notice = client.notice().unwrap();
    let frame: Frame = serde_json::from_value(notice.params[0].clone()).unwrap();
    assert_eq!(frame.captured().unwrap().bytes, [0xaa; 60]);
    assert_eq!(daemon.ask("list-br").unwrap(), "br0\n", "others are answered meanwhile");
    drop(client);
    for _ in 0..2 {
        // The second answer comes after the loop has seen the end of the capture.
        daemon.ask("list-br").unwrap();
    }
    let switch = daemon.stop();
    let frame = api::state::Captured { time: 0, ingress: true, len: 0, bytes: vec![] };
    assert!(switch.captures[0].try_send(frame).is_err(), "the receiver is gone");
}

#[test]
fn the_socket_is_its_owners_and_replaces_a_stale_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ctl.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let daemon = Daemon::start(directory.path());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    daemon.ask("version").unwrap();
    let mut second = options(directory.path());
    second.state_dir = directory.path().join("other");
    let why = Control::open(&second, &mut FakeSwitch::default()).unwrap_err().to_string();
    assert_eq!(why, format!("{}: another daemon answers here", path.display()));
    drop(daemon);
    // What is no socket is not ours to remove.
    fs::write(&path, "precious").unwrap();
    assert!(Control::open(&second, &mut FakeSwitch::default()).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    assert!(matches!(Client::connect(&path, None), Err(ClientError::Connect { .. })));
}

#[test]
fn housekeeping_is_done_between_requests() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path());
    std::thread::sleep(Duration::from_millis(1200));
    assert!(daemon.stop().ticks >= 1);
}

#[test]
fn ovs_appctl_is_understood() {
    let directory = tempfile::tempdir().unwrap();
    let tuple = |src: &str, dst: &str| Tuple { src: src.parse().unwrap(), dst: dst.parse().unwrap() };
    let connection = ConnectionState {
        bridge: api::BridgeId(1),
        proto: 6,
        state: "ESTABLISHED".to_owned(),
        original: tuple("10.244.1.2:40000", "10.96.0.10:80"),
        reply: tuple("10.244.1.3:8080", "10.244.1.2:40000"),
        port: api::PortId(2),
        expires: 100,
    };
    let daemon =
        Daemon::start_with(directory.path(), FakeSwitch { connections: vec![connection], ..FakeSwitch::default() });
    daemon.ask("add-br br0 -- add-port br0 p1").unwrap();
    daemon.ask("fdb/add br0 p1 0 02:00:00:00:00:01").unwrap();
    let appctl = |args: &[&str]| Command::new("ovs-appctl").arg("-t").arg(daemon.socket()).args(args).output();
    let output = match appctl(&["fdb/show", "br0"]) {
        Ok(output) => output,
        Err(e) => {
            // Not `eprintln!`: the test harness would swallow it.
            let _ = writeln!(std::io::stderr(), "SKIPPED ovs_appctl_is_understood: ovs-appctl cannot be run: {e}");
            return;
        }
    };
    assert!(output.status.success(), "{output:?}");
    let text = " port  VLAN  MAC                Age\n    1     0  02:00:00:00:00:01  static\n";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
    let refused = appctl(&["fdb/show", "nosuch"]).unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8(refused.stderr).unwrap().starts_with("fdb/show: nosuch: no bridge named nosuch\n"));
    assert!(appctl(&["add-br", "br1"]).unwrap().status.success());
    assert!(appctl(&["list-commands"]).unwrap().status.success());
    let dump = || String::from_utf8(appctl(&["dpctl/dump-conntrack"]).unwrap().stdout).unwrap();
    let line = "tcp,orig=(src=10.244.1.2,dst=10.96.0.10,sport=40000,dport=80),\
                reply=(src=10.244.1.3,dst=10.244.1.2,sport=8080,dport=40000),protoinfo=(state=ESTABLISHED)\n";
    assert_eq!(dump(), line);
    assert!(appctl(&["dpctl/flush-conntrack", "proto=udp"]).unwrap().status.success());
    assert_eq!(dump(), line, "it is of TCP");
    assert!(appctl(&["dpctl/flush-conntrack"]).unwrap().status.success());
    assert_eq!(dump(), "");
}

#[test]
fn what_was_noted_while_no_daemon_was_there_is_detached_at_its_start() {
    let directory = tempfile::tempdir().unwrap();
    let (notes, netns) = (directory.path().join("state/detach"), directory.path().join("netns"));
    fs::write(&netns, "").unwrap();
    let id = |container: &str| {
        let (network, ifname) = ("net".to_owned(), "eth0".to_owned());
        api::AttachmentId { network, container: container.to_owned(), ifname }
    };
    let start = || {
        let switch = FakeSwitch::default();
        switch.namespaces.lock().unwrap().push(netns.display().to_string());
        Daemon::start_with(directory.path(), switch)
    };
    let daemon = start();
    for container in ["stays", "goes"] {
        let attach = api::Attach {
            protocol: api::attachment::PROTOCOL,
            id: id(container),
            netns: netns.display().to_string(),
            bridge: Some("br7".to_owned()),
            kind: "tap".to_owned(),
            mtu: None,
            mac: None,
            addresses: api::Addressing::None,
            pod: None,
            host_ports: Vec::new(),
            bandwidth: api::Bandwidth::default(),
        };
        let answer = daemon.client().ask(&Request::Attach(Box::new(attach))).unwrap();
        let reply: api::AttachReply = serde_json::from_value(answer).unwrap();
        assert!(matches!(reply, api::AttachReply::Attached(_)), "{reply:?}");
    }
    daemon.stop();
    for container in ["goes", "never was"] {
        api::detached::write(&notes, &id(container)).unwrap();
    }
    let daemon = start();
    let answer = daemon.client().ask(&Request::Attachments {}).unwrap();
    let left: api::reply::Attachments = serde_json::from_value(answer).unwrap();
    assert_eq!(left.0.iter().map(|row| &row.id).collect::<Vec<_>>(), [&id("stays")]);
    assert_eq!(fs::read_dir(&notes).unwrap().count(), 0);
}
