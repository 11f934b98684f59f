//! The plugin as runtimes see it: a program, its environment, its standard input and output, and a daemon's socket behind.

mod errors;
mod ipam;
mod kit;
mod queue;
mod results;
mod sequences;
