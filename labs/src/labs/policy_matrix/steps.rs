//! The steps of NetworkPolicy: each a few policies, and one plain sentence that says what passes under them.
//!
//! The sentence is written from the rule, not from the policies' text, and knows nothing of how the switch decides.

use super::PODS;
use crate::labs::cluster::Ip;
use crate::labs::grid::Case;
use crate::labs::tenants::namespace;
use crate::mesh::Transport::{Sctp, Tcp, Udp};

pub(super) const WITHOUT: &str = "N1 without policies every pod, the node and the outside reach every pod";

/// A step of the series.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// What it shows, with the rows of the specification.
    pub(super) claim: &'static str,
    pub(super) policies: &'static [Policy],
    /// What changes once they are there.
    pub(super) change: &'static [Change],
    /// What passes between two different ends, the node aside.
    passes: fn(&Case) -> bool,
}

/// A policy: where it is and its `spec`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Policy {
    /// Of a namespace. Its name says which of several it is.
    Of(&'static str, &'static str, &'static str),
    /// Of the cluster.
    Cluster(&'static str, &'static str),
}

/// Labels that change.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Pod(&'static str, &'static str),
    Namespace(&'static str, &'static str),
}

impl Step {
    pub(super) const fn new(claim: &'static str, policies: &'static [Policy], passes: fn(&Case) -> bool) -> Self {
        Self { claim, policies, change: &[], passes }
    }

    /// What passes: a pod reaches itself (N19), and the node every pod of its own (N18), whatever the policies are.
    pub(super) fn expects(&self, case: &Case) -> bool {
        case.from == case.to || case.from == "node" || (self.passes)(case)
    }

    pub(super) fn manifests(&self) -> String {
        self.policies.iter().map(Policy::manifest).collect()
    }

    pub(super) fn changes(&self) -> String {
        let object = |change: &Change| match change {
            Change::Pod(name, labels) => {
                PODS.iter().find(|spec| spec.name == *name).map_or_else(String::new, |spec| spec.labelled(labels))
            }
            Change::Namespace(name, labels) => namespace(name, labels),
        };
        self.change.iter().map(object).collect()
    }
}

impl Policy {
    fn manifest(&self) -> String {
        match self {
            Self::Of(namespace, name, spec) => format!(
                "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
                 metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n"
            ),
            Self::Cluster(name, spec) => format!(
                "---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n\
                 metadata: {{name: {name}}}\nspec: {{{spec}}}\n"
            ),
        }
    }
}

impl Case {
    pub(super) fn is_from(&self, namespace: &str) -> bool {
        self.from.split('/').next() == Some(namespace)
    }

    pub(super) fn is_to(&self, namespace: &str) -> bool {
        self.to.split('/').next() == Some(namespace)
    }

    /// It is asked by a pod.
    fn is_from_pod(&self) -> bool {
        self.from.contains('/')
    }

    /// The destination's name in its namespace.
    fn pod(&self) -> &'static str {
        self.to.split('/').nth(1).unwrap_or_default()
    }

    pub(super) fn v4(&self) -> bool {
        self.ip == Ip::V4
    }

    /// Where the destination has its port `web`.
    pub(super) fn is_to_web(&self) -> bool {
        self.over == Tcp && self.port == if self.pod() == "c" { 81 } else { 80 }
    }
}

use Policy::Of;

