//! The verbs, once all that can be checked before them is.

use api::attachment::PROTOCOL;
use api::{Addressing, Assigned, Attach, Attached, AttachmentId, Expected, Interface, InterfaceRoute, Request};
use serde_json::Value;

use crate::Done;
use crate::arguments::Arguments;
use crate::capabilities::Capabilities;
use crate::config::{Daemon, Ipam, Network};
use crate::daemon::{PATIENCE, PATIENCE_STATUS, Unheard, check_netns, is_own_netns, own_netns};
use crate::environment::{Call, Environment, Verb};
use crate::fault::{Fault, code};
use crate::ipam::{self, Delegate, first_gateway};
use crate::log;
use crate::result::{CniResult, Dns, Ip, Link, Route};
use crate::version::Version;

pub(crate) fn carry_out(
    environment: &Environment,
    call: &Call,
    network: &Network,
    version: Version,
) -> Result<Done, Fault> {
    match call.verb {
        Verb::Add => add(environment, call, network, version),
        Verb::Del => del(environment, call, network),
        Verb::Check => check(environment, call, network),
        Verb::Gc => gc(environment, network),
        Verb::Status => status(environment, network),
        Verb::Version | Verb::Unknown(_) => Ok(Done::Silent),
    }
}

fn id(call: &Call, network: &Network) -> AttachmentId {
    AttachmentId { network: network.name.clone(), container: call.container.clone(), ifname: call.ifname.clone() }
}

/// What the plugins before us made, or ADD did.
fn before(network: &Network) -> Result<Option<CniResult>, Fault> {
    network.field("prevResult").object()?.map(|result| CniResult::parse(result, "prevResult")).transpose()
}

fn add(environment: &Environment, call: &Call, network: &Network, version: Version) -> Result<Done, Fault> {
    let daemon = network.daemon()?;
    let settings = network.settings()?;
    let asked = Capabilities::parse(network)?;
    let arguments = Arguments::parse(&call.args)?;
    let before = before(network)?.unwrap_or_default();
    let delegate = Delegate::find(network, environment)?;
    check_netns(&call.netns, call.any_netns)?;
    let id = id(call, network);
    let mut dns = asked.dns.or(Dns::parse(&network.field("dns"))?);
    let mut routes = None;
    let addresses = match (&delegate, &network.ipam) {
        (Some(delegate), _) => {
            // Who is attached already keeps the addresses that its IPAM plugin gave.
            check_free(&daemon, &id)?;
            let given = delegate.add()?;
            let interface = ipam::interface(&given).inspect_err(|_| delegate.del())?;
            dns = dns.or(given.dns);
            routes = Some(given.routes);
            Addressing::Given(interface)
        }
        (None, Ipam::Nobody) => Addressing::None,
        (None, _) => {
            let wanted = if asked.addresses.is_empty() { arguments.addresses } else { asked.addresses };
            Addressing::Daemon { wanted }
        }
    };
    // What was queued is of an earlier life of this container.
    daemon.forget(&id);
    let attach = Request::Attach(Box::new(Attach {
        protocol: PROTOCOL,
        id: id.clone(),
        netns: call.netns.clone(),
        bridge: settings.bridge,
        kind: settings.kind,
        mtu: settings.mtu,
        mac: asked.mac.or(arguments.mac),
        addresses,
        pod: arguments.pod,
        host_ports: asked.host_ports,
        bandwidth: asked.bandwidth,
    }));
    let release = move || delegate.iter().for_each(Delegate::del);
    let attached = match daemon.ask_attachment(&attach, PATIENCE) {
        Ok(Some(attached)) => attached,
        other => {
            let unheard = match other {
                Err(unheard) => unheard,
                Ok(_) => Unheard::Unsure(Fault::new(code::FAILED, "the daemon does not say what it made")),
            };
            if let Unheard::Unsure(_) = &unheard {
                daemon.detach(&id);
            }
            release();
            return Err(unheard.fault());
        }
    };
    let result = merged(before, call, attached, routes, dns);
    let take_back = move || {
        daemon.detach(&id);
        release();
    };
    Ok(Done::Made(result.to_json(version), Box::new(take_back)))
}

/// An interface of this name is not there yet, so that it is ours to take back what an IPAM plugin gives it.
fn check_free(daemon: &Daemon, id: &AttachmentId) -> Result<(), Fault> {
    let unsaid = |why: String| Fault::new(code::TRY_AGAIN, format!("socket: {why}"));
    let answer = daemon.ask(&Request::Attachments {}, PATIENCE).map_err(|why| unsaid(why.to_string()))?;
    let there: api::reply::Attachments = serde_json::from_value(answer).map_err(|why| unsaid(why.to_string()))?;
    if there.0.iter().any(|row| row.id == *id) {
        let AttachmentId { container, ifname, .. } = id;
        let what = format!("CNI_IFNAME: {ifname}: container {container} has this interface already");
        return Err(Fault::new(code::ENVIRONMENT, what));
    }
    Ok(())
}

