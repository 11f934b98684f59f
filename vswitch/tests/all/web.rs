//! The node's own servers over real sockets, in namespaces of their own.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use api::{Bridge, BridgeId, Change, Delta, Eligibility, HealthCheck, Port, PortId, Transaction};
use control::Switch as _;
use vswitch::keeper::Keeper;
use vswitch::switch::Switch;
use vswitch::sys::netlink::{Netlink, Settings as Link};
use vswitch::sys::netns::Namespace;
use vswitch::web::Settings;

use crate::kit::{PATIENCE, eventually};
use crate::memory::{frame, mac, offer, options, receive, send, transaction};

const HEALTHZ: &str = "0.0.0.0:10256";
const METRICS: &str = "127.0.0.1:10249";
/// Addresses of the node, by IP version, and a third.
const NODE: [&str; 3] = ["192.0.2.10", "2001:db8::10", "192.0.2.11"];
const CHECK: u16 = 31234;

/// A node with addresses, if we may make one.
fn node(test: &str) -> Option<Namespace> {
    let Ok(node) = Namespace::new() else {
        println!("SKIPPED: {test}: a namespace is not allowed");
        return None;
    };
    node.run(|| {
        let netlink = Netlink::open().unwrap();
        netlink.add_veth("eth0", "wire", None).unwrap();
        for name in ["lo", "wire", "eth0"] {
            let index = netlink.index(name).unwrap();
            netlink.set(index, &Link { up: Some(true), ..Link::default() }).unwrap();
        }
        let index = netlink.index("eth0").unwrap();
        for address in NODE {
            let address: IpAddr = address.parse().unwrap();
            netlink.add_address(index, address, if address.is_ipv4() { 24 } else { 64 }).unwrap();
        }
    });
    Some(node)
}

fn settings() -> Settings {
    Settings { healthz: HEALTHZ.parse().ok(), metrics: METRICS.parse().ok(), version: "1.2.3".to_owned() }
}

/// A switch that serves in a namespace.
fn serving(node: &Namespace) -> Switch {
    node.run(|| {
        let mut switch = Switch::start(&options(1), Keeper::none()).unwrap();
        switch.serve(settings()).unwrap();
        switch
    })
}

fn tell(switch: &mut Switch, changes: Vec<Change>) {
    switch.apply(&Transaction { changes }).unwrap();
}

fn check(local_endpoints: u32, addresses: &[&str]) -> HealthCheck {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    HealthCheck { port: CHECK, service: ("shop".into(), "web".into()), local_endpoints, addresses }
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    fields: BTreeMap<String, String>,
    body: String,
}

