//! stub
use crate::burst::Layers;
use crate::live::connections::Found;
use crate::raw::Frame;
/// stub
pub fn translate(_f: &mut Frame, _l: &Layers, _x: &Found) -> bool {
    false
}
