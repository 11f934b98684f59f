//! What a large cluster costs: `cargo test --release -p control --lib -- --ignored --nocapture measured`.

use super::*;

/// 10,000 services with 25 endpoints each, and one slice of 100: prints what they cost.
#[test]
#[ignore = "a measurement: cargo test --release -p control --lib -- --ignored --nocapture full_load"]
fn full_load_and_one_changed_slice_are_measured() {
    let mut world = World::new();
    let port = [("http", Proto::Tcp, 8080)];
    let address = |n: usize, i: usize| format!("10.{}.{}.{}", 128 + n / 256 / 4, n % 256, (n / 256 % 4) * 60 + i);
    for n in 0..10_000 {
        let name = format!("service-{n}");
        let made = service(&name, &[&format!("10.96.{}.{}", n / 256, n % 256)], &[("http", Proto::Tcp, 80)]);
        let addresses: Vec<_> = (0..25).map(|i| address(n, i)).collect();
        let made_slice = slice(&format!("{name}-x"), &name, &port, &addresses.iter().map(|a| &**a).collect::<Vec<_>>());
        world.objects.services.insert(made.id.clone(), Arc::new(made));
        world.objects.slices_of.insert(named(&name), [made_slice.id.clone()].into());
        world.objects.slices.insert(made_slice.id.clone(), Arc::new(made_slice));
    }
    let all = everything(&world.objects);
    let start = std::time::Instant::now();
    let changes = world.compiler.update(&world.objects, &all);
    println!("full load: {:?}, {} changes", start.elapsed(), changes.len());
    let addresses: Vec<_> = (0..100).map(|i| address(9, i)).collect();
    let addresses: Vec<_> = addresses.iter().map(|a| &**a).collect();
    let mut worst = std::time::Duration::ZERO;
    let mut sum = std::time::Duration::ZERO;
    for round in 0..100 {
        let made = slice("service-9-x", "service-9", &port, &addresses[round % 2..]);
        let changed = BTreeSet::from([Changed::Slice(made.id.clone())]);
        world.objects.slices.insert(made.id.clone(), Arc::new(made));
        let start = std::time::Instant::now();
        let changes = world.compiler.update(&world.objects, &changed);
        let took = start.elapsed();
        assert_eq!(changes.len(), 1);
        (worst, sum) = (worst.max(took), sum + took);
    }
    println!("one slice of 100 endpoints: {:?} on average, {worst:?} at worst", sum / 100);
}

