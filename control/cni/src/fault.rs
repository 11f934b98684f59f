//! Why a verb was not done, in CNI's words and numbers (SPEC.md, "Error").

use api::AttachRefusal;
use serde_json::{Value, json};

use crate::version::Version;

/// The codes; those that the daemon has, too, are its.
pub(crate) mod code {
    pub(crate) use api::attachment::code::*;

    /// The version of the configuration, or of the daemon, is not ours.
    pub(crate) const VERSION: u32 = 1;
    /// A variable of the environment.
    pub(crate) const ENVIRONMENT: u32 = 4;
    /// Reading or writing.
    pub(crate) const IO: u32 = 5;
    /// What cannot be read as what it shall be.
    pub(crate) const DECODING: u32 = 6;
    /// The namespace is the plugin's own (of CNI's library, not of the specification).
    pub(crate) const NETNS: u32 = 8;
    /// A delegate said no more than that it failed (of CNI's library).
    pub(crate) const INTERNAL: u32 = 999;
}

/// An error, as it is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{msg}")]
pub(crate) struct Fault {
    pub(crate) code: u32,
    /// The thing, the value and the rule.
    pub(crate) msg: String,
    /// More, where the reference has it there.
    pub(crate) details: String,
}

impl Fault {
    pub(crate) fn new(code: u32, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    pub(crate) fn details(self, details: impl Into<String>) -> Self {
        Self { details: details.into(), ..self }
    }

    pub(crate) fn to_json(&self, version: Version) -> Value {
        let mut error = json!({"cniVersion": version.text(), "code": self.code, "msg": self.msg});
        if let (false, Some(members)) = (self.details.is_empty(), error.as_object_mut()) {
            members.insert("details".to_owned(), Value::String(self.details.clone()));
        }
        error
    }
}

impl From<AttachRefusal> for Fault {
    fn from(refusal: AttachRefusal) -> Self {
        Self::new(refusal.code, refusal.what)
    }
}
