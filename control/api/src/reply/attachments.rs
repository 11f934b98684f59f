//! Attachments, as people see them.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::attachment::{AttachReply, AttachmentId};
use crate::reply::table;

/// Answer to `attachments`, by network, container and interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attachments(pub Vec<AttachmentRow>);

/// An attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentRow {
    /// What it is called.
    pub id: AttachmentId,
    /// Path of its network namespace.
    pub netns: String,
    /// Name of its bridge.
    pub bridge: String,
    /// Name of its port.
    pub port: String,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// `NAMESPACE/NAME` of its pod, if it is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Why its port carries no frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl fmt::Display for Attachments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.0.iter().map(|row| {
            let AttachmentId { network, container, ifname } = row.id.clone();
            let addresses = row.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
            let pod = or_dash(row.pod.as_deref().unwrap_or_default());
            let error = row.error.clone().unwrap_or_default();
            vec![network, container, ifname, row.bridge.clone(), row.port.clone(), or_dash(&addresses), pod, error]
        });
        table(f, &["NETWORK", "CONTAINER", "INTERFACE", "BRIDGE", "PORT", "ADDRESSES", "POD", "ERROR"], rows)
    }
}

impl fmt::Display for AttachReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attached(attached) => {
                let addresses: Vec<_> = attached.interface.addresses.iter().map(|a| a.address.to_string()).collect();
                writeln!(f, "{} mtu {} {}", attached.mac, attached.mtu, addresses.join(","))
            }
            Self::Fine => Ok(()),
            Self::Refused(refusal) => writeln!(f, "{refusal}"),
        }
    }
}
