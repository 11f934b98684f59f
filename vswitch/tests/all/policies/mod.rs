//! Rows N1 to N27 of `spec/kubernetes.md` and 2.2 by kernel sockets: each test begins with the names of the rows that it
//! shows. Whoever is to reach somebody asks twice, as a miss and as a hit; whoever is not, too.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::sockopt::socket_error;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::kit::*;

mod changes;
mod groups;
mod places;
mod ports;
mod selection;
mod spoof;
mod tiers;

/// How long nothing must come: an answer takes a hundredth of that.
const QUIET: Duration = Duration::from_millis(200);
/// Nothing comes in.
const DENY: &str = "{podSelector: {}, policyTypes: [Ingress]}";

/// A NetworkPolicy of namespace `default`.
fn policy(name: &str, spec: &str) -> String {
    policy_in("default", name, spec)
}

fn policy_in(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

/// What comes in to pod b: a policy with this ingress section.
fn to_b(ingress: &str) -> String {
    policy("to-b", &format!("{{podSelector: {{matchLabels: {{app: b}}}}, ingress: [{ingress}]}}"))
}

/// What goes out of pod a: a policy with this egress section.
fn from_a(egress: &str) -> String {
    let spec = format!("{{podSelector: {{matchLabels: {{app: a}}}}, policyTypes: [Egress], egress: [{egress}]}}");
    policy("from-a", &spec)
}

fn namespace(name: &str, labels: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n")
}

/// A pod of the kit with more labels than its name.
fn labelled(pod: &Host, labels: &str) -> String {
    let own = format!("{{app: {}}}", pod.name);
    let with = pod_manifest(pod, "").replace(&own, &format!("{{app: {}, {labels}}}", pod.name));
    format!("---\n{with}")
}

/// Make a pod of the kit one of another namespace.
fn move_to(bed: &Bed, pod: &Host, namespace: &str) {
    bed.delete("pod", pod.name);
    bed.apply(&pod_manifest(pod, &format!(", namespace: {namespace}")));
    bed.vsctl(&format!("set Interface {0} external_ids:pod={namespace}/{0}", pod.name));
}

/// How somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Tcp,
    Udp,
}

/// Who reaches whom.
#[derive(Default)]
struct Matrix<'a>(Vec<Row<'a>>);

struct Row<'a> {
    from: &'a Host,
    to: SocketAddr,
    by: By,
    /// Who answers; `None`: nobody, and nothing is said.
    who: Option<&'a str>,
}

impl<'a> Matrix<'a> {
    fn new() -> Self {
        Self::default()
    }

    /// By TCP and by UDP, at both addresses.
    fn row(self, from: &'a Host, to: &'a Host, port: u16, reaches: bool) -> Self {
        self.by(By::Tcp, from, to, port, reaches).by(By::Udp, from, to, port, reaches)
    }

    fn by(mut self, by: By, from: &'a Host, to: &'a Host, port: u16, reaches: bool) -> Self {
        let who = reaches.then_some(to.name);
        self.0.extend(FAMILIES.map(|family| Row { from, to: to.at(family, port), by, who }));
        self
    }

    /// By TCP and by UDP, at an address.
    fn at(mut self, from: &'a Host, to: SocketAddr, who: Option<&'a str>) -> Self {
        self.0.extend([By::Tcp, By::Udp].map(|by| Row { from, to, by, who }));
        self
    }

    /// All is as it is said.
    #[track_caller]
    fn holds(self) {
        let mut wrong: Vec<String> = self.0.iter().filter(|row| row.who.is_some()).filter_map(Row::fails).collect();
        let silent: Vec<_> = self.0.iter().filter(|row| row.who.is_none()).map(|row| (row, row.ask())).collect();
        if !silent.is_empty() {
            std::thread::sleep(QUIET);
        }
        wrong.extend(silent.into_iter().filter_map(|(row, asked)| Some(format!("{}: {}", row.told(), asked.heard()?))));
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

/// A question to whoever must not hear it.
enum Asked {
    Tcp(OwnedFd),
    Udp(UdpSocket),
}

impl Asked {
    /// What came of it, if something did.
    fn heard(&self) -> Option<String> {
        match self {
            Self::Tcp(socket) => {
                let error = socket_error(socket).unwrap();
                let connected = rustix::net::getpeername(socket).is_ok();
                (connected || error.is_err()).then(|| format!("connected: {connected}, {error:?}"))
            }
            Self::Udp(socket) => {
                socket.set_nonblocking(true).unwrap();
                let heard = socket.recv(&mut [0; 256]);
                let silent = heard.as_ref().is_err_and(|why| why.kind() == std::io::ErrorKind::WouldBlock);
                (!silent).then(|| format!("{heard:?}"))
            }
        }
    }
}

impl Row<'_> {
    fn told(&self) -> String {
        format!("{} to {} by {:?}", self.from.name, self.to, self.by)
    }

    /// Why the right one does not answer, if it does not.
    fn fails(&self) -> Option<String> {
        let answers = match self.by {
            By::Tcp => self.from.try_tcp(self.to).map(|answer| vec![answer]),
            By::Udp => {
                let flow = self.from.flow(0, self.to);
                [(); 2].map(|()| flow.ask(b"", PATIENCE).map(|(answer, _)| answer)).into_iter().collect()
            }
        };
        let right = answers.as_ref().is_ok_and(|all| all.iter().all(|answer| Some(answer.who.as_str()) == self.who));
        (!right).then(|| format!("{}: {answers:?}", self.told()))
    }

    fn ask(&self) -> Asked {
        match self.by {
            By::Udp => {
                let flow = self.from.flow(0, self.to);
                for question in [b"first", b"again"] {
                    // That nobody is there may be said of the first one.
                    let _ = flow.socket.send(question);
                }
                Asked::Udp(flow.socket)
            }
            By::Tcp => Asked::Tcp(self.from.space.run(|| {
                let family = if self.to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
                let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None).unwrap();
                assert_eq!(rustix::net::connect(&socket, &self.to), Err(rustix::io::Errno::INPROGRESS));
                socket
            })),
        }
    }
}
