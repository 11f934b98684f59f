//! A container runtime, as far as CNI goes: it calls the plugin as libcni does, and remembers results.
//!
//! The plugin is this executable under another name, as daemon and client are.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::daemon::{Daemon, output_of};
use crate::host::Host;

/// A network of a runtime.
#[derive(Debug)]
pub struct Runtime {
    socket: PathBuf,
    queue: PathBuf,
}

/// A sandbox: its id, its namespace, and the pod that it is.
#[derive(Clone, Copy, Debug)]
pub struct Sandbox<'a> {
    /// `CNI_CONTAINERID`.
    pub id: &'a str,
    /// Whose namespace it is.
    pub host: &'a Host,
    /// Name of the pod in namespace `default`; none for a container that is no pod's.
    pub pod: Option<&'a str>,
}

/// What the plugin answered: its result, or its error.
pub type Answer = Result<Value, Value>;

impl Runtime {
    /// The network of this daemon.
    pub fn of(daemon: &Daemon) -> Self {
        Self { socket: daemon.socket(), queue: daemon.state_dir().join("detach") }
    }

    /// ADD: the result.
    ///
    /// # Errors
    /// When the plugin cannot be run, or says something that is no JSON.
    pub fn add(&self, sandbox: Sandbox<'_>) -> anyhow::Result<Answer> {
        self.call("ADD", sandbox, None)
    }

    /// CHECK against the result of ADD.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn check(&self, sandbox: Sandbox<'_>, result: &Value) -> anyhow::Result<Answer> {
        self.call("CHECK", sandbox, Some(result))
    }

    /// DEL.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn del(&self, sandbox: Sandbox<'_>) -> anyhow::Result<Answer> {
        self.call("DEL", sandbox, None)
    }

    fn call(&self, verb: &str, sandbox: Sandbox<'_>, before: Option<&Value>) -> anyhow::Result<Answer> {
        let Sandbox { id, host, pod } = sandbox;
        let mut config = json!({
            "cniVersion": "1.0.0", "name": "pods", "type": "vswitch-cni",
            "socket": self.socket.display().to_string(), "queue": self.queue.display().to_string(),
        });
        if let Some(before) = before {
            config["prevResult"] = before.clone();
        }
        let mut command = Command::new("/proc/self/exe");
        command.arg0("vswitch-cni");
        command.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", id).env("CNI_IFNAME", "eth0");
        command.env("CNI_NETNS", host.path()).env("CNI_PATH", "/opt/cni/bin");
        if let Some(pod) = pod {
            command.env("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}"));
        }
        let output = output_of(command, config.to_string().as_bytes()).with_context(|| format!("CNI {verb} {id}"))?;
        let said = if output.stdout.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&output.stdout)
                .with_context(|| format!("CNI {verb} {id}: {}", String::from_utf8_lossy(&output.stdout)))?
        };
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code().is_some(), "CNI {verb} {id}: {}: {errors}", output.status);
        Ok(if output.status.success() { Ok(said) } else { Err(said) })
    }
}
