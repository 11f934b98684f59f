//! What libcni does: ADD, its result kept, CHECK and DEL with it, in every version, against the real daemon.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use vswitch::sys::netlink::Netlink;
use vswitch::sys::netns;

use super::world::World;

const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A container without a runtime: a namespace with a name.
struct Container<'a> {
    world: &'a World,
    name: String,
    network: Value,
}

impl<'a> Container<'a> {
    fn new(world: &'a World, name: &str, network: Value) -> Self {
        let path = format!("/run/netns/{name}");
        fs::write(world.inside(&path), "").unwrap();
        let made = world.run(&["unshare", &format!("--net={path}"), "true"], &[]);
        assert!(made.status.success(), "{made:?}");
        Self { world, name: name.to_owned(), network }
    }

    fn netns(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// A plugin's verb, with the configuration that libcni makes of the list, and the result that it kept.
    fn say(&self, verb: &str, kept: Option<&Value>) -> Result<Value, Value> {
        let mut config = self.network["plugins"][0].clone();
        for key in ["cniVersion", "name"] {
            config[key] = self.network[key].clone();
        }
        config.as_object_mut().unwrap().remove("capabilities");
        if let Some(kept) = kept {
            config["prevResult"] = kept.clone();
        }
        let mut command: Command = self.world.command("/usr/lib/cni/vswitch-cni");
        command.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", &self.name).env("CNI_NETNS", self.netns());
        command.env("CNI_IFNAME", "eth0").env("CNI_PATH", "/usr/lib/cni");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if output.status.success() { Ok(said) } else { Err(said) }
    }

    /// The interface is there.
    fn has_interface(&self) -> bool {
        let ns = netns::open(&self.world.inside(&self.netns())).unwrap();
        netns::within(ns.as_fd(), || Netlink::open().unwrap().index("eth0").is_ok()).unwrap()
    }
}

#[test]
fn an_interface_is_there_from_add_to_del_in_every_version() {
    let Some(world) = World::new("libcni: versions", &[]) else { return };
    for version in VERSIONS {
        let second = json!({"bridge": "br-two", "ipam": {
            "type": "host-local", "dataDir": world.path("ipam"), "subnet": "10.77.0.0/24"}});
        for (name, more) in [("c", json!({"mtu": 1400})), ("d", second)] {
            // Debian's host-local is older than that.
            if name == "d" && version == "1.1.0" {
                continue;
            }
            let network = world.network(&format!("net-{name}"), version, more);
            let container = Container::new(&world, &format!("{name}-{version}"), network);
            let kept = container.say("ADD", None).unwrap_or_else(|why| panic!("{version}: ADD: {why}"));
            assert!(container.has_interface());
            assert_eq!((&kept["cniVersion"], &kept["interfaces"][0]["name"]), (&json!(version), &json!("eth0")));
            assert_eq!(kept["interfaces"][0]["sandbox"], container.netns());
            let row = world.attachments().into_iter().find(|row| row.id.container == container.name).unwrap();
            let told: Vec<String> = row.addresses.iter().map(ToString::to_string).collect();
            let ips = kept["ips"].as_array().unwrap().iter().map(|ip| ip["address"].as_str().unwrap().to_owned());
            assert_eq!(ips.collect::<Vec<_>>(), told, "{version}");
            assert_eq!(ips_versions(&kept), version < "1.0.0", "{version}: {kept}");
            assert_eq!(row.error, None);
            // Not twice; and what is there stays as it is.
            assert!(container.say("ADD", None).is_err());
            if version >= "0.4.0" {
                container.say("CHECK", Some(&kept)).unwrap_or_else(|why| panic!("{version}: CHECK: {why}"));
                let mut other = kept.clone();
                other["ips"][0]["address"] = json!("10.1.0.200/24");
                assert_eq!(container.say("CHECK", Some(&other)).unwrap_err()["code"], 100);
            }
            for _ in 0..2 {
                container.say("DEL", Some(&kept)).unwrap_or_else(|why| panic!("{version}: DEL: {why}"));
                assert!(!container.has_interface());
            }
            assert_eq!(world.attachments(), []);
        }
    }
}

/// Addresses say their version.
fn ips_versions(result: &Value) -> bool {
    result["ips"].as_array().unwrap().iter().all(|ip| ip["version"] == "4" || ip["version"] == "6")
}
