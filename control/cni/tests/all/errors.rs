//! Every row of the table of errors: code, message, and that nothing is left behind.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::kit::{Bed, Outcome, Said, run};

/// Nothing was asked, made or noted.
#[track_caller]
fn untouched(bed: &Bed) {
    assert_eq!((bed.heard(), bed.attached(), bed.queue()), (vec![], vec![], vec![]));
}

#[track_caller]
fn is(outcome: &Outcome, code: u64, msg: &str) {
    assert_eq!(outcome.refused(), (code, msg.to_owned()));
}

#[test]
fn variables_that_are_missing_are_named_together() {
    let bed = Bed::new();
    for (verb, without, missing) in [
        ("ADD", vec!["CNI_NETNS", "CNI_PATH"], "CNI_NETNS,CNI_PATH"),
        ("ADD", vec!["CNI_CONTAINERID"], "CNI_CONTAINERID"),
        ("ADD", vec!["CNI_IFNAME"], "CNI_IFNAME"),
        (
            "ADD",
            vec!["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
            "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH",
        ),
        ("CHECK", vec!["CNI_NETNS"], "CNI_NETNS"),
        ("DEL", vec!["CNI_NETNS", "CNI_IFNAME"], "CNI_IFNAME"),
        ("GC", vec!["CNI_PATH"], "CNI_PATH"),
        ("STATUS", vec!["CNI_PATH"], "CNI_PATH"),
    ] {
        for how in ["absent", "empty"] {
            let mut environment = bed.environment(verb);
            for name in &without {
                match how {
                    "absent" => drop(environment.remove(name)),
                    _ => drop(environment.insert(name, String::new())),
                }
            }
            let outcome = run(&environment, bed.config("1.1.0", json!({})).to_string().as_bytes());
            is(&outcome, 4, &format!("required env variables [{missing}] missing"));
        }
    }
    untouched(&bed);
}

#[test]
fn a_bad_variable_is_told_before_missing_ones() {
    let bed = Bed::new();
    for (name, value, msg) in [
        ("CNI_CONTAINERID", "a/b", "invalid characters in containerID"),
        ("CNI_CONTAINERID", "-a", "invalid characters in containerID"),
        ("CNI_CONTAINERID", "ä", "invalid characters in containerID"),
        ("CNI_IFNAME", "sixteen-letters-", "interface name is too long"),
        ("CNI_IFNAME", ".", "interface name is . or .."),
        ("CNI_IFNAME", "..", "interface name is . or .."),
        ("CNI_IFNAME", "a/b", "interface name contains / or : or whitespace characters"),
        ("CNI_IFNAME", "a:b", "interface name contains / or : or whitespace characters"),
        ("CNI_IFNAME", "a b", "interface name contains / or : or whitespace characters"),
    ] {
        for verb in ["ADD", "DEL", "CHECK"] {
            let outcome = bed.run_with(verb, &[(name, value), ("CNI_PATH", "")], &bed.config("1.1.0", json!({})));
            is(&outcome, 4, msg);
        }
    }
    untouched(&bed);
}

#[test]
fn a_configuration_that_cannot_be_read_is_told_before_an_unknown_verb() {
    let bed = Bed::new();
    for verb in ["ADD", "DEL", "FLY", "add"] {
        for (stdin, why) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("[]", "an object is expected"),
            ("{", "EOF while parsing an object at line 1 column 1"),
            (r#"{"name": 5}"#, "name: 5: text is expected"),
            (r#"{"cniVersion": 1.0}"#, "cniVersion: 1.0: text is expected"),
            (r#"{"ipam": "host-local"}"#, "ipam: \"host-local\": an object is expected"),
            (r#"{"ipam": {"type": 1}}"#, "ipam.type: 1: text is expected"),
            (r#"{"capabilities": {"mac": "yes"}}"#, "capabilities.mac: \"yes\": true or false is expected"),
            (r#"{"prevResult": []}"#, "prevResult: []: an object is expected"),
            (r#"{"dns": {"nameservers": "1.1.1.1"}}"#, "dns.nameservers: \"1.1.1.1\": a list is expected"),
        ] {
            let outcome = run(&bed.environment(verb), stdin.as_bytes());
            is(&outcome, 6, &format!("error unmarshall network config: {why}"));
        }
    }
    let more = vec![b' '; 17 << 20];
    assert_eq!(run(&bed.environment("ADD"), &more).refused().0, 6);
    untouched(&bed);
}

#[test]
fn a_network_has_a_name() {
    let bed = Bed::new();
    for verb in ["ADD", "DEL", "CHECK", "GC", "STATUS", "FLY"] {
        let named = |name: Value| bed.run(verb, &bed.config("9.9.9", json!({"name": name})));
        is(&named(json!("")), 7, "missing network name");
        is(&named(json!(null)), 7, "missing network name");
        is(&named(json!("a/b")), 7, "invalid characters found in network name");
        is(&named(json!(".a")), 7, "invalid characters found in network name");
    }
    untouched(&bed);
}

#[test]
fn unknown_verbs_are_named_before_the_version() {
    let bed = Bed::new();
    is(&bed.run("FLY", &bed.config("9.9.9", json!({}))), 4, "unknown CNI_COMMAND: FLY");
    is(&bed.run("add", &bed.config("1.1.0", json!({}))), 4, "unknown CNI_COMMAND: add");
    untouched(&bed);
}

#[test]
fn who_asks_for_nothing_is_told_what_this_is() {
    let outcome = run(&BTreeMap::new(), b"");
    assert_eq!((outcome.code, outcome.out.as_str()), (0, ""));
    assert!(outcome.err.contains("CNI protocol versions supported: 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"), "{outcome:?}");
}

#[test]
fn versions_that_are_not_ours_are_refused() {
    let bed = Bed::new();
    for version in ["0.2.0", "1.2.0", "9.9.9", "one"] {
        for verb in ["ADD", "DEL"] {
            let outcome = bed.run(verb, &bed.config(version, json!({})));
            is(&outcome, 1, "incompatible CNI versions");
            let all = r#"["0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"]"#;
            let error = outcome.json();
            assert_eq!(error["details"], format!("config is \"{version}\", plugin supports {all}"));
            assert_eq!(error["cniVersion"], "1.1.0");
        }
    }
    // None is the first.
    is(&bed.run("ADD", &bed.config("", json!({}))), 1, "incompatible CNI versions");
    for (verb, version) in
        [("CHECK", "0.3.1"), ("CHECK", "0.2.0"), ("GC", "1.0.0"), ("STATUS", "0.3.1"), ("STATUS", "1.0.0")]
    {
        let outcome = bed.run(verb, &bed.config(version, json!({})));
        is(&outcome, 1, &format!("config version does not allow {verb}"));
    }
    for verb in ["CHECK", "GC", "STATUS"] {
        is(&bed.run(verb, &bed.config("9.9.9", json!({}))), 1, "incompatible CNI versions");
        let why = "error unmarshall network config: cniVersion: \"one\": not a version";
        is(&bed.run(verb, &bed.config("one", json!({}))), 6, why);
    }
    untouched(&bed);
}

#[test]
fn an_error_is_told_in_the_version_of_the_configuration() {
    let bed = Bed::new();
    let error = bed.run_with("ADD", &[("CNI_NETNS", "/nonexistent")], &bed.config("0.4.0", json!({}))).json();
    assert_eq!(error["cniVersion"], "0.4.0");
}

#[test]
fn a_namespace_must_be_there_and_be_another() {
    let bed = Bed::new();
    let config = bed.config("1.1.0", json!({}));
    let outcome = bed.run_with("ADD", &[("CNI_NETNS", "/nonexistent")], &config);
    is(&outcome, 3, "CNI_NETNS: /nonexistent: no network namespace is there (No such file or directory)");
    let own = "plugin's netns and netns from CNI_NETNS should not be the same";
    is(&bed.run_with("ADD", &[("CNI_NETNS", "/proc/self/ns/net")], &config), 8, own);
    untouched(&bed);
    is(&bed.run_with("DEL", &[("CNI_NETNS", "/proc/self/ns/net")], &config), 8, own);
    assert_eq!(bed.heard(), ["detach"]);
    let any = [("CNI_NETNS", "/proc/self/ns/net"), ("CNI_NETNS_OVERRIDE", "1")];
    bed.run_with("ADD", &any, &config).done();
    bed.run_with("DEL", &any, &config).done();
    assert_eq!(bed.attached(), []);
}

#[test]
fn values_that_cannot_be_are_refused_with_their_key() {
    let bed = Bed::new();
    let decoding = "error unmarshall network config: ";
    for (config, code, msg) in [
        (json!({"socket": 5}), 6, format!("{decoding}socket: 5: text is expected")),
        (json!({"socket": "ctl.sock"}), 7, "socket: \"ctl.sock\": a path that begins with / is expected".to_owned()),
        (json!({"queue": []}), 6, format!("{decoding}queue: []: text is expected")),
        (json!({"mtu": "1500"}), 6, format!("{decoding}mtu: \"1500\": a number that is not negative is expected")),
        (json!({"mtu": -1}), 6, format!("{decoding}mtu: -1: a number that is not negative is expected")),
        (json!({"mtu": 67}), 7, "mtu: 67: 68 to 65535 is expected, or 0 for what fits".to_owned()),
        (json!({"mtu": 65536}), 7, "mtu: 65536: 68 to 65535 is expected, or 0 for what fits".to_owned()),
        (json!({"port": 1}), 6, format!("{decoding}port: 1: text is expected")),
        (json!({"port": "dpdk"}), 2, "port: \"dpdk\": tap or afxdp is expected".to_owned()),
        (json!({"bridge": ""}), 7, "bridge: \"\": a name is expected".to_owned()),
        (json!({"bridge": {}}), 6, format!("{decoding}bridge: {{}}: text is expected")),
        (
            json!({"ipam": {"type": "gone"}}),
            2,
            format!(
                "ipam.type: \"gone\": failed to find plugin in CNI_PATH [/nonexistent {}]",
                bed.path("bin").display()
            ),
        ),
        (json!({"ipam": {"type": "../x"}}), 2, "ipam.type: \"../x\": the name of a plugin is expected".to_owned()),
        (json!({"args": {"cni": 5}}), 6, format!("{decoding}args.cni: 5: an object is expected")),
        (
            json!({"prevResult": {"ips": [{"address": "x"}]}}),
            7,
            "prevResult.ips[0].address: \"x\": an address with the length of its prefix is expected".to_owned(),
        ),
    ] {
        is(&bed.run("ADD", &bed.config("1.1.0", config)), code, &msg);
    }
    untouched(&bed);
}

#[test]
fn wishes_that_cannot_be_are_refused_with_their_key() {
    let bed = Bed::new();
    let port = |key: &str, value: Value| {
        let mut mapping = json!({"hostPort": 80, "containerPort": 80, "protocol": "tcp"});
        mapping[key] = value;
        json!({"portMappings": [mapping]})
    };
    for (asked, code, msg) in [
        (port("hostPort", json!(0)), 7, "portMappings[0].hostPort: 0: 1 to 65535 is expected"),
        (port("hostPort", json!(null)), 7, "portMappings[0].hostPort: missing: 1 to 65535 is expected"),
        (port("containerPort", json!(65536)), 7, "portMappings[0].containerPort: 65536: 1 to 65535 is expected"),
        (port("protocol", json!("icmp")), 2, "portMappings[0].protocol: \"icmp\": tcp, udp or sctp is expected"),
        (port("hostIP", json!("localhost")), 7, "portMappings[0].hostIP: \"localhost\": an address is expected"),
        (
            json!({"bandwidth": {"ingressRate": 5}}),
            7,
            "bandwidth.ingressRate: 5: a rate needs runtimeConfig.bandwidth.ingressBurst",
        ),
        (
            json!({"bandwidth": {"egressBurst": 5}}),
            7,
            "bandwidth.egressBurst: 5: a burst needs runtimeConfig.bandwidth.egressRate",
        ),
        (json!({"ips": ["10.0.0"]}), 7, "ips[0]: \"10.0.0\": an address is expected"),
        (json!({"mac": "01:00:00:00:00:00"}), 7, "mac: \"01:00:00:00:00:00\": the address of one station is expected"),
        (json!({"mac": "x"}), 7, "mac: \"x\": an Ethernet address is expected"),
    ] {
        let outcome = bed.run("ADD", &bed.config("1.1.0", json!({"runtimeConfig": asked})));
        is(&outcome, code, &format!("runtimeConfig.{msg}"));
    }
    let outcome = bed.run_with("ADD", &[("CNI_ARGS", "COLOUR=blue")], &bed.config("1.1.0", json!({})));
    is(&outcome, 4, "CNI_ARGS: unknown args [\"COLOUR=blue\"]");
    untouched(&bed);
}

#[test]
fn check_needs_a_result_that_has_the_interface() {
    let bed = Bed::new();
    let check = |config| bed.run("CHECK", &bed.config("1.1.0", config));
    is(&check(json!({})), 7, "prevResult: missing: CHECK compares with it");
    let why = format!("prevResult.interfaces: no interface eth0 in {}", bed.netns());
    is(&check(json!({"prevResult": {"interfaces": [{"name": "eth0", "sandbox": "/other"}]}})), 7, &why);
    untouched(&bed);
}

#[test]
fn collecting_needs_to_be_told_what_stays() {
    let bed = Bed::new();
    bed.run("ADD", &bed.config("1.1.0", json!({}))).done();
    is(&bed.run("GC", &bed.config("1.1.0", json!({}))), 7, "cni.dev/valid-attachments: missing");
    let wrong = json!({"cni.dev/valid-attachments": [{"containerID": 5}]});
    let why = "error unmarshall network config: cni.dev/valid-attachments[0].containerID: 5: text is expected";
    is(&bed.run("GC", &bed.config("1.1.0", wrong)), 6, why);
    assert_eq!(bed.attached().len(), 1);
}

#[test]
fn without_a_daemon_nothing_waits() {
    let bed = Bed::without_daemon();
    let before = std::time::Instant::now();
    let why = format!("socket: {}: cannot connect (No such file or directory)", bed.path("ctl.sock").display());
    is(&bed.run("ADD", &bed.config("1.1.0", json!({}))), 11, &why);
    is(&bed.run("STATUS", &bed.config("1.1.0", json!({}))), 50, &why);
    let result = json!({"interfaces": [{"name": "eth0", "sandbox": bed.netns()}]});
    is(&bed.run("CHECK", &bed.config("1.1.0", json!({"prevResult": result}))), 11, &why);
    is(&bed.run("GC", &bed.config("1.1.0", json!({"cni.dev/valid-attachments": []}))), 11, &why);
    assert!(before.elapsed() < std::time::Duration::from_secs(5), "{:?}", before.elapsed());
    assert_eq!(bed.queue(), [""; 0]);
}

#[test]
fn the_daemons_refusals_are_told_as_they_are() {
    let bed = Bed::new();
    for (code, what) in [(2, "port: \"afxdp\": not there yet"), (7, "bridge: br7"), (11, "later"), (101, "tap: failed")]
    {
        bed.says("attach", Said::Refusal(code, what));
        is(&bed.run("ADD", &bed.config("1.1.0", json!({"port": "afxdp"}))), u64::from(code), what);
    }
    bed.says("attachment/status", Said::Refusal(50, "10.1.0.0/24 is used up"));
    is(&bed.run("STATUS", &bed.config("1.1.0", json!({}))), 50, "10.1.0.0/24 is used up");
    bed.says("attach", Said::Error("state.json: No space left on device"));
    is(&bed.run("ADD", &bed.config("1.1.0", json!({}))), 101, "state.json: No space left on device");
    bed.says("attachment/gc", Said::Error("busy"));
    is(&bed.run("GC", &bed.config("1.1.0", json!({"cni.dev/valid-attachments": []}))), 101, "busy");
    assert_eq!((bed.attached(), bed.queue()), (vec![], vec![]));
}

#[test]
fn a_daemon_of_another_time_is_named_with_the_plugin() {
    let bed = Bed::new();
    for why in ["\"attach\" is not a valid command (use \"list-commands\" …)", "attach: unknown field `colour`"] {
        bed.says("attach", Said::Error(why));
        let outcome = bed.run("ADD", &bed.config("1.1.0", json!({})));
        let (socket, ours) = (bed.path("ctl.sock").display().to_string(), env!("CARGO_PKG_VERSION"));
        is(
            &outcome,
            1,
            &format!("socket: {socket}: vswitchd 9.9.9 does not understand vswitch-cni {ours}, protocol 1"),
        );
        assert_eq!(outcome.json()["details"], why);
    }
    assert_eq!((bed.attached(), bed.queue()), (vec![], vec![]));
}

#[test]
fn what_nobody_hears_is_taken_back() {
    let bed = Bed::new();
    let environment = bed.environment("ADD");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_vswitch-cni"));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let config = bed.path("config");
    std::fs::write(&config, bed.config("1.1.0", json!({})).to_string()).unwrap();
    command.env_clear().envs(&environment).stdin(std::fs::File::open(config).unwrap()).stdout(full);
    assert_eq!(command.status().unwrap().code(), Some(1));
    assert_eq!(bed.heard(), ["attach", "detach"]);
    assert_eq!((bed.attached(), bed.queue()), (vec![], vec![]));
}
