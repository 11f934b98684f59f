//! What is asked of an attachment, looked at alone; and the names that follow from it.

use std::path::Path;

use api::attachment::{PROTOCOL, code};
use api::{Attach, AttachRefusal, AttachmentId, MacAddr, PodRef};

use super::refuse;
use crate::cluster::compile::stable;
use crate::store::config::{check_name, shown};

/// Octets of a name of CNI at most: what fits a record, with room.
const NAME: usize = 256;

/// Plugin and daemon understand each other.
pub(super) fn check_protocol(protocol: u16) -> Result<(), AttachRefusal> {
    match protocol {
        PROTOCOL => Ok(()),
        other => refuse(
            code::UNSUPPORTED,
            format!("protocol={other}: this daemon speaks {PROTOCOL}: plugin and daemon must be of matching releases"),
        ),
    }
}

/// What can be told wrong of a wish without looking at anything else.
pub(super) fn check(attach: &Attach) -> Result<(), AttachRefusal> {
    check_protocol(attach.protocol)?;
    let AttachmentId { network, container, ifname } = &attach.id;
    for (field, value) in [("network", network), ("container", container), ("ifname", ifname), ("netns", &attach.netns)]
    {
        if value.is_empty() || value.len() > NAME && field != "netns" || value.chars().any(char::is_control) {
            return refuse(code::INVALID_CONFIG, format!("{field}=\"{}\": not a name", shown(value)));
        }
    }
    if let Err(why) = check_name(ifname) {
        return refuse(code::INVALID_CONFIG, format!("ifname: {why}"));
    }
    if !Path::new(&attach.netns).is_absolute() {
        return refuse(code::INVALID_CONFIG, format!("netns=\"{}\": not an absolute path", shown(&attach.netns)));
    }
    if attach.kind != "tap" {
        return refuse(code::UNSUPPORTED, format!("port=\"{}\": not supported: only tap is", shown(&attach.kind)));
    }
    if let Some(bridge) = &attach.bridge
        && let Err(why) = check_name(bridge)
    {
        return refuse(code::INVALID_CONFIG, format!("bridge: {why}"));
    }
    if let Some(mac) = attach.mac.filter(|mac| mac.is_group() || mac.is_zero()) {
        return refuse(code::INVALID_CONFIG, format!("mac={mac}: not the address of one station"));
    }
    if let Some(mtu) = attach.mtu.filter(|mtu| !(68..=65521).contains(mtu)) {
        return refuse(code::INVALID_CONFIG, format!("mtu={mtu}: not in 68..65521"));
    }
    if let Some(PodRef { namespace, name, .. }) = &attach.pod {
        for (field, value) in [("K8S_POD_NAMESPACE", namespace), ("K8S_POD_NAME", name)] {
            if value.is_empty()
                || value.len() > NAME
                || value.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control())
            {
                return refuse(code::INVALID_CONFIG, format!("{field}=\"{}\": not a name", shown(value)));
            }
        }
    }
    Ok(())
}

/// A name that fits an interface and is the same for the same attachment, as long as nobody has it.
pub(super) fn port_name(id: &AttachmentId, is_taken: impl Fn(&str) -> bool) -> String {
    let hash = |n: u32| stable::hash(&format!("{}/{}/{}/{n}", id.network, id.container, id.ifname));
    let name = |n| format!("pod{:012x}", hash(n) >> 16);
    (0..).map(name).find(|name| !is_taken(name)).unwrap_or_default()
}

/// An address of our own choice: locally administered (IEEE 802-2014, 8.2.2).
pub(super) fn mac_of(id: &AttachmentId, is_taken: impl Fn(MacAddr) -> bool) -> MacAddr {
    let hash = |n: u32| stable::hash(&format!("{n}/{}/{}/{}", id.ifname, id.container, id.network));
    let mac = |n| {
        let [.., a, b, c, d, e] = (hash(n) ^ hash(n) >> 40).to_be_bytes();
        MacAddr([0x0a, a, b, c, d, e])
    };
    (0..).map(mac).find(|mac| !is_taken(*mac)).unwrap_or_default()
}
