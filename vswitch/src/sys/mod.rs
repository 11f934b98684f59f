//! The kernel: the only modules of this crate that make system calls which `rustix` has no safe function for.
//!
//! Everything here has a safe interface and knows nothing of ports, frames or the pipeline. Labs and tests use it too:
//! a [`netns::Namespace`] is their host, [`netlink::Netlink`] their `ip` command.

#![allow(unsafe_code)]

pub mod affinity;
pub mod conntrack;
pub mod cpu;
pub mod listen;
pub mod mmap;
pub mod netlink;
pub mod netns;
mod nfnetlink;
pub mod nftables;
pub mod packet;
pub mod routes;
pub mod shared;
pub mod signal;
pub mod tun;
