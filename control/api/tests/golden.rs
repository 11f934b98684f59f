//! Every sentence of the control socket against a checked-in example: programs rely on these octets.
//!
//! `golden/requests.txt` holds pairs of lines: what is typed, and what goes over the wire. `golden/replies.txt` holds for
//! each answer the request it belongs to, its data, and the text made of it. A sentence that changed on purpose is written
//! anew by `GOLDEN_WRITE=1 cargo test -p vswitch-api --test golden`; read the difference before committing it.

use std::fs;
use std::path::PathBuf;

use api::datum::Datum;
use api::reply::{
    self, AclRow, AclTable, AddressKind, AttachmentRow, Attachments, Commands, ConnectionRow, Connections, Conntrack,
    CounterExample, CoverageTable, DeniedRow, DropRow, Drops, Fdb, FdbRow, Got, NeighborRow, Neighbors, ObjectRow,
    ObjectTable, Objects, Outcome, Output, Outputs, PodDirection, PodPolicies, PodPolicy, PodRule, Policies, PolicyRow,
    PortCounters, PortCountersRow, PortRow, Ports, RouteRow, Routes, ServiceRow, Services, Show, ShowBridge, ShowPort,
    Text, Trace, TrafficPolicy, Verified, Workers,
};
use api::request::Manifest;
use api::state::{Coverage, PortStats, TraceStep, Tuple, WorkerState};
use api::verb::VERBS;
use api::{
    AclAction, AclWay, Addressing, Assigned, Attach, AttachRefusal, AttachReply, Attached, AttachmentId, Bandwidth,
    Choice, Expected, HostPort, Interface, InterfaceRoute, MacAddr, PodRef, Port, Proto, Rate, Request, Vlan,
};
use serde_json::{Value, json};

