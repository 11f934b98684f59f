//! Objects that cannot be: each with the line that says so.

use proptest::prelude::*;

use super::*;

const SLICE: &str = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\n";

fn refused(text: &str) -> String {
    let mut bed = Bed::applied(
        &(node("n1", "192.168.0.1", "10.1.0.0/24") + &service("taken", "10.96.0.9") + &pod("live", "10.1.0.9")),
    );
    let before = bed.all();
    let lines = bed.apply(text);
    assert_eq!(bed.all(), before, "{text}: something changed");
    assert_eq!(lines.len(), 1, "{text}");
    lines.concat()
}

#[test]
fn each_bad_field_is_named() {
    let svc = |spec: &str| format!("apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {spec}\n");
    let ports = |ports: &str| svc(&format!("{{clusterIP: 10.96.0.1, ports: {ports}}}"));
    let slice = |rest: &str| format!("{SLICE}{rest}\n");
    for (text, why) in [
        (ports("[{port: 65536}]"), "service/web: spec.ports[0].port: 65536: must be between 1 and 65535"),
        (ports("[{port: 0}]"), "service/web: spec.ports[0].port: 0: must be between 1 and 65535"),
        (ports("[{port: abc}]"), "service/web: spec.ports[0].port: invalid type: string \"abc\", expected i32"),
        (ports("[{port: 1, prot: TCP}]"), "service/web: spec.ports[0].prot: no such field"),
        (ports("[{port: 1, protocol: ICMP}]"), "service/web: spec.ports[0].protocol: ICMP: must be TCP, UDP or SCTP"),
        (
            ports("[{name: a, port: 1}, {name: a, port: 2}]"),
            "service/web: spec.ports[1].name: a: another port has this name",
        ),
        (
            ports("[{port: 1}, {name: a, port: 2}]"),
            "service/web: spec.ports[0].name: must be given when there are several ports",
        ),
        (
            ports("[{name: a, port: 1}, {name: b, port: 1}]"),
            "service/web: spec.ports[1].port: 1: another port of TCP has this number",
        ),
        (ports("[]"), "service/web: spec.ports: must hold at least one port"),
        (svc("{ports: [{port: 80}]}"), "service/web: spec.clusterIP: must be given: nobody assigns addresses here"),
        (
            svc("{type: NodePort, ports: [{port: 80}]}"),
            "service/web: spec.clusterIP: must be given: nobody assigns addresses here",
        ),
        (
            svc("{clusterIP: 10.96.0.300, ports: [{port: 80}]}"),
            "service/web: spec.clusterIP: 10.96.0.300: must be an IPv4 or IPv6 address",
        ),
        (
            svc("{clusterIP: 10.96.0.1, clusterIPs: [10.96.0.2], ports: [{port: 80}]}"),
            "service/web: spec.clusterIPs[0]: 10.96.0.2: must be that of spec.clusterIP",
        ),
        (
            svc("{clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 10.96.0.2], ports: [{port: 80}]}"),
            "service/web: spec.clusterIPs[1]: 10.96.0.2: another of IPv4 stands before it: there may be one of a family",
        ),
        (
            svc("{clusterIP: 10.96.0.1, ipFamilies: [IPv6], ports: [{port: 80}]}"),
            "service/web: spec.ipFamilies[0]: IPv6: spec.clusterIPs[0] is of IPv4",
        ),
        // Booleans of YAML 1.1 are text in 1.2, and in what kubectl makes of them they would be true.
        (
            svc("{clusterIP: 10.96.0.1, publishNotReadyAddresses: yes, ports: [{port: 80}]}"),
            "service/web: spec.publishNotReadyAddresses: invalid type: string \"yes\", expected a boolean",
        ),
        (
            slice("addressType: IPv4\nendpoints: [{addresses: [10.1.0.7], conditions: {ready: on}}]"),
            "endpointslice.discovery.k8s.io/a: endpoints[0].conditions.ready: invalid type: string \"on\", expected a boolean",
        ),
        (
            svc("{type: Best, ports: [{port: 80}]}"),
            "service/web: spec.type: Best: must be ClusterIP, NodePort, LoadBalancer or ExternalName",
        ),
        (
            service("web", "10.96.0.9"),
            "service/web: spec.clusterIP: 10.96.0.9: is the address of service/taken in namespace default",
        ),
        (service("web", "192.168.0.1"), "service/web: spec.clusterIP: 192.168.0.1: is the address of node/n1"),
        (service("web", "10.1.0.77"), "service/web: spec.clusterIP: 10.1.0.77: is in 10.1.0.0/24, the pods of node/n1"),
        (
            service("Web_1", "10.96.0.1"),
            "service/Web_1: metadata.name: Web_1: must be 1 to 63 of a-z, 0-9 and '-', with none of '-' at an end (RFC 1123)",
        ),
        (pod("a", "10.1.0.9"), "pod/a: status.podIPs[0].ip: 10.1.0.9: is the address of pod/live in namespace default"),
        (
            pod("a", "10.1.0.1"),
            "pod/a: status.podIPs[0].ip: 10.1.0.1: is the gateway of 10.1.0.0/24, the pods of node/n1",
        ),
        (
            pod("a", "10.1.0.2").replace("8080", "0"),
            "pod/a: spec.containers[0].ports[0].containerPort: 0: must be between 1 and 65535",
        ),
        (
            node("n2", "192.168.0.2", "10.1.0.128/25"),
            "node/n2: spec.podCIDRs[0]: 10.1.0.128/25: overlaps 10.1.0.0/24 of node/n1",
        ),
        (
            node("n2", "192.168.0.2", "10.0.0.0/8"),
            "node/n2: spec.podCIDRs[0]: 10.0.0.0/8: overlaps 10.1.0.0/24 of node/n1",
        ),
        (
            node("n2", "192.168.0.2", "10.96.0.0/24"),
            "node/n2: spec.podCIDRs[0]: 10.96.0.0/24: holds 10.96.0.9, the address of service/taken in namespace default",
        ),
        (
            node("n2", "192.168.0.2", "10.2.0.0/24\", \"10.2.0.0/25"),
            "node/n2: spec.podCIDRs[1]: 10.2.0.0/25: overlaps 10.2.0.0/24, which stands before it",
        ),
        (node("n2", "192.168.0.1", "10.2.0.0/24"), "node/n2: status.addresses: 192.168.0.1: is the address of node/n1"),
        (
            slice("addressType: IPv4\nendpoints: [{addresses: [fd00::1]}]"),
            "endpointslice.discovery.k8s.io/a: endpoints[0].addresses[0]: fd00::1: must be an IPv4 address, as addressType says",
        ),
        (
            slice("addressType: IPv4\nendpoints: [{addresses: []}]"),
            "endpointslice.discovery.k8s.io/a: endpoints[0].addresses: 0 addresses: must be 1 to 100",
        ),
        (
            slice("addressType: IPv4\nendpoints: [{addresses: [127.0.0.1]}]"),
            "endpointslice.discovery.k8s.io/a: endpoints[0].addresses[0]: 127.0.0.1: may not be unspecified, loopback, link-local or multicast",
        ),
        (
            slice("addressType: IPv4\nendpoints: []\nports: [{port: 65536}]"),
            "endpointslice.discovery.k8s.io/a: ports[0].port: 65536: must be between 1 and 65535",
        ),
        ("kind: Service\n".to_owned(), "x.yaml: apiVersion, kind: both are needed to know what it is"),
        ("apiVersion: v1\nkind: Service\n".to_owned(), "service/: metadata.name: must be given"),
    ] {
        assert_eq!(refused(&text), why, "{text}");
    }
}

