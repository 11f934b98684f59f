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

pub mod fake;
pub mod switch;

mod cluster;
mod socket;
mod store;
mod verbs;

pub use socket::{Control, Stopper};
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
}
