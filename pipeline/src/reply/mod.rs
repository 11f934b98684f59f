//! stub
use crate::burst::Layers;
use crate::drop::DropReason;
use crate::raw::{Frame, Stash};
use crate::resolve::stage::{Reply, Wait};
/// stub
pub fn answer(_f: &mut Frame, _l: &Layers, _r: &Reply, _m: api::MacAddr) -> Result<(), DropReason> {
    Err(DropReason::NoPort)
}
/// stub
pub fn solicit(_w: &Wait, _s: &mut Stash) -> Option<Frame> {
    None
}