#[test]
fn each_bad_field_for_clients_from_beyond_is_named() {
    let svc = |kind: &str, spec: &str| {
        let head = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.96.0.1, type: ";
        format!("{head}{kind}, ports: [{{port: 80, nodePort: 30080}}], {spec}}}\n")
    };
    let cluster = |spec: &str| svc("ClusterIP", spec).replace(", nodePort: 30080", "");
    let balanced = |spec: &str| svc("LoadBalancer", spec);
    let ingress = |ingress: &str| balanced("") + &format!("status: {{loadBalancer: {{ingress: [{ingress}]}}}}\n");
    let hinted =
        |hints: &str| format!("{SLICE}addressType: IPv4\nendpoints: [{{addresses: [10.1.0.7], hints: {{{hints}}}}}]\n");
    let nine: Vec<_> = (0..9).map(|n| format!("{{name: z{n}}}")).collect();
    for (text, why) in [
        (svc("NodePort", "").replace("30080", "65536"), "spec.ports[0].nodePort: 65536: must be between 1 and 65535"),
        (svc("NodePort", "").replace("30080", "-1"), "spec.ports[0].nodePort: -1: must be between 1 and 65535"),
        (
            svc("NodePort", "").replace("30080", "0"),
            "spec.ports[0].nodePort: must be given for type NodePort: nobody assigns node ports here",
        ),
        (
            svc("NodePort", "")
                .replace("}]", "}, {name: b, port: 81, nodePort: 30080}]")
                .replace("{port", "{name: a, port"),
            "spec.ports[1].nodePort: 30080: another port of TCP has this number",
        ),
        (svc("ClusterIP", ""), "spec.ports[0].nodePort: 30080: may be given for type NodePort or LoadBalancer only"),
        (cluster("sessionAffinity: Cookie"), "spec.sessionAffinity: Cookie: must be None or ClientIP"),
        (
            cluster("sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}"),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: 0: must be between 1 and 86400",
        ),
        (
            cluster("sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 86401}}"),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: 86401: must be between 1 and 86400",
        ),
        (
            cluster("sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}}"),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: 5: may be given for sessionAffinity ClientIP only",
        ),
        (cluster("internalTrafficPolicy: local"), "spec.internalTrafficPolicy: local: must be Cluster or Local"),
        (balanced("externalTrafficPolicy: Node"), "spec.externalTrafficPolicy: Node: must be Cluster or Local"),
        (
            cluster("externalTrafficPolicy: Local"),
            "spec.externalTrafficPolicy: Local: may be given for type NodePort or LoadBalancer, or with externalIPs, only",
        ),
        (
            cluster("trafficDistribution: Near"),
            "spec.trafficDistribution: Near: must be PreferSameZone, PreferSameNode or PreferClose",
        ),
        (
            cluster("externalIPs: [192.0.2.1, 127.0.0.1]"),
            "spec.externalIPs[1]: 127.0.0.1: may not be unspecified, loopback, link-local or multicast",
        ),
        (cluster("externalIPs: [192.0.2.256]"), "spec.externalIPs[0]: 192.0.2.256: must be an IPv4 or IPv6 address"),
        (
            balanced("loadBalancerSourceRanges: [192.0.2.0/24, 192.0.2.1]"),
            "spec.loadBalancerSourceRanges[1]: 192.0.2.1: must be a prefix such as 192.0.2.0/24 or ::/0",
        ),
        (
            svc("NodePort", "loadBalancerSourceRanges: [192.0.2.0/24]"),
            "spec.loadBalancerSourceRanges[0]: 192.0.2.0/24: may be given for type LoadBalancer only",
        ),
        (
            balanced("externalTrafficPolicy: Local, healthCheckNodePort: 70000"),
            "spec.healthCheckNodePort: 70000: must be between 1 and 65535",
        ),
        (
            balanced("healthCheckNodePort: 32000"),
            "spec.healthCheckNodePort: 32000: may be given for type LoadBalancer with externalTrafficPolicy Local only",
        ),
        (ingress("{ip: 203.0.113}"), "status.loadBalancer.ingress[0].ip: 203.0.113: must be an IPv4 or IPv6 address"),
        (
            ingress("{hostname: a.b}, {ip: 203.0.113.5, ipMode: NAT}"),
            "status.loadBalancer.ingress[1].ipMode: NAT: must be VIP or Proxy",
        ),
    ] {
        assert_eq!(refused(&text), format!("service/web: {why}"), "{text}");
    }
    for (text, why) in [
        (hinted("forZones: [{name: \"\"}]"), "endpoints[0].hints.forZones[0].name: must be given"),
        (hinted(&format!("forNodes: [{}]", nine.join(", "))), "endpoints[0].hints.forNodes: 9: may hold 8 names"),
    ] {
        assert_eq!(refused(&text), format!("endpointslice.discovery.k8s.io/a: {why}"), "{text}");
    }
    let many = |what: &str, one: &str, count: usize| format!("{what}: [{}]", vec![one; count].join(", "));
    for (text, why) in [
        (many("externalIPs", "192.0.2.1", 101), "spec.externalIPs: 101: may hold 100 addresses"),
        (
            many("loadBalancerSourceRanges", "192.0.2.0/24", 1001),
            "spec.loadBalancerSourceRanges: 1001: may hold 1000 prefixes",
        ),
    ] {
        assert_eq!(refused(&balanced(&text)), format!("service/web: {why}"));
    }
    let full = vec!["{ip: 192.0.2.1}"; 101].join(", ");
    let why = "service/web: status.loadBalancer.ingress: 101: may hold 100 addresses";
    assert_eq!(refused(&ingress(&full)), why);
}

