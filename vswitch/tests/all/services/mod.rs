//! Rows of `spec/kubernetes.md` by kernel sockets: each test begins with the names of the rows that it shows, and
//! docs/kubernetes.md lists them.

mod affinity;
mod beyond;
mod endpoints;
mod host_ports;
mod itself;
mod model;
mod outcomes;
mod policy;
mod programmed;
pub(crate) mod sctp;
mod stale;
mod translated;
