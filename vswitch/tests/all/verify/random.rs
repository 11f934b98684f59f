//! Random clusters that change: after each change the live tables do what a plain reading of the objects says.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Bed, cluster_policy, namespace, nodes, pod, policy};

/// As long as it goes on.
const TIME: Duration = Duration::from_secs(8);
/// Changes of one cluster.
const STEPS: usize = 12;

/// Numbers that look random and come again with their seed (Steele, Lea and Flood, OOPSLA 2014: SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % bound
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize].clone()
    }

    /// Up to `most` things.
    fn some(&mut self, least: u64, most: u64, mut make: impl FnMut(&mut Self) -> Value) -> Value {
        let count = least + self.below(most - least + 1);
        (0..count).map(|_| make(self)).collect::<Vec<_>>().into()
    }

    fn labels(&mut self) -> Value {
        let mut labels = json!({});
        for key in ["app", "tier"] {
            if self.below(4) > 0 {
                labels[key] = json!(self.one(&["a", "b"]));
            }
        }
        labels
    }

    fn selector(&mut self) -> Value {
        let key = self.one(&["app", "tier"]);
        let value = self.one(&["a", "b"]);
        match self.below(7) {
            0 => json!({}),
            1 => json!({"matchExpressions": [{"key": key, "operator": "NotIn", "values": [value]}]}),
            2 => json!({"matchExpressions": [{"key": key, "operator": "Exists"}]}),
            3 => json!({"matchExpressions": [{"key": key, "operator": "DoesNotExist"}]}),
            4 => json!({"matchExpressions": [{"key": key, "operator": "In", "values": ["a", "b"]}]}),
            5 => json!({"matchLabels": {"kubernetes.io/metadata.name": self.one(&["s0", "s1"])}}),
            _ => json!({"matchLabels": {key: value}}),
        }
    }

    fn block(&mut self) -> Value {
        match self.below(5) {
            0 => json!({"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}),
            1 => json!({"cidr": "10.1.0.0/28", "except": ["10.1.0.4/30"]}),
            2 => json!({"cidr": "203.0.113.0/24"}),
            3 => json!({"cidr": "fd00::/16", "except": ["fd00:2::/64", "fd00:1::4/126"]}),
            _ => json!({"cidr": "10.2.0.9/32"}),
        }
    }

    fn peer(&mut self) -> Value {
        match self.below(4) {
            0 => json!({"podSelector": self.selector()}),
            1 => json!({"namespaceSelector": self.selector()}),
            2 => json!({"podSelector": self.selector(), "namespaceSelector": self.selector()}),
            _ => json!({"ipBlock": self.block()}),
        }
    }

    fn port(&mut self) -> Value {
        let proto = self.one(&["TCP", "UDP", "SCTP"]);
        match self.below(5) {
            0 => json!({"protocol": proto}),
            1 => json!({"protocol": proto, "port": 80, "endPort": self.one(&[80, 85, 65535])}),
            2 => json!({"port": "web"}),
            3 => json!({"protocol": proto, "port": self.one(&["dns", "absent"])}),
            _ => json!({"port": self.one(&[80, 8080, 53, 1])}),
        }
    }

    fn rules(&mut self, side: &str) -> Value {
        self.some(0, 3, |dice| {
            let mut rule = json!({});
            if dice.below(5) > 0 {
                rule[side] = dice.some(0, 3, Self::peer);
            }
            if dice.below(3) > 0 {
                rule["ports"] = dice.some(0, 2, Self::port);
            }
            rule
        })
    }

    fn policy(&mut self) -> Value {
        let mut spec = json!({"podSelector": self.selector()});
        if self.below(3) > 0 {
            spec["ingress"] = self.rules("from");
        }
        if self.below(3) > 0 {
            spec["egress"] = self.rules("to");
        }
        match self.below(4) {
            0 => {}
            1 => spec["policyTypes"] = json!(["Ingress"]),
            2 => spec["policyTypes"] = json!(["Egress"]),
            _ => spec["policyTypes"] = json!(["Ingress", "Egress"]),
        }
        policy(self.one(&["s0", "s1"]), self.one(&["p", "q", "r"]), spec)
    }

    fn protocols(&mut self) -> Value {
        self.some(1, 2, |dice| {
            let proto = dice.one(&["tcp", "udp", "sctp"]);
            match dice.below(3) {
                0 => json!({proto: {"destinationPort": {"number": dice.one(&[80, 53, 8080])}}}),
                1 => json!({proto: {"destinationPort": {"range": {"start": 80, "end": 8080}}}}),
                _ => json!({"destinationNamedPort": dice.one(&["web", "dns"])}),
            }
        })
    }

    fn cluster_rules(&mut self, side: &str) -> Value {
        self.some(0, 3, |dice| {
            let peers = dice.some(1, 2, |dice| match dice.below(if side == "to" { 4 } else { 2 }) {
                0 => json!({"namespaces": dice.selector()}),
                1 => json!({"pods": {"namespaceSelector": dice.selector(), "podSelector": dice.selector()}}),
                2 => json!({"networks": [dice.one(&["10.1.0.0/29", "203.0.113.0/25", "fd00::/16", "0.0.0.0/0"])]}),
                _ => json!({"nodes": {"matchLabels": {"rank": dice.one(&["r1", "r2"])}}}),
            });
            let mut rule = json!({"action": dice.one(&["Accept", "Deny", "Pass"]), side: peers.clone()});
            if dice.below(2) > 0 {
                let protocols = dice.protocols();
                // Only pods have names for their ports.
                let named = protocols.to_string().contains("destinationNamedPort");
                let pods = !["networks", "nodes"].iter().any(|peer| peers.to_string().contains(peer));
                if pods || !named {
                    rule["protocols"] = protocols;
                }
            }
            rule
        })
    }

    fn cluster_policy(&mut self) -> Value {
        let subject = match self.below(2) {
            0 => json!({"namespaces": self.selector()}),
            _ => json!({"pods": {"namespaceSelector": self.selector(), "podSelector": self.selector()}}),
        };
        let spec = json!({
            "tier": self.one(&["Admin", "Baseline"]), "priority": self.below(3), "subject": subject,
            "ingress": self.cluster_rules("from"), "egress": self.cluster_rules("to")
        });
        cluster_policy(self.one(&["c", "d"]), spec)
    }

    /// Pods 0 to 7 by number; the last is on another node.
    fn pod(&mut self) -> Value {
        let number = self.below(8) as u16;
        let (space, name) = name_of(number);
        let labels = self.labels();
        let node = if number == 7 { "n2" } else { "n1" };
        let mut pod = pod(&space, &name, &labels, (node, number + 2));
        if self.below(4) == 0 {
            pod["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(80);
        }
        pod
    }

    fn object(&mut self) -> Value {
        match self.below(9) {
            0 => namespace(self.one(&["s0", "s1"]), &self.labels()),
            1 | 2 => self.pod(),
            3..=6 => self.policy(),
            _ => self.cluster_policy(),
        }
    }
}

fn name_of(number: u16) -> (String, String) {
    (format!("s{}", number % 2), format!("p{number}"))
}

#[test]
fn tables_do_what_objects_say_whatever_they_say_and_however_they_change() {
    let start = Instant::now();
    let (mut clusters, mut probes) = (0, 0);
    for seed in 0.. {
        let bed = Bed::new();
        let mut dice = Dice(seed);
        let mut objects = nodes().to_vec();
        objects.extend((0..40).map(|_| dice.object()));
        // Ports come before pods, behind them, and for some that never do.
        let bound: Vec<_> = [0, 1, 2, 4, 5, 6].map(name_of).to_vec();
        let bound: Vec<_> = bound.iter().map(|(space, name)| (space.as_str(), name.as_str())).collect();
        bed.apply(&objects[..20]);
        bed.bind(&bound);
        bed.apply(&objects[20..]);
        let mut history = objects;
        for step in 0..STEPS {
            let verified = bed.verify();
            probes += verified.probes;
            assert!(verified.holds(), "seed {seed}, step {step}:\n{verified}\nof\n{}", told(&history));
            if start.elapsed() > TIME {
                break;
            }
            if dice.below(4) == 0 {
                let gone = dice.object();
                bed.vsctl_delete(&gone);
                history.push(json!({"deleted": gone["metadata"]["name"], "kind": gone["kind"]}));
            } else {
                let more: Vec<Value> = (0..=dice.below(3)).map(|_| dice.object()).collect();
                bed.apply(&more);
                history.extend(more);
            }
        }
        clusters += 1;
        if start.elapsed() > TIME {
            break;
        }
    }
    println!("{clusters} clusters from seed 0 on, {probes} probes");
    assert!(clusters > 0 && probes > 1000, "{clusters} clusters, {probes} probes");
}

fn told(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("{object}\n")).collect()
}
