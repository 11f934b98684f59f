//! The network's verbs, from words to text.

use std::path::Path;

use api::request::{Manifest, Request};
use api::state::{ConnectionState, Tuple};
use api::{PortId, reply};

use super::answer;
use crate::NodeSettings;
use crate::cluster::Cluster;
use crate::fake::FakeSwitch;
use crate::store::Store;
use crate::store::network::tests::{objects, open, run};

mod policies;

struct World {
    store: Store,
    switch: FakeSwitch,
}

impl World {
    fn new(directory: &Path) -> Self {
        let (store, switch) = open(directory);
        let mut world = Self { store, switch };
        let bind = "add-port br-pods p1 -- set Port p1 external_ids:pod=default/p1";
        run(&mut world.store, &mut world.switch, bind).unwrap();
        run(&mut world.store, &mut world.switch, "set Interface p1 mac=\"02:00:00:00:00:11\"").unwrap();
        let local = world.store.port_id("br-pods").unwrap();
        assert_eq!((local, world.store.port_id("p1").unwrap()), (PortId(1), PortId(2)));
        world
    }

    fn ask(&mut self, line: &str) -> Result<String, String> {
        let request = api::verb::parse(&line.split(' ').collect::<Vec<_>>())?;
        let directory = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::open(directory.path(), None).unwrap();
        let both = (&mut self.store, &mut cluster);
        let answer = answer(&request, both, &mut self.switch, "").map_err(|refusal| refusal.0)?;
        reply::text(&request, answer.data)
    }
}

fn connection(proto: u8, src: &str, dst: &str, reply_from: &str) -> ConnectionState {
    let address = |text: &str| text.parse().unwrap();
    ConnectionState {
        bridge: api::BridgeId(1),
        proto,
        state: "ESTABLISHED".to_owned(),
        original: Tuple { src: address(src), dst: address(dst) },
        reply: Tuple { src: address(reply_from), dst: address(src) },
        port: PortId(2),
        expires: 100,
    }
}

#[test]
fn services_are_shown_with_their_backends_and_why_they_are_not_programmed() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::new(directory.path());
    assert_eq!(
        world.ask("services -o wide").unwrap(),
        "SERVICE           ADDRESS     PROTO  PORT  KIND     POLICY   CHOICE  AFFINITY  BACKENDS  LOCAL  DRAINING  STATE       NEW                                NEW LOCAL  OLD  SOURCES\n\
         default/web:http  10.96.0.10  TCP      80  cluster  Cluster  random         -         2      -         0  programmed  10.244.1.11:8080,10.244.1.12:8080  -          -    -\n"
    );
    let heading = "SERVICE  ADDRESS  PROTO  PORT  KIND  POLICY  CHOICE  AFFINITY  BACKENDS  LOCAL  DRAINING  STATE\n";
    assert_eq!(world.ask("services -n other").unwrap(), heading);

    let mut objects = objects();
    let web = objects.services.values().next().unwrap().as_ref().clone();
    let mut other = |name: &str, change: &dyn Fn(&mut crate::cluster::model::Service)| {
        let mut service = web.clone();
        service.id.name = name.into();
        change(&mut service);
        objects.services.insert(service.id.clone(), service.into());
    };
    other("zeal", &|_| {});
    other("outer", &|service| service.kind = crate::cluster::model::ServiceKind::ExternalName);
    other("bare", &|service| {
        service.kind = crate::cluster::model::ServiceKind::Headless;
        service.cluster_ips.clear();
        service.ports.clear();
    });
    let all = crate::cluster::compile::everything(&objects);
    world.store.program(&objects, &all, &mut world.switch).unwrap();
    let told = world.ask("services").unwrap();
    let state = |name: &str| told.lines().find(|line| line.starts_with(name)).unwrap().split("  ").last().unwrap();
    assert_eq!(state("default/zeal:http"), "not programmed: service default/web:http has this address and port");
    assert_eq!(state("default/outer:http"), "not programmed: type ExternalName");
    assert_eq!(state("default/bare"), "not programmed: headless");
    assert_eq!(state("default/web:http"), "programmed");
}

