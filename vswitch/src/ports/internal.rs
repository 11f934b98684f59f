//! `internal`: a TAP in the daemon's own namespace, named as the port. A bridge's LOCAL port is one.
//!
//! All of it is `tap.rs` without options. As in Open vSwitch it is created down, without an address: those are the
//! operator's.

use super::tap::{Wish, open_tap};
use super::{Environment, Opened, PortDef, PortError};

/// The kind.
pub const PORT: PortDef = PortDef {
    name: "internal",
    help: "a TAP device in the daemon's own namespace, named as the port",
    options: &[],
    open,
};

fn open(port: &api::Port, environment: &Environment<'_>) -> Result<Opened, PortError> {
    open_tap(&Wish::read(port)?, environment)
}
