//! DEL with no daemon there: noted in a directory, done when it starts.

use api::AttachmentId;
use serde_json::json;

use crate::kit::{Bed, Said};

fn id(container: &str) -> AttachmentId {
    AttachmentId { network: "net".to_owned(), container: container.to_owned(), ifname: "eth0".to_owned() }
}

#[test]
fn what_shall_go_is_noted_while_no_daemon_is_there() {
    let bed = Bed::without_daemon();
    let config = bed.config("1.1.0", json!({}));
    for _ in 0..2 {
        let outcome = bed.run("DEL", &config).done();
        assert_eq!(outcome.out, "");
        assert!(outcome.err.contains("cannot connect"), "{outcome:?}");
        assert_eq!(bed.queue(), ["net@c1@eth0.json"]);
    }
    let file = std::fs::read(bed.path("queue/net@c1@eth0.json")).unwrap();
    assert_eq!(serde_json::from_slice::<AttachmentId>(&file).unwrap(), id("c1"));
    // Long names are shortened, and stay apart.
    let long = "c".repeat(300);
    for container in [long.clone() + "1", long + "2"] {
        bed.run_with("DEL", &[("CNI_CONTAINERID", &container), ("CNI_NETNS", "")], &config).done();
    }
    assert_eq!(bed.queue().len(), 3);
}

#[test]
fn what_was_noted_is_forgotten_when_it_is_done_or_begins_anew() {
    let bed = Bed::without_daemon();
    let config = bed.config("1.1.0", json!({}));
    bed.run("DEL", &config).done();
    bed.start_daemon();
    bed.run("ADD", &config).done();
    assert_eq!(bed.queue(), [""; 0]);
    std::fs::write(bed.path("queue/net@c1@eth0.json"), serde_json::to_vec(&id("c1")).unwrap()).unwrap();
    bed.run("DEL", &config).done();
    assert_eq!((bed.queue(), bed.attached()), (vec![], vec![]));
}

#[test]
fn a_daemon_that_says_no_is_told_again_when_it_starts() {
    let bed = Bed::new();
    for said in [Said::Error("disk full"), Said::HangUp] {
        bed.says("detach", said);
        bed.run("DEL", &bed.config("1.1.0", json!({}))).done();
        assert_eq!(bed.queue(), ["net@c1@eth0.json"]);
        std::fs::remove_file(bed.path("queue/net@c1@eth0.json")).unwrap();
    }
}

#[test]
fn an_attachment_of_which_nothing_was_heard_is_taken_back() {
    let bed = Bed::new();
    bed.says("attach", Said::HangUp);
    let (code, msg) = bed.run("ADD", &bed.config("1.1.0", json!({}))).refused();
    assert_eq!(code, 11);
    assert!(msg.contains("connection to the daemon lost"), "{msg}");
    assert_eq!(bed.heard(), ["attach", "detach"]);
    assert_eq!(bed.attached(), []);
}

#[test]
fn del_is_done_whatever_has_become_of_everything() {
    let bed = Bed::without_daemon();
    for (variables, config) in [
        (vec![("CNI_NETNS", "")], json!({})),
        (vec![("CNI_NETNS", "/nonexistent")], json!({"prevResult": {"ips": 7}})),
        (vec![("CNI_ARGS", "x;y")], json!({"mtu": "x", "runtimeConfig": {"portMappings": 3}})),
        (vec![], json!({"port": "dpdk", "ipam": {"type": "gone"}})),
    ] {
        let outcome = bed.run_with("DEL", &variables, &bed.config("0.3.1", config)).done();
        assert_eq!(outcome.out, "");
        assert_eq!(bed.queue(), ["net@c1@eth0.json"]);
    }
    // Nor does a queue that cannot be written keep a container.
    let outcome = bed.run("DEL", &bed.config("1.0.0", json!({"queue": "/proc/nowhere"}))).done();
    assert!(outcome.err.contains("queue: /proc/nowhere"), "{outcome:?}");
}