#[test]
fn services_are_shown_at_every_place_with_who_is_served_there() {
    use crate::cluster::model::{External, Ingress, Policy, ServiceKind};
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::new(directory.path());
    let mut objects = objects();
    let mut web = objects.services.values().next().unwrap().as_ref().clone();
    web.kind = ServiceKind::LoadBalancer;
    web.ports[0].node_port = Some(30080);
    web.affinity = Some(600);
    let ingress = |ip: &str, proxied| Ingress { address: ip.parse().unwrap(), proxied };
    web.external = External {
        policy: Policy::Local,
        ips: vec!["198.51.100.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        ingress: vec![ingress("203.0.113.5", false), ingress("203.0.113.6", true)],
        sources: vec!["198.51.100.0/24".parse().unwrap()],
        health_port: None,
    };
    let mut other = web.clone();
    other.id.name = "zeal".into();
    other.cluster_ips = vec!["10.96.0.11".parse().unwrap()];
    other.external = External { ips: vec!["203.0.113.5".parse().unwrap()], ..External::default() };
    objects.nodes.clear();
    objects.services.insert(web.id.clone(), web.into());
    objects.services.insert(other.id.clone(), other.into());
    let mut changed = crate::cluster::compile::everything(&objects);
    changed.insert(crate::cluster::model::Changed::Node("n1".into()));
    world.store.program(&objects, &changed, &mut world.switch).unwrap();
    let told = world.ask("services").unwrap();
    let row = |name: &str, address: &str| {
        let found = told.lines().find(|line| line.starts_with(name) && line.contains(&format!(" {address} ")));
        let line = found.unwrap_or_else(|| panic!("{name} {address}: not in\n{told}"));
        line.split_whitespace().skip(4).collect::<Vec<_>>().join(" ")
    };
    let web = "default/web:http";
    assert_eq!(row(web, "10.96.0.10"), "cluster Cluster random 600s 2 - 0 programmed");
    assert_eq!(row(web, "203.0.113.5"), "load-balancer Local random 600s 2 0 0 programmed");
    assert_eq!(row(web, "198.51.100.1"), "external Local random 600s 2 0 0 programmed");
    assert_eq!(row(web, "203.0.113.6"), "load-balancer Local random 600s 0 - 0 not programmed: ipMode Proxy");
    let orphan = "external Local random 600s 0 - 0 not programmed: no clusterIP of its family";
    assert_eq!(row(web, "2001:db8::1"), orphan);
    let unserved = "node-port Local random 600s 0 - 0 not programmed: no address of the node serves it";
    assert_eq!(row(web, "-"), unserved, "there is no Node object");
    let taken = "external Cluster random 600s 0 - 0 not programmed: service default/web:http has this address and port";
    assert_eq!(row("default/zeal:http", "203.0.113.5"), taken);
}

#[test]
fn routes_and_neighbours_are_shown_with_those_that_do_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::new(directory.path());
    run(&mut world.store, &mut world.switch, "add-br br0 -- add-port br0 x1").unwrap();
    for line in [
        "route/add br-pods 10.9.0.0/16 via 10.244.1.11 dev p1",
        "route/add br-pods 10.244.1.0/24 blackhole",
        "route/add br0 10.8.0.1 dev x1",
        "neigh/add br-pods 10.9.0.1 p1 02:00:00:00:00:07",
        "neigh/add br0 fd00::1 x1 02:00:00:00:00:08",
    ] {
        assert_eq!(world.ask(line).unwrap(), "", "{line}");
    }
    assert_eq!(
        world.ask("routes").unwrap(),
        "BRIDGE   PREFIX         TO                      ORIGIN  ERROR\n\
         br-pods  10.9.0.0/16    via 10.244.1.11 dev p1  static\n\
         br-pods  10.244.1.0/24  blackhole               static\n\
         br0      10.8.0.1/32    dev x1                  static  the bridge has no router\n"
    );
    assert_eq!(
        world.ask("neighbors").unwrap(),
        "BRIDGE   ADDRESS   MAC                PORT  STATE      AGE  ERROR\n\
         br-pods  10.9.0.1  02:00:00:00:00:07  p1    permanent    -\n\
         br0      fd00::1   02:00:00:00:00:08  x1    permanent    -  the bridge has no router\n"
    );
    world.ask("route/del br-pods 10.244.1.0/24").unwrap();
    assert!(world.ask("routes").unwrap().contains("br-pods  10.244.1.0/24  endpoint                pod-cidr\n"));
}

