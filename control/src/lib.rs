//! Configuration and cluster state, compiled to transactions for a switch.
//!
//! This crate knows names, files and sockets, and no packet. What it programs is behind the trait [`Switch`].
//!
//! A daemon makes a switch, then
//! ```no_run
//! # fn daemon(options: control::Options, switch: &mut dyn control::Switch) -> Result<(), Box<dyn std::error::Error>> {
//! let mut control = control::Control::open(&options, switch)?; // restored, listening
//! let stopper = control.stopper(); // for whoever waits for signals
//! # drop(stopper);
//! control.run(switch)?; // until `stopper.stop()`
//! # Ok(())
//! # }
//! ```

use std::path::PathBuf;

use ipnet::IpNet;

pub mod fake;
pub mod switch;

mod cluster;
mod detached;
mod socket;
mod store;
mod verbs;
mod verify;

pub use socket::{Control, Stopper};
pub use store::config::check_name;
pub use switch::{Refusal, Switch};

/// Where a daemon keeps and shows its configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// The control socket. What an earlier daemon left there is replaced; its directory must exist.
    pub socket: PathBuf,
    /// Group (by number) that may use the socket beside its owner.
    pub socket_group: Option<u32>,
    /// Directory of the durable configuration; made if need be.
    pub state_dir: PathBuf,
    /// Directory of manifests that describe the cluster, watched; read once before [`Control::open`] returns.
    pub cluster: Option<PathBuf>,
    /// What `version` answers.
    pub version: String,
    /// The node that the switch is the network of.
    pub node: NodeSettings,
}

/// A node of a cluster, as its daemon was told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSettings {
    /// Its name in the cluster state.
    pub name: String,
    /// The bridge that its pods are on, made when the first cluster object arrives.
    pub bridge: String,
    /// Ranges of service addresses, beside those of ServiceCIDR objects.
    pub service_cidrs: Vec<IpNet>,
    /// Name of the port behind which the outside is. It takes effect whenever the cluster bridge has such a port.
    pub uplink: Option<String>,
    /// First and last source port of masqueraded traffic.
    pub snat_ports: (u16, u16),
    /// The addresses of the node at which node ports are served.
    pub node_ports: NodePortAddresses,
}

/// Which of a node's addresses serve node ports (`--nodeport-addresses` of kube-proxy).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// The first of each family.
    #[default]
    Primary,
    /// Those in any of these prefixes.
    Within(Vec<IpNet>),
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self {
            name: "localhost".to_owned(),
            bridge: "br-pods".to_owned(),
            service_cidrs: Vec::new(),
            uplink: None,
            snat_ports: api::Router::SNAT_PORTS,
            node_ports: NodePortAddresses::Primary,
        }
    }
}
