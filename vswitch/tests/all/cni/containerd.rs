//! Debian's containerd: by `ctr`, and over its CRI socket as a kubelet speaks with it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::json;

use super::cri::{Message, Runtime, field, text};
use super::world::{NETWORK, NODE, PORT, World, question};
use crate::kit::eventually;

/// The image of sandboxes and of containers: busybox.
const IMAGE: &str = "vswitch.test/busybox:1";

struct Containerd<'a> {
    world: &'a World,
    socket: PathBuf,
}

impl<'a> Containerd<'a> {
    fn start(world: &'a World) -> Self {
        let place = |name: &str| world.path("containerd").join(name);
        fs::create_dir(world.path("containerd")).unwrap();
        // What needs more than tests may have is switched off: control groups, limits, scores for the killer.
        let config = format!(
            "version = 2\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = [\"io.containerd.internal.v1.opt\"]\n\
             [grpc]\n  address = {socket:?}\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = {IMAGE:?}\n  disable_cgroup = true\n  \
             restrict_oom_score_adj = true\n  disable_apparmor = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  snapshotter = \"native\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"/usr/lib/cni\"\n  conf_dir = \"/etc/cni/net.d\"\n",
            root = place("root"),
            state = place("state"),
            socket = place("c.sock"),
        );
        fs::write(place("config.toml"), config).unwrap();
        let log = fs::File::create(place("log")).unwrap();
        let mut command = world.command("containerd");
        command.arg("--config").arg(place("config.toml"));
        // It ends with the world.
        drop(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let containerd = Self { world, socket: place("c.sock") };
        eventually("containerd answers", || containerd.ctr(&["version"]).is_ok());
        containerd
    }

    fn ctr(&self, words: &[&str]) -> Result<String, String> {
        let socket = self.socket.display().to_string();
        let output = self.world.run(&[&["ctr", "--address", &socket], words].concat(), &[]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Make an image of a root file system, and give it to containerd.
    fn import(&self) {
        let root = self.world.root("image");
        let place = |name: &str| self.world.path("containerd").join(name);
        let tar = |archive: PathBuf, directory: PathBuf, files: &[&str]| {
            let mut command = Command::new("tar");
            command.arg("--create").arg("--file").arg(archive).arg("--directory").arg(directory).args(files);
            assert!(command.status().unwrap().success());
        };
        tar(place("layer.tar"), root, &["."]);
        let sum = Command::new("sha256sum").arg(place("layer.tar")).output().unwrap();
        let sum = String::from_utf8(sum.stdout).unwrap();
        let sum = sum.split_whitespace().next().unwrap();
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "config": {"Entrypoint": ["/bin/sleep", "100000"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]},
        });
        fs::write(place("config.json"), config.to_string()).unwrap();
        let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
        fs::write(place("manifest.json"), manifest.to_string()).unwrap();
        tar(place("image.tar"), self.world.path("containerd"), &["manifest.json", "config.json", "layer.tar"]);
        let archive = place("image.tar").display().to_string();
        self.ctr(&["--namespace", "k8s.io", "images", "import", "--snapshotter", "native", &archive]).unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.world.path("containerd/log")).unwrap()
    }
}

#[test]
fn containers_of_ctr_are_attached() {
    let Some(world) = World::new("containerd: ctr", &["containerd", "ctr", "runc"]) else { return };
    let containerd = Containerd::start(&world);
    let root = world.root("a").display().to_string();
    let serve = ["/bin/httpd", "-f", "-p", "8080", "-h", "/www"];
    let begin = ["run", "--cgroup", "", "--detach", "--cni", "--rootfs", &root, "a"];
    containerd.ctr(&[&begin[..], &serve].concat()).unwrap();
    let rows = world.attachments();
    assert_eq!((rows.len(), rows[0].id.network.as_str()), (1, NETWORK));
    let a = rows[0].addresses[0].addr().to_string();
    world.serve_at("s", 10, &a);
    let _outside = world.outside.serve(PORT);
    let root = world.root("b").display().to_string();
    for (command, says) in [
        (question(&a, PORT), "a".to_owned()),
        (question("10.96.0.10", 80), "a".to_owned()),
        (format!("nc -w 3 203.0.113.9 {PORT} </dev/null"), format!("outside {NODE}:")),
    ] {
        let said = containerd.ctr(&[
            "run",
            "--cgroup",
            "",
            "--rm",
            "--cni",
            "--rootfs",
            &root,
            "b",
            "/bin/sh",
            "-c",
            &format!("export PATH=/bin; {command}"),
        ]);
        assert!(said.as_ref().is_ok_and(|said| said.contains(&says)), "{command}: {said:?}");
    }
    assert_eq!(world.attachments().len(), 1, "what has ended is detached");
}

