//! From a request to its answer. Knows no socket: a request in, an answer out.

use std::sync::mpsc::Receiver;

use api::reply::{
    Commands, Connections, Conntrack, CoverageTable, DropRow, Drops, Fdb, FdbRow, Objects, Outputs, PortCounters,
    PortCountersRow, PortRow, Ports, Text, Workers,
};
use api::state::Captured;
use api::verb::VERBS;
use api::{BridgeId, PortId, Request};
use serde::Serialize;
use serde_json::Value;

use crate::cluster::{Cluster, Wanted};
use crate::store::Store;
use crate::{Refusal, Switch};

mod attachments;
mod network;
mod policies;
#[cfg(test)]
mod tests;
pub(crate) mod trace;

/// What a request comes to.
pub(crate) struct Answer {
    /// The answer as data.
    pub(crate) data: Value,
    /// Frames to tell of from now on.
    pub(crate) capture: Option<Receiver<Captured>>,
}

/// Do what a request asks.
///
/// # Errors
/// Why not: one line, with the verb in front.
pub(crate) fn answer(
    request: &Request,
    (store, cluster): (&mut Store, &mut Cluster),
    switch: &mut dyn Switch,
    version: &str,
) -> Result<Answer, Refusal> {
    // A chain has said already which of its verbs it was.
    let verb = |refusal: Refusal| match request {
        Request::Transact { .. } => refusal,
        _ => Refusal(format!("{}: {refusal}", request.to_wire().0)),
    };
    if let Request::Capture { port } = request {
        let frames = store.port_id(port).and_then(|id| switch.capture(id)).map_err(verb)?;
        return Ok(Answer { data: data(&Text::default())?, capture: Some(frames) });
    }
    if let Request::Verify { from, to } = request {
        let asked = (from.as_deref(), to.as_deref());
        let verified = crate::verify::verify(asked, cluster.objects(), store, switch).map_err(verb)?;
        return Ok(Answer { data: data(&verified)?, capture: None });
    }
    if let Some(answer) = attachments::answer(request, (store, cluster), switch) {
        return Ok(Answer { data: answer.map_err(verb)?, capture: None });
    }
    let data = match asked_of_cluster(request, cluster) {
        Some(Ok(data)) => bring_into_force((store, cluster), switch).map(|()| data),
        Some(Err(why)) => {
            cluster.take_back();
            Err(why)
        }
        None => look_or_do(request, store, switch, version),
    };
    Ok(Answer { data: data.map_err(verb)?, capture: None })
}

/// Tell the switch, then the disk. Looking changes nothing, so it costs nothing.
fn bring_into_force((store, cluster): (&mut Store, &mut Cluster), switch: &mut dyn Switch) -> Result<(), Refusal> {
    let told = cluster.program(store, switch);
    if let Err(why) = cluster.keep() {
        let taken_back = cluster.program(store, switch);
        return Err(taken_back.err().map_or_else(
            || why.clone(),
            |e| Refusal(format!("{why}; taking it back is tried again every second: {e}")),
        ));
    }
    told.map_err(|why| Refusal(format!("kept, and tried again every second: {why}")))
}

fn data<T: Serialize>(answer: &T) -> Result<Value, Refusal> {
    serde_json::to_value(answer).map_err(|e| Refusal(format!("answer cannot be written: {e}")))
}