#[test]
fn a_pod_cidr_whose_gateway_is_a_pod_s_address_is_refused() {
    let mut bed = Bed::applied(&pod("a", "10.2.0.1"));
    let lines = bed.apply(&node("n2", "192.168.0.2", "10.2.0.0/24"));
    let why =
        "node/n2: spec.podCIDRs[0]: 10.2.0.0/24: its gateway 10.2.0.1 is the address of pod/a in namespace default";
    assert_eq!(lines, [why]);
}

#[test]
fn all_others_of_the_same_text_are_taken() {
    let mut bed = Bed::new();
    let text = service("a", "10.96.0.1") + "---\na: [\n" + &service("b", "10.96.0.1") + &service("c", "10.96.0.3");
    let lines = bed.apply(&text);
    assert_eq!((&lines[0][..], &lines[3][..]), ("service/a created", "service/c created"));
    assert!(lines[1].starts_with("x.yaml: document 3: "), "{lines:?}");
    assert_eq!(lines[2], "service/b: spec.clusterIP: 10.96.0.1: is the address of service/a in namespace default");
}

#[test]
fn a_name_of_ten_million_letters_is_refused_in_one_short_line() {
    for name in ["x".repeat(10 << 20), "x".repeat(1 << 20)] {
        let why = refused(&service(&name, "10.96.0.1"));
        assert!(why.len() < 400 && !why.contains('\n'), "{}", &why[..400]);
    }
}

