//! stub
use crate::drop::DropReason;
use crate::live::Now;
use crate::raw::Frame;
use api::{AddressKey, PortId};
/// stub
#[derive(Debug, Default)]
pub struct Parked;
impl Parked {
    /// stub
    pub fn len(&self) -> usize {
        0
    }

    /// stub
    pub fn park(&mut self, f: Frame, _p: PortId, _k: AddressKey, _n: Now) -> Result<(), (Frame, DropReason)> {
        Err((f, DropReason::NoPort))
    }
}
