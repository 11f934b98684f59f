//! Tests of the switch as a whole: over memory ports without privilege, and over the kernel's own devices.

mod acl;
mod alloc;
mod kit;
mod memory;
mod node;
mod packet;
mod policies;
mod ports;
mod services;
mod storms;
mod survive;
mod verify;
mod web;
