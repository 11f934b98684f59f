//! IPAM plugins are run, and what they gave is released when it is of no use.

use api::{Addressing, Assigned, Interface, InterfaceRoute};
use serde_json::json;

use crate::kit::{Bed, Outcome, Said, ipam_calls, ipam_plugin};

fn bed() -> Bed {
    let bed = Bed::new();
    ipam_plugin(&bed, "some-ipam");
    let given = json!({
        "cniVersion": "1.1.0",
        "ips": [{"address": "10.9.0.5/16", "gateway": "10.9.0.1"}],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.8.0.0/16", "gw": "10.9.0.7"}],
    });
    std::fs::write(bed.path("ADD.out"), given.to_string()).unwrap();
    bed
}

fn run(bed: &Bed, verb: &str) -> Outcome {
    let ipam = json!({"type": "some-ipam", "subnet": "10.9.0.0/16"});
    let mut config = bed.config("1.1.0", json!({"ipam": ipam, "cni.dev/valid-attachments": []}));
    if verb == "CHECK" {
        let result = json!({"interfaces": [{"name": "eth0", "sandbox": bed.netns()}],
                            "ips": [{"address": "10.9.0.5/16", "gateway": "10.9.0.1", "interface": 0}],
                            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.8.0.0/16", "gw": "10.9.0.7"}]});
        config["prevResult"] = result;
    }
    bed.run(verb, &config)
}

#[track_caller]
fn calls(bed: &Bed, expected: &[&str]) {
    assert_eq!(ipam_calls(bed.directory.path()), expected);
}

#[test]
fn every_verb_is_said_to_the_ipam_plugin_too() {
    let bed = bed();
    run(&bed, "ADD").done();
    let route =
        |prefix: &str, gateway: &str| InterfaceRoute { prefix: prefix.parse().unwrap(), gateway: gateway.parse().ok() };
    let address = Assigned { address: "10.9.0.5/16".parse().unwrap(), gateway: "10.9.0.1".parse().ok() };
    let routes = vec![route("0.0.0.0/0", "10.9.0.1"), route("10.8.0.0/16", "10.9.0.7")];
    assert_eq!(bed.asked().addresses, Addressing::Given(Interface { addresses: vec![address], routes }));
    calls(&bed, &["ADD c1 eth0"]);
    // With all of our standard input.
    let stdin: serde_json::Value = serde_json::from_slice(&std::fs::read(bed.path("stdin.ADD")).unwrap()).unwrap();
    assert_eq!((&stdin["ipam"]["subnet"], &stdin["name"]), (&json!("10.9.0.0/16"), &json!("net")));
    for (verb, call) in
        [("CHECK", "CHECK c1 eth0"), ("STATUS", "STATUS"), ("GC", "GC"), ("DEL", "DEL c1 eth0"), ("DEL", "DEL c1 eth0")]
    {
        run(&bed, verb).done();
        assert_eq!(ipam_calls(bed.directory.path()).iter().map(|call| call.trim_end()).collect::<Vec<_>>(), [call]);
    }
    assert_eq!(bed.attached(), []);
}

#[test]
fn addresses_are_released_when_the_interface_is_not_made() {
    let bed = bed();
    bed.says("attach", Said::Refusal(11, "not now"));
    assert_eq!(run(&bed, "ADD").refused(), (11, "not now".to_owned()));
    calls(&bed, &["ADD c1 eth0", "DEL c1 eth0"]);
    assert_eq!(bed.heard(), ["attachments", "attach"]);
}

#[test]
fn no_address_is_asked_for_while_no_daemon_is_there() {
    let bed = Bed::without_daemon();
    ipam_plugin(&bed, "some-ipam");
    assert_eq!(run(&bed, "ADD").refused().0, 11);
    calls(&bed, &[]);
}

#[test]
fn who_is_attached_keeps_its_addresses_when_it_is_asked_for_again() {
    let bed = bed();
    run(&bed, "ADD").done();
    calls(&bed, &["ADD c1 eth0"]);
    let why = (4, "CNI_IFNAME: eth0: container c1 has this interface already".to_owned());
    assert_eq!(run(&bed, "ADD").refused(), why);
    calls(&bed, &[]);
    assert_eq!(bed.attached().len(), 1);
}

#[test]
fn a_failure_of_the_ipam_plugin_is_told_in_its_words() {
    let bed = bed();
    std::fs::write(bed.path("ADD.fails"), "").unwrap();
    for (said, code, msg) in [
        (r#"{"code": 11, "msg": "exhausted"}"#, 11, "ipam some-ipam: ADD: exhausted"),
        (r#"{"msg": "broken"}"#, 999, "ipam some-ipam: ADD: broken"),
        ("", 999, "ipam some-ipam: ADD: failed with no error message"),
    ] {
        std::fs::write(bed.path("ADD.out"), said).unwrap();
        assert_eq!(run(&bed, "ADD").refused(), (code, msg.to_owned()));
        calls(&bed, &["ADD c1 eth0", "DEL c1 eth0"]);
    }
    assert_eq!(bed.heard(), ["attachments"; 3]);
}

#[test]
fn a_result_that_is_of_no_use_is_given_back() {
    let bed = bed();
    for (said, code, msg) in [
        ("", 999, "ipam some-ipam: its result is no JSON object"),
        ("[]", 999, "ipam some-ipam: its result is no JSON object"),
        ("{}", 999, "ipam some-ipam: its result has no address"),
        (
            r#"{"ips": [{"address": "10.0.0.1"}]}"#,
            7,
            "ipam result.ips[0].address: \"10.0.0.1\": an address with the length of its prefix is expected",
        ),
        (
            r#"{"ips": [{"address": "10.0.0.1/8"}], "routes": [{"dst": "0.0.0.0/0", "table": 7}]}"#,
            2,
            "ipam result.routes[0].table: 7: not supported",
        ),
        (
            r#"{"cniVersion": "7.0.0"}"#,
            1,
            "ipam result.cniVersion: \"7.0.0\": one of 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0 is expected",
        ),
    ] {
        std::fs::write(bed.path("ADD.out"), said).unwrap();
        assert_eq!(run(&bed, "ADD").refused(), (code, msg.to_owned()));
        calls(&bed, &["ADD c1 eth0", "DEL c1 eth0"]);
    }
    assert_eq!(bed.attached(), []);
}

#[test]
fn what_the_ipam_plugin_cannot_release_does_not_keep_a_container() {
    let bed = bed();
    run(&bed, "ADD").done();
    std::fs::write(bed.path("DEL.fails"), "").unwrap();
    let outcome = run(&bed, "DEL").done();
    assert!(outcome.err.contains("ipam some-ipam: DEL"), "{outcome:?}");
    assert_eq!(bed.attached(), []);
    for verb in ["CHECK", "STATUS", "GC"] {
        let bed = self::bed();
        run(&bed, "ADD").done();
        std::fs::write(bed.path(&format!("{verb}.fails")), "").unwrap();
        std::fs::write(bed.path(&format!("{verb}.out")), r#"{"code": 50, "msg": "none left"}"#).unwrap();
        assert_eq!(run(&bed, verb).refused(), (50, format!("ipam some-ipam: {verb}: none left")));
    }
}