/// What was made, after what the plugins before us made.
fn merged(mut result: CniResult, call: &Call, attached: Attached, given: Option<Vec<Route>>, dns: Dns) -> CniResult {
    let position = result.interfaces.len();
    result.interfaces.push(Link {
        name: call.ifname.clone(),
        mac: attached.mac.to_string(),
        mtu: Some(u64::from(attached.mtu)),
        sandbox: call.netns.clone(),
        ..Link::default()
    });
    let Interface { addresses, routes } = attached.interface;
    result.ips.extend(addresses.iter().map(|&Assigned { address, gateway }| Ip {
        address,
        gateway,
        interface: Some(position),
    }));
    let routes = given.unwrap_or_else(|| {
        let route =
            |&InterfaceRoute { prefix, gateway }: &InterfaceRoute| Route { dst: prefix, gw: gateway, more: Vec::new() };
        routes.iter().map(route).collect()
    });
    for route in routes {
        if !result.routes.contains(&route) {
            result.routes.push(route);
        }
    }
    result.dns = dns.or(std::mem::take(&mut result.dns));
    result
}

/// Always done: what cannot be done now is queued or logged. The configuration may have become wrong since ADD.
fn del(environment: &Environment, call: &Call, network: &Network) -> Result<Done, Fault> {
    let daemon = network.daemon().unwrap_or_else(|why| {
        log(&why.msg);
        Daemon::default()
    });
    daemon.detach(&id(call, network));
    match Delegate::find(network, environment) {
        Ok(delegate) => delegate.iter().for_each(Delegate::del),
        Err(why) => log(&why.msg),
    }
    // As the reference does, which looks after its work.
    if !call.any_netns && is_own_netns(&call.netns) {
        return Err(own_netns());
    }
    Ok(Done::Silent)
}

fn check(environment: &Environment, call: &Call, network: &Network) -> Result<Done, Fault> {
    let daemon = network.daemon()?;
    network.settings()?;
    let Some(result) = before(network)? else {
        return Err(Fault::new(code::INVALID_CONFIG, "prevResult: missing: CHECK compares with it"));
    };
    check_netns(&call.netns, call.any_netns)?;
    let expected = expected(&result, call)?;
    let request = Request::AttachmentCheck { id: id(call, network), expected };
    daemon.ask_attachment(&request, PATIENCE).map_err(Unheard::fault)?;
    if let Some(delegate) = Delegate::find(network, environment)? {
        delegate.ask("CHECK")?;
    }
    Ok(Done::Silent)
}

/// What ADD's result says of our interface. Routes are of all interfaces of the sandbox: ours are those by a gateway of
/// ours.
fn expected(result: &CniResult, call: &Call) -> Result<Expected, Fault> {
    let Some(position) = result.position(&call.ifname, &call.netns) else {
        let what = format!("prevResult.interfaces: no interface {} in {}", call.ifname, call.netns);
        return Err(Fault::new(code::INVALID_CONFIG, what));
    };
    let link = result.interfaces.get(position).cloned().unwrap_or_default();
    let alone = result.interfaces.iter().filter(|link| link.sandbox == call.netns).count() == 1;
    let ours = |ip: &&Ip| ip.interface.map_or(alone, |interface| interface == position);
    let addresses: Vec<Assigned> =
        (result.ips.iter().filter(ours)).map(|ip| Assigned { address: ip.address, gateway: ip.gateway }).collect();
    let routes = result.routes.iter().filter_map(|route| {
        let gateway = match route.gw {
            None if !alone => return None,
            None => first_gateway(&addresses, route.dst.addr().is_ipv4()),
            Some(gateway) if addresses.iter().any(|assigned| assigned.address.contains(&gateway)) => Some(gateway),
            Some(_) => return None,
        };
        Some(InterfaceRoute { prefix: route.dst.trunc(), gateway })
    });
    let routes = routes.collect();
    let mac = match link.mac.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|why: api::addr::InvalidMac| {
            Fault::new(code::INVALID_CONFIG, format!("prevResult.interfaces[{position}].mac: {why}"))
        })?),
    };
    let mtu = link.mtu.and_then(|mtu| u16::try_from(mtu).ok());
    Ok(Expected { netns: call.netns.clone(), mac, mtu, interface: Interface { addresses, routes } })
}

/// All of it is tried; the first fault is told.
fn gc(environment: &Environment, network: &Network) -> Result<Done, Fault> {
    let daemon = network.daemon()?;
    let Some(valid) = network.valid.clone() else {
        // Nobody says that nothing is in use by saying nothing.
        return Err(Fault::new(code::INVALID_CONFIG, "cni.dev/valid-attachments: missing"));
    };
    let request = Request::AttachmentGc { network: network.name.clone(), valid };
    let ours = daemon.ask(&request, PATIENCE).map(|_: Value| ()).map_err(|why| daemon.unheard(why).fault());
    let theirs = match Delegate::find(network, environment) {
        Ok(Some(delegate)) => delegate.ask("GC"),
        Ok(None) => Ok(()),
        Err(fault) => Err(fault),
    };
    ours.and(theirs).map(|()| Done::Silent)
}

fn status(environment: &Environment, network: &Network) -> Result<Done, Fault> {
    let daemon = network.daemon()?;
    let settings = network.settings()?;
    let assigns = network.ipam == Ipam::Daemon;
    let request = Request::AttachmentStatus { protocol: PROTOCOL, bridge: settings.bridge, assigns };
    daemon.ask_attachment(&request, PATIENCE_STATUS).map_err(|unheard| match unheard {
        Unheard::Said(fault) => fault,
        unheard => Fault { code: code::NOT_AVAILABLE, ..unheard.fault() },
    })?;
    if let Some(delegate) = Delegate::find(network, environment)? {
        delegate.ask("STATUS")?;
    }
    Ok(Done::Silent)
}
