//! The control side of `vswitchd` in this process, on a socket, and a client of that socket: for scenarios that begin with
//! objects of Kubernetes. The node is named `n1`, and lives in a network namespace of its own.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use api::MacAddr;
use api::request::{Manifest, Request};
use api::rpc::Client;
use control::{Control, NodeSettings};
use vswitch::keeper::Keeper;
use vswitch::switch::{Options, Switch};
use vswitch::sys::netns::Namespace;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client of the daemon.
pub struct Daemon(Client);

impl Daemon {
    /// Apply manifests.
    ///
    /// # Errors
    /// When an object is refused.
    pub fn apply(&mut self, text: String) -> Result<()> {
        let answer = self.0.ask(&Request::Apply { manifests: manifests(text), namespace: None })?;
        // Each object is told of; one that was refused makes the figure a figure of something else.
        let told = answer.to_string();
        if let Some(at) = told.find("refused") {
            let around = told.get(at.saturating_sub(100)..).unwrap_or(&told);
            bail!("an object was refused: {}", around.chars().take(500).collect::<String>());
        }
        Ok(())
    }

    /// Take an object out of the cluster.
    ///
    /// # Errors
    /// When it is refused.
    pub fn delete(&mut self, kind: &str, name: &str) -> Result<()> {
        let (kind, names) = (Some(kind.to_owned()), vec![name.to_owned()]);
        self.0.ask(&Request::Delete { manifests: Vec::new(), kind, names, namespace: None })?;
        Ok(())
    }

    /// Prove that the live tables do what the cluster's state says. Returns the answer.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn verify(&mut self) -> Result<serde_json::Value> {
        Ok(self.0.ask(&Request::Verify { from: None, to: None })?)
    }

    /// Frames dropped, for whatever reason.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn drops(&mut self) -> Result<u64> {
        let rows = self.0.ask(&Request::Drops { port: None })?;
        let rows = rows.as_array().context("drops: no list")?;
        Ok(rows.iter().filter_map(|row| row.get("packets")?.as_u64()).sum())
    }

    /// Database commands, as typed.
    ///
    /// # Errors
    /// When they are refused.
    pub fn command(&mut self, line: &str) -> Result<()> {
        let mut commands = Vec::new();
        for part in line.split(" -- ") {
            match api::verb::parse(&part.split(' ').collect::<Vec<_>>()).map_err(anyhow::Error::msg)? {
                Request::Transact { commands: more } => commands.extend(more),
                other => bail!("{other:?} is no command"),
            }
        }
        self.0.ask(&Request::Transact { commands }).with_context(|| line.to_owned())?;
        Ok(())
    }

    /// Add the port of a pod, which the switch was offered under the pod's name.
    ///
    /// # Errors
    /// When it is refused.
    pub fn attach(&mut self, pod: &str, mac: MacAddr) -> Result<()> {
        self.command(&format!(
            "add-port br-pods {pod} -- set Interface {pod} type=memory mac=\"{mac}\" external_ids:pod=default/{pod}"
        ))
    }
}

fn manifests(text: String) -> Vec<Manifest> {
    vec![Manifest { name: "bench".to_owned(), text }]
}

/// Start a daemon with one worker, `offer` its switch ports, do `work` with it, and stop it.
///
/// # Errors
/// When it does not start, or the work fails.
pub fn run<T>(
    worker: Option<u16>,
    offer: impl FnOnce(&Switch) + Send + 'static,
    work: impl FnOnce(&mut Daemon) -> Result<T>,
) -> Result<T> {
    at(worker, offer, |daemon, _| work(daemon))
}

/// As [`run`], for work that other processes do at the daemon's socket.
///
/// # Errors
/// As [`run`].
pub fn at<T>(
    worker: Option<u16>,
    offer: impl FnOnce(&Switch) + Send + 'static,
    work: impl FnOnce(&mut Daemon, &Path) -> Result<T>,
) -> Result<T> {
    // LOCAL is an interface of the node: of a node of our own.
    let space = Namespace::new().context("a network namespace")?;
    let directory = tempfile::tempdir()?;
    let settings = settings(directory.path());
    let socket = settings.socket.clone();
    let (tell, told) = std::sync::mpsc::channel();
    let daemon = space.run(|| {
        std::thread::spawn(move || -> Result<()> {
            let options = Options { workers: 1, cpus: worker.into_iter().collect(), ..Options::default() };
            let mut switch = Switch::start(&options, Keeper::none())?;
            offer(&switch);
            let mut control = Control::open(&settings, &mut switch)?;
            let _ = tell.send(control.stopper());
            control.run(&mut switch)?;
            switch.stop();
            Ok(())
        })
    });
    let stopper = told.recv();
    let outcome = match &stopper {
        Ok(_) => Client::connect(&socket, Some(PATIENCE))
            .map_err(Into::into)
            .and_then(|client| work(&mut Daemon(client), &socket)),
        Err(_) => Err(anyhow::anyhow!("the daemon does not start")),
    };
    stopper.iter().for_each(control::Stopper::stop);
    daemon.join().unwrap_or_else(|_| bail!("the daemon panicked"))?;
    outcome
}

fn settings(directory: &Path) -> control::Options {
    control::Options {
        socket: directory.join("ctl.sock"),
        socket_group: None,
        state_dir: directory.join("state"),
        cluster: None,
        version: "vsbench".to_owned(),
        node: NodeSettings { name: "n1".to_owned(), ..NodeSettings::default() },
    }
}