pub(super) const STEPS: &[Step] = &[
    Step::new(
        "N6 N7 N18 N19 N21 where all namespaces deny both directions, a pod reaches itself, and the node every pod",
        &[
            Of("x", "deny", "podSelector: {}, policyTypes: [Ingress, Egress]"),
            Of("y", "deny", "podSelector: {}, policyTypes: [Egress, Ingress], ingress: [], egress: []"),
            Of("z", "deny", "podSelector: {}, policyTypes: [Ingress, Egress]"),
        ],
        |_| false,
    ),
    Step::new(
        "N7 N17 N25 ingress denied in x: nobody reaches it, it reaches everybody else and is answered",
        &[Of("x", "deny", "podSelector: {}, policyTypes: [Ingress]")],
        |case| !case.is_to("x"),
    ),
    Step::new(
        "N7 N17 egress denied in x: it reaches nobody, everybody else reaches it and is answered",
        &[Of("x", "deny", "podSelector: {}, policyTypes: [Egress]")],
        |case| !case.is_from("x"),
    ),
    Step::new(
        "N6 a policy selects pods by labels: ingress is denied to b of x alone",
        &[Of("x", "deny", "podSelector: {matchLabels: {pod: b}}, policyTypes: [Ingress]")],
        |case| case.to != "x/b",
    ),
    Step::new(
        "N9 a namespace selector lets in all pods of y",
        &[Of("x", "from-y", "podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}]}]")],
        |case| !case.is_to("x") || case.is_from("y"),
    ),
    Step::new(
        "N9 both selectors in one entry mean both: b of y, and nobody else",
        &[Of(
            "x",
            "both",
            "podSelector: {}, ingress: [{from: \
             [{namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchLabels: {pod: b}}}]}]",
        )],
        |case| !case.is_to("x") || case.from == "y/b",
    ),
    Step::new(
        "N9 both selectors in two entries mean either: all of y, and b of the policy's own namespace",
        &[Of(
            "x",
            "either",
            "podSelector: {}, ingress: [{from: \
             [{namespaceSelector: {matchLabels: {ns: y}}}, {podSelector: {matchLabels: {pod: b}}}]}]",
        )],
        |case| !case.is_to("x") || case.is_from("y") || case.from == "x/b",
    ),
    Step::new(
        "N8 N9 an empty namespace selector is every pod and no other address, an empty pod selector every pod of the namespace",
        &[
            Of("x", "pods", "podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]"),
            Of("y", "own", "podSelector: {}, ingress: [{from: [{podSelector: {}}]}]"),
            Of("z", "all", "podSelector: {}, ingress: [{from: []}]"),
        ],
        |case| match case.to.split('/').next() {
            Some("x") => case.is_from_pod(),
            Some("y") => case.is_from("y"),
            _ => true,
        },
    ),
    Step::new(
        "N10 expressions: namespaces by the name that each has as a label, pods by a label that is not c",
        &[Of(
            "x",
            "expressions",
            "podSelector: {matchExpressions: [{key: pod, operator: Exists}]}, ingress: [{from: [{\
             namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [y, z]}]}, \
             podSelector: {matchExpressions: [{key: pod, operator: NotIn, values: [c]}, {key: none, operator: DoesNotExist}]}\
             }]}]",
        )],
        |case| !case.is_to("x") || matches!(case.from, "y/a" | "y/b" | "z/a" | "z/b"),
    ),
    Step::new(
        "N8 N11 ports: a number is TCP's, a protocol all its ports, neither is all of TCP",
        &[
            Of("x", "number", "podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 80}]}]"),
            Of("x", "protocol", "podSelector: {matchLabels: {pod: b}}, ingress: [{ports: [{protocol: UDP}]}]"),
            Of("x", "neither", "podSelector: {matchLabels: {pod: c}}, ingress: [{ports: [{}]}]"),
        ],
        |case| match case.to {
            "x/a" => case.over == Tcp && case.port == 80,
            "x/b" => case.over == Udp,
            "x/c" => case.over == Tcp,
            _ => true,
        },
    ),
    Step::new(
        "N21 a policy of SCTP alone isolates, and never opens TCP or UDP",
        &[Of("x", "sctp", "podSelector: {}, ingress: [{ports: [{protocol: SCTP, port: 80}]}]")],
        |case| !case.is_to("x") || (case.over == Sctp && case.port == 80),
    ),
    Step::new(
        "N12 a port by name is each destination's own, of its protocol, for ingress and egress",
        &[
            Of(
                "x",
                "named",
                "podSelector: {}, ingress: [{ports: [{port: web}, {protocol: SCTP, port: sig}, {protocol: UDP, port: web}]}]",
            ),
            Of(
                "z",
                "named",
                "podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: web}]}]",
            ),
        ],
        |case| {
            let sig = case.pod() == "a" && case.over == Sctp && case.port == 81;
            (!case.is_to("x") || case.is_to_web() || sig) && (!case.is_from("z") || case.is_to_web())
        },
    ),
    Step::new(
        "N13 a range of ports has both its ends, and no other protocol's",
        &[
            Of("x", "whole", "podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 80, endPort: 81}]}]"),
            Of(
                "x",
                "begins",
                "podSelector: {matchLabels: {pod: b}}, ingress: [{ports: [{protocol: UDP, port: 81, endPort: 90}]}]",
            ),
            Of(
                "x",
                "ends",
                "podSelector: {matchLabels: {pod: c}}, ingress: [{ports: [{protocol: SCTP, port: 1, endPort: 80}]}]",
            ),
        ],
        |case| match case.to {
            "x/a" => case.over == Tcp,
            "x/b" => case.over == Udp && case.port == 81,
            "x/c" => case.over == Sctp && case.port == 80,
            _ => true,
        },
    ),
    Step::new(
        "N14 N15 a block of addresses is pods and others, each version of IP by itself, less what it excepts",
        &[Of(
            "x",
            "block",
            "podSelector: {}, ingress: [{from: [\
             {ipBlock: {cidr: 10.244.1.0/24, except: [10.244.1.32/28, 10.244.1.49/32]}}, {ipBlock: {cidr: 10.244.1.33/32}}, \
             {ipBlock: {cidr: \"fd00:244:1::/64\", except: [\"fd00:244:1::1:0/112\"]}}, {ipBlock: {cidr: \"2001:db8::/64\"}}]}]",
        )],
        |case| {
            let v4 = case.is_from("x") || matches!(case.from, "y/a" | "z/b" | "z/c");
            let v6 = case.is_from("y") || case.is_from("z") || case.from == "outside";
            !case.is_to("x") || if case.v4() { v4 } else { v6 }
        },
    ),
    Step::new(
        "N14 N15 a block as the destination of z",
        &[Of(
            "z",
            "block",
            "podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.244.1.16/28, except: [10.244.1.18/32]}}]}]",
        )],
        |case| !case.is_from("z") || (case.v4() && matches!(case.to, "x/a" | "x/c")),
    ),
    Step::new(
        "N2 N3 both ends have to allow, and several policies allow what any of them does",
        &[
            Of(
                "x",
                "to-y",
                "podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: y}}}]}]",
            ),
            Of(
                "y",
                "tcp",
                "podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}], ports: [{port: 80}]}]",
            ),
            Of(
                "y",
                "udp",
                "podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}], ports: [{protocol: UDP}]}]",
            ),
        ],
        |case| {
            let into_y = case.is_from("x") && (case.over == Udp || (case.over == Tcp && case.port == 80));
            (!case.is_from("x") || case.is_to("y")) && (!case.is_to("y") || into_y)
        },
    ),
    Step::new(
        "N4 N5 without types egress rules isolate ingress too; with types the rules of the other direction are nothing",
        &[
            Of("x", "no-types", "podSelector: {}, egress: [{to: [{namespaceSelector: {matchLabels: {ns: y}}}]}]"),
            Of(
                "y",
                "egress",
                "podSelector: {}, policyTypes: [Egress], egress: [{}], ingress: [{from: [{podSelector: {}}]}]",
            ),
            Of(
                "z",
                "ingress",
                "podSelector: {}, policyTypes: [Ingress], ingress: [{}], egress: [{ports: [{port: 9}]}]",
            ),
        ],
        |case| !case.is_to("x") && (!case.is_from("x") || case.is_to("y")),
    ),
    Step {
        change: &[
            Change::Pod("y/c", "pod: b"),
            Change::Pod("y/b", "pod: b, more: labels"),
            Change::Namespace("z", "ns: y"),
        ],
        ..Step::new(
            "N23 labels of pods and namespaces that change count at once: a pod and a namespace become what is let in",
            &[Of(
                "x",
                "both",
                "podSelector: {}, ingress: [{from: \
                 [{namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchLabels: {pod: b}}}]}]",
            )],
            |case| !case.is_to("x") || matches!(case.from, "y/b" | "y/c" | "z/b"),
        )
    },
];
