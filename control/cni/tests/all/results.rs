//! Results in every version, against files: `GOLDEN_WRITE=1 cargo test -p vswitch-cni` writes them anew.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::kit::{Bed, VERSIONS, ipam_plugin};

/// Compare with a file of `tests/golden`. The directory of the test, which is another each time, is `DIR` there.
#[track_caller]
fn same_as_golden(bed: &Bed, name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let text = text.replace(&bed.directory.path().display().to_string(), "DIR");
    if std::env::var_os("GOLDEN_WRITE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{name}");
}

#[test]
fn the_result_is_in_the_version_that_was_asked_for() {
    for version in VERSIONS {
        let bed = Bed::new();
        let result = bed.run("ADD", &bed.config(version, json!({}))).done();
        assert_eq!(result.json()["cniVersion"], version);
        same_as_golden(&bed, &format!("add-{version}.json"), &result.out);
    }
}

#[test]
fn a_chained_plugin_adds_its_interface_to_what_was_there() {
    let before = json!({
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": "/run/netns/x"},
            {"name": "veth0", "mac": "02:00:00:00:00:09", "mtu": 9000, "socketPath": "/run/s", "pciID": "00:1f.6"},
        ],
        "ips": [
            {"address": "192.0.2.2/24", "gateway": "192.0.2.1", "interface": 1},
            {"address": "2001:db8::2/64"},
        ],
        "routes": [
            {"dst": "198.51.100.0/24", "gw": "192.0.2.1", "mtu": 1400, "priority": 5},
            {"dst": "0.0.0.0/0", "gw": "10.1.0.1"},
        ],
        "dns": {"nameservers": ["192.0.2.53"], "domain": "d", "search": ["d"], "options": ["ndots:5"]},
        "else": 1,
    });
    for version in VERSIONS {
        let bed = Bed::new();
        let result = bed.run("ADD", &bed.config(version, json!({"prevResult": before}))).done();
        same_as_golden(&bed, &format!("chained-{version}.json"), &result.out);
    }
}

#[test]
fn addresses_of_an_ipam_plugin_are_in_the_result() {
    for version in VERSIONS {
        let bed = Bed::new();
        ipam_plugin(&bed, "some-ipam");
        let given = json!({
            "cniVersion": version,
            "ips": [{"version": "4", "address": "10.9.0.5/16", "gateway": "10.9.0.1"}, {"version": "6", "address": "fd09::5/64"}],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.8.0.0/16", "gw": "10.9.0.7"}, {"dst": "fd08::/64"}],
            "dns": {"nameservers": ["10.9.0.53"]},
        });
        std::fs::write(bed.path("ADD.out"), given.to_string()).unwrap();
        let result = bed.run("ADD", &bed.config(version, json!({"ipam": {"type": "some-ipam"}}))).done();
        same_as_golden(&bed, &format!("ipam-{version}.json"), &result.out);
    }
}

#[test]
fn who_is_asked_for_names_is_said_by_the_nearest() {
    let dns = |config: Value| {
        let bed = Bed::new();
        bed.run("ADD", &bed.config("1.1.0", config)).done().json()["dns"].clone()
    };
    let before = json!({"dns": {"domain": "before"}});
    assert_eq!(dns(json!({})), json!({}));
    assert_eq!(dns(json!({"prevResult": before})), json!({"domain": "before"}));
    assert_eq!(dns(json!({"prevResult": before, "dns": {"domain": "ours"}})), json!({"domain": "ours"}));
    let asked = json!({"runtimeConfig": {"dns": {"servers": ["1.1.1.1"], "searches": ["s"], "options": ["o"]}},
                       "dns": {"domain": "ours"}});
    assert_eq!(dns(asked), json!({"nameservers": ["1.1.1.1"], "search": ["s"], "options": ["o"]}));
}

#[test]
fn the_versions_that_are_told_are_those_that_are_spoken() {
    let bed = Bed::without_daemon();
    let told = bed.run("VERSION", &json!({"cniVersion": "9.9.9"})).done().json();
    assert_eq!(told, json!({"cniVersion": "1.1.0", "supportedVersions": VERSIONS}));
}
