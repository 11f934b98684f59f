//! Rows of `spec/kubernetes.md` by kernel sockets: each test begins with the names of the rows that it shows, and
//! docs/kubernetes.md lists them.

mod endpoints;
mod model;
mod outcomes;
mod programmed;
mod sctp;
mod stale;
mod translated;