fn compare(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("GOLDEN_WRITE").is_some() {
        fs::write(&path, text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap();
    for (i, (is, was)) in text.lines().zip(golden.lines()).enumerate() {
        assert_eq!(is, was, "{name}, line {}", i + 1);
    }
    assert_eq!(text.len(), golden.len(), "{name} is longer or shorter than it was");
}

fn parse(line: &str) -> Request {
    api::verb::parse(&line.split(' ').collect::<Vec<_>>()).unwrap_or_else(|why| panic!("{line}: {why}"))
}

const LINES: &[&str] = &[
    "show",
    "add-br br0",
    "--may-exist add-br br0",
    "del-br br0 --if-exists",
    "list-br",
    "br-exists br0",
    "add-port br0 p1 tag=10 external_ids:a=b",
    "--may-exist add-port br0 p1",
    "del-port p1",
    "--if-exists del-port br0 p1",
    "list-ports br0",
    "port-to-br p1",
    "get Interface p1 ofport options:netns",
    "--if-exists get Port p1 tag",
    "set Interface p1 type=tap options:netns=pod1 mac=\"02:00:00:00:00:01\"",
    "--if-exists set Port p1 trunks=1,2",
    "clear Port p1 tag external_ids:a",
    "remove Port p1 trunks 10 20",
    "list Bridge",
    "--columns=name,tag list Port p1 p2",
    "--columns=name find Interface type!=internal options:netns=pod1",
    "fdb/show br0",
    "fdb/flush",
    "fdb/flush br0",
    "fdb/add br0 p1 10 02:00:00:00:00:01",
    "fdb/del br0 10 02:00:00:00:00:01",
    "route/add br0 10.0.0.0/8 dev p1",
    "route/add br0 fd00::/8 dev p1 via fe80::1",
    "route/add br0 10.1.0.0/16 unreachable",
    "route/add br0 10.1.2.3 blackhole",
    "route/del br0 10.0.0.0/8",
    "neigh/add br0 10.0.0.1 p1 02:00:00:00:00:01",
    "neigh/del br0 10.0.0.1",
    "acl-add br0 from-lport 1000 tcp,nw_src=10.0.0.0/8,tp_dst=80-89,tcp_flags=+syn-ack allow-related",
    "acl-add --may-exist p1 to-lport 0  reject",
    "acl-del br0",
    "acl-del p1 to-lport",
    "acl-del p1 to-lport 1000 icmp6,ipv6_dst=fd00::1,icmp_type=128,icmp_code=0",
    "acl-list br0",
    "services",
    "services -A",
    "services -n default -o wide",
    "policies",
    "policies -n shop",
    "policies --pod shop/web-0",
    "routes",
    "neighbors",
    "attachments",
    "connections",
    "connections src=10.0.0.0/8 dst=fd00::1 sport=1 dport=2 proto=tcp state=ESTABLISHED port=p1 service=default/web",
    "dpctl/dump-conntrack",
    "dpctl/dump-conntrack proto=47",
    "dpctl/flush-conntrack",
    "dpctl/flush-conntrack service=default/web:http",
    "trace --from pod/default/a --to svc/default/web --proto tcp",
    "verify",
    "verify --from pod/default/a --to 10.0.0.1",
    "--from=node/n1 trace --to 10.0.0.1 --proto udp --dport 53 --sport=5353",
    "dump-ports br0",
    "dump-ports br0 p1",
    "ports",
    "drops",
    "drops p1",
    "workers",
    "coverage/show",
    "version",
    "list-commands",
    "get pods -A",
    "get svc/web -n prod -o yaml",
    "get endpointslices a b --output=wide",
];

#[test]
fn every_request_is_written_as_it_was() {
    let mut text = String::new();
    let mut add = |line: &str, request: &Request| {
        let (method, params) = request.to_wire();
        assert_eq!(Request::from_wire(&method, params.clone()).as_ref(), Ok(request), "{line}");
        text += &format!("{line}\n  {}\n", json!({"method": method, "params": [params]}));
    };
    for line in LINES {
        add(line, &parse(line));
    }
    let manifests = vec![Manifest { name: "a.yaml".into(), text: "kind: Service\n".into() }];
    add("apply -f a.yaml", &Request::Apply { manifests: manifests.clone(), namespace: None });
    let [kind, namespace] = ["svc", "prod"].map(|word| Some(word.to_owned()));
    let names = vec!["web".to_owned()];
    add("delete svc web -n prod", &Request::Delete { manifests: Vec::new(), kind, names, namespace });
    add("delete -f a.yaml", &Request::Delete { manifests, kind: None, names: Vec::new(), namespace: None });
    let rules = api::AclRule::list("1000 udp,tp_dst=53 allow\n0 ipv6 drop\n").unwrap();
    add("acl-load br0 from-lport FILE", &Request::AclLoad { at: "br0".into(), way: api::AclWay::FromPort, rules });
    let id = AttachmentId { network: "pods".into(), container: "c1".into(), ifname: "eth0".into() };
    let interface = attached().interface;
    let attach = Attach {
        protocol: api::attachment::PROTOCOL,
        id: id.clone(),
        netns: "/run/netns/c1".into(),
        bridge: None,
        kind: "tap".into(),
        mtu: None,
        mac: None,
        addresses: Addressing::Daemon { wanted: Vec::new() },
        pod: None,
        host_ports: Vec::new(),
        bandwidth: Bandwidth::default(),
    };
    add("attach", &Request::Attach(Box::new(attach.clone())));
    let host_port = HostPort { address: Some([192, 0, 2, 1].into()), proto: Proto::Tcp, port: 8080, container: 80 };
    let attach = Attach {
        bridge: Some("br1".into()),
        mtu: Some(1400),
        mac: Some(attached().mac),
        addresses: Addressing::Given(interface.clone()),
        pod: Some(PodRef { namespace: "shop".into(), name: "web-0".into(), uid: Some("u1".into()) }),
        host_ports: vec![host_port],
        bandwidth: Bandwidth { ingress: Some(Rate { bits: 1_000_000, burst: 80_000 }), egress: None },
        ..attach
    };
    add("attach, with all", &Request::Attach(Box::new(attach)));
    add("detach", &Request::Detach { id: id.clone() });
    let expected = Expected { netns: "/run/netns/c1".into(), mac: Some(attached().mac), mtu: Some(1400), interface };
    add("attachment/check", &Request::AttachmentCheck { id, expected });
    let valid = vec![("c1".to_owned(), "eth0".to_owned())];
    add("attachment/gc", &Request::AttachmentGc { network: "pods".into(), valid });
    add("attachment/status", &Request::AttachmentStatus { protocol: 1, bridge: None, assigns: true });
    add("capture p1", &Request::Capture { port: "p1".into() });
    for def in VERBS {
        assert!(LINES.iter().any(|line| line.split(' ').any(|word| word == def.name)), "{} has no example", def.name);
    }
    compare("requests.txt", &text);
}

fn show() -> Show {
    let port = |name: &str, vlan, kind: &str| ShowPort {
        name: name.into(),
        vlan,
        kind: kind.into(),
        options: Default::default(),
        error: None,
    };
    let mut pod = port("p1", Vlan::NativeTagged { tag: 5, trunks: vec![10, 20] }, "tap");
    pod.options.insert("netns".into(), "/run/netns/pod1".into());
    pod.error = Some("p1: options:netns=/run/netns/pod1: \"gone\"".into());
    let local = port("br0", Vlan::default(), "internal");
    let bridge = |name: &str, error, ports| ShowBridge { name: name.into(), error, ports };
    Show {
        version: "vswitchd 0.1.0".into(),
        bridges: vec![
            bridge("br0", None, vec![local, pod, port("p2", Vlan::Access { tag: 7 }, "null")]),
            bridge("br1", Some("too many bridges".into()), vec![]),
        ],
    }
}

fn stats() -> PortStats {
    PortStats {
        rx_packets: 6,
        rx_bytes: 512,
        rx_dropped: 1,
        rx_errors: 2,
        tx_packets: 13,
        tx_bytes: 1062,
        tx_dropped: 3,
        tx_errors: 4,
    }
}

fn fdb() -> Fdb {
    let row = |ofport, port: &str, vlan, last, age| FdbRow {
        ofport,
        port: port.into(),
        vlan,
        mac: MacAddr([2, 0, 0, 0, 0, last]),
        age,
    };
    Fdb(vec![row(1, "p1", 0, 1, Some(0)), row(Port::LOCAL, "br0", 10, 2, Some(299)), row(65279, "p2", 4095, 3, None)])
}

fn ports() -> Ports {
    let up = PortRow {
        port: "p1".into(),
        bridge: "br0".into(),
        ofport: 1,
        kind: "tap".into(),
        ifname: Some("p1".into()),
        mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
        mtu: 1500,
        link: Some(true),
        offloads: "csum tso4 tso6 uso".into(),
        worker: Some(1),
        stats: stats(),
        error: None,
    };
    let mut down = PortRow { ofport: Port::LOCAL, kind: "internal".into(), link: Some(false), ..up.clone() };
    (down.port, down.worker, down.error) = ("br0".into(), None, Some("device is gone".into()));
    Ports(vec![up, down])
}

fn tuple(src: &str, dst: &str) -> Tuple {
    Tuple { src: src.parse().unwrap(), dst: dst.parse().unwrap() }
}

fn services() -> Services {
    let address = |text: &str| text.parse().unwrap();
    let web = ServiceRow {
        service: "default/web:http".into(),
        address: Some("10.96.0.10".parse().unwrap()),
        proto: Some(Proto::Tcp),
        port: Some(80),
        kind: AddressKind::LoadBalancer,
        policy: TrafficPolicy::Local,
        choice: Choice::Maglev,
        affinity: Some(10_800),
        backends: vec![address("10.244.1.2:8080"), address("10.244.2.2:8080")],
        local: Some(vec![address("10.244.1.2:8080")]),
        sources: Some(vec!["192.0.2.0/24".parse().unwrap()]),
        draining: vec![address("10.244.1.3:8080")],
        not_programmed: None,
        unreached_by_node: None,
    };
    let name = ServiceRow {
        service: "default/db".into(),
        address: None,
        proto: None,
        port: None,
        kind: AddressKind::Cluster,
        policy: TrafficPolicy::Cluster,
        choice: Choice::Random,
        affinity: None,
        backends: Vec::new(),
        local: None,
        sources: None,
        draining: Vec::new(),
        not_programmed: Some("headless".into()),
        unreached_by_node: None,
    };
    let why = "Operation not permitted (os error 1)";
    let node_port = ServiceRow {
        address: Some("192.0.2.10".parse().unwrap()),
        port: Some(30080),
        unreached_by_node: Some(why.into()),
        ..web.clone()
    };
    Services(vec![name, web, node_port])
}

fn policies() -> Policies {
    let network = PolicyRow {
        kind: "NetworkPolicy".into(),
        policy: "shop/web".into(),
        tier: None,
        priority: None,
        directions: vec!["ingress".into(), "egress".into()],
        pods: 12,
        denied: 7,
    };
    let cluster = PolicyRow {
        kind: "ClusterNetworkPolicy".into(),
        policy: "no-metadata".into(),
        tier: Some("Admin".into()),
        priority: Some(10),
        directions: vec!["egress".into()],
        pods: 10_000,
        denied: 0,
    };
    let idle = PolicyRow { directions: Vec::new(), tier: Some("Baseline".into()), ..cluster.clone() };
    Policies::All(vec![cluster, network, idle])
}

fn pod_policies() -> Policies {
    let rule = |index, name: &str, action: &str, peers: &str, ports: &str| PodRule {
        index,
        name: name.into(),
        action: action.into(),
        peers: peers.into(),
        ports: ports.into(),
    };
    let web = PodPolicy {
        policy: "networkpolicy shop/web".into(),
        not_asked: None,
        rules: vec![rule(0, "", "accept", "pods app=front of namespace shop; 10.0.0.0/8", "tcp 80 or udp 53-60")],
    };
    let base = PodPolicy {
        policy: "clusternetworkpolicy base".into(),
        not_asked: Some("policies of the namespace decide".into()),
        rules: vec![rule(0, "all", "deny", "anybody", "any port")],
    };
    let ingress = PodDirection {
        direction: "ingress".into(),
        isolated: true,
        otherwise: "default of shop/web".into(),
        policies: vec![web, base],
        denied: vec![DeniedRow { by: "default of shop/web".into(), packets: 7 }],
    };
    let egress = PodDirection {
        direction: "egress".into(),
        isolated: false,
        otherwise: "default".into(),
        policies: Vec::new(),
        denied: Vec::new(),
    };
    Policies::Pod(PodPolicies {
        pod: "pod/shop/web-0".into(),
        addresses: vec!["10.1.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
        port: Some("web0".into()),
        note: Some("isolated: no cluster state yet".into()),
        directions: vec![ingress, egress],
    })
}

fn acls() -> AclTable {
    let row = |way, priority, matches: &str, action| AclRow { way, priority, matches: matches.into(), action };
    AclTable(vec![
        row(AclWay::FromPort, 32_767, "tcp,tp_dst=80", AclAction::AllowRelated),
        row(AclWay::ToPort, 0, "", AclAction::Drop),
    ])
}

fn routes() -> Routes {
    let row = |prefix: &str, hop: &str, gateway: Option<&str>, port: Option<&str>, origin: &str| RouteRow {
        bridge: "br-pods".into(),
        prefix: prefix.parse().unwrap(),
        hop: hop.into(),
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        port: port.map(str::to_owned),
        origin: origin.into(),
        error: None,
    };
    let mut idle = row("10.0.0.0/8", "on-link", None, Some("p1"), "static");
    (idle.bridge, idle.error) = ("br0".into(), Some("the bridge has no router".into()));
    Routes(vec![
        row("0.0.0.0/0", "via", Some("192.0.2.1"), Some("up"), "static"),
        row("10.244.1.0/24", "endpoint", None, None, "pod-cidr"),
        row("10.244.2.0/24", "unreachable", None, None, "node/n2"),
        idle,
    ])
}

fn attached() -> Attached {
    let gateway = Some([10, 244, 1, 1].into());
    let address = "10.244.1.5/24".parse().unwrap();
    let route = InterfaceRoute { prefix: "0.0.0.0/0".parse().unwrap(), gateway };
    let interface = Interface { addresses: vec![Assigned { address, gateway }], routes: vec![route] };
    Attached { mac: MacAddr([2, 0, 0, 0, 0, 5]), mtu: 1500, interface }
}

fn attachments() -> Attachments {
    let row = AttachmentRow {
        id: AttachmentId { network: "pods".into(), container: "c1".into(), ifname: "eth0".into() },
        netns: "/run/netns/c1".into(),
        bridge: "br-pods".into(),
        port: "v3f9a1c".into(),
        addresses: vec!["10.244.1.5/24".parse().unwrap()],
        pod: Some("shop/web-0".into()),
        error: None,
    };
    let alone = AttachmentRow { pod: None, addresses: Vec::new(), error: Some("device is gone".into()), ..row.clone() };
    Attachments(vec![row, alone])
}

fn neighbors() -> Neighbors {
    let row = |address: &str, mac, state: &str, age| NeighborRow {
        bridge: "br-pods".into(),
        address: address.parse().unwrap(),
        mac,
        port: "up".into(),
        state: state.into(),
        age,
        error: None,
    };
    let mac = Some(MacAddr([2, 0, 0, 0, 0, 1]));
    let mut idle = row("fd00::1", mac, "permanent", None);
    idle.error = Some("the bridge has no router".into());
    Neighbors(vec![row("192.0.2.1", mac, "reachable", Some(3)), row("192.0.2.2", None, "incomplete", Some(0)), idle])
}

fn connections() -> Vec<ConnectionRow> {
    let row = |proto, state: &str, original, reply, service: Option<&str>| ConnectionRow {
        bridge: "br-pods".into(),
        proto,
        state: state.into(),
        original,
        reply,
        port: "p1".into(),
        service: service.map(str::to_owned),
        expires: 86_399,
    };
    let client = "10.244.1.2:40000";
    vec![
        row(
            6,
            "ESTABLISHED",
            tuple(client, "10.96.0.10:80"),
            tuple("10.244.1.3:8080", client),
            Some("default/web:http"),
        ),
        row(17, "UNREPLIED", tuple(client, "192.0.2.9:53"), tuple("192.0.2.9:53", "192.168.0.1:50000"), None),
        row(58, "ASSURED", tuple("[fd00::2]:7", "[fd00::3]:7"), tuple("[fd00::3]:7", "[fd00::2]:7"), None),
        row(47, "UNREPLIED", tuple("10.0.0.1:0", "10.0.0.2:0"), tuple("10.0.0.2:0", "10.0.0.1:0"), None),
    ]
}

fn trace() -> Trace {
    let step = |stage: &str, note: &str| TraceStep { stage: stage.into(), note: note.into() };
    Trace {
        verdict: "allow".into(),
        reason: String::new(),
        decided_by: "service default/web:http".into(),
        stages: vec![step("service", "default/web:http: 10.244.1.3:8080"), step("route", "endpoint pod/default/b")],
        proto: 6,
        packet: Some(tuple("10.244.1.2:50000", "10.96.0.10:80")),
        port: "p1".into(),
        outputs: vec!["p2".into()],
        tuple: Some(tuple("10.244.1.2:50000", "10.244.1.3:8080")),
        notes: vec!["pod/default/a: not attached here: traced as if it came in by p1".into()],
    }
}

fn verified(faults: usize) -> Verified {
    let example = CounterExample {
        table: "policy".into(),
        what: "pod/default/a 10.244.1.2 to pod/default/b 10.244.1.3, tcp 80".into(),
        expected: "deny: networkpolicy default/b".into(),
        found: "allow".into(),
    };
    Verified {
        pods: 9,
        classes: 4,
        pairs: 16,
        probes: 1234,
        milliseconds: 12,
        notes: vec!["nothing can come in from beyond: the bridge has neither uplink nor LOCAL port".into()],
        counterexamples: vec![example; faults],
        more: if faults > 0 { 5 } else { 0 },
    }
}

fn refused_trace() -> Trace {
    let (packet, port) = (Some(tuple("10.244.1.2:50000", "10.96.0.99:0")), "p1".into());
    Trace { verdict: "drop".into(), reason: "no-service".into(), proto: 1, packet, port, ..Trace::default() }
}

#[test]
fn every_answer_is_written_as_it_was() {
    let data = |answer: &dyn Fn() -> Result<Value, serde_json::Error>| answer().unwrap();
    let outputs = Outputs(vec![
        Output::Done,
        Output::Exists(true),
        Output::Names(vec!["br0".into(), "br1".into()]),
        Output::Values(vec![Datum::from(7), Datum::from("02:00:00:00:00:01"), Datum::Set(vec![])]),
        Output::Records(vec![
            vec![("name".into(), "p1".into()), ("trunks".into(), Datum::Set(vec![1.into(), 2.into()]))],
            vec![("name".into(), "p2".into()), ("options".into(), Datum::Map([("a".into(), "b c".into())].into()))],
        ]),
        Output::Show(show()),
    ]);
    let counters = |ofport, port: &str| PortCountersRow { ofport, port: port.into(), stats: stats() };
    let counters = PortCounters(vec![counters(1, "p1"), counters(Port::LOCAL, "br0")]);
    let drop = |port: &str, reason: &str, packets, sentence: &str| DropRow {
        port: port.into(),
        reason: reason.into(),
        packets,
        sentence: sentence.into(),
    };
    let drops = Drops(vec![
        drop("p1", "eth-truncated", 3, "shorter than an Ethernet header"),
        drop("p2", "no-port", 12_345_678, "no port to send to"),
    ]);
    let workers = Workers(vec![
        WorkerState {
            number: 0,
            cpu: Some(1),
            ports: 3,
            entries: 100,
            packets: 64_000,
            bursts: 1000,
            hits: 63_900,
            misses: 100,
            busy_ticks: 3_200_000,
            idle_ticks: 6_400_000,
            sleeps: 12,
        },
        WorkerState { number: 1, ..WorkerState::default() },
    ]);
    let counter = |name: &str, total| Coverage { name: name.into(), total };
    let coverage = CoverageTable(vec![counter("flow_miss", 10), counter("cache_divergence", 0)]);
    let commands = Commands(vec![("fdb/show".into(), "BRIDGE".into()), ("version".into(), String::new())]);
    let outcomes = [
        Outcome::Created,
        Outcome::Configured,
        Outcome::Unchanged,
        Outcome::Deleted,
        Outcome::Skipped("apps/v1 Deployment is nothing to a switch".into()),
        Outcome::Refused("spec.ports[0].port: 65536: must be between 1 and 65535".into()),
    ];
    let objects =
        Objects(outcomes.map(|outcome| ObjectRow { object: "service/web".into(), outcome }).into_iter().collect());
    let headings = ["NAMESPACE", "NAME", "CIDRS"].map(str::to_owned).to_vec();
    let rows = vec![["prod", "a", "10.0.0.0/8,fd00::/64"].map(str::to_owned).to_vec()];
    let table = ObjectTable { headings, rows };
    let tables = Got::Tables(vec![table.clone(), table]);
    let answers = [
        ("get svc,pods -A", data(&|| serde_json::to_value(&tables))),
        ("get svc", data(&|| serde_json::to_value(Got::Tables(Vec::new())))),
        ("get svc web -o json", data(&|| serde_json::to_value(Got::Text("{}".into())))),
        ("list-br", data(&|| serde_json::to_value(&outputs))),
        ("fdb/show br0", data(&|| serde_json::to_value(fdb()))),
        ("fdb/flush", data(&|| serde_json::to_value(Text("table successfully flushed".into())))),
        ("fdb/add br0 p1 1 02:00:00:00:00:01", data(&|| serde_json::to_value(Text::default()))),
        ("fdb/del br0 1 02:00:00:00:00:01", data(&|| serde_json::to_value(Text::default()))),
        ("dump-ports br0", data(&|| serde_json::to_value(&counters))),
        ("route/add br0 10.0.0.0/8 dev p1", data(&|| serde_json::to_value(Text::default()))),
        ("services", data(&|| serde_json::to_value(services()))),
        ("services -o wide", data(&|| serde_json::to_value(services()))),
        ("policies", data(&|| serde_json::to_value(policies()))),
        ("policies --pod shop/web-0", data(&|| serde_json::to_value(pod_policies()))),
        ("acl-list br0", data(&|| serde_json::to_value(acls()))),
        ("routes", data(&|| serde_json::to_value(routes()))),
        ("neighbors", data(&|| serde_json::to_value(neighbors()))),
        ("attachments", data(&|| serde_json::to_value(attachments()))),
        ("connections", data(&|| serde_json::to_value(Connections(connections())))),
        ("dpctl/dump-conntrack", data(&|| serde_json::to_value(Conntrack(connections())))),
        ("dpctl/flush-conntrack", data(&|| serde_json::to_value(Text::default()))),
        ("trace --from a --to b --proto tcp", data(&|| serde_json::to_value(trace()))),
        ("trace --from a --to b --proto icmp", data(&|| serde_json::to_value(refused_trace()))),
        ("verify", data(&|| serde_json::to_value(verified(0)))),
        ("verify --from a --to b", data(&|| serde_json::to_value(verified(2)))),
        ("ports", data(&|| serde_json::to_value(ports()))),
        ("drops", data(&|| serde_json::to_value(&drops))),
        ("workers", data(&|| serde_json::to_value(&workers))),
        ("coverage/show", data(&|| serde_json::to_value(&coverage))),
        ("version", data(&|| serde_json::to_value(Text("vswitchd 0.1.0".into())))),
        ("list-commands", data(&|| serde_json::to_value(&commands))),
    ];
    let mut text = String::new();
    for (line, answer) in answers {
        let printed = reply::text(&parse(line), answer.clone()).unwrap();
        text += &format!("### {line}\n{answer}\n{printed}");
    }
    let delete = Request::from_wire("delete", json!({"kind": "svc", "names": ["web"]})).unwrap();
    let answer = serde_json::to_value(&objects).unwrap();
    text += &format!("### delete svc web\n{answer}\n{}", reply::text(&delete, answer.clone()).unwrap());
    let id = AttachmentId { network: "pods".into(), container: "c1".into(), ifname: "eth0".into() };
    let expected = Expected { netns: "n".into(), mac: None, mtu: None, interface: Interface::default() };
    let check = Request::AttachmentCheck { id, expected };
    let refusal = AttachRefusal { code: 7, what: "mtu=0: not in 68..65521".into() };
    for reply in [AttachReply::Attached(attached()), AttachReply::Fine, AttachReply::Refused(refusal)] {
        let answer = serde_json::to_value(reply).unwrap();
        text += &format!("### attachment/check\n{answer}\n{}", reply::text(&check, answer.clone()).unwrap());
    }
    compare("replies.txt", &text);
}

#[test]
fn an_answer_to_something_else_is_an_error() {
    assert!(reply::text(&parse("fdb/show br0"), json!("text")).unwrap_err().starts_with("answer not understood"));
    assert!(reply::text(&parse("version"), Value::Null).is_err());
}