#[test]
fn connections_are_found_by_anything_and_flushed_by_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::new(directory.path());
    world.switch.connections = vec![
        connection(6, "10.244.1.11:40000", "10.96.0.10:80", "10.244.1.12:8080"),
        connection(17, "10.244.1.11:5000", "192.0.2.1:53", "192.0.2.1:53"),
        connection(1, "10.244.1.11:7", "192.0.2.1:7", "192.0.2.1:7"),
    ];
    assert_eq!(
        world.ask("connections service=default/web").unwrap(),
        "PROTO  STATE        SOURCE             DESTINATION    BACKEND           MASQUERADE  PORT  SERVICE           EXPIRES\n\
         tcp    ESTABLISHED  10.244.1.11:40000  10.96.0.10:80  10.244.1.12:8080  -           p1    default/web:http      100\n"
    );
    assert_eq!(
        world.ask("dpctl/dump-conntrack port=p1 src=10.244.1.11").unwrap(),
        "icmp,orig=(src=10.244.1.11,dst=192.0.2.1,id=7,type=8,code=0),reply=(src=192.0.2.1,dst=10.244.1.11,id=7,type=0,code=0)\n\
         tcp,orig=(src=10.244.1.11,dst=10.96.0.10,sport=40000,dport=80),reply=(src=10.244.1.12,dst=10.244.1.11,sport=8080,dport=40000),protoinfo=(state=ESTABLISHED)\n\
         udp,orig=(src=10.244.1.11,dst=192.0.2.1,sport=5000,dport=53),reply=(src=192.0.2.1,dst=10.244.1.11,sport=53,dport=5000)\n"
    );
    assert_eq!(world.ask("dpctl/flush-conntrack service=default/web").unwrap(), "");
    assert_eq!(world.switch.connections.iter().map(|c| c.proto).collect::<Vec<_>>(), [17, 1]);
    world.ask("dpctl/flush-conntrack").unwrap();
    assert!(world.switch.connections.is_empty());
}

#[test]
fn a_trace_is_asked_for_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::new(directory.path());
    let packet = |world: &mut World, line: &str| {
        let told = world.ask(&format!("trace {line}")).unwrap();
        told.lines().take_while(|line| !line.starts_with("verdict")).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(
        packet(&mut world, "--from pod/default/p1 --to svc/default/web --proto tcp"),
        "tcp 10.244.1.11:50000 -> 10.96.0.10:80, in by p1"
    );
    assert_eq!(
        packet(&mut world, "--from pod/default/p1 --to pod/default/p2 --proto icmp"),
        "icmp 10.244.1.11 -> 10.244.1.12, in by p1; note: pod/default/p2: not attached here"
    );
    assert_eq!(
        packet(&mut world, "--from node/n1 --to 192.0.2.1 --proto udp --dport 53 --sport 7"),
        "udp 192.168.0.1:7 -> 192.0.2.1:53, in by br-pods"
    );
    let unattached = "--from pod/default/p2 --to pod/default/p1 --proto sctp --dport 9";
    let told = packet(&mut world, unattached);
    assert!(told.ends_with("note: pod/default/p2: not attached here: traced as if it came in by br-pods"), "{told}");
    run(&mut world.store, &mut world.switch, "add-port br-pods up").unwrap();
    assert!(packet(&mut world, unattached).ends_with("traced as if it came in by up"));
    // What the fake switch says of every packet.
    let told = world.ask("trace --from pod/default/p1 --to 192.0.2.1 --proto icmp").unwrap();
    assert!(told.ends_with("verdict: allow\nout by: p1\n"), "{told}");
}

