//! Slices made from pods: what the EndpointSlice controller of Kubernetes would make.

use super::*;
use crate::cluster::model::Slice;

const WEB: &str = "---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\n\
                   spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 80, targetPort: http}]}\n";

/// Slices of the service `web`, in a line each: family, ports, endpoints with ready, serving, terminating as letters.
fn told(bed: &Bed) -> Vec<String> {
    let objects = bed.cluster.store.objects();
    let line = |slice: &std::sync::Arc<Slice>| {
        let ports: Vec<_> = slice.ports.iter().map(|port| format!("{}/{}", port.port, port.proto)).collect();
        let endpoint = |endpoint: &model::SliceEndpoint| {
            let letter = |flag, letter| if flag { letter } else { "" };
            let (ready, serving) = (letter(endpoint.ready, "r"), letter(endpoint.serving, "s"));
            format!("{}={ready}{serving}{}", endpoint.address, letter(endpoint.terminating, "t"))
        };
        let endpoints: Vec<_> = slice.endpoints.iter().map(endpoint).collect();
        assert!(slice.ours && slice.id.name.starts_with("web-") && slice.id.name.len() == 9);
        format!("{} {} {}", slice.family.name(), ports.join(","), endpoints.join(" ")).trim_end().to_owned()
    };
    let mut lines: Vec<_> = objects.slices.values().map(line).collect();
    lines.sort();
    lines
}

#[test]
fn e3_conditions_are_those_of_the_pod() {
    let terminating =
        pod("b", "10.1.0.3").replace("{name: b,", "{name: b, deletionTimestamp: \"2026-01-01T00:00:00Z\",");
    let unready = pod("c", "10.1.0.4").replace("\"True\"", "\"False\"");
    let finished = pod("d", "10.1.0.5").replace("status: {", "status: {phase: Failed, ");
    let bare = pod("e", "x").replace("podIPs: [{ip: \"x\"}], ", "");
    let other = pod("f", "10.1.0.6").replace("app: web", "app: db");
    let bed = Bed::applied(&(pod("a", "10.1.0.2") + &terminating + &unready + &finished + &bare + &other + WEB));
    assert_eq!(told(&bed), ["IPv4 8080/TCP 10.1.0.2=rs 10.1.0.3=st 10.1.0.4="]);
    assert!(bed.get("eps").contains("vswitch"), "{}", bed.get("eps"));
    let yaml = get(&bed.cluster, "eps", Some(Output::Yaml));
    assert!(yaml.contains("endpointslice.kubernetes.io/managed-by: vswitch"), "{yaml}");
}

#[test]
fn e6_publish_not_ready_addresses_makes_all_ready() {
    let unready = pod("c", "10.1.0.4").replace("\"True\"", "\"False\"");
    let bed = Bed::applied(&(unready + &WEB.replace("spec: {", "spec: {publishNotReadyAddresses: true, ")));
    assert_eq!(told(&bed), ["IPv4 8080/TCP 10.1.0.4=r"]);
}

#[test]
fn e4_a_named_port_is_that_of_each_pod() {
    let other = pod("b", "10.1.0.3").replace("8080", "9090");
    let nameless = pod("c", "10.1.0.4").replace("name: http", "name: other");
    let wrong_protocol = pod("d", "10.1.0.5").replace("name: http", "protocol: UDP, name: http");
    let bed = Bed::applied(&(pod("a", "10.1.0.2") + &other + &nameless + &wrong_protocol + WEB));
    let wanted = ["IPv4  10.1.0.4=rs 10.1.0.5=rs", "IPv4 8080/TCP 10.1.0.2=rs", "IPv4 9090/TCP 10.1.0.3=rs"];
    assert_eq!(told(&bed), wanted);
}

#[test]
fn s3_each_family_of_the_service_has_its_slices() {
    let dual = pod("a", "10.1.0.2").replace("{ip: \"10.1.0.2\"}", "{ip: 10.1.0.2}, {ip: \"fd00::2\"}");
    let service = WEB.replace("clusterIP: 10.96.0.1", "clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, \"fd00:96::1\"]");
    let mut bed = Bed::applied(&(dual + &service));
    assert_eq!(told(&bed), ["IPv4 8080/TCP 10.1.0.2=rs", "IPv6 8080/TCP fd00::2=rs"]);
    bed.delete("pod", "a");
    assert_eq!(told(&bed), ["IPv4", "IPv6"], "so that it can be seen that there are none");
}

#[test]
fn a_slice_has_a_hundred_endpoints_at_most_and_a_name_that_stays() {
    let pods: String = (0..250).map(|n| pod(&format!("p{n}"), &format!("10.1.{}.{}", n / 100, n % 100 + 1))).collect();
    let bed = Bed::applied(&(WEB.to_owned() + &pods));
    let sizes: Vec<_> = bed.cluster.store.objects().slices.values().map(|slice| slice.endpoints.len()).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 250);
    assert_eq!((sizes.len(), sizes.iter().max()), (3, Some(&100)));
    let before = bed.all();
    assert_eq!(bed.reopen().all(), before);
}

