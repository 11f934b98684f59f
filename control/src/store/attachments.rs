//! The store's part of attachments: interfaces of containers, each on a port of its own.

use api::reply::Attachments;
use api::{Attach, AttachRefusal, AttachReply, AttachmentId, Bandwidth, Expected, HostPort, Interface, PodRef, PortId};
use serde::{Deserialize, Serialize};

use super::Store;
use crate::{Refusal, Switch};

/// An interface of a container, as it was asked for. Its port has the rest: name, bridge, Ethernet address, MTU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Attachment {
    /// Key.
    pub(crate) port: PortId,
    pub(crate) id: AttachmentId,
    /// Path of the namespace.
    pub(crate) netns: String,
    /// The pod whose sandbox it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<PodRef>,
    pub(crate) interface: Interface,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) host_ports: Vec<HostPort>,
    #[serde(default, skip_serializing_if = "Bandwidth::is_unlimited")]
    pub(crate) bandwidth: Bandwidth,
}

impl Store {
    /// Make an interface for a container.
    pub(crate) fn attach(&mut self, _attach: &Attach, _switch: &mut dyn Switch) -> Result<AttachReply, AttachRefusal> {
        Err(AttachRefusal { code: api::attachment::code::FAILED, what: "not built yet".to_owned() })
    }
    pub(crate) fn detach(&mut self, _id: &AttachmentId, _switch: &mut dyn Switch) -> Result<(), Refusal> {
        Ok(())
    }
    pub(crate) fn check_attachment(
        &self,
        _id: &AttachmentId,
        _expected: &Expected,
        _switch: &dyn Switch,
    ) -> Result<AttachReply, AttachRefusal> {
        Ok(AttachReply::Fine)
    }
    pub(crate) fn collect_attachments(
        &mut self,
        _network: &str,
        _valid: &[(String, String)],
        _switch: &mut dyn Switch,
    ) -> Result<(), Refusal> {
        Ok(())
    }
    pub(crate) fn attachment_status(
        &self,
        _protocol: u16,
        _bridge: Option<&str>,
        _assigns: bool,
    ) -> Result<AttachReply, AttachRefusal> {
        Ok(AttachReply::Fine)
    }
    pub(crate) fn attachments(&self, _switch: &dyn Switch) -> Attachments {
        Attachments::default()
    }
}
