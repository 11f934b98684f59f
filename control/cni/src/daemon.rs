//! Asking the daemon. No wait is longer than it was told to be, whatever the daemon does.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use api::attachment::PROTOCOL;
use api::rpc::{Client, ClientError};
use api::{AttachReply, Attached, AttachmentId, Request, detached};
use serde_json::Value;

use crate::config::Daemon;
use crate::fault::{Fault, code};
use crate::log;

/// How long an answer may take that many packets' worth of tables hang on.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long one may take after which a request is queued: a pod must be able to go.
const PATIENCE_DETACH: Duration = Duration::from_secs(20);
/// How long one may take that says only how the daemon is.
pub(crate) const PATIENCE_STATUS: Duration = Duration::from_secs(5);

/// What a daemon says that does not know the sentence, or something in it.
const STRANGE: [&str; 4] = ["is not a valid command", "unknown field", "unknown variant", "missing field"];

impl Daemon {
    /// Ask. A daemon that accepts no connection is waited for no longer than for an answer: that is what the thread is
    /// for, which ends with the process.
    pub(crate) fn ask(&self, request: &Request, patience: Duration) -> Result<Value, ClientError> {
        let (tell, told) = channel();
        let (socket, request) = (self.socket.clone(), request.clone());
        std::thread::spawn(move || {
            let answer = Client::connect(&socket, Some(patience)).and_then(|mut client| client.ask(&request));
            let _ = tell.send(answer);
        });
        told.recv_timeout(patience).unwrap_or(Err(ClientError::Timeout(patience)))
    }

    /// Ask for what is answered by a reply of attachments.
    pub(crate) fn ask_attachment(&self, request: &Request, patience: Duration) -> Result<Option<Attached>, Unheard> {
        let answer = self.ask(request, patience).map_err(|why| self.unheard(why))?;
        let reply = serde_json::from_value(answer)
            .map_err(|why| Unheard::Said(self.strange(&format!("answer not understood: {why}"))))?;
        match reply {
            AttachReply::Attached(attached) => Ok(Some(attached)),
            AttachReply::Fine => Ok(None),
            AttachReply::Refused(refusal) => Err(Unheard::Said(refusal.into())),
        }
    }

    pub(crate) fn unheard(&self, why: ClientError) -> Unheard {
        match why {
            ClientError::Refused(why) if STRANGE.iter().any(|strange| why.contains(strange)) => {
                Unheard::Said(self.strange(&why))
            }
            ClientError::Refused(why) => Unheard::Said(Fault::new(code::FAILED, why)),
            ClientError::Connect { .. } => Unheard::Absent(Fault::new(code::TRY_AGAIN, format!("socket: {why}"))),
            other => {
                Unheard::Unsure(Fault::new(code::TRY_AGAIN, format!("socket: {}: {other}", self.socket.display())))
            }
        }
    }

    /// The daemon is of another time than we are.
    fn strange(&self, why: &str) -> Fault {
        let version = match self.ask(&Request::Version {}, PATIENCE_STATUS) {
            Ok(Value::String(version)) => version,
            _ => "an unknown version".to_owned(),
        };
        let (socket, plugin) = (self.socket.display(), env!("CARGO_PKG_VERSION"));
        let what = format!("socket: {socket}: {version} does not understand vswitch-cni {plugin}, protocol {PROTOCOL}");
        Fault::new(code::VERSION, what).details(why)
    }

    /// See that an attachment goes: now, or when the daemon starts.
    pub(crate) fn detach(&self, id: &AttachmentId) {
        let request = Request::Detach { id: id.clone() };
        let Err(why) = self.ask(&request, PATIENCE_DETACH) else {
            self.forget(id);
            return;
        };
        if let Err(not) = detached::write(&self.queue, id) {
            log(&format!("{why}; queue: {}: {}", self.queue.display(), api::reason(&not)));
            return;
        }
        log(&format!("{why}; the daemon will be told when it starts (queue: {})", self.queue.display()));
        // It may have started before we wrote, and not look again.
        let absent = matches!(why, ClientError::Connect { .. } | ClientError::Lost(_));
        if absent && self.ask(&request, PATIENCE_DETACH).is_ok() {
            self.forget(id);
        }
    }

    /// Nothing is left to be done of what was queued of an attachment.
    pub(crate) fn forget(&self, id: &AttachmentId) {
        if let Err(why) = detached::remove(&self.queue, id) {
            log(&format!("queue: {}: {}", self.queue.display(), api::reason(&why)));
        }
    }
}

/// Why the daemon did not do what was asked.
#[derive(Debug)]
pub(crate) enum Unheard {
    /// Nobody listened: nothing was done.
    Absent(Fault),
    /// It said so: nothing was done.
    Said(Fault),
    /// It was asked, and did not answer: it may have been done.
    Unsure(Fault),
}

impl Unheard {
    pub(crate) fn fault(self) -> Fault {
        match self {
            Self::Absent(fault) | Self::Said(fault) | Self::Unsure(fault) => fault,
        }
    }
}

/// The namespace at a path is there, and not the one that we are in.
pub(crate) fn check_netns(netns: &str, any: bool) -> Result<(), Fault> {
    let there = std::fs::metadata(netns).map_err(|why| {
        let why = api::reason(&why);
        Fault::new(code::UNKNOWN_CONTAINER, format!("CNI_NETNS: {netns}: no network namespace is there ({why})"))
    })?;
    if !any && is_ours(&there) {
        return Err(own_netns());
    }
    Ok(())
}

pub(crate) fn own_netns() -> Fault {
    Fault::new(code::NETNS, "plugin's netns and netns from CNI_NETNS should not be the same")
}

/// The namespace is the one that we are in.
pub(crate) fn is_own_netns(netns: &str) -> bool {
    std::fs::metadata(netns).is_ok_and(|there| is_ours(&there))
}

fn is_ours(there: &Metadata) -> bool {
    let ours = std::fs::metadata(Path::new("/proc/self/ns/net"));
    ours.is_ok_and(|ours| (ours.dev(), ours.ino()) == (there.dev(), there.ino()))
}