#[test]
fn e1_ours_are_gone_while_a_manifest_describes_slices_of_the_service() {
    let mut bed = Bed::applied(&(pod("a", "10.1.0.2") + WEB));
    let ours = told(&bed);
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
                 metadata: {name: theirs, labels: {kubernetes.io/service-name: web}}\nendpoints: []\n";
    bed.apply(slice);
    let names: Vec<_> = bed.cluster.store.objects().slices.keys().map(|id| id.name.to_string()).collect();
    assert_eq!(names, ["theirs"]);
    bed.delete("eps", "theirs");
    assert_eq!(told(&bed), ours);
    let name = bed.cluster.store.objects().slices.keys().next().unwrap().name.to_string();
    let line = format!("endpointslice.discovery.k8s.io/{name}: made from the pods of its service: it goes with them");
    assert_eq!(bed.delete("eps", &name), [line]);
    bed.apply(&slice.replace("theirs", &name).replace("service-name: web", "service-name: db"));
    let owners: Vec<_> = bed.cluster.store.objects().slices_of.keys().map(|id| id.name.to_string()).collect();
    assert_eq!(owners, ["db", "web"], "a name that is taken is not ours");
}

#[test]
fn a_change_of_labels_or_selector_moves_the_pod() {
    let mut bed = Bed::applied(&(pod("a", "10.1.0.2") + &pod("b", "10.1.0.3") + WEB));
    bed.apply(&pod("b", "10.1.0.3").replace("app: web", "app: db"));
    assert_eq!(told(&bed), ["IPv4 8080/TCP 10.1.0.2=rs"]);
    bed.apply(&WEB.replace("app: web", "app: db"));
    assert_eq!(told(&bed), ["IPv4 8080/TCP 10.1.0.3=rs"]);
    bed.apply(&WEB.replace("app: web", "app: web, tier: x"));
    assert_eq!(told(&bed), ["IPv4"]);
    bed.delete("svc", "web");
    assert_eq!(told(&bed), [""; 0]);
}

/// What the slices of the service say of where endpoints are and are for: address, zone, zones hinted, nodes hinted.
fn topology(bed: &Bed) -> Vec<String> {
    let slices = bed.cluster.store.objects().slices.values();
    let line = |endpoint: &model::SliceEndpoint| {
        let hints = endpoint.hints.as_deref();
        let zones = hints.map(|hints| hints.zones.join(",")).unwrap_or_default();
        let nodes = hints.map(|hints| hints.nodes.join(",")).unwrap_or_default();
        format!("{} {} {zones} {nodes}", endpoint.address, endpoint.zone.as_deref().unwrap_or("-"))
    };
    slices.flat_map(|slice| slice.endpoints.iter().map(line)).collect()
}

fn in_zone(name: &str, address: &str, zone: &str) -> String {
    let labels = format!("metadata: {{name: {name}, labels: {{topology.kubernetes.io/zone: {zone}}}}}");
    node(name, address, "10.9.0.0/24").replace(&format!("metadata: {{name: {name}}}"), &labels)
}

#[test]
fn t4_hints_are_those_of_the_traffic_distribution() {
    let unready = pod("b", "10.1.0.3").replace("\"True\"", "\"False\"");
    let away = pod("c", "10.1.0.4").replace("nodeName: n1", "nodeName: n2");
    let objects = in_zone("n1", "192.168.0.1", "a") + &pod("a", "10.1.0.2") + &unready + &away;
    let auto = "{name: web, annotations: {service.kubernetes.io/topology-mode: Auto}}";
    for (wish, metadata, hinted) in [
        ("", "{name: web}", ["10.1.0.2 a  ", "10.1.0.3 a  ", "10.1.0.4 -  "]),
        ("PreferSameZone", "{name: web}", ["10.1.0.2 a a ", "10.1.0.3 a  ", "10.1.0.4 -  "]),
        ("PreferClose", "{name: web}", ["10.1.0.2 a a ", "10.1.0.3 a  ", "10.1.0.4 -  "]),
        ("PreferSameNode", "{name: web}", ["10.1.0.2 a a n1", "10.1.0.3 a  ", "10.1.0.4 -  n2"]),
        ("PreferSameNode", auto, ["10.1.0.2 a  ", "10.1.0.3 a  ", "10.1.0.4 -  "]),
    ] {
        let web = WEB.replace("spec: {", &format!("spec: {{trafficDistribution: \"{wish}\", "));
        let bed = Bed::applied(&(objects.clone() + &web.replace("{name: web}", metadata)));
        assert_eq!(topology(&bed), hinted, "{wish} {metadata}");
    }
}

#[test]
fn t5_hints_follow_the_zone_of_a_node() {
    let web = WEB.replace("spec: {", "spec: {trafficDistribution: PreferSameZone, ");
    let mut bed = Bed::applied(&(pod("a", "10.1.0.2") + &web));
    assert_eq!(topology(&bed), ["10.1.0.2 -  "]);
    bed.apply(&in_zone("n1", "192.168.0.1", "a"));
    assert_eq!(topology(&bed), ["10.1.0.2 a a "]);
    let yaml = get(&bed.cluster, "eps", Some(Output::Yaml));
    assert!(yaml.contains("zone: a") && yaml.contains("forZones") && !yaml.contains("forNodes"), "{yaml}");
    bed.apply(&in_zone("n1", "192.168.0.1", "b"));
    assert_eq!(topology(&bed), ["10.1.0.2 b b "]);
    bed.delete("node", "n1");
    assert_eq!(topology(&bed), ["10.1.0.2 -  "]);
}
