//! The cluster as a whole: manifests in, objects in force out.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use super::*;

mod beyond;
mod directory;
mod load;
mod policies;
mod refused;
mod slices;

/// A cluster of its own directory.
struct Bed {
    directory: tempfile::TempDir,
    cluster: Cluster,
}

impl Bed {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cluster = Cluster::open(directory.path(), None).unwrap();
        Self { directory, cluster }
    }

    /// One line an object: what it came to.
    fn apply(&mut self, text: &str) -> Vec<String> {
        apply(&mut self.cluster, &manifest(text))
    }

    fn applied(text: &str) -> Self {
        let mut bed = Self::new();
        for line in bed.apply(text) {
            assert!(line.ends_with(" created"), "{line}");
        }
        bed
    }

    fn delete(&mut self, kind: &str, name: &str) -> Vec<String> {
        delete(&mut self.cluster, kind, name)
    }

    fn reopen(self) -> Self {
        let Self { directory, cluster } = self;
        drop(cluster);
        let mut cluster = Cluster::open(directory.path(), None).unwrap();
        settle(&mut cluster);
        Self { directory, cluster }
    }

    fn get(&self, kind: &str) -> String {
        get(&self.cluster, kind, Some(Output::Wide))
    }

    /// Everything that can be seen.
    fn all(&self) -> String {
        let kinds = "no,ns,po,svc,eps,servicecidr,netpol,cnp";
        get(&self.cluster, kinds, Some(Output::Wide)) + &get(&self.cluster, kinds, Some(Output::Json))
    }
}

fn get(cluster: &Cluster, kind: &str, output: Option<Output>) -> String {
    cluster.get(&Wanted { kind, names: &[], namespace: None, output }).unwrap().to_string()
}

fn manifest(text: &str) -> Manifest {
    Manifest { name: "x.yaml".to_owned(), text: text.to_owned() }
}

fn lines(rows: Vec<ObjectRow>) -> Vec<String> {
    rows.iter().map(ToString::to_string).collect()
}

/// What follows a change, but for the switch.
fn settle(cluster: &mut Cluster) {
    cluster.store.take_changed();
    cluster.keep().unwrap();
}

fn apply(cluster: &mut Cluster, manifest: &Manifest) -> Vec<String> {
    let rows = cluster.apply(std::slice::from_ref(manifest), "default").unwrap();
    settle(cluster);
    lines(rows)
}

fn delete(cluster: &mut Cluster, kind: &str, name: &str) -> Vec<String> {
    let rows = cluster.delete(kind, &[name.to_owned()], "default").unwrap();
    settle(cluster);
    lines(rows)
}

fn service(name: &str, address: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{clusterIP: \"{address}\", ports: [{{port: 80}}]}}\n"
    )
}