fn dial(node: &Namespace, to: &str) -> io::Result<TcpStream> {
    let to: SocketAddr = to.parse().unwrap();
    let stream = node.run(|| TcpStream::connect_timeout(&to, PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Read one answer; `has_body` is false after HEAD.
fn answer(stream: &mut TcpStream, has_body: bool) -> Answer {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut octet = [0];
        stream.read_exact(&mut octet).unwrap_or_else(|why| panic!("{why} after {}", head.escape_ascii()));
        head.push(octet[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let fields: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let len = if has_body { fields["Content-Length"].parse().unwrap() } else { 0 };
    let mut body = vec![0; len];
    stream.read_exact(&mut body).unwrap();
    Answer { status, fields, body: String::from_utf8(body).unwrap() }
}

/// Ask with octets of one's own.
fn say(node: &Namespace, to: &str, octets: &[u8]) -> Answer {
    let mut stream = dial(node, to).unwrap();
    stream.write_all(octets).unwrap();
    answer(&mut stream, true)
}

fn get(node: &Namespace, to: &str, path: &str) -> Answer {
    say(node, to, format!("GET {path} HTTP/1.1\r\nHost: node\r\n\r\n").as_bytes())
}

fn is_refused(node: &Namespace, to: &str) -> bool {
    dial(node, to).is_err_and(|why| why.kind() == io::ErrorKind::ConnectionRefused)
}

/// Nothing more comes, and the other side says so.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(read) => read == 0,
        Err(why) => why.kind() == io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn v14_healthz_and_livez_answer_at_every_address_and_the_node_counts_for_healthz_alone() {
    let Some(node) = node("v14_healthz_and_livez") else { return };
    let mut switch = serving(&node);
    let eligible = Eligibility { why_not: None };
    let doomed = Eligibility { why_not: Some("taint ToBeDeletedByClusterAutoscaler".to_owned()) };
    let steps = [
        (None, 503, false),
        (Some(Delta::add(eligible.clone())), 200, true),
        (Some(Delta::replace(eligible, doomed.clone())), 503, false),
        (Some(Delta::remove(doomed)), 503, false),
    ];
    for (delta, status, node_eligible) in steps {
        tell(&mut switch, delta.map(Change::Eligibility).into_iter().collect());
        for to in ["127.0.0.1:10256", "[::1]:10256", "192.0.2.10:10256", "[2001:db8::10]:10256"] {
            let told = get(&node, to, "/healthz");
            assert_eq!((told.status, &*told.fields["Content-Type"]), (status, "application/json"), "{to}: {told:?}");
            let body: serde_json::Value = serde_json::from_str(&told.body).unwrap();
            assert_eq!((&body["nodeEligible"], &body["healthy"]), (&node_eligible.into(), &true.into()), "{to}");
            let told = get(&node, to, "/livez?verbose");
            assert_eq!((told.status, told.body.contains("nodeEligible")), (200, false), "{to}: {told:?}");
        }
    }
    switch.stop();
    assert!(is_refused(&node, "127.0.0.1:10256") && is_refused(&node, METRICS));
}

#[test]
fn v13_a_health_check_port_is_there_when_the_transaction_is_answered_and_goes_with_the_service() {
    let Some(node) = node("v13_a_health_check_port") else { return };
    let mut switch = serving(&node);
    let [v4, v6, other] = NODE.map(|address| SocketAddr::new(address.parse().unwrap(), CHECK).to_string());
    let none_here = check(0, &NODE[..2]);
    tell(&mut switch, vec![Change::HealthCheck(Delta::add(none_here.clone()))]);
    assert_eq!(get(&node, &v4, "/").status, 503);
    let mut kept = dial(&node, &v4).unwrap();
    let two_here = check(2, &NODE[..2]);
    tell(&mut switch, vec![Change::HealthCheck(Delta::replace(none_here, two_here.clone()))]);
    for (to, path) in [(&v4, "/"), (&v6, "/healthz"), (&v4, "/any/path?at=all")] {
        let told = get(&node, to, path);
        assert_eq!((told.status, &*told.fields["X-Load-Balancing-Endpoint-Weight"]), (200, "2"), "{to}{path}");
        assert_eq!(
            told.body,
            "{\n\t\"service\": {\n\t\t\"namespace\": \"shop\",\n\t\t\"name\": \"web\"\n\t},\n\t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}"
        );
    }
    kept.write_all(b"HEAD / HTTP/1.1\r\nHost: node\r\n\r\n").unwrap();
    assert_eq!(answer(&mut kept, false).status, 200, "a connection from before the change");
    assert!(is_refused(&node, &other) && is_refused(&node, &format!("127.0.0.1:{CHECK}")));

    let moved = check(2, &NODE[1..]);
    tell(&mut switch, vec![Change::HealthCheck(Delta::replace(two_here, moved.clone()))]);
    assert!(is_refused(&node, &v4), "an address that it has no more");
    assert!(is_closed(&mut kept), "with its listener");
    assert_eq!((get(&node, &v6, "/").status, get(&node, &other, "/").status), (200, 200));

    tell(&mut switch, vec![Change::HealthCheck(Delta::remove(moved))]);
    assert!(is_refused(&node, &v6) && is_refused(&node, &other));
    switch.stop();
}

#[test]
fn who_asks_badly_is_answered_so_and_who_asks_again_and_again_each_time() {
    let Some(node) = node("who_asks_badly") else { return };
    let switch = serving(&node);
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(100_000));
    let body = format!("POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n{}", "a".repeat(300_000));
    let rows: [(&[u8], u16); 8] = [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /livez HTTP/1.1\r\n\r\n", 400),
        (b"GET /livez HTTP/1.0\r\n\r\n", 200),
        (b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"DELETE /livez HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (long.as_bytes(), 431),
        (body.as_bytes(), 405),
    ];
    for (octets, status) in rows {
        let mut stream = dial(&node, "127.0.0.1:10256").unwrap();
        // Much of it may come to a closed door.
        let _ = stream.write_all(octets);
        let name = String::from_utf8_lossy(&octets[..octets.len().min(40)]).into_owned();
        let told = answer(&mut stream, true);
        assert_eq!((told.status, told.fields.contains_key("Connection")), (status, status != 404), "{name}");
        if status != 404 {
            assert!(is_closed(&mut stream), "{name}");
        }
    }
    assert_eq!(say(&node, METRICS, b"PUT /metrics HTTP/1.1\r\nHost: a\r\n\r\n").fields["Allow"], "GET, HEAD");
    let told = get(&node, METRICS, "/proxyMode");
    assert_eq!((told.status, &*told.body), (200, "vswitch"));

    let mut stream = dial(&node, "127.0.0.1:10256").unwrap();
    let ask = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(&ask.repeat(100)).unwrap();
    (0..100).for_each(|_| assert_eq!(answer(&mut stream, true).status, 200));
    for octet in ask {
        stream.write_all(&[*octet]).unwrap();
    }
    assert_eq!(answer(&mut stream, true).status, 200, "an octet at a time");
    switch.stop();
}

#[test]
fn idle_connections_keep_nobody_out() {
    let Some(node) = node("idle_connections") else { return };
    let mut switch = serving(&node);
    let noun = check(1, &["0.0.0.0"]);
    tell(&mut switch, vec![Change::HealthCheck(Delta::add(noun))]);
    let at = format!("127.0.0.1:{CHECK}");
    let idle = |count, to: &str| -> Vec<TcpStream> { (0..count).map(|_| dial(&node, to).unwrap()).collect() };
    let mut all = idle(200, "127.0.0.1:10256");
    for stream in &mut all {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHo").unwrap();
    }
    let start = Instant::now();
    assert_eq!(get(&node, "127.0.0.1:10256", "/livez").status, 200);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    // None of those that are within bounds was closed for it.
    for stream in &mut all {
        stream.write_all(b"st: a\r\n\r\n").unwrap();
        assert_eq!(answer(stream, true).status, 200);
    }
    // More than one listener has room for: the others are none the worse.
    let many = idle(400, &at);
    assert_eq!(get(&node, &at, "/").status, 200);
    assert_eq!(get(&node, "127.0.0.1:10256", "/livez").status, 200);
    all[0].write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(answer(&mut all[0], true).status, 200);
    drop(many);
    switch.stop();
}

#[test]
fn a_port_that_is_taken_stops_nobody_and_is_had_when_it_is_free() {
    let Some(node) = node("a_port_that_is_taken") else { return };
    let taken = node.run(|| [TcpListener::bind(HEALTHZ).unwrap(), TcpListener::bind((NODE[0], CHECK)).unwrap()]);
    let mut switch = serving(&node);
    let noun = check(1, &[NODE[0], NODE[1], "198.51.100.1"]);
    tell(&mut switch, vec![Change::HealthCheck(Delta::add(noun))]);
    assert_eq!(get(&node, METRICS, "/proxyMode").status, 200);
    assert_eq!(get(&node, &format!("[{}]:{CHECK}", NODE[1]), "/").status, 200);
    drop(taken);
    for (to, path) in [("192.0.2.10:31234", "/"), ("127.0.0.1:10256", "/livez")] {
        eventually(to, || !is_refused(&node, to));
        assert_eq!(get(&node, to, path).status, 200, "{to}");
    }
    // An address that the node gets later.
    assert!(is_refused(&node, "198.51.100.1:31234") || dial(&node, "198.51.100.1:31234").is_err());
    node.run(|| {
        let netlink = Netlink::open().unwrap();
        netlink.add_address(netlink.index("eth0").unwrap(), "198.51.100.1".parse().unwrap(), 32).unwrap();
    });
    eventually("the address that came", || dial(&node, "198.51.100.1:31234").is_ok());
    switch.stop();
}

#[test]
fn a_worker_that_does_not_turn_is_noticed() {
    let Some(node) = node("a_worker_that_does_not_turn") else { return };
    let (mut switch, mut workers) = node.run(|| {
        let (mut switch, workers) = Switch::assemble(&options(1), Keeper::none()).unwrap();
        switch.serve(settings()).unwrap();
        (switch, workers)
    });
    let noun = check(1, &["127.0.0.1"]);
    tell(
        &mut switch,
        vec![Change::HealthCheck(Delta::add(noun)), Change::Eligibility(Delta::add(Eligibility { why_not: None }))],
    );
    let at = format!("127.0.0.1:{CHECK}");
    let statuses = || {
        [("127.0.0.1:10256", "/healthz"), ("127.0.0.1:10256", "/livez"), (&*at, "/")]
            .map(|(to, path)| get(&node, to, path).status)
    };
    assert_eq!(statuses(), [200; 3], "it has not begun: it sleeps");
    workers[0].turn();
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(statuses(), [200; 3], "eight seconds are not ten");
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(statuses(), [503; 3]);
    assert!(get(&node, &at, "/").body.contains("\"serviceProxyHealthy\": false"));
    workers[0].turn();
    eventually("healthy again", || statuses() == [200; 3]);
    drop(workers);
    switch.stop();
}

/// Ports that lead nowhere on one bridge.
fn ports(count: u16) -> Vec<Change> {
    let bridge = Bridge {
        id: BridgeId(1),
        name: "br0".to_owned(),
        mac_table_size: Bridge::MAC_TABLE_SIZE,
        mac_ageing: Bridge::MAC_AGEING,
        forward_bpdu: false,
        external_ids: BTreeMap::new(),
    };
    let port = |number| Port {
        id: PortId(number),
        name: format!("null{number}"),
        bridge: BridgeId(1),
        ofport: number,
        kind: "null".to_owned(),
        options: BTreeMap::new(),
        vlan: api::Vlan::default(),
        mac: None,
        mtu: Port::MTU,
        external_ids: BTreeMap::new(),
    };
    let ports = (1..=count).map(|number| Change::Port(Delta::add(port(number))));
    std::iter::once(Change::Bridge(Delta::add(bridge))).chain(ports).collect()
}

#[test]
fn metrics_say_what_the_verbs_say_in_rows_that_are_bounded() {
    let Some(node) = node("metrics") else { return };
    let mut switch = serving(&node);
    get(&node, "127.0.0.1:10256", "/healthz");
    tell(&mut switch, ports(1000));
    let start = Instant::now();
    let told = get(&node, METRICS, "/metrics");
    let took = start.elapsed();
    assert_eq!((told.status, &*told.fields["Content-Type"]), (200, "text/plain; version=0.0.4; charset=utf-8"));
    println!("1000 ports: {} octets, {} lines in {took:?}", told.body.len(), told.body.lines().count());
    assert!(told.body.lines().count() < 9000, "rows are bounded");
    assert!(told.body.ends_with("# EOF\n"));
    let rows = [
        "vswitch_build_info{version=\"1.2.3\"} 1.0",
        "kubeproxy_proxy_healthz_total{code=\"503\"} 1",
        "kubeproxy_sync_proxy_rules_duration_seconds_count 1",
        "# TYPE kubeproxy_sync_proxy_rules_last_timestamp_seconds gauge",
        "vswitch_port_rx_packets_total{port=\"null1000\"} 0",
        "vswitch_port_tx_dropped_total{port=\"null1\"} 0",
        "vswitch_drops_total{reason=\"no-port\"} 0",
        "vswitch_worker_cache_hits_total{worker=\"0\"} 0",
        "vswitch_coverage_total{event=\"walk\"} 0",
        "vswitch_table_entries{table=\"ports\"} 1000.0",
        "vswitch_table_entries{table=\"connections\"} 0.0",
    ];
    for row in rows {
        assert!(told.body.lines().any(|line| line == row), "{row} in\n{}", &told.body[..4096]);
    }
    let ask =
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: application/openmetrics-text;version=1.0.0,*/*;q=0.1\r\n\r\n";
    let again = say(&node, METRICS, ask);
    assert_eq!(again.fields["Content-Type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let without_ports: Vec<Change> =
        Transaction { changes: ports(1000) }.inverse().changes.into_iter().take(1000).collect();
    tell(&mut switch, without_ports);
    eventually("the ports are gone", || !get(&node, METRICS, "/metrics").body.contains("null1"));
    switch.stop();
}

/// A row's number.
fn value(page: &str, row: &str) -> u64 {
    let found = page.lines().find_map(|line| line.strip_prefix(row)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("{row}")).parse().unwrap()
}

#[test]
fn metrics_of_traffic_are_those_of_the_verbs_and_never_fall() {
    let Some(node) = node("metrics_of_traffic") else { return };
    let mut switch = serving(&node);
    let mut wires = [1, 2].map(|id| offer(&switch, id, 256));
    tell(&mut switch, transaction(&[1, 2]).changes);
    let mut stash = switch.pool().stash();
    (0..20).for_each(|number| send(&mut wires[0], &mut stash, &frame(mac(9), mac(1), number)));
    send(&mut wires[0], &mut stash, &[2; 9]);
    let mut left = 0;
    eventually("all frames left", || {
        left += receive(&mut wires[1], &mut stash).len();
        left == 20 && !switch.drops().is_empty()
    });
    let page = get(&node, METRICS, "/metrics").body;
    let ports = switch.ports();
    assert_eq!((ports[0].stats.rx_packets, ports[1].stats.tx_packets, switch.drops()[0].packets), (21, 20, 1));
    for port in &ports {
        let stats = port.stats;
        for (name, expected) in [
            ("rx_packets", stats.rx_packets),
            ("rx_bytes", stats.rx_bytes),
            ("rx_dropped", stats.rx_dropped),
            ("rx_errors", stats.rx_errors),
            ("tx_packets", stats.tx_packets),
            ("tx_bytes", stats.tx_bytes),
            ("tx_dropped", stats.tx_dropped),
            ("tx_errors", stats.tx_errors),
        ] {
            let row = format!("vswitch_port_{name}_total{{port=\"p{}\"}}", port.id);
            assert_eq!(value(&page, &row), expected, "{row}");
        }
    }
    for event in switch.coverage() {
        assert_eq!(value(&page, &format!("vswitch_coverage_total{{event=\"{}\"}}", event.name)), event.total);
    }
    let dropped = "vswitch_drops_total{reason=\"eth-truncated\"}";
    assert_eq!(value(&page, dropped), 1);
    assert!(page.contains("vswitch_table_entries{table=\"stations\"} 1.0\n"));

    // A port of the same number and name begins anew; what was dropped stays dropped.
    let [_, first, second] = transaction(&[1, 2]).changes.try_into().unwrap();
    let goes = |change| Transaction { changes: vec![change] }.inverse().changes;
    tell(&mut switch, goes(first.clone()));
    wires[0] = offer(&switch, 1, 256);
    tell(&mut switch, vec![first]);
    tell(&mut switch, goes(second));
    eventually("a new page", || !get(&node, METRICS, "/metrics").body.contains("port=\"p2\""));
    let page = get(&node, METRICS, "/metrics").body;
    assert_eq!(value(&page, "vswitch_port_rx_packets_total{port=\"p1\"}"), 0);
    assert_eq!(value(&page, dropped), 1);
    switch.stop();
}
