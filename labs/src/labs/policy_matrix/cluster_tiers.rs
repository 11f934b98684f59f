//! The steps of ClusterNetworkPolicy: tier Admin before what namespaces say, tier Baseline where they say nothing.

use super::steps::Policy::{Cluster, Of};
use super::steps::Step;
use crate::mesh::Transport::{Sctp, Tcp};

pub(super) const STEPS: &[Step] = &[
    Step::new(
        "CNP a denial of tier Admin stands before a NetworkPolicy that allows everything",
        &[
            Cluster(
                "deny",
                "tier: Admin, priority: 10, subject: {namespaces: {matchLabels: {ns: x}}}, \
                 ingress: [{name: y, action: Deny, from: [{namespaces: {matchLabels: {ns: y}}}]}]",
            ),
            Of("x", "all", "podSelector: {}, ingress: [{}]"),
        ],
        |case| !(case.is_to("x") && case.is_from("y")),
    ),
    Step::new(
        "CNP of tier Admin the first rule that matches decides: accept in spite of a NetworkPolicy, or pass to it",
        &[
            Cluster(
                "first",
                "tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {ns: x}}}, ingress: [\
                 {action: Accept, from: [{namespaces: {matchLabels: {ns: z}}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}, \
                 {action: Pass, from: [{namespaces: {matchLabels: {ns: y}}}], protocols: [{sctp: {destinationPort: {range: {start: 1, end: 80}}}}]}]",
            ),
            Cluster(
                "second",
                "tier: Admin, priority: 2, subject: {pods: {namespaceSelector: {matchLabels: {ns: x}}, podSelector: {}}}, \
                 ingress: [{action: Accept, from: [{pods: {namespaceSelector: {matchLabels: {ns: y}}, podSelector: {}}}]}]",
            ),
            Of("x", "deny", "podSelector: {}, policyTypes: [Ingress]"),
        ],
        |case| {
            let z = case.is_from("z") && case.over == Tcp && case.port == 80;
            let y = case.is_from("y") && !(case.over == Sctp && case.port == 80);
            !case.is_to("x") || z || y
        },
    ),
    Step::new(
        "CNP tier Baseline decides for pods that no NetworkPolicy selects, and for no others",
        &[
            Cluster(
                "default",
                "tier: Baseline, priority: 1, subject: {namespaces: {matchExpressions: [{key: ns, operator: In, values: [x, y]}]}}, \
                 ingress: [{action: Deny, from: [{namespaces: {matchLabels: {ns: z}}}]}]",
            ),
            Of("y", "all", "podSelector: {matchLabels: {pod: a}}, ingress: [{}]"),
        ],
        |case| !(case.is_from("z") && (case.is_to("x") || matches!(case.to, "y/b" | "y/c"))),
    ),
    Step::new(
        "CNP egress to networks, which pods are in as well, and by the names of ports",
        &[
            Cluster(
                "networks",
                "tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {ns: x}}}, \
                 egress: [{action: Deny, to: [{networks: [10.244.1.32/28]}], protocols: [{tcp: {destinationPort: {range: {start: 80, end: 81}}}}]}]",
            ),
            Cluster(
                "names",
                "tier: Baseline, priority: 1, subject: {namespaces: {matchLabels: {ns: z}}}, \
                 egress: [{action: Deny, to: [{namespaces: {matchLabels: {ns: y}}}], protocols: [{destinationNamedPort: web}]}]",
            ),
        ],
        |case| {
            let networks = case.is_from("x") && case.is_to("y") && case.over == Tcp && case.v4();
            let names = case.is_from("z") && case.is_to("y") && case.is_to_web();
            !(networks || names)
        },
    ),
];
