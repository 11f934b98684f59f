//! Debian's podman with its older network backend, which runs CNI plugins.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Output;

use super::world::{NETWORK, NODE, PORT, SECOND, World, question};
use crate::kit::PATIENCE;

struct Podman<'a> {
    world: &'a World,
    variables: [(&'static str, PathBuf); 2],
}

impl<'a> Podman<'a> {
    fn new(world: &'a World) -> Self {
        // Limits and log are such as a test may have.
        let containers = "[engine]\ncgroup_manager=\"cgroupfs\"\nevents_logger=\"file\"\nruntime=\"runc\"\n\
             [network]\nnetwork_backend=\"cni\"\ncni_plugin_dirs=[\"/usr/lib/cni\"]\nnetwork_config_dir=\"/etc/cni/net.d\"\n\
             [containers]\ndefault_ulimits=[\"nofile=1024:1024\",\"nproc=4096:4096\"]\nlog_driver=\"k8s-file\"\n";
        let storage = format!(
            "[storage]\ndriver=\"vfs\"\nrunroot=\"{0}/runroot\"\ngraphroot=\"{0}/graph\"\n",
            world.directory.path().display()
        );
        fs::write(world.path("containers.conf"), containers).unwrap();
        fs::write(world.path("storage.conf"), storage).unwrap();
        let variables = [
            ("CONTAINERS_CONF", world.path("containers.conf")),
            ("CONTAINERS_STORAGE_CONF", world.path("storage.conf")),
        ];
        Self { world, variables }
    }

    fn say(&self, words: &[&str]) -> Output {
        let place = |name: &str| self.world.path(name).display().to_string();
        let (graph, runroot, temporary) = (place("graph"), place("runroot"), place("libpod"));
        let program = ["podman", "--root", &graph, "--runroot", &runroot, "--tmpdir", &temporary];
        self.world.run(&[&program, words].concat(), &self.variables)
    }

    #[track_caller]
    fn done(&self, words: &[&str]) -> String {
        let output = self.say(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "podman {words:?}: {}: {said}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A container that serves, until it is removed.
    #[track_caller]
    fn serves(&self, name: &str, options: &[&str]) {
        let (root, port) = (self.world.root(name).display().to_string(), PORT.to_string());
        let group = self.world.group();
        let begin = ["run", "--cgroup-parent", &group, "--detach", "--name", name];
        self.done(&[&begin, options, &["--rootfs", &root, "httpd", "-f", "-p", &port, "-h", "/www"]].concat());
    }

    /// What a command in a container says, and whether it was done.
    fn asks(&self, network: &str, command: &str) -> (bool, String) {
        let root = self.world.path("root-asks");
        let root = if root.exists() { root } else { self.world.root("asks") };
        let root = root.display().to_string();
        let output = self.say(&[
            "run",
            "--cgroup-parent",
            &self.world.group(),
            "--rm",
            "--network",
            network,
            "--rootfs",
            &root,
            "sh",
            "-c",
            command,
        ]);
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    #[track_caller]
    fn hears(&self, network: &str, address: &str, port: u16, who: &str) {
        let (done, said) = self.asks(network, &question(address, port));
        assert!(done && said.ends_with(who), "{network} to {address}:{port}: {said:?}");
    }

    #[track_caller]
    fn meets_nobody(&self, network: &str, address: &str, port: u16) {
        let (done, said) = self.asks(network, &question(address, port));
        assert!(!done && said.is_empty(), "{network} to {address}:{port}: {said:?}");
    }
}

/// The IPv4 address of the only attachment of a network.
#[track_caller]
fn address_in(world: &World, network: &str) -> String {
    let rows: Vec<_> = world.attachments().into_iter().filter(|row| row.id.network == network).collect();
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows[0].addresses[0].addr().to_string()
}

#[test]
fn podmans_containers_reach_each_other_a_service_and_the_outside() {
    let Some(world) = World::new("podman: networks", &["podman", "runc", "conmon"]) else { return };
    let podman = Podman::new(&world);
    podman.serves("a", &["--network", NETWORK]);
    let a = address_in(&world, NETWORK);
    podman.hears(NETWORK, &a, PORT, "a");

    world.serve_at("s", 10, &a);
    podman.hears(NETWORK, "10.96.0.10", 80, "a");

    let _outside = world.outside.serve(PORT);
    let (done, said) = podman.asks(NETWORK, &format!("nc -w 3 203.0.113.9 {PORT} </dev/null"));
    assert!(done && said.starts_with(&format!("outside {NODE}:")), "{said:?}");

    // Another container's network.
    podman.hears("container:a", "127.0.0.1", PORT, "a");

    // A second network of ours: its containers reach each other, and nobody else.
    podman.serves("b", &["--network", SECOND]);
    let b = address_in(&world, SECOND);
    podman.hears(SECOND, &b, PORT, "b");
    podman.meets_nobody(SECOND, &a, PORT);
    podman.meets_nobody(NETWORK, &b, PORT);

    podman.done(&["rm", "--force", "--time", "0", "a", "b"]);
    assert_eq!(world.attachments(), []);
    let left = fs::read_dir(world.path("ipam").join(SECOND)).unwrap().map(|file| file.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with("10.77")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn podmans_other_networks_are_left_alone() {
    let Some(world) = World::new("podman: none and host", &["podman", "runc", "conmon"]) else { return };
    let podman = Podman::new(&world);
    podman.serves("a", &["--network", NETWORK]);
    let a = address_in(&world, NETWORK);
    let (done, links) = podman.asks("none", "ip -o link");
    assert!(done && links.lines().count() == 1 && links.contains("lo"), "{links}");
    podman.meets_nobody("none", &a, PORT);
    let (done, links) = podman.asks("host", "ip -o link");
    assert!(done && links.contains("br-pods"), "{links}");
    // The machine itself reaches its containers.
    podman.hears("host", &a, PORT, "a");
    assert_eq!(world.attachments().len(), 1);
}

#[test]
fn a_port_of_the_machine_leads_to_podmans_container() {
    let Some(world) = World::new("podman: ports", &["podman", "runc", "conmon"]) else { return };
    let podman = Podman::new(&world);
    podman.serves("a", &["--network", NETWORK, "--publish", "8099:8080"]);
    let to: SocketAddr = format!("{NODE}:8099").parse().unwrap();
    let said = world.outside.space.run(|| -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /who HTTP/1.0\r\n\r\n")?;
        let mut said = String::new();
        stream.read_to_string(&mut said).map(|_| said)
    });
    assert!(said.as_ref().is_ok_and(|said| said.ends_with("\r\na")), "{said:?}");
    // From another container, too.
    podman.hears(NETWORK, NODE, 8099, "a");
    podman.done(&["rm", "--force", "--time", "0", "a"]);
    let gone = world.outside.space.run(|| std::net::TcpStream::connect_timeout(&to, crate::kit::SILENCE));
    assert!(gone.is_err(), "nobody is there any more");
}

#[test]
fn podmans_container_ends_while_no_daemon_is_there() {
    let Some(world) = World::new("podman: no daemon", &["podman", "runc", "conmon"]) else { return };
    let podman = Podman::new(&world);
    podman.serves("a", &["--network", NETWORK]);
    podman.serves("b", &["--network", NETWORK]);
    world.kill_daemon();
    podman.done(&["rm", "--force", "--time", "0", "a"]);
    assert_eq!(fs::read_dir(world.path("state/detach")).unwrap().count(), 1);
    world.start_daemon();
    assert_eq!((world.attachments().len(), fs::read_dir(world.path("state/detach")).unwrap().count()), (1, 0));
    podman.hears(NETWORK, &address_in(&world, NETWORK), PORT, "b");
}
