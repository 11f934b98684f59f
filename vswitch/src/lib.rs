//! `vswitchd`: ports, workers and the keeper around the pipeline.
//!
//! Two processes: the keeper (`keeper`), which holds descriptors and starts the other again; and the data plane, whose
//! main thread is the control side (crate `control`, programming the [`switch::Switch`]) and whose workers carry frames.
//! This is the only crate that knows both `control` and `pipeline`.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use config::{Config, ConfigError};
use control::Control;
use keeper::Keeper;
use switch::Switch;
use sys::signal::{FOR_GOOD, STOP, Signals};

pub mod capture;
mod cleanup;
mod config;
mod install;
pub mod keeper;
mod node;
pub mod pool;
pub mod ports;
pub mod publish;
pub mod shape;
mod stats;
mod survival;
pub mod switch;
mod sync;
pub mod sys;
mod upkeep;
pub mod web;
pub mod worker;

/// `vswitchd`, given its command line with the program's name in front. Returns the exit code: 0 after an orderly stop,
/// 1 when it could not start or go on, 2 for a command line that cannot be understood.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    if let Some(feature) = sys::cpu::missing() {
        return fail(&format!("this CPU has no {feature}, for which the program was built; see .cargo/config.toml"));
    }
    if args.get(1).is_some_and(|word| word == install::COMMAND) {
        return install::main(&args).unwrap_or_else(|why| fail(&format!("install-cni: {why}")));
    }
    let config = match Config::from_args(&args) {
        Ok(config) => config,
        Err(ConfigError::Usage(error)) => {
            let _ = error.print();
            return if error.use_stderr() { 2 } else { 0 };
        }
        Err(ConfigError::Invalid(why)) => return fail(&why),
    };
    let colours = std::io::stderr().is_terminal();
    let format = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(colours);
    let _ = tracing_subscriber::registry().with(format).with(config.log.clone()).try_init();
    let result = if std::env::var_os(keeper::ENVIRONMENT).is_some() {
        data_plane(&config)
    } else {
        let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
        let command = || {
            let mut command = Command::new(&program);
            command.args(args.iter().skip(1));
            if let Some(name) = args.first() {
                command.arg0(name);
            }
            command
        };
        keeper::run_as_keeper(&config.run_dir, command).map_err(anyhow::Error::from)
    };
    result.unwrap_or_else(|why| fail(&format!("{why:#}")))
}

fn fail(why: &str) -> u8 {
    eprintln!("vswitchd: {why}");
    1
}

/// The process that forwards.
fn data_plane(config: &Config) -> anyhow::Result<u8> {
    // Before any thread is started: signals are blocked in all of them.
    let signals = Signals::new(&STOP)?;
    let keeper = Keeper::from_environment()?;
    let mut switch = Switch::start(&config.switch, keeper.clone())?;
    // Before the first transaction, which restores what was configured.
    switch.serve(config.web.clone())?;
    let options = control::Options {
        socket: config.run_dir.join("ctl.sock"),
        socket_group: config.socket_group,
        state_dir: config.state_dir.clone(),
        cluster: config.cluster.clone(),
        version: format!("vswitchd {}", env!("CARGO_PKG_VERSION")),
        node: config.node.clone(),
    };
    let mut control = Control::open(&options, &mut switch).map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
    let stopper = control.stopper();
    let for_good = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&for_good);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut fds = [rustix::event::PollFd::new(&signals, rustix::event::PollFlags::IN)];
        while rustix::event::poll(&mut fds, None).is_err() {}
        told.store(signals.next() == Some(FOR_GOOD), Ordering::Release);
        stopper.stop();
    })?;
    tracing::info!(workers = config.switch.workers, "ready at {}", options.socket.display());
    keeper.ready()?;
    control.run(&mut switch)?;
    if for_good.load(Ordering::Acquire) {
        switch.withdraw();
    } else {
        switch.stop();
    }
    Ok(0)
}
