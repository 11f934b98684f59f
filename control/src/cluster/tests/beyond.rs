//! What manifests say of clients from beyond the cluster, of affinity, of topology and of nodes, as it is kept.

use super::*;
use crate::cluster::model::{Distribution, External, Ingress, Policy, Service};

fn kept(bed: &Bed, name: &str) -> Service {
    let services = &bed.cluster.store.objects().services;
    services.values().find(|service| *service.id.name == *name).unwrap().as_ref().clone()
}

#[test]
fn every_field_of_a_balanced_service_is_kept() {
    let mut bed = Bed::applied(&balanced("web", "10.96.0.1"));
    let web = kept(&bed, "web");
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let ingress = |text: &str, proxied| Ingress { address: address(text), proxied };
    assert_eq!(
        web.external,
        External {
            policy: Policy::Local,
            // Sloppy, and each once.
            ips: vec![address("198.51.100.1"), address("fd00:5::1")],
            ingress: vec![ingress("203.0.113.5", false), ingress("203.0.113.6", true)],
            // Trimmed, and without host bits.
            sources: ["192.0.2.0/24", "10.0.0.0/8", "::/0"].map(|net| net.parse().unwrap()).to_vec(),
            health_port: Some(32000),
        }
    );
    assert_eq!((web.internal_policy, web.distribution), (Policy::Local, Distribution::SameZone));
    assert_eq!((web.affinity, web.created), (Some(10_800), Some(1_767_225_600)));
    assert_eq!(web.ports[0].node_port, Some(30080));
    let table = "NAMESPACE  NAME  TYPE          CLUSTER-IP  EXTERNAL-IP                                     PORT(S)       SELECTOR\n\
                 default    web   LoadBalancer  10.96.0.1   203.0.113.5,203.0.113.6,198.51.100.1,fd00:5::1  80:30080/TCP  <none>\n";
    assert_eq!(bed.get("svc"), table);

    // Of another type its status says nothing any more.
    let spec = "{type: ClusterIP, clusterIP: 10.96.0.1, ports: [{port: 80}]}";
    let status = "status: {loadBalancer: {ingress: [{ip: 203.0.113.5}]}}";
    let cluster = format!("apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {spec}\n{status}\n");
    assert_eq!(bed.apply(&cluster), ["service/web configured"]);
    assert_eq!(kept(&bed, "web").external, External::default());
}

#[test]
fn a_service_without_those_fields_has_their_defaults() {
    let bed = Bed::applied(&service("web", "10.96.0.1"));
    let web = kept(&bed, "web");
    assert_eq!((web.internal_policy, web.affinity, web.created), (Policy::Cluster, None, None));
    assert_eq!((web.distribution, web.external), (Distribution::Even, External::default()));
}

#[test]
fn v5_the_timeout_of_affinity_is_between_a_second_and_a_day() {
    for (timeout, kept_for) in [("", 10_800), ("1", 1), ("86400", 86_400)] {
        let config = format!("sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {timeout}}}}}");
        let spec = format!("spec: {{sessionAffinity: ClientIP, {config}, ");
        let bed = Bed::applied(&service("web", "10.96.0.1").replace("spec: {", &spec));
        assert_eq!(kept(&bed, "web").affinity, Some(kept_for), "{timeout}");
    }
}

#[test]
fn v12_a_load_balancer_may_do_without_node_ports() {
    let bed = Bed::applied(&balanced("web", "10.96.0.1").replace("nodePort: 30080", "nodePort: 0"));
    assert_eq!(kept(&bed, "web").ports[0].node_port, None);
}

#[test]
fn v14_a_node_leaves_when_it_is_deleted_or_the_autoscaler_says_so() {
    let node = node("n1", "192.168.0.1", "10.1.0.0/24");
    let deleted = node.replace("{name: n1}", "{name: n1, deletionTimestamp: \"2026-01-01T00:00:00Z\"}");
    let taint = |key: &str| node.replace("spec: {", &format!("spec: {{taints: [{{key: {key}, effect: NoSchedule}}], "));
    for (text, leaving) in [
        (node.clone(), None),
        (deleted, Some("is being deleted")),
        (taint("ToBeDeletedByClusterAutoscaler"), Some("has the taint ToBeDeletedByClusterAutoscaler")),
        (taint("node.kubernetes.io/unschedulable"), None),
    ] {
        let bed = Bed::applied(&text);
        assert_eq!(bed.cluster.store.objects().nodes["n1"].leaving, leaving, "{text}");
    }
}

#[test]
fn the_addresses_of_a_node_are_kept_by_type_and_each_once() {
    let more = "[{type: ExternalIP, address: 203.0.113.1}, {type: ExternalIP, address: 192.168.0.1}, \
                {type: Hostname, address: n1}, {type: InternalIP, address: \"fd01::1\"}, ";
    let bed =
        Bed::applied(&node("n1", "192.168.0.1", "10.1.0.0/24").replace("addresses: [", &format!("addresses: {more}")));
    let node = &bed.cluster.store.objects().nodes["n1"];
    let told = |addresses: &[IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        (told(&node.addresses), told(&node.external)),
        (vec!["fd01::1".to_owned(), "192.168.0.1".to_owned()], vec!["203.0.113.1".to_owned()],)
    );
    assert_eq!(node.primary().map(|a| a.to_string()).collect::<Vec<_>>(), ["192.168.0.1", "fd01::1"]);
}