/// A service with everything that is for clients from beyond the cluster.
fn balanced(name: &str, address: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\n\
         metadata: {{name: {name}, creationTimestamp: \"2026-01-01T00:00:00Z\"}}\n\
         spec: {{type: LoadBalancer, clusterIP: \"{address}\", ports: [{{port: 80, nodePort: 30080}}],\n\
         \x20 externalTrafficPolicy: Local, internalTrafficPolicy: Local, healthCheckNodePort: 32000,\n\
         \x20 externalIPs: [\"198.051.100.1\", \"198.51.100.1\", \"fd00:5::1\"],\n\
         \x20 loadBalancerSourceRanges: [\" 192.0.2.0/24\\t\", \"010.0.0.1/8\", \"::/0\"],\n\
         \x20 sessionAffinity: ClientIP, trafficDistribution: PreferClose, allocateLoadBalancerNodePorts: false}}\n\
         status: {{loadBalancer: {{ingress: [{{ip: 203.0.113.5}}, {{ip: 203.0.113.6, ipMode: Proxy}}, {{hostname: a.b}}]}}}}\n"
    )
}

fn node(name: &str, address: &str, cidr: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{podCIDRs: [\"{cidr}\"]}}\n\
         status: {{addresses: [{{type: InternalIP, address: \"{address}\"}}]}}\n"
    )
}

/// A pod `app: web` that is ready, unless `more` (of its status) says otherwise.
fn pod(name: &str, address: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: web}}}}\n\
         spec: {{nodeName: n1, containers: [{{name: c, ports: [{{name: http, containerPort: 8080}}]}}]}}\n\
         status: {{podIPs: [{{ip: \"{address}\"}}], conditions: [{{type: Ready, status: \"True\"}}]}}\n"
    )
}

#[test]
fn objects_survive_a_restart() {
    let mut bed = Bed::applied(&(node("n1", "192.168.0.1", "10.1.0.0/24") + &service("web", "10.96.0.1")));
    bed.apply(&(pod("a", "10.1.0.2") + &service("gone", "10.96.0.2")));
    assert_eq!(bed.apply(&service("web", "10.96.0.1")), ["service/web unchanged"]);
    assert_eq!(bed.delete("svc", "gone"), ["service/gone deleted"]);
    let before = bed.all();
    assert!(before.contains("10.96.0.1") && !before.contains("gone"));
    let mut bed = bed.reopen();
    assert_eq!(bed.all(), before);
    assert_eq!(bed.apply(&service("gone", "10.96.0.2")), ["service/gone created"]);
}

#[test]
fn a_full_disk_takes_everything_back() {
    let mut bed = Bed::applied(&service("web", "10.96.0.1"));
    let before = bed.all();
    bed.cluster.fill_disk();
    let texts = [manifest(&(service("web", "10.96.0.1").replace("80", "81") + &service("new", "10.96.0.2")))];
    assert_eq!(lines(bed.cluster.apply(&texts, "default").unwrap()), ["service/web configured", "service/new created"]);
    assert!(bed.cluster.keep().is_err());
    assert_eq!(bed.all(), before);
    assert_eq!(bed.reopen().all(), before);
}

#[test]
fn s6_the_address_of_a_service_stays() {
    let mut bed = Bed::applied(&service("web", "10.96.0.1"));
    let refused = "service/web: spec.clusterIP: 10.96.0.2: may not change: it is 10.96.0.1";
    assert_eq!(bed.apply(&service("web", "10.96.0.2")), [refused]);
    assert_eq!(bed.apply(&service("web", "010.96.000.001").replace("80", "81")), ["service/web configured"]);
    let external =
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {type: ExternalName, externalName: a.b}\n";
    assert_eq!(bed.apply(external), ["service/web configured"]);
    assert_eq!(bed.apply(&service("web", "10.96.0.2")), ["service/web configured"]);
}

#[test]
fn m4_a_pod_of_the_host_network_has_the_address_of_its_node_as_it_is_now() {
    let host = pod("a", "x").replace("nodeName", "hostNetwork: true, nodeName").replace("podIPs: [{ip: \"x\"}], ", "");
    let mut bed = Bed::applied(&host);
    let address = |bed: &Bed| {
        let pods = &bed.cluster.store.objects().pods;
        pods.values().next().unwrap().addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>()
    };
    assert!(address(&bed).is_empty());
    bed.apply(&node("n1", "192.168.0.1", "10.1.0.0/24"));
    assert_eq!(address(&bed), ["192.168.0.1"]);
    bed.apply(&node("n1", "192.168.0.2", "10.1.0.0/24"));
    assert_eq!(address(&bed), ["192.168.0.2"]);
    bed.delete("node", "n1");
    assert!(address(&bed).is_empty());
}

#[test]
fn a_slice_of_no_service_is_kept_and_unknown_kinds_are_named() {
    let mut bed = Bed::new();
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
                 metadata: {name: a, labels: {kubernetes.io/service-name: nobody}}\n\
                 endpoints: [{addresses: [10.0.0.1]}]\nports: [{port: 80}]\n";
    assert_eq!(bed.apply(slice), ["endpointslice.discovery.k8s.io/a created"]);
    let table = "NAMESPACE  NAME  ADDRESSTYPE  PORTS  ENDPOINTS  MANAGED-BY  SERVICE\n\
                 default    a     IPv4         80     10.0.0.1   <none>      nobody\n";
    assert_eq!(bed.get("eps"), table);
    let line = "ingress/x skipped (networking.k8s.io/v1 Ingress is nothing to a switch)";
    assert_eq!(bed.apply("apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: x}\n"), [line]);
}