#[test]
fn a_trace_of_what_is_not_there_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::new(directory.path());
    for (line, why) in [
        ("--to 10.0.0.1 --proto tcp", "trace: '--from' is missing"),
        ("--from 10.0.0.1 --to 10.0.0.2 --proto gre", "trace: --proto gre: not one of tcp, udp, sctp, icmp"),
        ("--from 10.0.0.1 --to 10.0.0.2 --proto tcp --dport 65536", "trace: --dport 65536: not a port number"),
        ("--from 10.0.0.1 --to 10.0.0.2 --proto tcp", "trace: --dport: is missing"),
        (
            "--from 10.0.0.1 --to fd00::1 --proto icmp",
            "trace: --from 10.0.0.1 --to fd00::1: they have no addresses of one family",
        ),
        (
            "--from pod/default/p9 --to 10.0.0.2 --proto icmp",
            "trace: --from pod/default/p9: no such object in the cluster's state",
        ),
        ("--from pod/p1 --to 10.0.0.2 --proto icmp", "trace: --from pod/p1: not pod/NS/NAME, node/NAME or an address"),
        (
            "--from 10.0.0.2 --to svc/web --proto icmp",
            "trace: --to svc/web: not pod/NS/NAME, svc/NS/NAME, node/NAME or an address",
        ),
        (
            "--from 10.0.0.2 --to svc/default/web --proto udp",
            "trace: --dport: is missing: svc/default/web has 0 ports of UDP",
        ),
        ("--from 10.0.0.2 --to 10.0.0.1 --proto icmp --dport 1", "trace: --dport: icmp has no ports"),
    ] {
        assert_eq!(world.ask(&format!("trace {line}")).unwrap_err(), why);
    }
    let all = crate::cluster::compile::everything(&objects());
    world.store.program(&Default::default(), &all, &mut world.switch).unwrap();
    assert_eq!(
        world.ask("trace --from 10.0.0.2 --to 10.0.0.1 --proto icmp").unwrap_err(),
        "trace: br-pods: no network here: there are no cluster objects, or the bridge is not in force"
    );
}

#[test]
fn what_a_full_disk_refuses_is_taken_back_from_the_switch() {
    let directory = tempfile::tempdir().unwrap();
    let mut switch = FakeSwitch::default();
    let mut store = Store::open(directory.path(), "", &NodeSettings::default(), &mut switch).unwrap();
    let mut cluster = Cluster::open(directory.path(), None).unwrap();
    let mut apply = |address: &str, full: bool| {
        let text = format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: s{}}}, \
             spec: {{clusterIP: {address}, ports: [{{port: 80}}]}}}}",
            address.replace('.', "-")
        );
        let manifests = vec![Manifest { name: "x.yaml".to_owned(), text }];
        if full {
            cluster.fill_disk();
        }
        let request = Request::Apply { manifests, namespace: None };
        let done = answer(&request, (&mut store, &mut cluster), &mut switch, "").map(drop);
        (done.map_err(|why| why.0), switch.services.keys().map(|key| key.address.to_string()).collect::<Vec<_>>())
    };
    assert_eq!(apply("10.96.0.1", false), (Ok(()), vec!["10.96.0.1".to_owned()]));
    let (refused, services) = apply("10.96.0.2", true);
    assert!(refused.as_ref().is_err_and(|why| why.ends_with("objects.jsonl: no storage space")), "{refused:?}");
    assert_eq!(services, ["10.96.0.1"]);
    assert_eq!(apply("10.96.0.3", false), (Ok(()), vec!["10.96.0.1".to_owned(), "10.96.0.3".to_owned()]));
}