/// A good manifest with some of its octets changed.
fn mutated() -> impl Strategy<Value = String> {
    let good = node("n2", "192.168.0.2", "10.2.0.0/24")
        + &service("web", "10.96.0.1")
        + &super::balanced("lb", "10.96.0.2")
        + &pod("a", "10.2.0.2")
        + "---\n"
        + SLICE
        + "addressType: IPv4\nports: [{port: 80}]\n\
           endpoints: [{addresses: [10.2.0.2], zone: a, hints: {forZones: [{name: a}], forNodes: [{name: n1}]}}]\n";
    let edits = proptest::collection::vec((any::<prop::sample::Index>(), 0..4u8, any::<char>()), 1..6);
    edits.prop_map(move |edits| {
        let mut text: Vec<char> = good.chars().collect();
        for (at, kind, letter) in edits {
            let at = at.index(text.len());
            match kind {
                0 => text[at] = letter,
                1 => drop(text.remove(at)),
                2 => text.insert(at, letter),
                _ => text[at] = ['0', ' ', '\n', '{', ']', ':', '&', '*'][at % 8],
            }
        }
        text.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_text_panics_and_what_is_refused_changes_nothing(text in mutated()) {
        let mut bed = Bed::new();
        let lines = bed.apply(&text);
        let taken = lines.iter().filter(|line| line.ends_with(" created")).count();
        prop_assert_eq!(bed.cluster.store.applied().count(), taken, "{:?}", lines);
        prop_assert!(lines.iter().all(|line| !line.contains('\n')));
        let before = bed.all();
        prop_assert_eq!(bed.reopen().all(), before);
    }
}