/// The answer to what is asked about objects of the cluster; `None` if it is something else.
fn asked_of_cluster(request: &Request, cluster: &mut Cluster) -> Option<Result<Value, Refusal>> {
    let or_default = |namespace: &Option<String>| namespace.clone().unwrap_or_else(|| "default".to_owned());
    Some(match request {
        Request::Apply { manifests, namespace } => {
            cluster.apply(manifests, &or_default(namespace)).and_then(|rows| data(&Objects(rows)))
        }
        Request::Delete { manifests, kind, names, namespace } => {
            let namespace = or_default(namespace);
            let named = match kind {
                Some(kind) => cluster.delete(kind, names, &namespace),
                None if names.is_empty() => Ok(Vec::new()),
                None => Err(Refusal("names: of which kind?".to_owned())),
            };
            let both = named.and_then(|mut rows| {
                rows.extend(cluster.delete_manifests(manifests, &namespace)?);
                Ok(rows)
            });
            both.and_then(|rows| data(&Objects(rows)))
        }
        Request::Get { kind, names, namespace, all_namespaces, output } => {
            let namespace = or_default(namespace);
            let namespace = (!all_namespaces).then_some(&namespace[..]);
            cluster.get(&Wanted { kind, names, namespace, output: *output }).and_then(|got| data(&got))
        }
        _ => return None,
    })
}

fn look_or_do(request: &Request, store: &mut Store, switch: &mut dyn Switch, version: &str) -> Result<Value, Refusal> {
    match request {
        Request::Transact { commands } => data(&Outputs(store.transact(commands, switch)?)),
        Request::FdbShow { bridge } => data(&fdb(store.bridge_id(bridge)?, store, switch)),
        Request::FdbFlush { bridge } => {
            let bridge = bridge.as_ref().map(|name| store.bridge_id(name)).transpose()?;
            switch.flush_stations(bridge);
            data(&Text("table successfully flushed".to_owned()))
        }
        Request::FdbAdd { bridge, port, vlan, mac } => {
            store.add_station((bridge, port), *vlan, *mac, switch)?;
            data(&Text::default())
        }
        Request::FdbDel { bridge, vlan, mac } => {
            store.remove_station(bridge, *vlan, *mac, switch)?;
            data(&Text::default())
        }
        Request::RouteAdd { bridge, prefix, to } => {
            store.add_route(bridge, *prefix, to, switch)?;
            data(&Text::default())
        }
        Request::RouteDel { bridge, prefix } => {
            store.remove_route(bridge, *prefix, switch)?;
            data(&Text::default())
        }
        Request::NeighAdd { bridge, address, port, mac } => {
            store.add_neighbor((bridge, port), *address, *mac, switch)?;
            data(&Text::default())
        }
        Request::NeighDel { bridge, address } => {
            store.remove_neighbor(bridge, *address, switch)?;
            data(&Text::default())
        }
        Request::AclAdd { at, way, rule, may_exist } => {
            store.add_acl(at, *way, rule.clone(), *may_exist, switch)?;
            data(&Text::default())
        }
        Request::AclDel { at, way, only } => {
            store.remove_acls(at, *way, *only, switch)?;
            data(&Text::default())
        }
        Request::AclLoad { at, way, rules } => {
            store.load_acl(at, *way, rules.clone(), switch)?;
            data(&Text::default())
        }
        Request::AclList { at } => data(&store.acls(at)?),
        Request::Services { namespace, .. } => data(&network::services(namespace.as_deref(), store.cluster(), switch)),
        Request::Policies { namespace, pod } => {
            let asked = policies::Asked { namespace: namespace.as_deref(), pod: pod.as_deref() };
            data(&policies::policies(&asked, store, switch)?)
        }
        Request::AttachmentCheck { id, expected } => {
            data(&attachments::told(store.check_attachment(id, expected, switch)))
        }
        Request::AttachmentStatus { protocol, bridge, assigns } => {
            data(&attachments::told(store.attachment_status(*protocol, bridge.as_deref(), *assigns)))
        }
        Request::Attachments {} => data(&store.attachments(switch)),
        Request::Routes {} => data(&network::routes(store)),
        Request::Neighbors {} => data(&network::neighbors(store, switch)),
        Request::Connections { filter } => data(&Connections(network::connections(filter, store, switch))),
        Request::DumpConntrack { filter } => data(&Conntrack(network::connections(filter, store, switch))),
        Request::FlushConntrack { filter } => {
            network::flush(filter, store, switch);
            data(&Text::default())
        }
        Request::Trace { from, to, proto, sport, dport } => {
            let asked = trace::Asked { from, to, proto: *proto, sport: *sport, dport: *dport };
            data(&trace::trace(&asked, store, switch)?)
        }
        Request::DumpPorts { bridge, port } => {
            let bridge_id = store.bridge_id(bridge)?;
            let only = port.as_ref().map(|port| store.port_on(bridge, port)).transpose()?;
            data(&counters(bridge_id, only, store, switch))
        }
        Request::Drops { port } => {
            let only = port.as_ref().map(|port| store.port_id(port)).transpose()?;
            data(&drops(only, store, switch))
        }
        Request::Ports {} => data(&ports(store, switch)),
        Request::Workers {} => data(&Workers(switch.workers())),
        Request::Coverage {} => data(&CoverageTable(switch.coverage())),
        Request::Version {} => data(&Text(version.to_owned())),
        Request::ListCommands {} => {
            let mut verbs: Vec<_> = VERBS.iter().map(|def| (def.name.to_owned(), def.usage.to_owned())).collect();
            verbs.sort();
            data(&Commands(verbs))
        }
        // Answered elsewhere: where its frames are, by the cluster, and with its pods.
        Request::Capture { .. }
        | Request::Apply { .. }
        | Request::Delete { .. }
        | Request::Get { .. }
        | Request::Attach(_)
        | Request::Detach { .. }
        | Request::AttachmentGc { .. }
        | Request::Verify { .. } => data(&Text::default()),
    }
}

