//! IPAM plugins: programs found in `CNI_PATH`, run with our environment and our standard input (SPEC.md, section 4).

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use api::{Assigned, Interface, InterfaceRoute};
use serde_json::Value;

use crate::config::{Ipam, Network};
use crate::environment::Environment;
use crate::fault::{Fault, code};
use crate::log;
use crate::result::CniResult;

/// How long a plugin may take: one that asks a DHCP server is slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a plugin may say at most.
const OUTPUT_LIMIT: u64 = 16 << 20;

/// The IPAM plugin of a network.
#[derive(Clone, Debug)]
pub(crate) struct Delegate {
    name: String,
    program: PathBuf,
    stdin: Vec<u8>,
}

impl Delegate {
    /// The plugin that the configuration names, if it names one.
    pub(crate) fn find(network: &Network, environment: &Environment) -> Result<Option<Self>, Fault> {
        let Ipam::Plugin(name) = &network.ipam else { return Ok(None) };
        let fault = |rule: String| Fault::new(code::UNSUPPORTED, format!("ipam.type: {name:?}: {rule}"));
        if name.contains('/') || name == "." || name == ".." {
            return Err(fault("the name of a plugin is expected".to_owned()));
        }
        let program = environment.path().map(|directory| directory.join(name)).find(|program| program.is_file());
        let program = program.ok_or_else(|| {
            let path: Vec<String> = environment.path().map(|directory| directory.display().to_string()).collect();
            fault(format!("failed to find plugin in CNI_PATH [{}]", path.join(" ")))
        })?;
        Ok(Some(Self { name: name.clone(), program, stdin: network.stdin.clone() }))
    }

    /// Addresses for an attachment. When there are none, what the plugin may hold is released (SPEC.md, section 4).
    pub(crate) fn add(&self) -> Result<CniResult, Fault> {
        let added = self.run("ADD").and_then(|said| self.result(&said));
        if added.is_err() {
            self.del();
        }
        added
    }

    fn result(&self, said: &[u8]) -> Result<CniResult, Fault> {
        let fault = |why: &str| Fault::new(code::INTERNAL, format!("ipam {}: {why}", self.name));
        let result = match serde_json::from_slice(said) {
            Ok(Value::Object(result)) => CniResult::parse(&result, "ipam result")?,
            _ => return Err(fault("its result is no JSON object")),
        };
        match result.ips.is_empty() {
            true => Err(fault("its result has no address")),
            false => Ok(result),
        }
    }

    /// Release them. What goes wrong is logged: who goes cannot be kept.
    pub(crate) fn del(&self) {
        if let Err(why) = self.run("DEL") {
            log(&why.msg);
        }
    }

    /// Ask for CHECK, GC or STATUS.
    pub(crate) fn ask(&self, verb: &str) -> Result<(), Fault> {
        self.run(verb).map(drop)
    }

    fn run(&self, verb: &str) -> Result<Vec<u8>, Fault> {
        let fault = |why: String| Fault::new(code::INTERNAL, format!("ipam {}: {verb}: {why}", self.name));
        let mut command = Command::new(&self.program);
        command.env("CNI_COMMAND", verb).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().map_err(|why| fault(api::reason(&why)))?;
        let end = Instant::now() + PATIENCE;
        let said = self.talk(&mut child, end);
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(1)),
                _ => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(fault(format!("no answer within {} s", PATIENCE.as_secs())));
                }
            }
        };
        if status.success() { Ok(said) } else { Err(self.failure(verb, &said)) }
    }

    /// Hand over our standard input, and read until there is no more, both at once. What cannot be handed over was not
    /// wanted.
    fn talk(&self, child: &mut Child, end: Instant) -> Vec<u8> {
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let text = self.stdin.clone();
        std::thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&text)));
        let (tell, told) = channel();
        std::thread::spawn(move || {
            let mut said = Vec::new();
            let _ = stdout.map(|stdout| stdout.take(OUTPUT_LIMIT).read_to_end(&mut said));
            let _ = tell.send(said);
        });
        told.recv_timeout(end.saturating_duration_since(Instant::now())).unwrap_or_default()
    }

    /// Its own code and words, where it has any.
    fn failure(&self, verb: &str, said: &[u8]) -> Fault {
        let error: Value = serde_json::from_slice(said).unwrap_or_default();
        let text = |name| error.get(name).and_then(Value::as_str).unwrap_or_default();
        let code = error.get("code").and_then(Value::as_u64).and_then(|code| u32::try_from(code).ok());
        let msg = if text("msg").is_empty() { "failed with no error message" } else { text("msg") };
        let code = code.filter(|&code| code != 0).unwrap_or(code::INTERNAL);
        Fault::new(code, format!("ipam {}: {verb}: {msg}", self.name)).details(text("details"))
    }
}

/// What the daemon shall give an interface: as the reference's plugins do, a route without a gateway leads by that of the
/// first address of its family.
pub(crate) fn interface(result: &CniResult) -> Result<Interface, Fault> {
    for (i, route) in result.routes.iter().enumerate() {
        if let Some((name, value)) = route.more.first() {
            let what = format!("ipam result.routes[{i}].{name}: {value}: not supported");
            return Err(Fault::new(code::UNSUPPORTED, what));
        }
    }
    let addresses: Vec<_> = result.ips.iter().map(|ip| Assigned { address: ip.address, gateway: ip.gateway }).collect();
    let routes = result.routes.iter().map(|route| InterfaceRoute {
        prefix: route.dst.trunc(),
        gateway: route.gw.or_else(|| first_gateway(&addresses, route.dst.addr().is_ipv4())),
    });
    Ok(Interface { routes: routes.collect(), addresses })
}

/// The gateway of the first address of a family.
pub(crate) fn first_gateway(addresses: &[Assigned], ipv4: bool) -> Option<std::net::IpAddr> {
    addresses.iter().filter(|assigned| assigned.address.addr().is_ipv4() == ipv4).find_map(|assigned| assigned.gateway)
}
