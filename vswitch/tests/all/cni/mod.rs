//! Attachments as runtimes make them: Debian's podman and containerd, and a driver that does what libcni does, against the
//! daemon and the plugin as programs.
//!
//! What a distribution packages may not be there: then a test says that it is skipped.

mod containerd;
mod cri;
mod install;
mod libcni;
mod podman;
mod world;
