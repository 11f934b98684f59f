//! Two hosts with kernel stacks, and a switch between them: the kernel's own bridge, Open vSwitch with TAPs, and this
//! switch with TAPs. Hosts run on CPU 0, a user-space switch on the other.

use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result};
use benches::hosts::{Hosts, IFNAME};
use vswitch::sys::affinity::usable;
use vswitch::sys::netlink::{Netlink, Settings};
use vswitch::sys::netns::{self, Namespace};

use crate::ovs::Ovs;
use crate::process::Directory;
use crate::{Contest, Peer, ours};

/// What the hosts do.
#[derive(Clone, Copy, Debug)]
enum Traffic {
    Tcp,
    Udp,
}

impl Traffic {
    /// Gigabits of one stream, or thousands of small datagrams received, a second.
    fn run(self, hosts: &Hosts, duration: Duration) -> Result<f64> {
        match self {
            Self::Tcp => hosts.tcp(duration),
            Self::Udp => Ok(hosts.udp(duration)?.received / 1000.0),
        }
    }
}

/// One contest for each kind of traffic.
pub(crate) fn contests(cpu: u16, directory: &Directory) -> Vec<Contest<'_>> {
    let hosts_cpu = usable().into_iter().find(|&other| other != cpu).unwrap_or(cpu);
    let contest = |work: &str, unit, traffic, scenario, figure| Contest {
        work: work.to_owned(),
        unit,
        less_is_better: false,
        peers: vec![
            Box::new(ours::Taps { scenario, figure, cpu, directory }) as Box<dyn Peer>,
            Box::new(KernelBridge { traffic, cpu: hosts_cpu }),
            Box::new(OvsTaps { traffic, cpu: hosts_cpu, directory }),
        ],
    };
    vec![
        contest("TCP, one stream", "Gb/s", Traffic::Tcp, "tap-tcp", |outcome| outcome.gbps),
        contest("UDP, 64-octet frames", "kpps", Traffic::Udp, "tap-pps", |outcome| outcome.mpps * 1000.0),
    ]
}

/// The kernel's bridge, with a veth pair to each host.
struct KernelBridge {
    traffic: Traffic,
    cpu: u16,
}

impl Peer for KernelBridge {
    fn name(&self) -> &str {
        "Linux bridge + veth"
    }

    fn turn(&mut self, duration: Duration) -> Result<f64> {
        let hosts = Hosts::new(self.cpu)?;
        let middle = Namespace::new()?;
        middle.run(|| -> std::io::Result<()> {
            let netlink = Netlink::open()?;
            netlink.add_bridge("br0")?;
            let bridge = netlink.index("br0")?;
            for (name, host) in [("left", &hosts.left), ("right", &hosts.right)] {
                netlink.add_veth(name, IFNAME, Some(netns::open(host.path())?.as_fd()))?;
                let settings = Settings { up: Some(true), bridge: Some(bridge), ..Settings::default() };
                netlink.set(netlink.index(name)?, &settings)?;
            }
            netlink.set(bridge, &Settings { up: Some(true), ..Settings::default() })
        })?;
        hosts.configure()?;
        self.traffic.run(&hosts, duration)
    }
}

/// Open vSwitch's user-space datapath. Its internal ports are TAPs, which are moved into the hosts.
struct OvsTaps<'a> {
    traffic: Traffic,
    cpu: u16,
    directory: &'a Directory,
}

impl Peer for OvsTaps<'_> {
    fn name(&self) -> &str {
        "OVS user space + TAP"
    }

    fn turn(&mut self, duration: Duration) -> Result<f64> {
        let hosts = Hosts::new(self.cpu)?;
        let middle = Namespace::new()?;
        let mut ovs = middle.run(|| Ovs::start(self.directory, &["ovs-vswitchd"], &[]))?;
        ovs.configure(&["add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev"])?;
        for (name, host) in [("left", &hosts.left), ("right", &hosts.right)] {
            ovs.configure(&["add-port", "br0", name, "--", "set", "Interface", name, "type=internal"])?;
            middle.run(|| -> Result<()> {
                let netlink = Netlink::open()?;
                let target = netns::open(host.path())?;
                let settings = Settings {
                    name: Some(IFNAME),
                    namespace: Some(target.as_fd()),
                    up: Some(false),
                    ..Settings::default()
                };
                netlink.set(netlink.index(name)?, &settings).with_context(|| format!("{name} cannot be moved"))
            })?;
        }
        hosts.configure()?;
        self.traffic.run(&hosts, duration)
    }
}