/// What a kubelet says of a pod.
fn sandbox(name: &str) -> Message {
    let metadata = Message::default().text(1, name).text(2, "uid").text(3, "default").number(4, 0);
    Message::default().message(1, &metadata).text(2, name).message(8, &Message::default())
}

#[test]
fn two_containers_of_a_sandbox_share_its_address_and_localhost() {
    let Some(world) = World::new("containerd: CRI", &["containerd", "ctr", "runc"]) else { return };
    let containerd = Containerd::start(&world);
    containerd.import();
    let runtime = Runtime::at(&containerd.socket);
    let call = |method: &str, request: &Message| {
        runtime.call(method, request).unwrap_or_else(|| panic!("{method} is refused:\n{}", containerd.log()))
    };
    let run = |pod: &str| {
        let answer = call("RunPodSandbox", &Message::default().message(1, &sandbox(pod)));
        text(&answer, 1)
    };
    // A container of a sandbox, and what a command in it says.
    let start = |pod: &str, id: &str, name: &str| {
        let metadata = Message::default().text(1, name);
        let image = Message::default().text(1, IMAGE);
        let config = Message::default().message(1, &metadata).message(2, &image).texts(3, &["/bin/sleep", "1000"]);
        let config = config.message(15, &Message::default());
        let request = Message::default().text(1, id).message(2, &config).message(3, &sandbox(pod));
        let container = text(&call("CreateContainer", &request), 1);
        call("StartContainer", &Message::default().text(1, &container));
        container
    };
    let exec = |container: &str, command: &str| {
        let request = Message::default().text(1, container).texts(2, &["/bin/sh", "-c", command]).number(3, 20);
        text(&call("ExecSync", &request), 1)
    };
    let serve = |container: &str, name: &str, port: u16| {
        exec(container, &format!("mkdir /{name}; echo {name} > /{name}/who; httpd -p {port} -h /{name}"));
    };

    let pod = run("p1");
    let answer = call("PodSandboxStatus", &Message::default().text(1, &pod));
    let network = field(&field(&answer, 1), 5);
    let address = text(&network, 1);
    let row = world.attachments().remove(0);
    assert_eq!((row.addresses[0].addr().to_string(), row.pod.as_deref()), (address.clone(), Some("default/p1")));
    assert_eq!(row.addresses[1].addr().to_string(), text(&field(&network, 2), 1));

    world.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p1}}\nspec: {{nodeName: n1, containers: [{{name: main}}]}}\n\
         status: {{podIP: {address}, podIPs: [{{ip: {address}}}]}}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {{name: p2}}\nspec: {{nodeName: n1, containers: [{{name: main}}]}}\n"
    ));
    let [first, second] = ["first", "second"].map(|name| start("p1", &pod, name));
    serve(&first, "first", PORT);
    serve(&second, "second", PORT + 1);
    assert!(exec(&second, &question("127.0.0.1", PORT)).ends_with("first\n"));
    assert!(exec(&first, &question("127.0.0.1", PORT + 1)).ends_with("second\n"));
    assert!(exec(&first, "ip -4 -o address").contains(&format!("{address}/24")));
    assert_eq!(exec(&first, "ip -o link"), exec(&second, "ip -o link"));

    let other = run("p2");
    let asks = start("p2", &other, "asks");
    world.serve_at("s", 10, &address);
    assert!(exec(&asks, &question(&address, PORT)).ends_with("first\n"));
    assert!(exec(&asks, &question(&address, PORT + 1)).ends_with("second\n"));
    assert!(exec(&asks, &question("10.96.0.10", 80)).ends_with("first\n"));
    let _outside = world.outside.serve(PORT);
    let said = exec(&asks, &format!("nc -w 3 203.0.113.9 {PORT} </dev/null"));
    assert!(said.starts_with(&format!("outside {NODE}:")), "{said}");

    for pod in [&pod, &other, &pod] {
        call("StopPodSandbox", &Message::default().text(1, pod));
    }
    assert_eq!(world.attachments(), []);
    for pod in [&pod, &other] {
        call("RemovePodSandbox", &Message::default().text(1, pod));
    }
}
