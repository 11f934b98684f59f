//! Tests of the pipeline as a whole, by its public interface only.
//!
//! | module | what it holds |
//! |---|---|
//! | [`kit`] | a bench: a program, what packets write, and a worker or two without threads |
//! | [`path`] | one frame, one row: what leaves where, or why nothing does, and which counters move |
//! | [`life`] | what time, moves and changes do to stations and cached decisions |
//! | [`connections`] | what ends connections, what they survive, who races for them |
//! | [`storms`] | floods and scans: what they may take, and what a victim keeps |
//! | [`sweep`] | what a hit skips is still accounted |
//! | [`same`] | the cached verdict is that of a fresh walk, whatever happens (FASTPATH, test 1) |
//! | [`stages`] | other stages than the switch has today: wide keys, re-entry |
//! | [`translate`] | a node: services, masquerade and related errors, through all stages |
//! | [`outside`] | services at addresses by which they are reached from beyond the cluster, session affinity |
//! | [`matches`] | every match field of Open vSwitch has its place |
//! | [`acl`] | access lists of operators, on a plain bridge and on a node |
//! | [`alloc`] | nothing on the hit path allocates |
//! | [`parser`] | the parser against etherparse |

mod acl;
mod alloc;
mod connections;
mod kit;
mod life;
mod matches;
mod outside;
mod parser;
mod path;
mod same;
mod stages;
mod storms;
mod sweep;
mod translate;
