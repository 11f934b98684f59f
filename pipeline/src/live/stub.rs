//! stub
use crate::live::Now;
use crate::probe::cells::Cells;
use api::{AddressKey, MacAddr, PortId};
/// stub
#[derive(Debug, Default)]
pub struct Neighbors;
impl Neighbors {
    /// stub
    pub fn solicit(&self, _k: AddressKey, _p: PortId, _n: Now) -> bool {
        false
    }
    /// stub
    pub fn learn(&self, _k: AddressKey, _p: PortId, _m: MacAddr, _n: Now, _c: &Cells) {}
}
/// stub
#[derive(Debug, Default)]
pub struct Meters;
impl Meters {
    /// stub
    pub fn admits(&self, _p: PortId, _n: bool, _w: Now) -> bool {
        true
    }
}