/// 10,000 pods in 100 namespaces and 1,000 policies: prints what they cost, all at once, and what one change does.
#[test]
#[ignore = "a measurement: cargo test --release -p control --lib -- --ignored --nocapture policies_of_a_large_cluster"]
fn policies_of_a_large_cluster_are_measured() {
    use super::super::policies::tests::{block, labels, pods_of, policy, ports, rule, selector};
    use crate::cluster::model::{Namespaces, NetworkPolicy, PodSelector, PolicyPeer};
    fn mean(name: &str, rounds: u32, mut round: impl FnMut(u32) -> std::time::Duration) {
        let (mut sum, mut worst) = (std::time::Duration::ZERO, std::time::Duration::ZERO);
        for n in 0..rounds {
            let took = round(n);
            (sum, worst) = (sum + took, worst.max(took));
        }
        println!("{name}: {:?} on average, {worst:?} at worst", sum / rounds);
    }
    let mut world = World::new();
    let namespace = |n: usize| -> Arc<str> { format!("ns-{}", n % 100).into() };
    for n in 0..100 {
        world.objects.namespaces.insert(namespace(n), labels(&format!("team=t{},env=e{}", n % 10, n % 3)));
    }
    let made = |n: usize, app: usize| Pod {
        id: Named { namespace: namespace(n), name: format!("pod-{n}").into() },
        uid: format!("uid-{n}").into(),
        node: Some(format!("node-{}", n % 100).into()),
        labels: labels(&format!("app=app-{app},tier=tier-{},pod-template-hash=x{}", n % 3, n / 100 % 20)),
        ..pod("", &format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255))
    };
    for n in 0..10_000 {
        let pod = made(n, n / 100 % 10);
        world.objects.pods.insert(pod.id.clone(), Arc::new(pod));
    }
    let made_policy = |n: usize, port: u16| {
        let own = |text: &str| {
            PolicyPeer::Pods(PodSelector { namespaces: Namespaces::Own(namespace(n)), pods: selector(text) })
        };
        let app = format!("app=app-{}", n / 100 % 10);
        let next = format!("app=app-{}", (n / 100 + 1) % 10);
        let team = format!("team=t{}", n % 10);
        let web = [ports(Proto::Tcp, port, port)];
        NetworkPolicy {
            id: Named { namespace: namespace(n), name: format!("policy-{n}").into() },
            ingress: Some(vec![
                rule(&[own(&next)], &web),
                rule(&[pods_of(&team, &app), block("192.0.2.0/24", &[])], &[]),
            ]),
            egress: Some(vec![rule(&[own("tier=tier-1"), pods_of("", "app=dns")], &[ports(Proto::Udp, 53, 53)])]),
            ..policy("", &app)
        }
    };
    for n in 0..1000 {
        let policy = made_policy(n, 80);
        world.objects.policies.insert(policy.id.clone(), Arc::new(policy));
    }
    let all = everything(&world.objects);
    let start = std::time::Instant::now();
    let changes = world.compiler.update(&world.objects, &all);
    let took = start.elapsed();
    let rulesets = changes.iter().filter(|change| matches!(change, Change::Ruleset(_))).count();
    println!("full load: {took:?}, {} changes, {rulesets} of them rulesets", changes.len());
    mean("a label of a pod", 1000, |n| {
        let pod = made(n as usize * 7, (n as usize / 100 + 3) % 10);
        let changed = BTreeSet::from([Changed::Pod(pod.id.clone())]);
        world.objects.pods.insert(pod.id.clone(), Arc::new(pod));
        let start = std::time::Instant::now();
        let changes = world.compiler.update(&world.objects, &changed);
        assert!(changes.len() <= 3);
        start.elapsed()
    });
    mean("a new pod", 1000, |n| {
        let pod = made(10_000 + n as usize, n as usize % 10);
        let changed = BTreeSet::from([Changed::Pod(pod.id.clone())]);
        world.objects.pods.insert(pod.id.clone(), Arc::new(pod));
        let start = std::time::Instant::now();
        assert!(!world.compiler.update(&world.objects, &changed).is_empty() || n > 0);
        start.elapsed()
    });
    mean("a rule of a policy", 100, |n| {
        let policy = made_policy(n as usize, 81);
        let changed = BTreeSet::from([Changed::Policy(policy.id.clone())]);
        world.objects.policies.insert(policy.id.clone(), Arc::new(policy));
        let start = std::time::Instant::now();
        assert_eq!(world.compiler.update(&world.objects, &changed).len(), 1);
        start.elapsed()
    });
    mean("labels of a namespace of 110 pods", 100, |n| {
        let name = namespace(n as usize);
        world.objects.namespaces.insert(name.clone(), labels(&format!("team=t{}", (n + 1) % 10)));
        let start = std::time::Instant::now();
        world.compiler.update(&world.objects, &BTreeSet::from([Changed::Namespace(name)]));
        start.elapsed()
    });
    mean("a policy of all pods of all namespaces comes and goes", 20, |n| {
        let id = Named { namespace: namespace(0), name: "wide".into() };
        let wide = NetworkPolicy {
            id: id.clone(),
            ingress: Some(vec![rule(&[pods_of("", ""), pods_of("env=e1", "tier")], &[])]),
            ..policy("", "")
        };
        match n % 2 {
            0 => world.objects.policies.insert(id.clone(), Arc::new(wide)),
            _ => world.objects.policies.remove(&id),
        };
        let start = std::time::Instant::now();
        world.compiler.update(&world.objects, &BTreeSet::from([Changed::Policy(id)]));
        start.elapsed()
    });
}