fn fdb(bridge: BridgeId, store: &Store, switch: &dyn Switch) -> Fdb {
    let row = |station: api::state::StationState| {
        let port = store.port(station.port)?;
        let (vlan, mac) = (station.key.vlan, station.key.mac);
        Some(FdbRow { ofport: port.ofport, port: port.name.clone(), vlan, mac, age: station.age })
    };
    let mut rows: Vec<_> = switch.stations(bridge).into_iter().filter_map(row).collect();
    rows.sort_by_key(|row| (row.vlan, row.mac));
    Fdb(rows)
}

fn counters(bridge: BridgeId, only: Option<PortId>, store: &Store, switch: &dyn Switch) -> PortCounters {
    let states = store.states(switch);
    let ports = store.ports().into_iter().map(|(_, port)| port);
    let wanted = ports.filter(|port| port.bridge == bridge && only.is_none_or(|only| only == port.id));
    let row = |port: &api::Port| PortCountersRow {
        ofport: port.ofport,
        port: port.name.clone(),
        stats: states.get(&port.id).map(|state| state.stats).unwrap_or_default(),
    };
    PortCounters(wanted.map(row).collect())
}

fn ports(store: &Store, switch: &dyn Switch) -> Ports {
    let mut states = store.states(switch);
    let row = |(bridge, port): (&str, &api::Port)| {
        let state = states.remove(&port.id).unwrap_or_default();
        PortRow {
            port: port.name.clone(),
            bridge: bridge.to_owned(),
            ofport: port.ofport,
            kind: port.kind.clone(),
            ifname: state.ifname,
            mac: state.mac,
            mtu: if state.mtu > 0 { state.mtu } else { port.mtu },
            link: state.link,
            offloads: state.offloads,
            worker: state.worker,
            stats: state.stats,
            error: state.error,
        }
    };
    Ports(store.ports().into_iter().map(row).collect())
}

fn drops(only: Option<PortId>, store: &Store, switch: &dyn Switch) -> Drops {
    let mut rows: Vec<_> = switch
        .drops()
        .into_iter()
        .filter(|drop| only.is_none_or(|only| only == drop.port))
        .map(|drop| DropRow {
            port: store.port_name(drop.port),
            reason: drop.reason,
            packets: drop.packets,
            sentence: drop.sentence,
        })
        .collect();
    rows.sort_by(|a, b| (&a.port, &a.reason).cmp(&(&b.port, &b.reason)));
    Drops(rows)
}
