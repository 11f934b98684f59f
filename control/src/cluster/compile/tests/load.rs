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
